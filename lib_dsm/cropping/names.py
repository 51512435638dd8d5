"""The names of finished crops, and the record of which came from what.

The record is `.dsm/crops.jsonl` of the folder they lie in, a line each, only ever added to:

    {"key": "…", "name": "a-left.png", "source": "a.jpg", "part": "left", "sha256": "…", "run": 3}
    {"name": "a-left.png", "caption": "…"}
    {"run": 3, "aside": [["b.png", ".dsm/removed/b.png"]]}
    {"run": 3, "back": true}

`key` is the work that made a file, `caption` the SHA-256 of the caption that it was given, `aside` which files the run
was about to move aside and where to, `back` that the run was taken back, or with false that this was begun.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from lib_dsm.cropping.plan import CropItem
from lib_dsm.dataset.acts import Move
from lib_dsm.dataset.locks import METADATA_FOLDER
from lib_dsm.errors import InputError, StorageError
from lib_dsm.files import inside, is_file, parse_json, sha256

_STEM_LIMIT_BYTES = 200  # leaves room for the part, a number and the ending under the 255 that file systems take
_NOT_PIXELS = ("drop", "why")  # what of an item makes no difference to its pixels


@dataclass(frozen=True)
class Made:
    """A crop as it was written: by which work, from what, its content's SHA-256, and in which run."""

    key: str
    name: str
    source: str = ""
    part: str = ""
    sha256: str = ""
    run: int = 0


class Names:
    """Which finished crops exist from the same work, and which names are free. Safe to ask from several threads."""

    def __init__(self, out: Path, items: Iterable[CropItem] = ()) -> None:
        self.out = out
        self._record = out / METADATA_FOLDER / "crops.jsonl"
        self._lock = threading.Lock()
        self._known: dict[str, Made] = {}
        self._named: dict[str, dict[str, str]] = {}  # by name: the keys of its works with their pixels, the last last
        self.captions: dict[str, str] = {}
        self.aside: dict[int, tuple[Move, ...]] = {}
        self.back: dict[int, bool] = {}
        for line in self._record.read_bytes().split(b"\n") if self._record.is_file() else ():
            try:
                self._read(parse_json(line))
            except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
                continue  # a line that a crash cut off; its crop was not written
        self.run = 1 + max((*(made.run for made in self._known.values()), *self.aside), default=0)
        self._stems = _stems(items)
        self._taken: dict[Path, set[str]] = {}

    def _read(self, entry: dict[str, Any]) -> None:
        if "key" in entry:
            texts = {key: str(entry.get(key, "")) for key in ("key", "name", "source", "part", "sha256")}
            self._made(Made(**texts, run=int(entry.get("run", 0))))
        elif "caption" in entry:
            self.captions[str(entry["name"])] = str(entry["caption"])
        elif "aside" in entry:
            self.aside[int(entry["run"])] = tuple(Move(str(path), str(to)) for path, to in entry["aside"])
        elif "back" in entry:
            self.back[int(entry["run"])] = bool(entry["back"])

    def _made(self, made: Made) -> None:
        self._known[made.key] = made
        works = self._named.setdefault(made.name, {})
        works.pop(made.key, None)
        works[made.key] = made.sha256

    def of(self, key: str) -> Path | None:
        """The finished crop of this work, if it is there.

        Where several works had its name one after the other it is the one whose pixels are there, and the last one's
        where somebody has changed them since.
        """
        made = self._known.get(key)
        path = self.place(made) if made is not None else None
        if made is None or path is None:
            return None
        works = self._named[made.name]
        if len(works) > 1:
            digest = sha256(path)
            if made.sha256 != digest and (digest in works.values() or key != list(works)[-1]):
                return None
        return path

    def place(self, made: Made) -> Path | None:
        """Where a crop is, if it still is there and in the folder."""
        try:
            path = self.out / made.name
            inside(path, self.out)
            return path if is_file(path) else None
        except (InputError, ValueError):  # the record, or what lies there now, may come from anywhere
            return None

    def all(self) -> list[Made]:
        """All crops that were ever recorded; several may have had the same name, one after the other."""
        return list(self._known.values())

    def new(self, item: CropItem, suffix: str) -> Path:
        """A free name in the folder, taken from now on; free of captions and of other formats, too.

        Raises:
            InputError: a link in the folder leads out of it.
        """
        folder = self.out / PurePosixPath(item.source).parent
        inside(folder, self.out)
        taken = self._taken_in(folder)
        wanted = self._wanted(item)
        stem, number = wanted, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        path = folder / (stem + suffix)
        inside(path, self.out)
        taken.add(stem.casefold())
        return path

    def numbered(self, path: Path, item: CropItem) -> bool:
        """Whether the wanted name was not free."""
        return path.stem != self._wanted(item)

    def remember(self, key: str, item: CropItem, path: Path, content: bytes) -> None:
        """Record that this work becomes this file, before it is written.

        Raises:
            StorageError: the disk does not take it.
        """
        digest = hashlib.sha256(content).hexdigest()
        made = Made(key, self._name(path), item.source, item.part, digest, self.run)
        self._add(dataclasses.asdict(made))
        self._made(made)

    def remember_caption(self, path: Path, content: bytes) -> None:
        """Record which caption a crop was given."""
        name = self._name(path)
        self.captions[name] = hashlib.sha256(content).hexdigest()
        self._add({"name": name, "caption": self.captions[name]})

    def gave(self, path: Path, caption: bytes) -> bool:
        """Whether this is the caption that a crop was given."""
        return hashlib.sha256(caption).hexdigest() == self.captions.get(self._name(path))

    def remember_aside(self, moves: Iterable[Move]) -> None:
        """Record what this run moves aside, before it does."""
        self.aside[self.run] = tuple(moves)
        self._add({"run": self.run, "aside": [[move.path, move.to] for move in self.aside[self.run]]})

    def remember_back(self, run: int, done: bool) -> None:
        """Record that a run is taken back, before and after it is."""
        self.back[run] = done
        self._add({"run": run, "back": done})

    def _name(self, path: Path) -> str:
        return path.relative_to(self.out).as_posix()

    def _wanted(self, item: CropItem) -> str:
        return self._stems[item.source] + (f"-{item.part}" if item.part else "")

    def _taken_in(self, folder: Path) -> set[str]:
        if folder not in self._taken:
            present = folder.iterdir() if folder.is_dir() else ()
            self._taken[folder] = {path.stem.casefold() for path in present}
        return self._taken[folder]

    def _add(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry).encode("ascii")
        try:
            with self._lock, self._record.open("ab") as file:
                file.write(b"\n" + line + b"\n")  # begun anew, should a crash have cut the last one off
        except OSError as error:
            raise StorageError(
                f"{self._record} could not be written: {error.strerror or error}.", "Free some space, then try again."
            ) from error


def key_of(item: CropItem, digest: str, how: str) -> str:
    """What makes a finished crop the same: the source's name and content, what of the item its pixels depend on, and
    the format."""
    work = {**dataclasses.asdict(item), "sha256": digest, "how": how}
    work = {name: value for name, value in work.items() if name not in _NOT_PIXELS}
    if not work["flip"]:
        del work["flip"]  # the keys of crops from before there was such a thing stay theirs
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode("ascii")).hexdigest()


def _stems(items: Iterable[CropItem]) -> dict[str, str]:
    """What each source's crops are called: its own name, with its ending where two sources differ only by that."""
    stems: dict[str, str] = {}
    first: dict[str, str] = {}
    for item in items:
        path = PurePosixPath(item.source)
        owner = first.setdefault(str(path.with_suffix("")).casefold(), item.source)
        stem = path.stem if owner == item.source else f"{path.stem}-{path.suffix[1:].lower()}"
        while len(stem.encode("utf-8")) > _STEM_LIMIT_BYTES:
            stem = stem[:-1]
        stems[item.source] = stem
    return stems
