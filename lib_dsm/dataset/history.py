"""The history of caption edits: every one can be undone to the byte, also after a crash or a restart.

One act is one file of JSON lines in `.dsm/history/` of the folder, only ever added to:

    {"version": 1, "title": "remove blue hair", "time": "2024-05-01T12:00:00.000000+00:00", "captions": 1}
    {"path": "a.txt", "before": {"text": "…"}, "after": {"text": "…"}}
    {"move": "b.png", "to": ".dsm/removed/b.png"}
    {"state": "done", "captions": 1}

A change is recorded and flushed before its caption is touched. An act without a last state belongs to a process that
died; whoever writes or opens the folder next completes it and says so, after which it can be undone like any other.
States: "open" (no line yet), "done", "undoing", "undone", "redoing", "dropped" (undone, then overtaken by a new act).

Because the whole act is on the disk first, its captions need not be flushed one by one: very many are written, each
under a temporary name and renamed, and the disk is told once to keep them all before the act is closed.
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
from collections.abc import Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from lib_dsm.dataset.listing import WRITTEN_SUFFIXES, is_picture, require_folder
from lib_dsm.dataset.locks import METADATA_FOLDER, writing_in
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.quick_files import Put, flush_all, read_bytes
from lib_dsm.errors import BusyError, DsmError, InputError, StorageError
from lib_dsm.files import write_atomically
from lib_dsm.jobs import Job

_VERSION = 1
_TAIL_BYTES = 200
_UNREADABLE = b"\0 unreadable \0"  # no caption is this
_FEW = 64  # so many captions are flushed one by one
REMOVED = PurePosixPath(METADATA_FOLDER, "removed")
"""Where pictures go that are taken out of a set, with their captions."""
_CONFLICT = "It was changed elsewhere meanwhile and was left as it is."


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
    return [_read(path) for path in _act_files(folder)]


def summaries(folder: Path) -> list[Summary]:
    """The acts of a folder without their changes, the oldest first: two lines are read of each file.

    Raises:
        InputError: as `history`.
    """
    require_folder(folder)
    return [_summary(path) for path in _act_files(folder)]


def read_act(folder: Path, act: int) -> Act:
    """One act with its changes.

    Raises:
        InputError: there is none of that number, or its file is damaged.
    """
    path = _history_folder(folder) / f"{act:06d}.jsonl"
    if not path.is_file():
        raise InputError(f"There is no act {act} in the history of {folder}.", "Look at the list again.")
    return _read(path)


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


def removal(files: Iterable[Path], folder: Path, taken: Container[str] = ()) -> list[Move]:
    """The moves that take files of one stem, pictures and their caption, out of the set, those that are there.

    They stay together, under a name that is free for them all and not among `taken`.
    """
    found = [path.relative_to(folder) for path in files if path.exists()]
    number = 1
    while True:
        ending = "" if number == 1 else f"-{number}"
        moves = [
            Move(path.as_posix(), f"{REMOVED}/{path.with_suffix('').as_posix()}{ending}{path.suffix}") for path in found
        ]
        if not any(move.to in taken or (folder / move.to).exists() for move in moves):
            return moves
        number += 1


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
            path = _begin(folder, title, free, moving)
            outcome.act = int(path.stem)
            end = {"state": "done", "captions": len(free)}
            try:
                _step(folder, [(change.path, change.before, change.after) for change in free], outcome, job)
                _move(folder, [(move.path, move.to) for move in moving], outcome)
            finally:
                _append(path, [end])
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
            self._path = _begin(self._folder, self.outcome.title, changes, count=False)
            self.outcome.act = int(self._path.stem)
            self._end = self._path.stat().st_size
        else:
            self._end = _append(self._path, [_change_to_json(change) for change in changes], self._end)

    def finish(self) -> None:
        """Close the act."""
        if self._path is not None:
            _append(self._path, [{"state": "done", "captions": len(self.outcome.changed)}], self._end)


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
        waiting = [path for path, state in _states(folder) if state == before]
        if not waiting:
            raise InputError(f"There is nothing to {what} in {folder}.")
        act = _read(waiting[which])
        _append(waiting[which], [{"state": during}])
        outcome = Outcome(act.id, act.title, recovered=recovered)
        _turn_files(folder, act, during, outcome, job)
        _append(waiting[which], [{"state": after, "captions": len(act.changes)}])
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
        if target.exists():
            if source.exists():
                outcome.conflicts.append(Note(source, f"There is another {to} already; it was left where it is."))
            continue
        if not source.exists():
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
    return bool(_cut_off(folder)) or any(state in _ENDS for _, state in _states(folder))


def _cut_off(folder: Path) -> list[Path]:
    """Records that were never finished: nothing was changed yet."""
    return list(_history_folder(folder).glob(".dsm-*.part"))


def _recover(folder: Path) -> tuple[dict[str, Outcome], list[str]]:
    """Complete what a process that died, or a full disk, left half done: the outcomes by the state that was found, and
    what to tell."""
    outcomes, told = {}, []
    for path, state in _states(folder):
        if state in _ENDS:
            act = _read(path)
            outcomes[state] = Outcome(act.id, act.title)
            _remove_parts(folder, act)  # before writing: a new process may have the dead one's number, and its names
            _turn_files(folder, act, state, outcomes[state], None, torn=True)
            end = {"state": _ENDS[state], "captions": len(act.changes), "recovered": _now()}
            _append(path, [end])
            told.append(_recovered(act, state, outcomes[state]))
    for part in _cut_off(folder):
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


def _now() -> str:
    return datetime.datetime.now().astimezone().isoformat(timespec="microseconds")


def _begin(folder: Path, title: str, changes: list[Change], moves: Iterable[Move] = (), count: bool = True) -> Path:
    """Write an act's record; `count` says that these are all the changes it will have."""
    for path, state in _states(folder):
        if state == "undone":
            _append(path, [{"state": "dropped"}])
    header: dict[str, Any] = {"version": _VERSION, "title": title, "time": _now()}
    if count:
        header["captions"] = len(changes)
        header["moved"] = len(list(moves))
    acts = _act_files(folder)
    path = _history_folder(folder) / f"{int(acts[-1].stem) + 1 if acts else 1:06d}.jsonl"

    def write(file: BinaryIO) -> None:
        file.write(_lines([header]))
        for start in range(0, len(changes), 1000):
            file.write(_lines(map(_change_to_json, changes[start : start + 1000])))
        file.write(_lines({"move": move.path, "to": move.to} for move in moves))

    write_atomically(path, write)
    return path


def _append(path: Path, lines: list[dict[str, Any]], end: int | None = None) -> int:
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


def _read(path: Path) -> Act:
    try:
        lines = path.read_bytes().split(b"\n")[:-1]  # what follows the last line end was cut off by a crash
        header, *rest = (json.loads(line) for line in lines)
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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The history file {path} is damaged ({error}).", "Move it away; the acts before it remain."
        ) from error


def _summary(path: Path) -> Summary:
    """From the first and the last lines, or from the whole where those do not say it."""
    try:
        with path.open("rb") as file:
            header = json.loads(file.readline())
            file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            end = json.loads(file.read().split(b"\n")[-2])
        captions = header["captions"] if "captions" in header else end["captions"]
        return Summary(
            int(path.stem), str(header["title"]), str(header["time"]), str(end["state"]), int(captions),
            int(header.get("moved", 0)), str(end.get("recovered", "")),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        act = _read(path)
        return Summary(
            act.id, act.title, act.time, act.state, len(act.changes), len(act.moves), act.recovered
        )  # fmt: skip


def _lines(lines: Iterable[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines)


def _change_to_json(change: Change) -> dict[str, Any]:
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
    return name.startswith("/") or ".." in name.split("/") or on_windows


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


def _current(folder: Path, name: str, outcome: Outcome) -> bytes | None:
    """A caption's bytes, None where there is no file; `_UNREADABLE`, and a note, where there is something else."""
    try:
        return read_bytes(f"{folder}/{name}")
    except FileNotFoundError:
        return None
    except OSError as error:
        outcome.conflicts.append(Note(folder / name, f"It cannot be read: {error.strerror or error}."))
        return _UNREADABLE


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


def _history_folder(folder: Path) -> Path:
    return folder / METADATA_FOLDER / "history"


def _act_files(folder: Path) -> list[Path]:
    found = [path for path in _history_folder(folder).glob("*.jsonl") if path.stem.isdigit()]
    return sorted(found, key=lambda path: int(path.stem))


def _states(folder: Path) -> list[tuple[Path, str]]:
    return [(path, _last_state(path)) for path in _act_files(folder)]


def _last_state(path: Path) -> str:
    """An act's state from the end of its file, which is all that is read of most acts."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")
    try:
        return str(json.loads(lines[-2])["state"])
    except (ValueError, KeyError, IndexError, TypeError):
        return _read(path).state
