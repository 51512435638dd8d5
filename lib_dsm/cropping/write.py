"""Writing crops: new files in another folder, captions carried along, originals untouched, nothing overwritten."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.cropping.aside import Replaced, move_aside
from lib_dsm.cropping.colors import TRANSPARENT
from lib_dsm.cropping.kept import kept_where_it_can_be
from lib_dsm.cropping.names import Names, key_of
from lib_dsm.cropping.plan import CropItem, CropOptions, CropPlan, check_item, shown, stamp_of
from lib_dsm.cropping.pool import PixelBudget, in_parallel
from lib_dsm.cropping.propose import plan_crops
from lib_dsm.cropping.render import SUFFIXES, encode, needed_side, render
from lib_dsm.dataset.captions import Caption, caption_path, join_tags, read_caption
from lib_dsm.dataset.listing import require_folder
from lib_dsm.dataset.locks import writing_in
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.one_sided import not_mirrored
from lib_dsm.dataset.pictures import MAX_PIXELS, picture_size, read_picture
from lib_dsm.errors import DsmError, InputError, PictureError, StorageError
from lib_dsm.files import inside, sha256, write_bytes
from lib_dsm.jobs import Job


@dataclass
class CropReport:
    """What cropping did: `written` new files; `skipped` ones that were there from the same plan; `aside` ones that the
    plan no longer has, by where they were; `failed`, a sentence for each source that could not be cropped; `notes` on
    sources that could.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)


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


def write_plan(
    plan: CropPlan, source: Path, out: Path, options: CropOptions, job: Job | None = None, tidy: bool = False
) -> CropReport:
    """Write the crops of a plan that are due; of the options, only the format and the quality matter. What is as wanted
    already, format included, keeps its file.

    Names tell the origin: `name.png`, `name-left.png`; with a number where another file has the name. An item that
    cannot be done, or would lead out of one of the folders, is reported, and so is a source that has changed since its
    frames were confirmed; the rest goes on. With `tidy`, crops that
    were written earlier of the plan's pictures and that it no longer has are moved aside with their captions, which can
    be undone in the folder's history.

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
    groups = _groups(_sound(plan.due(), source, options, report))
    how = f"{options.format} {options.quality}"
    replaced = Replaced()
    stamps = {picture.source: picture.stamp for picture in plan.pictures}
    works = [_Work(source, items, options.format, stamps.get(name, "")) for name, items in groups.items()]
    if tidy:
        keys, unknown = _keys(works, how, job)
        sources = {*(picture.source for picture in plan.pictures), *groups} - unknown
        replaced = move_aside(out, keys, sources, job)
        report.aside = replaced.moved
    with writing_in(out):
        names = Names(out, [item for items in groups.values() for item in items])
        names.run = replaced.run or names.run
        writer = _Writer(source, options, how, names, replaced)
        done, total = 0, sum(map(len, groups.values()))
        steps = in_parallel(writer.write, _prepared(works, writer, job))
        try:
            for work, part in steps:
                report.written += part.written
                report.skipped += part.skipped
                report.failed += part.failed
                report.notes += part.notes
                done += len(work.items)
                if job is not None:
                    job.progress(done, total, work.name)
                    job.check()
        finally:
            steps.close()  # type: ignore[attr-defined]
    return report


class _Work:
    """The crops of one source."""

    def __init__(self, source: Path, items: list[CropItem], file_format: str, stamp: str) -> None:
        self.items = items
        self.format = file_format
        self.stamp = stamp
        self.name = items[0].source
        self.path = source / self.name
        self.digest = ""
        self.error: DsmError | None = None

    def look(self) -> None:
        """Find out what the source's content is, and what of it can be kept."""
        try:
            inside(self.path.parent, self.path.parents[len(Path(self.name).parts) - 1])
            if not self.path.is_file():
                raise PictureError(f"{self.path} does not exist.", "Check the path, or make the plan anew.")
            if self.stamp and self.stamp != stamp_of(self.path):
                raise PictureError(
                    f"{self.path} has changed since its frames were confirmed.", "Look at it again and confirm them."
                )
            self.digest = sha256(self.path)
            if any(item.sha256 and item.sha256 != self.digest for item in self.items):
                raise PictureError(f"{self.path} has changed since the plan was made.", "Make the plan anew.")
            self.items = [kept_where_it_can_be(item, self.path, self.format) for item in self.items]
        except DsmError as error:
            self.error = error
        except OSError as error:
            self.error = PictureError(f"{self.path} cannot be read: {error.strerror or error}.", "Check its rights.")


def _sound(items: Iterable[CropItem], source: Path, options: CropOptions, report: CropReport) -> list[CropItem]:
    """The items that can be done; the others are reported, before names are made of them."""
    sound = []
    for item in items:
        try:
            check_item(item)
            if item.color.strip().lower() == TRANSPARENT and options.format == "jpeg" and item.mode != "keep":
                raise InputError("JPEG knows no transparency to pad with.", "Choose PNG or WebP, or a colour.")
        except InputError as error:
            report.failed.append((source / shown(item.source), str(error)))
        else:
            sound.append(item)
    return sound


def _groups(items: Iterable[CropItem]) -> dict[str, list[CropItem]]:
    """The items by source, so that each is read once."""
    groups: dict[str, list[CropItem]] = {}
    for item in items:
        groups.setdefault(item.source, []).append(item)
    return groups


def _keys(works: list[_Work], how: str, job: Job | None) -> tuple[set[str], set[str]]:
    """The keys of all crops of the plan, and the sources whose content cannot be known, so that theirs stay."""
    keys, unknown = set(), set()
    for work, _ in in_parallel(_Work.look, works):
        if job is not None:
            job.check()
        if work.error is not None:
            unknown.add(work.name)
        keys |= {_key(item, work.digest, how) for item in work.items}
    return keys, unknown


def _key(item: CropItem, digest: str, how: str) -> str:
    return key_of(item, digest, "" if item.mode == "keep" else how)


def _prepared(works: Iterable[_Work], writer: _Writer, job: Job | None) -> Iterator[_Work]:
    """The sources, each with its names reserved in the plan's order whatever is finished first."""
    for work in works:
        if job is not None:
            job.check()
        writer.reserve(work)
        yield work


class _Writer:
    """Writes one source's crops at a time; `write` may be called by several threads."""

    def __init__(self, source: Path, options: CropOptions, how: str, names: Names, replaced: Replaced) -> None:
        self._source, self._options, self._how, self._names, self._replaced = source, options, how, names, replaced
        self._budget = PixelBudget(MAX_PIXELS)
        self._places: dict[CropItem, Path | DsmError] = {}
        self._found: dict[CropItem, Path] = {}

    def reserve(self, work: _Work) -> None:
        """Choose where the crops of a source go."""
        if not work.digest and work.error is None:
            work.look()
        if work.error is not None:
            return
        for item in work.items:
            done = self._names.of(_key(item, work.digest, self._how))
            if done is not None:
                self._found[item] = done
                continue
            suffix = work.path.suffix if item.mode == "keep" else SUFFIXES[self._options.format]
            try:
                self._places[item] = self._names.new(item, suffix)
            except InputError as error:
                self._places[item] = error

    def write(self, work: _Work) -> CropReport:
        """Write what is missing of a source's crops, and say what was done.

        Raises:
            StorageError: the disk does not take it.
        """
        report = CropReport()
        if work.error is not None:
            report.failed.append((work.path, str(work.error)))
            return report
        caption, missing = _caption(work.path, report), []
        for item in work.items:
            done, place = self._found.get(item), self._places.get(item)
            if done is not None:
                report.skipped.append(done)
                self._carry_caption(item, caption, done)
            elif isinstance(place, DsmError):
                report.failed.append((work.path, str(place)))
            elif item.flip and (against := not_mirrored(caption.tags if caption else [])):
                said = f"{work.path.name} is not mirrored: its caption has {', '.join(against)}."
                report.failed.append((work.path, said))
            else:
                missing.append(item)
        if missing:
            try:
                self._write_missing(work, missing, caption, report)
            except StorageError:
                raise
            except DsmError as error:
                report.failed.append((work.path, str(error)))
        return report

    def _write_missing(self, work: _Work, items: list[CropItem], caption: Caption | None, report: CropReport) -> None:
        size = picture_size(work.path)
        side = needed_side(items, size)
        with self._budget.holding(size[0] * size[1]):
            picture = read_picture(work.path, flatten=False, draft_side=side)
            for item in items:
                place = self._places[item]
                assert isinstance(place, Path)
                try:
                    kept = item.mode == "keep"
                    content = work.path.read_bytes() if kept else encode(render(picture, item), self._options)
                except InputError as error:
                    report.failed.append((work.path, str(error)))
                    continue
                self._names.remember(_key(item, work.digest, self._how), item, place, content)
                write_bytes(place, content)
                report.written.append(place)
                if self._names.numbered(place, item):
                    text = f"Its name was taken by another file; it was written as {place.name}."
                    report.notes.append(Note(work.path, text))
                self._carry_caption(item, caption, place)
        report.notes += [Note(work.path, note) for note in dict.fromkeys(picture.notes)]

    def _carry_caption(self, item: CropItem, caption: Caption | None, target: Path) -> None:
        """Give a crop its caption, unless it has one that is not the one it was given: that of the crop it replaces
        where a person or a tagger worked on it, else its source's without what cannot be in it."""
        path = caption_path(target)
        content = self._replaced.captions.get((item.source, item.part))
        if content is None and caption is not None and caption.exists:
            dropped = set(item.drop)
            kept = [tag for tag in caption.tags if tag not in dropped]
            text = caption.text if len(kept) == len(caption.tags) else join_tags(kept, caption.separator)
            content = text.encode("utf-8")
        if content is None:
            return
        if path.exists():
            current = path.read_bytes()
            if current == content or not self._names.gave(target, current):
                return
        write_bytes(path, content)
        self._names.remember_caption(target, content)


def _caption(path: Path, report: CropReport) -> Caption | None:
    try:
        return read_caption(path)
    except InputError as error:
        report.notes.append(Note(path, str(error)))
        return None
