"""The files of the history: one act is one file of JSON lines in `.dsm/history/` of the folder, only ever added to.

    {"version": 1, "title": "remove blue hair", "time": "2024-05-01T12:00:00.000000+00:00", "captions": 1}
    {"path": "a.txt", "before": {"text": "…"}, "after": {"text": "…"}}
    {"move": "b.png", "to": ".dsm/removed/b.png"}
    {"state": "done", "captions": 1}

States: "open" (no line yet), "done", "undoing", "undone", "redoing", "dropped" (undone, then overtaken by a new act).
What is read may come from anywhere: a path that leads out of the folder, or to something else, is refused.
"""

from __future__ import annotations

import base64
import datetime
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lib_dsm.dataset.listing import WRITTEN_SUFFIXES, is_picture
from lib_dsm.dataset.locks import METADATA_FOLDER
from lib_dsm.errors import InputError, StorageError
from lib_dsm.files import parse_json, write_atomically

_VERSION = 1
_TAIL_BYTES = 200
REMOVED = PurePosixPath(METADATA_FOLDER, "removed")
"""Where pictures go that are taken out of a set, with their captions."""


@dataclass(frozen=True)
class Change:
    """One caption's bytes before and after, None where there is no file. `path` is in the folder, with `/`."""

    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Move:
    """A file of the folder that goes to another name in it, as a removed picture does; both with `/`."""

    path: str
    to: str


@dataclass(frozen=True)
class Act:
    """One act of the history as it is on the disk; `recovered` is when it was completed after a crash, or ""."""

    id: int
    title: str
    time: str
    state: str
    changes: tuple[Change, ...]
    moves: tuple[Move, ...] = ()
    recovered: str = ""


@dataclass(frozen=True)
class Summary:
    """An act without its changes: `captions` are how many it changed, `moved` how many files it moved."""

    id: int
    title: str
    time: str
    state: str
    captions: int
    moved: int
    recovered: str


def begin_act(folder: Path, title: str, changes: list[Change], moves: Sequence[Move] = (), count: bool = True) -> Path:
    """Write an act's record; `count` says that these are all the changes it will have."""
    for path, state in act_states(folder):
        if state == "undone":
            append_lines(path, [{"state": "dropped"}])
    header: dict[str, Any] = {"version": _VERSION, "title": title, "time": now()}
    if count:
        header["captions"] = len(changes)
        header["moved"] = len(moves)
    acts = act_files(folder)
    path = history_folder(folder) / f"{int(acts[-1].stem) + 1 if acts else 1:06d}.jsonl"

    def write(file: BinaryIO) -> None:
        file.write(_lines([header]))
        for start in range(0, len(changes), 1000):
            file.write(_lines(map(change_to_json, changes[start : start + 1000])))
        file.write(_lines({"move": move.path, "to": move.to} for move in moves))

    write_atomically(path, write)
    return path


def append_lines(path: Path, lines: list[dict[str, Any]], end: int | None = None) -> int:
    """Add lines and flush them to the disk; a line that a crash cut off is removed first.

    `end` is where the last whole line ends, if that is known, which saves looking for it; returns where it ends now.

    Raises:
        StorageError: the disk does not take them; the file is as it was.
    """
    try:
        with path.open("r+b") as file:
            if end is None:
                end = file.read().rfind(b"\n") + 1
            content = _lines(lines)
            file.truncate(end)
            file.seek(end)
            try:
                file.write(content)
                file.flush()
            except OSError:
                file.truncate(end)
                raise
            os.fsync(file.fileno())
            return end + len(content)
    except OSError as error:
        raise StorageError(
            f"The history {path} could not be written: {error.strerror or error}.", "Free some space, then try again."
        ) from error


def read_file(path: Path) -> Act:
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end was cut off by a crash
        header, *rest = (parse_json(line) for line in lines)
        if header["version"] != _VERSION:
            raise ValueError(f"its version is {header['version']}")
        changes = tuple(_change_from_json(line) for line in rest if "path" in line)
        moves = tuple(_move_from_json(line) for line in rest if "move" in line)
        ends = [line for line in rest if "state" in line]
        state = str(ends[-1]["state"]) if ends else "open"
        recovered = next((str(end["recovered"]) for end in reversed(ends) if "recovered" in end), "")
        return Act(int(path.stem), str(header["title"]), str(header["time"]), state, changes, moves, recovered)
    except OSError as error:
        raise InputError(f"The history {path} cannot be read: {error.strerror or error}.", "") from error
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise InputError(
            f"The history file {path} is damaged ({error}).", "Move it away; the acts before it remain."
        ) from error


def read_summary(path: Path) -> Summary:
    """From the first and the last lines, or from the whole where those do not say it."""
    try:
        with path.open("rb") as file:
            header = parse_json(file.readline())
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            end = parse_json(file.read().split(b"\n")[-2])
        captions = header["captions"] if "captions" in header else end["captions"]
        return Summary(
            int(path.stem), str(header["title"]), str(header["time"]), str(end["state"]), int(captions),
            int(header.get("moved", 0)), str(end.get("recovered", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        act = read_file(path)
        return Summary(
            act.id, act.title, act.time, act.state, len(act.changes), len(act.moves), act.recovered
        )  # fmt: skip


def act_files(folder: Path) -> list[Path]:
    """The records of a folder's acts, in order; what is behind a link is none of them."""
    place = history_folder(folder)
    if place.is_symlink() or place.parent.is_symlink():
        return []
    found = [path for path in place.glob("*.jsonl") if path.stem.isdecimal() and path.is_file()]
    found = [path for path in found if not path.is_symlink()]
    return sorted(found, key=lambda path: int(path.stem))


def act_states(folder: Path) -> list[tuple[Path, str]]:
    return [(path, _last_state(path)) for path in act_files(folder)]


def _last_state(path: Path) -> str:
    """An act's state from the end of its file, which is all that is read of most acts."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    try:
        return str(parse_json(lines[-2])["state"])
    except (ValueError, KeyError, IndexError, TypeError, OverflowError):
        return read_file(path).state


def history_folder(folder: Path) -> Path:
    return folder / METADATA_FOLDER / "history"


def cut_off_records(folder: Path) -> list[Path]:
    """Records that were never finished: nothing was changed yet."""
    return list(history_folder(folder).glob(".dsm-*.part"))


def now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="microseconds")


def _lines(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines)


def change_to_json(change: Change) -> dict[str, Any]:
    return {"path": change.path, "before": _bytes_to_json(change.before), "after": _bytes_to_json(change.after)}


def _change_from_json(line: dict[str, Any]) -> Change:
    return Change(_caption_name(line["path"]), _bytes_from_json(line["before"]), _bytes_from_json(line["after"]))


def _move_from_json(line: dict[str, Any]) -> Move:
    name, to = str(line["move"]), str(line["to"])
    for place in (name, to):
        if not is_picture(Path(place)):
            _caption_name(place)
        elif _leads_out(place):
            raise ValueError(f"it names {place}")
    if REMOVED not in PurePosixPath(to).parents:
        raise ValueError(f"it moves something to {to}")
    return Move(name, to)


def _caption_name(name: str) -> str:
    """Refuse what would lead out of the folder, or to something that is no caption: the file may come from anywhere."""
    if _leads_out(name) or not name.lower().endswith(WRITTEN_SUFFIXES):
        raise ValueError(f"it names {name}")
    return name


def _leads_out(name: str) -> bool:
    on_windows = os.name == "nt" and (":" in name or "\\" in name)
    no_name = "\0" in name or name != name.encode("utf-8", "replace").decode("utf-8")  # JSON holds halves of characters
    return name.startswith("/") or ".." in name.split("/") or on_windows or no_name


def _bytes_to_json(content: bytes | None) -> dict[str, str] | None:
    if content is None:
        return None
    try:
        return {"text": content.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(content).decode("ascii")}


def _bytes_from_json(value: dict[str, str] | None) -> bytes | None:
    if value is None:
        return None
    return value["text"].encode("utf-8") if "text" in value else base64.b64decode(value["base64"], validate=True)
