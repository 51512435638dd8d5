"""Writing crops: new files in another folder, captions carried along, originals untouched, nothing overwritten."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan, check_item, plan_crops, shown
from lib_dsm.cropping.render import SUFFIXES, encode, render
from lib_dsm.dataset.captions import caption_path, read_caption
from lib_dsm.dataset.listing import require_folder
from lib_dsm.dataset.locks import METADATA_FOLDER, writing_in
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.pictures import read_picture
from lib_dsm.errors import DsmError, InputError, PictureError, StorageError
from lib_dsm.files import inside, sha256, write_bytes, write_text
from lib_dsm.jobs import Job

_STEM_LIMIT_BYTES = 200  # leaves room for the part, a number and the ending under the 255 that file systems take


@dataclass
class CropReport:
    """What cropping did: `written` new files; `skipped` ones that were there from the same plan; `failed`, a sentence
    for each source that could not be cropped; `notes` on sources that could.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


def crop_folder(source: Path, out: Path, options: CropOptions, job: Job | None = None) -> CropReport:
    """Crop every picture of a folder into another one, as the options say.

    A picture that cannot be read is reported, and the rest goes on. Doing it again writes only what is missing.

    Raises:
        InputError: the folder is missing or holds no pictures, or `out` is the same folder or a file.
        BusyError: another one is writing in `out`.
        StorageError: the disk does not take a file.
        Cancelled: the job was stopped; what was written stays.
    """
    return write_plan(plan_crops(source, options, out), source, out, options, job)


def write_plan(plan: CropPlan, source: Path, out: Path, options: CropOptions, job: Job | None = None) -> CropReport:
    """Write the crops of a plan; of the options, only the format and the quality matter.

    Names tell the origin: `name.png`, `name-left.png`; with a number where another file has the name. An item that
    cannot be done, or would lead out of one of the folders, is reported, and the rest goes on.

    Raises:
        InputError, BusyError, StorageError, Cancelled: as `crop_folder`.
    """
    require_folder(source)
    if out.resolve() == source.resolve():
        raise InputError(f"{out} is the folder of the originals.", "Choose another folder for the crops.")
    if out.exists():
        require_folder(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"{out} could not be made: {error.strerror or error}.", "Choose another place.") from error
    report = CropReport(failed=[(source / note.source, note.text) for note in plan.notes])
    items = _sound(plan.items, source, report)
    with writing_in(out):
        names = _Names(out, items)
        for number, item in enumerate(items, 1):
            if job is not None:
                job.check()
            try:
                _write_item(item, source, options, names, report)
            except StorageError:
                raise
            except DsmError as error:
                report.failed.append((source / item.source, str(error)))
            if job is not None:
                job.progress(number, len(items), item.source)
    return report


def _sound(items: Iterable[CropItem], source: Path, report: CropReport) -> list[CropItem]:
    """The items that can be done; the others are reported, before names are made of them."""
    sound = []
    for item in items:
        try:
            check_item(item)
        except InputError as error:
            report.failed.append((source / shown(item.source), str(error)))
        else:
            sound.append(item)
    return sound


def _write_item(item: CropItem, source: Path, options: CropOptions, names: _Names, report: CropReport) -> None:
    path = inside(source / item.source, source)
    if not path.is_file():
        raise PictureError(f"{path} does not exist.", "Check the path, or make the plan anew.")
    digest = sha256(path)
    if item.sha256 and item.sha256 != digest:
        raise PictureError(f"{path} has changed since the plan was made.", "Make the plan anew.")
    kept = item.mode == "keep"
    key = _key(item, digest, "" if kept else f"{options.format} {options.quality}")
    done = names.of(key)
    if done is not None:
        report.skipped.append(done)
        _carry_caption(path, done, report)
        return
    picture = read_picture(path, flatten=False)
    content = path.read_bytes() if kept else encode(render(picture, item), options)
    target = names.new(key, item, path.suffix if kept else SUFFIXES[options.format])
    write_bytes(target, content)
    report.written.append(target)
    report.notes += [Note(path, note) for note in picture.notes]
    if names.numbered(target, item):
        report.notes.append(Note(path, f"Its name was taken by another file; it was written as {target.name}."))
    _carry_caption(path, target, report)


def _carry_caption(source: Path, target: Path, report: CropReport) -> None:
    """Give a crop its source's caption, unless it has one."""
    if caption_path(target).exists():
        return
    try:
        caption = read_caption(source)
    except InputError as error:
        report.notes.append(Note(source, str(error)))
        return
    if caption.exists:
        write_text(caption_path(target), caption.text)


class _Names:
    """The names of finished crops: which exist from the same work, and which are free.

    What was written from what is remembered in `.dsm/crops.jsonl` of the folder, a line each, only ever added to.
    """

    def __init__(self, out: Path, items: Iterable[CropItem]) -> None:
        self._out = out
        self._record = out / METADATA_FOLDER / "crops.jsonl"
        self._known: dict[str, str] = {}
        for line in self._record.read_bytes().split(b"\n") if self._record.is_file() else ():
            try:
                entry = json.loads(line)
                self._known[entry["key"]] = str(entry["name"])
            except (ValueError, KeyError, TypeError):
                continue  # a line that a crash cut off; its crop was not written
        self._stems = _stems(items)
        self._taken: dict[Path, set[str]] = {}

    def of(self, key: str) -> Path | None:
        """The finished crop of this work, if it is there."""
        name = self._known.get(key)
        if name is None:
            return None
        try:
            path = self._out / name
            inside(path, self._out)
        except (InputError, ValueError):  # the record, or what lies there now, may come from anywhere
            return None
        return path if path.is_file() else None

    def new(self, key: str, item: CropItem, suffix: str) -> Path:
        """A free name in the folder, remembered for this work; free of captions and of other formats, too.

        Raises:
            InputError: a link in the folder leads out of it.
        """
        folder = self._out / PurePosixPath(item.source).parent
        inside(folder, self._out)
        taken = self._taken_in(folder)
        wanted = self._wanted(item)
        stem, number = wanted, 1
        while stem.casefold() in taken:
            number += 1
            stem = f"{wanted}-{number}"
        taken.add(stem.casefold())
        path = folder / (stem + suffix)
        inside(path, self._out)
        self._remember(key, path.relative_to(self._out).as_posix())
        return path

    def numbered(self, path: Path, item: CropItem) -> bool:
        """Whether the wanted name was not free."""
        return path.stem != self._wanted(item)

    def _wanted(self, item: CropItem) -> str:
        return self._stems[item.source] + (f"-{item.part}" if item.part else "")

    def _taken_in(self, folder: Path) -> set[str]:
        if folder not in self._taken:
            present = folder.iterdir() if folder.is_dir() else ()
            self._taken[folder] = {path.stem.casefold() for path in present}
        return self._taken[folder]

    def _remember(self, key: str, name: str) -> None:
        line = json.dumps({"key": key, "name": name}).encode("ascii")
        try:
            with self._record.open("ab") as file:
                file.write(b"\n" + line + b"\n")  # begun anew, should a crash have cut the last one off
        except OSError as error:
            raise StorageError(
                f"{self._record} could not be written: {error.strerror or error}.", "Free some space, then try again."
            ) from error
        self._known[key] = name


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


def _key(item: CropItem, digest: str, how: str) -> str:
    """What makes a finished crop the same: the source's name and content, the item, and the format."""
    work = {**dataclasses.asdict(item), "sha256": digest, "how": how}
    return hashlib.sha256(json.dumps(work, sort_keys=True).encode("ascii")).hexdigest()
