"""The history of caption edits: every one can be undone to the byte, also after a crash or a restart.

One act is one file (see acts.py). A change is recorded and flushed before its caption is touched. An act without a last
state belongs to a process that died; whoever writes or opens the folder next completes it and says so, after which it
can be undone like any other.

Because the whole act is on the disk first, its captions need not be flushed one by one: very many are written, each
under a temporary name and renamed, and the disk is told once to keep them all before the act is closed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.dataset.acts import (
    Act,
    Change,
    Move,
    Summary,
    act_files,
    act_states,
    append_lines,
    begin_act,
    change_to_json,
    cut_off_records,
    now,
    read_file,
    read_summary,
)
from lib_dsm.dataset.listing import require_folder
from lib_dsm.dataset.locks import writing_in
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.quick_files import Put, flush_all, read_bytes
from lib_dsm.errors import BusyError, DsmError, InputError, StorageError
from lib_dsm.files import exists
from lib_dsm.jobs import Job

_UNREADABLE = b"\0 unreadable \0"  # no caption is this
_FEW = 64  # so many captions are flushed one by one
_CONFLICT = "It was changed elsewhere meanwhile and was left as it is."
_BEHIND_LINK = "It lies behind a link that leads out of the folder and was left as it is."


@dataclass
class Outcome:
    """What an act did: the captions written, and a note on each that was left because it had changed elsewhere.

    `moved` are the files that went to another place, by where they are now; `recovered` are sentences on acts that had
    been cut off and were completed first.
    """

    act: int | None
    title: str
    changed: list[Path] = field(default_factory=list)
    conflicts: list[Note] = field(default_factory=list)
    moved: list[Path] = field(default_factory=list)
    recovered: list[str] = field(default_factory=list)


def history(folder: Path) -> list[Act]:
    """The acts of a folder, the oldest first.

    Raises:
        InputError: there is no such folder, or a file of its history is damaged.
    """
    require_folder(folder)
    return [read_file(path) for path in act_files(folder)]


def summaries(folder: Path) -> list[Summary]:
    """The acts of a folder without their changes, the oldest first: two lines are read of each file.

    Raises:
        InputError: as `history`.
    """
    require_folder(folder)
    return [read_summary(path) for path in act_files(folder)]


def stamp(folder: Path) -> str:
    """A text that changes whenever an act is added or comes to another state; no file is opened."""
    found = [path.stat() for path in act_files(folder)]
    last = max((facts.st_mtime_ns for facts in found), default=0)
    return f"{len(found)} {sum(facts.st_size for facts in found)} {last}"


def read_act(folder: Path, act: int) -> Act:
    """One act with its changes.

    Raises:
        InputError: there is none of that number, or its file is damaged.
    """
    for path in act_files(folder):
        if int(path.stem) == act:
            return read_file(path)
    raise InputError(f"There is no act {act} in the history of {folder}.", "Look at the list again.")


def recover(folder: Path) -> list[str]:
    """Complete what a program that was killed left half done, and say in a sentence for each which state that is.

    Nothing where another one is writing, or the folder cannot be written to: then it waits for the next one.

    Raises:
        InputError: there is no such folder, or its history is damaged.
    """
    require_folder(folder)
    if not _unfinished(folder):
        return []
    try:
        with writing_in(folder, wait=0):
            return _recover(folder)[1]
    except (BusyError, StorageError):
        return []


def apply(
    folder: Path, title: str, changes: Iterable[Change], job: Job | None = None, moves: Iterable[Move] = ()
) -> Outcome:
    """Make changes to captions, and then moves, as one act. A caption that is no longer as `before` says is left, and
    reported, and so is a file that cannot be moved.

    Raises:
        BusyError: another one is writing in the folder.
        StorageError: the disk does not take it; what was written can be undone.
        Cancelled: the job was stopped; what was written can be undone.
    """
    with writing_in(folder):
        outcome = Outcome(None, title, recovered=_recover(folder)[1])
        free = []
        for change in changes:
            current = _current(folder, change.path, outcome)
            if current == change.before and change.before != change.after:
                free.append(change)
            elif current not in (change.before, _UNREADABLE):
                outcome.conflicts.append(Note(folder / change.path, _CONFLICT))
        moving = list(moves)
        if free or moving:
            path = begin_act(folder, title, free, moving)
            outcome.act = int(path.stem)
            end = {"state": "done", "captions": len(free)}
            try:
                _step(folder, [(change.path, change.before, change.after) for change in free], outcome, job)
                _move(folder, [(move.path, move.to) for move in moving], outcome)
            finally:
                append_lines(path, [end])
    return outcome


class Recording:
    """An act that grows while its captions are made; see `recording`."""

    def __init__(self, folder: Path, title: str) -> None:
        self.outcome = Outcome(None, title)
        self._folder = folder
        self._path: Path | None = None
        self._end: int | None = None
        self._put = Put(flushed=True)

    def write(self, caption: Path, before: bytes | None, after: bytes) -> bool:
        """Record and write one caption; False, and a note, where it is no longer as `before` says.

        Raises:
            StorageError: the disk does not take it.
        """
        return self.write_all([(caption, before, after)])[0]

    def write_all(self, captions: Iterable[tuple[Path, bytes | None, bytes]]) -> list[bool]:
        """Like `write` for several captions, recorded together and then written one by one; which of them it did.

        Raises:
            StorageError: the disk does not take one; those before it are written.
        """
        done = []
        free = []
        for caption, before, after in captions:
            change = Change(caption.relative_to(self._folder).as_posix(), before, after)
            current = _current(self._folder, change.path, self.outcome)
            if current not in (before, _UNREADABLE):
                self.outcome.conflicts.append(Note(caption, _CONFLICT))
            done.append(current == before)
            if current == before and before != after:
                free.append(change)
        if free:
            self._record(free)
        for change in free:
            _put(self._put, self._folder / change.path, change.after)
            self.outcome.changed.append(self._folder / change.path)
        return done

    def _record(self, changes: list[Change]) -> None:
        if self._path is None:
            self._path = begin_act(self._folder, self.outcome.title, changes, count=False)
            self.outcome.act = int(self._path.stem)
            self._end = self._path.stat().st_size
        else:
            self._end = append_lines(self._path, [change_to_json(change) for change in changes], self._end)

    def finish(self) -> None:
        """Close the act."""
        if self._path is not None:
            append_lines(self._path, [{"state": "done", "captions": len(self.outcome.changed)}], self._end)


@contextlib.contextmanager
def recording(folder: Path, title: str) -> Iterator[Recording]:
    """One act for captions that come one by one; each is on the disk, and can be undone, as soon as it is written.

    Raises:
        BusyError: another one is writing in the folder.
        StorageError: the folder cannot be written to.
    """
    with writing_in(folder):
        recovered = _recover(folder)[1]
        act = Recording(folder, title)
        act.outcome.recovered = recovered
        try:
            yield act
        finally:
            act.finish()


def undo(folder: Path, job: Job | None = None) -> Outcome:
    """Take the last act back: every caption gets the bytes it had. One that changed since is left, and reported.

    Raises:
        InputError: there is nothing to undo.
        BusyError: another one is writing in the folder.
        StorageError: the disk does not take it; undoing again goes on.
    """
    return _turn(folder, "undo", job)


def redo(folder: Path, job: Job | None = None) -> Outcome:
    """Do the act that was undone last once more.

    Raises:
        InputError: there is nothing to redo.
        BusyError: another one is writing in the folder.
        StorageError: the disk does not take it; redoing again goes on.
    """
    return _turn(folder, "redo", job)


_TURNS = {"undo": ("done", "undoing", "undone", -1), "redo": ("undone", "redoing", "done", 0)}
"""The states before, during and after, and which of the acts in the first one has its turn."""


def _turn(folder: Path, what: str, job: Job | None) -> Outcome:
    before, during, after, which = _TURNS[what]
    require_folder(folder)
    with writing_in(folder):
        halves, recovered = _recover(folder)
        if during in halves:
            return halves[during]
        waiting = [path for path, state in act_states(folder) if state == before]
        if not waiting:
            raise InputError(f"There is nothing to {what} in {folder}.")
        act = read_file(waiting[which])
        append_lines(waiting[which], [{"state": during}])
        outcome = Outcome(act.id, act.title, recovered=recovered)
        _turn_files(folder, act, during, outcome, job)
        append_lines(waiting[which], [{"state": after, "captions": len(act.changes)}])
    return outcome


def go_to(folder: Path, act: int, job: Job | None = None) -> list[Outcome]:
    """Undo or redo one after the other until this act is the last one that is done, 0 for the state before them all.

    Raises:
        InputError: there is no such act, or it was overtaken by a newer one.
        BusyError, StorageError, Cancelled: as `undo`; what was done stays done.
    """
    recover(folder)
    known = {item.id: item.state for item in summaries(folder)}
    if act and known.get(act) not in ("done", "undone"):
        raise InputError(f"Act {act} in {folder} cannot be gone back to.", "It was overtaken by a newer one.")
    outcomes = []
    for number in sorted((number for number, state in known.items() if state == "done" and number > act), reverse=True):
        outcomes.append(undo(folder, job))
        assert outcomes[-1].act == number
    outcomes += [redo(folder, job) for number, state in known.items() if state == "undone" and number <= act]
    return outcomes


def _turn_files(folder: Path, act: Act, state: str, outcome: Outcome, job: Job | None, torn: bool = False) -> None:
    """Do an act in this state, backwards for "undoing"; `torn` as `_step`."""
    if state == "undoing":
        _move(folder, [(move.to, move.path) for move in reversed(act.moves)], outcome)
    _step(folder, _steps(act, state), outcome, job, torn)
    if state != "undoing":
        _move(folder, [(move.path, move.to) for move in act.moves], outcome)


def _steps(act: Act, state: str) -> list[tuple[str, bytes | None, bytes | None]]:
    """What an act in this state has to do: path, bytes expected, bytes wanted."""
    if state == "undoing":
        return [(change.path, change.after, change.before) for change in reversed(act.changes)]
    return [(change.path, change.before, change.after) for change in act.changes]


def _step(
    folder: Path,
    steps: list[tuple[str, bytes | None, bytes | None]],
    outcome: Outcome,
    job: Job | None,
    torn: bool = False,
) -> None:
    """Write captions: path, bytes expected, bytes wanted. `torn`: one without any text may be what a loss of power has
    left of it, and counts as expected."""
    put = Put(flushed=len(steps) <= _FEW)
    try:
        for number, (name, expected, wanted) in enumerate(steps, 1):
            if job is not None:
                job.check()
            caption = folder / name
            current = _current(folder, name, outcome)
            if torn and expected and current is not None and not current.strip(b"\0"):
                current = expected
            if current == expected:
                _put(put, caption, wanted)
                outcome.changed.append(caption)
            elif current not in (wanted, _UNREADABLE):
                outcome.conflicts.append(Note(caption, _CONFLICT))
            if job is not None:
                job.progress(number, len(steps), name)
    finally:
        if not put.flushed:
            flush_all()


def _move(folder: Path, moves: list[tuple[str, str]], outcome: Outcome) -> None:
    """Rename files: from, to; what is there already, or lies in the way, stays."""
    for name, to in moves:
        source, target = folder / name, folder / to
        if not (_lies_in(folder, name) and _lies_in(folder, to)):
            outcome.conflicts.append(Note(source, _BEHIND_LINK))
            continue
        if exists(target):
            if exists(source):
                outcome.conflicts.append(Note(source, f"There is another {to} already; it was left where it is."))
            continue
        if not exists(source):
            outcome.conflicts.append(Note(source, "It is no longer there."))
            continue
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            source.rename(target)
        except OSError as error:
            raise StorageError(
                f"{source} could not be moved: {error.strerror or error}.", "Close what uses it, then try again."
            ) from error
        outcome.moved.append(target)


_ENDS = {"open": "done", "redoing": "done", "undoing": "undone"}
"""The states that a program leaves only by dying, and what they are completed to."""


def _unfinished(folder: Path) -> bool:
    return bool(cut_off_records(folder)) or any(state in _ENDS for _, state in act_states(folder))


def _recover(folder: Path) -> tuple[dict[str, Outcome], list[str]]:
    """Complete what a process that died, or a full disk, left half done: the outcomes by the state that was found, and
    what to tell."""
    outcomes, told = {}, []
    for path, state in act_states(folder):
        if state in _ENDS:
            act = read_file(path)
            outcomes[state] = Outcome(act.id, act.title)
            _remove_parts(folder, act)  # before writing: a new process may have the dead one's number, and its names
            _turn_files(folder, act, state, outcomes[state], None, torn=True)
            end = {"state": _ENDS[state], "captions": len(act.changes), "recovered": now()}
            append_lines(path, [end])
            told.append(_recovered(act, state, outcomes[state]))
    for part in cut_off_records(folder):
        part.unlink(missing_ok=True)
        told.append("An edit was cut off before it changed anything: all captions are as they were before it.")
    for outcome in outcomes.values():
        outcome.recovered = told
    return outcomes, told


def _recovered(act: Act, state: str, outcome: Outcome) -> str:
    what = {"open": "", "redoing": "Redoing ", "undoing": "Undoing "}[state]
    since = "before it" if state == "undoing" else "after it, and undo takes it back"
    left = f" {len(outcome.conflicts)} had been changed by another program and were left." if outcome.conflicts else ""
    return (
        f"{what}“{act.title}” ({len(act.changes)} captions) was cut off when the program ended; "
        f"it was completed now: the captions are as {since}.{left}"
    )


def _remove_parts(folder: Path, act: Act) -> None:
    """Temporary files that a killed program left beside its captions."""
    for place in {(folder / change.path).parent for change in act.changes}:
        for part in place.glob(".dsm-*.part"):
            part.unlink(missing_ok=True)


def _current(folder: Path, name: str, outcome: Outcome) -> bytes | None:
    """A caption's bytes, None where there is no file; `_UNREADABLE`, and a note, where there is something else."""
    if not _lies_in(folder, name):
        outcome.conflicts.append(Note(folder / name, _BEHIND_LINK))
        return _UNREADABLE
    try:
        return read_bytes(f"{folder}/{name}")
    except FileNotFoundError:
        return None
    except OSError as error:
        outcome.conflicts.append(Note(folder / name, f"It cannot be read: {error.strerror or error}."))
        return _UNREADABLE


def _lies_in(folder: Path, name: str) -> bool:
    """Whether a file of that name, there or not, lies in the folder itself: a record may come from anywhere, and so may
    links to folders. What is a link itself is replaced, or moved, as what it is."""
    return "/" not in name or (folder / name).parent.resolve().is_relative_to(folder.resolve())


def _put(put: Put, caption: Path, content: bytes | None) -> None:
    try:
        put(caption, content)
    except DsmError:
        raise
    except OSError as error:
        raise StorageError(
            f"{caption} could not be {'written' if content is not None else 'removed'}: {error.strerror or error}.",
            "Free some space, or close what uses it.",
        ) from error
