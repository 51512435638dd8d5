"""A project: the folder with IMGS (as found), DATASET_IMGS (cropped, tagged, pruned) and SET (what is trained on).

A plain folder of pictures is a project as well; the three folders appear as they are needed.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.dataset.captions import caption_path
from lib_dsm.dataset.history import recording
from lib_dsm.dataset.listing import has_pictures, is_picture, list_pictures, require_folder
from lib_dsm.dataset.locks import METADATA_FOLDER
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.pictures import picture_size
from lib_dsm.errors import DsmError, InputError, StorageError
from lib_dsm.files import exists, file_name, is_file, open_to_read, sha256, write_atomically
from lib_dsm.jobs import Job

_FOLDERS = ("IMGS", "DATASET_IMGS", "SET")
_REPLACED_IN_NAMES = re.compile(r'[\x00-\x1f<>:"|?*]')
_IMPORTING = threading.Lock()


@dataclass
class CopyReport:
    """What a copying act did: `copied` new files, `same` that were there already, and a note on each that was not."""

    copied: list[Path] = field(default_factory=list)
    same: list[Path] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)


@dataclass(frozen=True)
class Project:
    """A project's folders; none but `root` need exist."""

    root: Path

    @property
    def imgs(self) -> Path:
        """The pictures as they were found."""
        return self.root / "IMGS"

    @property
    def dataset_imgs(self) -> Path:
        """The cropped pictures, to be tagged and pruned."""
        return self.root / "DATASET_IMGS"

    @property
    def set(self) -> Path:
        """The training set."""
        return self.root / "SET"

    @property
    def metadata(self) -> Path:
        """Where the library keeps its own files of this project."""
        return self.root / METADATA_FOLDER

    def source_folder(self) -> Path:
        """Where the pictures to crop are: IMGS if it has some, else the folder itself if it has, else IMGS."""
        return self._first_with_pictures(self.imgs, self.root) or self.imgs

    def tagging_folder(self) -> Path:
        """Where the pictures to tag and prune are: DATASET_IMGS if it has some, else as `source_folder`."""
        return self._first_with_pictures(self.dataset_imgs) or self.source_folder()

    def training_folder(self) -> Path:
        """What is trained on: SET if it has pictures, else as `tagging_folder`."""
        return self._first_with_pictures(self.set) or self.tagging_folder()

    def import_pictures(self, files: Iterable[Path], job: Job | None = None) -> CopyReport:
        """Copy pictures, with captions that lie beside them, into IMGS; nothing there is overwritten.

        One that is there already is left out; another of the same name gets a number. What cannot be imported is
        noted, and the rest goes on.

        Raises:
            StorageError: the disk does not take a file.
            Cancelled: the job was stopped; what was copied stays.
        """
        report = CopyReport()
        sources = list(files)
        for number, source in enumerate(sources, 1):
            if job is not None:
                job.check()
            try:
                self.import_picture(source, source.name, report)
            except StorageError:
                raise
            except DsmError as error:
                report.notes.append(Note(source, str(error)))
            if job is not None:
                job.progress(number, len(sources), source.name)
        return report

    def import_picture(self, source: Path, name: str, report: CopyReport | None = None) -> Path:
        """Copy one picture into IMGS under a name, made safe and free, and return where it is.

        Raises:
            InputError: the name leads elsewhere or is no picture's, or the file is not a picture.
            StorageError: the disk does not take it.
        """
        report = report if report is not None else CopyReport()
        safe = Path(file_name(_REPLACED_IN_NAMES.sub("_", name), "picture's name"))
        if not is_picture(safe):
            raise InputError(f"{name} is not a picture by its name.", "Give it the ending of its format, such as .png.")
        picture_size(source)
        with _IMPORTING:
            taken: dict[str, list[Path]] = {}
            for path in self.imgs.iterdir() if self.imgs.is_dir() else ():
                taken.setdefault(path.stem.casefold(), []).append(path)
            stem, number = safe.stem, 1
            while stem.casefold() in taken:
                for other in taken[stem.casefold()]:
                    if other.suffix.lower() == safe.suffix.lower() and _same_content(source, other):
                        report.same.append(other)
                        return other
                number += 1
                stem = f"{safe.stem}-{number}"
            target = self.imgs / (stem + safe.suffix)
            _copy(source, target)
            if is_file(caption_path(source)):
                _copy(caption_path(source), caption_path(target))
        report.copied.append(target)
        return target

    def fill_set(self, job: Job | None = None) -> CopyReport:
        """Copy the tagged pictures and their captions to SET. A caption there that differs is replaced, and can be
        undone in SET; a different picture of the same name is left with its caption, and noted.

        Raises:
            InputError: there are no pictures to copy.
            BusyError: another one is writing in SET.
            StorageError: the disk does not take a file.
            Cancelled: the job was stopped; what was copied stays.
        """
        source = self.tagging_folder()
        pictures, _ = list_pictures(source)
        if not pictures:
            raise InputError(f"{self.root} holds no pictures to copy to SET.", "Put pictures into IMGS first.")
        self.set.mkdir(exist_ok=True)
        report = CopyReport()
        with recording(self.set, f"fill SET from {source.name}") as act:
            for number, picture in enumerate(pictures, 1):
                if job is not None:
                    job.check()
                target = self.set / picture.name
                if not is_file(picture):
                    report.notes.append(Note(picture, "It is no file and was left."))
                    continue
                if not target.exists():
                    _copy(picture, target)
                    report.copied.append(target)
                elif _same_content(picture, target):
                    report.same.append(target)
                else:
                    report.notes.append(Note(target, f"It differs from the one in {source.name}; delete it first."))
                    continue
                old, new = (_bytes_or_none(caption_path(path)) for path in (target, picture))
                if new is not None:
                    act.write(caption_path(target), old, new)
                if job is not None:
                    job.progress(number, len(pictures), picture.name)
        report.notes += act.outcome.conflicts
        return report

    @staticmethod
    def _first_with_pictures(*folders: Path) -> Path | None:
        return next((folder for folder in folders if has_pictures(folder)), None)


def create_project(folder: Path, name: str | None = None) -> Project:
    """Make a project folder, or make an existing folder one; what is in it stays.

    With `name` the project is the folder of that name in `folder`.

    Raises:
        InputError: the name leads elsewhere, or the folder is a file.
        StorageError: the disk does not take it.
    """
    root = folder / file_name(name, "project's name") if name is not None else folder
    if exists(root):
        require_folder(root)
    try:
        for part in (*_FOLDERS, METADATA_FOLDER):
            (root / part).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"The project {root} could not be made: {error.strerror or error}.", "Choose another place."
        ) from error
    return Project(root)


def open_project(folder: Path) -> Project:
    """Open a project folder, or a plain folder as one.

    Raises:
        InputError: there is no such folder.
    """
    require_folder(folder)
    return Project(folder)


def behind(folder: Path) -> str:
    """A sentence if `folder` is a project's SET and its DATASET_IMGS has gone on since it was filled, else "".

    A DATASET_IMGS that is a link to elsewhere is not looked into.
    """
    project = Project(folder.parent)
    if folder != project.set or project.dataset_imgs.is_symlink() or not has_pictures(project.dataset_imgs):
        return ""
    missing = other = 0
    for picture in list_pictures(project.dataset_imgs)[0]:
        if not is_file(folder / picture.name):
            missing += 1
        elif _bytes_or_none(caption_path(picture)) != _bytes_or_none(caption_path(folder / picture.name)):
            other += 1
    if not missing and not other:
        return ""
    return (
        f"SET is behind DATASET_IMGS: {missing} pictures are missing and {other} captions differ. "
        "Copy to SET again if it should be trained on what you see there."
    )


def _same_content(one: Path, other: Path) -> bool:
    return one.stat().st_size == other.stat().st_size and sha256(one) == sha256(other)


def _bytes_or_none(path: Path) -> bytes | None:
    return path.read_bytes() if is_file(path) else None


def _copy(source: Path, target: Path) -> None:
    with open_to_read(source) as file:
        write_atomically(target, lambda out: shutil.copyfileobj(file, out))
