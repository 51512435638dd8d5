"""What was done to captions, of a folder or of a whole project, taking it back and doing it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import Service
from lib_dsm.dataset import history, project_history
from lib_dsm.dataset.captions import caption_of, split_tags
from lib_dsm.dataset.history import Outcome
from lib_dsm.dataset.project_history import Entry
from lib_dsm.errors import InputError

ACTS = 200
EXAMPLES = 12


def undo_last(service: Service, call: Call) -> Any:
    """Take the last act in `folder`, or in the whole `project`, back."""
    root, whole = _place(service, call)
    with service.indexes.changing(root):
        outcome = project_history.undo(root) if whole else history.undo(root)
    return _done([outcome])


def redo_last(service: Service, call: Call) -> Any:
    """Do the act undone last in `folder`, or in the whole `project`, once more."""
    root, whole = _place(service, call)
    with service.indexes.changing(root):
        outcome = project_history.redo(root) if whole else history.redo(root)
    return _done([outcome])


def go_to(service: Service, call: Call) -> Any:
    """Undo and redo in `project` until the act `act` of `folder` is the last one that is done; 0: until none is."""
    root = _project(service, call.text("project"))
    act = call.whole("act", 0, 0, 10**9)
    folder = service.folder(call.text("folder")) if act else None
    with service.indexes.changing(root):
        outcomes = project_history.go_to(root, folder, act)
    return _done(outcomes)


def list_acts(service: Service, call: Call) -> Any:
    """The last acts in `folder` or `project`, the newest first, and whether there is one to undo or to redo.

    What a program that was killed left half done is completed first; `recovered` says which state that is.
    """
    root, whole = _place(service, call)
    recovered = project_history.recover(root) if whole else history.recover(root)
    entries = project_history.entries(root) if whole else [Entry(root, act) for act in history.summaries(root)]
    states = [entry.act.state for entry in entries]
    return {
        "undo": "done" in states,
        "redo": "undone" in states,
        "recovered": recovered,
        "acts": [_describe(entry) for entry in reversed(entries[-ACTS:])],
    }


def show_act(service: Service, call: Call) -> Any:
    """Some of the changes of the act `act` of `folder`: each caption's tags before and after."""
    folder = service.folder(call.text("folder"))
    act = history.read_act(folder, call.whole("act", 0, 1, 10**9))
    return {
        "title": act.title,
        "captions": len(act.changes),
        "changes": [
            {"name": change.path, "before": _tags(change.before), "after": _tags(change.after)}
            for change in act.changes[:EXAMPLES]
        ],
        "moves": [{"from": move.path, "to": move.to} for move in act.moves[:EXAMPLES]],
    }


def tell(outcome: Outcome) -> dict[str, Any]:
    """What an act did, for the page."""
    return {
        "title": outcome.title,
        "changed": len(outcome.changed),
        "moved": len(outcome.moved),
        "conflicts": [f"{note.path.name}: {note.text}" for note in outcome.conflicts],
        "recovered": outcome.recovered,
    }


def _describe(entry: Entry) -> dict[str, Any]:
    act = entry.act
    return {
        "id": act.id, "title": act.title, "time": act.time, "state": act.state, "captions": act.captions,
        "moved": act.moved, "recovered": act.recovered, "folder": str(entry.folder), "where": entry.folder.name,
    }  # fmt: skip


def _place(service: Service, call: Call) -> tuple[Path, bool]:
    project = call.text("project", "")
    return (_project(service, project), True) if project else (service.folder(call.text("folder")), False)


def _project(service: Service, text: str) -> Path:
    """A project whose folders all are open, since an act may be in any of them."""
    root = service.folder(text)
    for folder in project_history.folders(root):
        service.folder(str(folder))
    return root


def _done(outcomes: list[Outcome]) -> dict[str, Any]:
    told = [tell(outcome) for outcome in outcomes]
    return {
        "title": told[0]["title"] if len(told) == 1 else f"{len(told)} edits",
        "changed": sum(item["changed"] for item in told),
        "moved": sum(item["moved"] for item in told),
        "conflicts": [text for item in told for text in item["conflicts"]],
        "recovered": [text for item in told for text in item["recovered"]],
    }


def _tags(raw: bytes | None) -> list[str] | None:
    if raw is None:
        return None
    try:
        return caption_of(Path(), raw).tags
    except InputError:
        return split_tags(raw.decode("utf-8", errors="replace"))


ROUTES = (
    Route("POST", "undo", undo_last),
    Route("POST", "redo", redo_last),
    Route("GET", "history", list_acts),
    Route("POST", "history/go", go_to),
    Route("GET", "history/act", show_act),
)
