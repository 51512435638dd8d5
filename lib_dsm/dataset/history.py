"""The history of caption edits: every one can be undone to the byte, also after a crash or a restart.

One act is one file of JSON lines in `.dsm/history/` of the folder, only ever added to:

    {"version": 1, "title": "remove blue hair", "time": "2024-05-01T12:00:00"}
    {"path": "a.txt", "before": {"text": "…"}, "after": {"text": "…"}}
    {"state": "done"}

A change is recorded and flushed before its caption is touched. An act without a last state belongs to a process that
died; whoever writes next completes it, after which it can be undone like any other. States: "open" (no line yet),
"done", "undoing", "undone", "redoing", "dropped" (undone, then overtaken by a new act).
"""

from __future__ import annotations

import base64
import contextlib
import datetime
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from lib_dsm.dataset.listing import CAPTION_SUFFIXES, require_folder
from lib_dsm.dataset.locks import METADATA_FOLDER, writing_in
from lib_dsm.dataset.notes import Note
from lib_dsm.errors import InputError, StorageError
from lib_dsm.files import write_bytes
from lib_dsm.jobs import Job

_VERSION = 1
_TAIL_BYTES = 200
_UNREADABLE = b"\0 unreadable \0"  # no caption is this
_CONFLICT = "It was changed elsewhere meanwhile and was left as it is."


@dataclass(frozen=True)
class Change:
    """One caption's bytes before and after, None where there is no file. `path` is in the folder, with `/`."""

    path: str
    before: bytes | None
    after: bytes | None


@dataclass(frozen=True)
class Act:
    """One act of the history as it is on the disk."""

    id: int
    title: str
    time: str
    state: str
    changes: tuple[Change, ...]


@dataclass
class Outcome:
    """What an act did: the captions written, and a note on each that was left because it had changed elsewhere."""

    act: int | None
    title: str
    changed: list[Path] = field(default_factory=list)
    conflicts: list[Note] = field(default_factory=list)


def history(folder: Path) -> list[Act]:
    """The acts of a folder, the oldest first.

    Raises:
        InputError: there is no such folder, or a file of its history is damaged.
    """
    require_folder(folder)
    return [_read(path) for path in _act_files(folder)]


def apply(folder: Path, title: str, changes: Iterable[Change], job: Job | None = None) -> Outcome:
    """Make changes to captions as one act. A caption that is no longer as `before` says is left, and reported.

    Raises:
        BusyError: another one is writing in the folder.
        StorageError: the disk does not take it; what was written can be undone.
        Cancelled: the job was stopped; what was written can be undone.
    """
    with writing_in(folder):
        _recover(folder)
        outcome = Outcome(None, title)
        free = []
        for change in changes:
            current = _current(folder, change.path, outcome)
            if current == change.before and change.before != change.after:
                free.append(change)
            elif current not in (change.before, _UNREADABLE):
                outcome.conflicts.append(Note(folder / change.path, _CONFLICT))
        if free:
            path = _begin(folder, title, free)
            outcome.act = int(path.stem)
            try:
                _step(folder, [(change.path, change.before, change.after) for change in free], outcome, job)
            finally:
                _append(path, [{"state": "done"}])
    return outcome


class Recording:
    """An act that grows while its captions are made; see `recording`."""

    def __init__(self, folder: Path, title: str) -> None:
        self.outcome = Outcome(None, title)
        self._folder = folder
        self._path: Path | None = None
        self._end: int | None = None

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
            _put(self._folder / change.path, change.after)
            self.outcome.changed.append(self._folder / change.path)
        return done

    def _record(self, changes: list[Change]) -> None:
        if self._path is None:
            self._path = _begin(self._folder, self.outcome.title, changes)
            self.outcome.act = int(self._path.stem)
            self._end = self._path.stat().st_size
        else:
            self._end = _append(self._path, [_change_to_json(change) for change in changes], self._end)

    def finish(self) -> None:
        """Close the act."""
        if self._path is not None:
            _append(self._path, [{"state": "done"}], self._end)


@contextlib.contextmanager
def recording(folder: Path, title: str) -> Iterator[Recording]:
    """One act for captions that come one by one; each is on the disk, and can be undone, as soon as it is written.

    Raises:
        BusyError: another one is writing in the folder.
        StorageError: the folder cannot be written to.
    """
    with writing_in(folder):
        _recover(folder)
        act = Recording(folder, title)
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
        half_done = _recover(folder).get(during)
        if half_done is not None:
            return half_done
        waiting = [path for path, state in _states(folder) if state == before]
        if not waiting:
            raise InputError(f"There is nothing to {what} in {folder}.")
        act = _read(waiting[which])
        _append(waiting[which], [{"state": during}])
        outcome = Outcome(act.id, act.title)
        _step(folder, _steps(act, during), outcome, job)
        _append(waiting[which], [{"state": after}])
    return outcome


def _steps(act: Act, state: str) -> list[tuple[str, bytes | None, bytes | None]]:
    """What an act in this state has to do: path, bytes expected, bytes wanted."""
    if state == "undoing":
        return [(change.path, change.after, change.before) for change in reversed(act.changes)]
    return [(change.path, change.before, change.after) for change in act.changes]


def _step(folder: Path, steps: list[tuple[str, bytes | None, bytes | None]], outcome: Outcome, job: Job | None) -> None:
    for number, (name, expected, wanted) in enumerate(steps, 1):
        if job is not None:
            job.check()
        caption = folder / name
        current = _current(folder, name, outcome)
        if current == expected:
            _put(caption, wanted)
            outcome.changed.append(caption)
        elif current not in (wanted, _UNREADABLE):
            outcome.conflicts.append(Note(caption, _CONFLICT))
        if job is not None:
            job.progress(number, len(steps), name)


def _recover(folder: Path) -> dict[str, Outcome]:
    """Complete what a process that died, or a full disk, left half done; the outcomes by the state that was found."""
    ends = {"open": "done", "redoing": "done", "undoing": "undone"}
    outcomes = {}
    for path, state in _states(folder):
        if state in ends:
            act = _read(path)
            outcomes[state] = Outcome(act.id, act.title)
            _step(folder, _steps(act, state), outcomes[state], None)
            _append(path, [{"state": ends[state]}])
    return outcomes


def _begin(folder: Path, title: str, changes: list[Change]) -> Path:
    for path, state in _states(folder):
        if state == "undone":
            _append(path, [{"state": "dropped"}])
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    lines: list[dict[str, Any]] = [{"version": _VERSION, "title": title, "time": now}]
    acts = _act_files(folder)
    path = _history_folder(folder) / f"{int(acts[-1].stem) + 1 if acts else 1:06d}.jsonl"
    write_bytes(path, _lines(lines + [_change_to_json(change) for change in changes]))
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
        states = [str(line["state"]) for line in rest if "state" in line]
        return Act(int(path.stem), str(header["title"]), str(header["time"]), states[-1] if states else "open", changes)
    except OSError as error:
        raise InputError(f"The history {path} cannot be read: {error.strerror or error}.", "") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"The history file {path} is damaged ({error}).", "Move it away; the acts before it remain."
        ) from error


def _lines(lines: list[dict[str, Any]]) -> bytes:
    return b"".join(json.dumps(line).encode("ascii") + b"\n" for line in lines)


def _change_to_json(change: Change) -> dict[str, Any]:
    return {"path": change.path, "before": _bytes_to_json(change.before), "after": _bytes_to_json(change.after)}


def _change_from_json(line: dict[str, Any]) -> Change:
    return Change(_caption_name(line["path"]), _bytes_from_json(line["before"]), _bytes_from_json(line["after"]))


def _caption_name(name: str) -> str:
    """Refuse what would lead out of the folder, or to something that is no caption: the file may come from anywhere."""
    path = PurePosixPath(name)
    on_windows = os.name == "nt" and (":" in name or "\\" in name)
    if path.is_absolute() or ".." in path.parts or on_windows or path.suffix.lower() not in CAPTION_SUFFIXES:
        raise ValueError(f"it names {name}")
    return name


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
        return (folder / name).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        outcome.conflicts.append(Note(folder / name, f"It cannot be read: {error.strerror or error}."))
        return _UNREADABLE


def _put(caption: Path, content: bytes | None) -> None:
    if content is not None:
        write_bytes(caption, content)
        return
    try:
        caption.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"{caption} could not be removed: {error.strerror or error}.", "Close what uses it."
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
