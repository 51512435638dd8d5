"""Editing many captions at once, and taking it back."""

from __future__ import annotations

import dataclasses
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import ConflictError, Service
from lib_dsm.dataset.history import Outcome, history, redo, undo
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.pruning.character import character_tags
from lib_dsm.pruning.prune import Plan, PruneOptions, plan_prune

EXAMPLES = 5
ACTS = 50
NOTES = 200


def plan(service: Service, call: Call) -> Any:
    """What the `options` (where, remove, replace, add, …) would do to the captions of `folder`; nothing is written."""
    made = _plan(service, call)
    return {
        "changes": len(made.changes),
        "matched": made.matched,
        "title": made.title,
        "examples": made.examples(EXAMPLES),
        "notes": _notes(made),
    }


def apply(service: Service, call: Call) -> Any:
    """Do it, as one act that can be undone; where `expect` is given, only if it changes just so many captions."""
    made = _plan(service, call)
    expected = call.whole("expect", len(made.changes), 0, 10**9)
    if expected != len(made.changes):
        raise ConflictError(
            f"This would change {len(made.changes)} captions now, not {expected}.",
            "They were changed meanwhile; look again.",
        )
    return {**_tell(made.apply()), "notes": _notes(made)}


def propose(service: Service, call: Call) -> Any:
    """The tags of `folder` that probably describe the character itself, by kind."""
    found = character_tags(TagIndex.read(service.folder(call.text("folder"))))
    return {"proposals": [dataclasses.asdict(proposal) for proposal in found]}


def undo_last(service: Service, call: Call) -> Any:
    """Take the last act in `folder` back."""
    return _tell(undo(service.folder(call.text("folder"))))


def redo_last(service: Service, call: Call) -> Any:
    """Do the act undone last in `folder` once more."""
    return _tell(redo(service.folder(call.text("folder"))))


def list_acts(service: Service, call: Call) -> Any:
    """The last acts in `folder`, the newest first, and whether there is one to undo or to redo."""
    acts = history(service.folder(call.text("folder")))
    states = [act.state for act in acts]
    return {
        "undo": "done" in states,
        "redo": "undone" in states,
        "acts": [
            {"id": act.id, "title": act.title, "time": act.time, "state": act.state, "captions": len(act.changes)}
            for act in reversed(acts[-ACTS:])
        ],
    }


def _plan(service: Service, call: Call) -> Plan:
    wanted = options.from_json(PruneOptions, call.object("options"), "pruning")
    return plan_prune(service.folder(call.text("folder")), wanted)


def _notes(made: Plan) -> list[str]:
    return [f"{note.path.name}: {note.text}" for note in made.notes[:NOTES]]


def _tell(outcome: Outcome) -> dict[str, Any]:
    return {
        "title": outcome.title,
        "changed": len(outcome.changed),
        "conflicts": [f"{note.path.name}: {note.text}" for note in outcome.conflicts],
    }


ROUTES = (
    Route("POST", "prune/plan", plan),
    Route("POST", "prune/apply", apply),
    Route("GET", "prune/character", propose),
    Route("POST", "undo", undo_last),
    Route("POST", "redo", redo_last),
    Route("GET", "history", list_acts),
)
