"""The history of a whole project: the acts of its folders as one list, undone and redone in the order of time."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

from lib_dsm.dataset import history
from lib_dsm.dataset.acts import Summary
from lib_dsm.dataset.history import Outcome
from lib_dsm.dataset.project import Project
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job


@dataclass(frozen=True)
class Entry:
    """One act of a project, in one of its folders."""

    folder: Path
    act: Summary

    @property
    def when(self) -> datetime.datetime:
        """The time of the act."""
        try:
            found = datetime.datetime.fromisoformat(self.act.time)
        except ValueError:
            found = datetime.datetime.min
        return found if found.tzinfo else found.replace(tzinfo=datetime.timezone.utc)


def folders(root: Path) -> list[Path]:
    """The folders of a project, or a plain folder, that can have a history."""
    project = Project(root)
    return [folder for folder in (root, project.imgs, project.dataset_imgs, project.set) if folder.is_dir()]


def entries(root: Path) -> list[Entry]:
    """All acts of a project, the oldest first.

    Raises:
        InputError: a file of a history is damaged.
    """
    found = [Entry(folder, act) for folder in folders(root) for act in history.summaries(folder)]
    return sorted(found, key=lambda entry: (entry.when, entry.act.id))


def recover(root: Path) -> list[str]:
    """Complete what was left half done in any of the folders; see `history.recover`."""
    return [told for folder in folders(root) for told in history.recover(folder)]


def undo(root: Path, job: Job | None = None) -> Outcome:
    """Take the last act of the project back.

    Raises:
        InputError: there is nothing to undo.
        BusyError, StorageError, Cancelled: as `history.undo`.
    """
    return history.undo(_next(root, "undo", "done", -1), job)


def redo(root: Path, job: Job | None = None) -> Outcome:
    """Do the act of the project that was undone last once more.

    Raises:
        InputError: there is nothing to redo.
        BusyError, StorageError, Cancelled: as `history.redo`.
    """
    return history.redo(_next(root, "redo", "undone", 0), job)


def _next(root: Path, what: str, state: str, which: int) -> Path:
    """The folder of the act whose turn it is: the one at `which` of those in a state."""
    recover(root)
    waiting = [entry for entry in entries(root) if entry.act.state == state]
    if not waiting:
        raise InputError(f"There is nothing to {what} in {root}.")
    return waiting[which].folder


def go_to(root: Path, folder: Path | None, act: int, job: Job | None = None) -> list[Outcome]:
    """Undo or redo until this act of this folder is the last one that is done; without a folder, until none is.

    Raises:
        InputError: there is no such act, or it was overtaken by a newer one.
        BusyError, StorageError, Cancelled: as `undo`; what was done stays done.
    """
    recover(root)
    known = [entry for entry in entries(root) if entry.act.state in ("done", "undone")]
    at = -1
    if folder is not None:
        at = next((place for place, entry in enumerate(known) if (entry.folder, entry.act.id) == (folder, act)), -1)
        if at < 0:
            raise InputError(f"Act {act} in {folder} cannot be gone back to.", "It was overtaken by a newer one.")
    outcomes = []
    for entry in reversed(known[at + 1 :]):
        if entry.act.state == "done":
            outcomes.append(history.undo(entry.folder, job))
    for entry in known[: at + 1]:
        if entry.act.state == "undone":
            outcomes.append(history.redo(entry.folder, job))
    return outcomes
