"""Editing many captions at once: what it would do, doing it, and what is known of tags."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.history_routes import tell
from lib_dsm.api.http import Call, Route
from lib_dsm.api.plain import plain
from lib_dsm.api.service import ConflictError, Service
from lib_dsm.dataset import history
from lib_dsm.dataset.acts import REMOVED
from lib_dsm.dataset.removing import removals
from lib_dsm.errors import InputError
from lib_dsm.pruning import character
from lib_dsm.pruning.prune import Plan, PruneOptions, plan_prune, scope
from lib_dsm.pruning.query import parse
from lib_dsm.pruning.tables import KINDS, OTHER, begin_tables, load_tables, set_kind
from lib_dsm.pruning.tag_list import load_tag_list

EXAMPLES = 5
NOTES = 200
SUGGESTIONS = 12
TOLD_TAGS = 40


def plan(service: Service, call: Call) -> Any:
    """What the `options` (where, remove, replace, add, …) would do to the captions of `folder`; nothing is written."""
    made = _plan(service, call)
    gone, new = made.tags()
    return {
        "changes": len(made.changes),
        "matched": made.matched,
        "title": made.title,
        "examples": made.examples(EXAMPLES),
        "changed": [
            {"name": change.name, "path": str(change.picture), "before": change.before, "after": change.after}
            for change in made.changes[:EXAMPLES]
        ],
        "gone": dict(list(gone.items())[:TOLD_TAGS]),
        "new": dict(list(new.items())[:TOLD_TAGS]),
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
    with service.indexes.changing(made.folder):
        outcome = made.apply()
    return {**tell(outcome), "notes": _notes(made)}


def propose(service: Service, call: Call) -> Any:
    """The tags of `folder` that probably describe the character itself, by kind, with why, pictures and consequence.

    `preset` names what is looked for, `share` the percentage of the captions from which a tag is taken, `where` the
    captions that count.
    """
    folder = service.folder(call.text("folder"))
    index, _ = service.indexes.get(folder)
    tables = load_tables(service.host.folders.data)
    preset = character.preset_of(call.text("preset", character.PRESETS[0].name))
    if preset is None:
        names = ", ".join(item.name for item in character.PRESETS)
        raise InputError(f'There is no preset "{call.text("preset")}".', f"The presets are {names}.")
    within = index.mask(parse(call.text("where", "")))
    share = call.whole("share", 40, 1, 100) / 100
    found = character.propose(index, share, preset, within, tables)
    pruned = [item.tag for item in found if item.chosen]
    return plain(
        {
            "preset": preset,
            "presets": character.PRESETS,
            "captions": int((index.exists & within).sum()),
            "proposals": found,
            "consequence": character.consequence(index, pruned, within, tables),
        }
    )


def foresee(service: Service, call: Call) -> Any:
    """What will be learned as inherent and what stays promptable if the `tags` are pruned from `folder`."""
    index, _ = service.indexes.get(service.folder(call.text("folder")))
    within = index.mask(parse(call.text("where", "")))
    tables = load_tables(service.host.folders.data)
    return plain(character.consequence(index, call.texts("tags"), within, tables))


def common(service: Service, call: Call) -> Any:
    """The tags of the `pictures` of `folder`, or of those that `where` means, with how many of them have each."""
    index, _ = service.indexes.get(service.folder(call.text("folder")))
    rows = scope(index, parse(call.text("where", "")), call.texts("pictures", []))
    counts = {tag: count for tag, count in index.counts_in(rows).items() if count}
    ranked = sorted(counts.items(), key=lambda item: -item[1])
    return {"pictures": int(rows.sum()), "tags": [{"tag": tag, "count": count} for tag, count in ranked]}


def complete(service: Service, call: Call) -> Any:
    """The tags that `text` may become: from `folder` first, then from the lists of tags and their aliases."""
    folders = service.host.folders
    index, _ = service.indexes.get(service.folder(call.text("folder")))
    known = load_tag_list(load_tables(folders.data), folders.data, folders.taggers)
    return plain({"tags": known.suggest(index, call.text("text"), SUGGESTIONS)})


def kinds(service: Service, call: Call) -> Any:
    """The kinds of tags, and where the person's own table lies."""
    return {"kinds": [*KINDS, OTHER], "folder": str(service.host.folders.data)}


def change_kind(service: Service, call: Call) -> Any:
    """Have `tag` be of `kind` from now on, in the person's own table."""
    data = service.host.folders.data
    set_kind(data, call.text("tag"), call.text("kind"))
    return {"tag": call.text("tag"), "kind": load_tables(data).kinds.of(call.text("tag"))}


def edit_kinds(service: Service, call: Call) -> Any:
    """Make the person's own tables of kinds, synonyms and implications, if they are not there, and say where."""
    begin_tables(service.host.folders.data)
    return {"folder": str(service.host.folders.data)}


def remove_pictures(service: Service, call: Call) -> Any:
    """Take `pictures` with their captions out of `folder`, to a folder of its own there; it can be undone.

    A caption that several pictures share goes with the last of them.
    """
    folder = service.folder(call.text("folder"))
    index, _ = service.indexes.get(folder, now=True)
    leaving: dict[Path, list[Path]] = {}
    owners: dict[Path, int] = {}
    names = set(call.texts("pictures"))
    for name in sorted(names):
        row = index.rows.get(name)
        if row is None:
            raise InputError(f"There is no picture {name} in {folder}.", "Look at the list again.")
        caption = index.caption_path(row)
        leaving.setdefault(caption, []).append(index.picture(row))
        owners[caption] = len(index.owners[index.caption_name(row)])
    title = f"take {len(names)} picture{'s' * (len(names) != 1)} out of the set"
    with service.indexes.changing(folder):
        outcome = history.apply(folder, title, [], moves=removals(leaving, owners, folder))
    return {**tell(outcome), "folder": str(folder / REMOVED)}


def _plan(service: Service, call: Call) -> Plan:
    wanted = options.from_json(PruneOptions, call.object("options"), "pruning")
    folder = service.folder(call.text("folder"))
    index, _ = service.indexes.get(folder, wanted.recursive, now=True)
    return plan_prune(folder, wanted, index, load_tables(service.host.folders.data))


def _notes(made: Plan) -> list[str]:
    return [f"{note.path.name}: {note.text}" for note in made.notes[:NOTES]]


ROUTES = (
    Route("POST", "prune/plan", plan),
    Route("POST", "prune/apply", apply),
    Route("GET", "prune/character", propose),
    Route("POST", "prune/consequence", foresee),
    Route("POST", "prune/common", common),
    Route("GET", "prune/complete", complete),
    Route("GET", "prune/kinds", kinds),
    Route("PUT", "prune/kinds", change_kind),
    Route("POST", "prune/kinds", edit_kinds),
    Route("POST", "prune/remove-pictures", remove_pictures),
)
