"""What the commands on captions do: tagging, counting, pruning, the history; each returns data and text."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.cli.flags import read_flags
from lib_dsm.cli.main import FAILED, Result
from lib_dsm.cli.progress import run_job
from lib_dsm.cli.telling import batch_result, data_of, lines_of, pairs
from lib_dsm.errors import InputError
from lib_dsm.files import is_file

if TYPE_CHECKING:
    from lib_dsm.dataset.history import Outcome
    from lib_dsm.tagging.options import TagOptions
    from lib_dsm.tagging.writing import CaptionChange


def tag(arguments: argparse.Namespace) -> Result:
    """Tag a folder, or say what a tagger sees in one picture."""
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.tagging.options import TagOptions
    from lib_dsm.tagging.run import tag_folder

    chosen = read_flags(arguments, TagOptions)
    taggers = StudioHost(arguments.data).folders.taggers
    if is_file(arguments.folder):
        return _seen(arguments.folder, chosen, taggers)
    report = run_job(
        "Tagging",
        "pictures",
        lambda job: tag_folder(arguments.folder, chosen, taggers, job, dry_run=arguments.dry_run),
    )
    if not arguments.dry_run:
        return batch_result(report, "tagged", "had a caption", act=report.act)
    changed = [change for change in report.changes if change.added or change.removed]
    changes = [
        {"picture": str(change.picture), "added": change.added, "removed": change.removed, "after": change.after}
        for change in changed
    ]
    told = batch_result(report, "tagged", "had a caption", dry_run=True, changes=changes)
    lines = [f"{change.picture.name}: {_difference(change)}" for change in changed]
    would = f"{len(changed)} captions would change, {len(report.skipped)} had one, {len(report.failed)} failed."
    code = FAILED if report.failed and not report.changes and not report.skipped else 0
    return Result(told.data, "\n".join([*lines_of([*report.failed, *pairs(report.notes)]), *lines, would]), code)


def _difference(change: CaptionChange) -> str:
    return ", ".join([*(f"+{tag}" for tag in change.added), *(f"-{tag}" for tag in change.removed)])


def _seen(picture: Path, chosen: TagOptions, taggers: Path) -> Result:
    from lib_dsm.tagging.run import tag_picture

    found = tag_picture(picture, chosen, taggers)
    bars = [f"{score:6.3f} {'█' * round(20 * score):20} {name}" for name, score in found.scores.items()]
    rated = [f"Rating: {found.rating}"] if found.rating else []
    return Result(dataclasses.asdict(found), "\n".join([", ".join(found.tags), *rated, *bars]))


def tags(arguments: argparse.Namespace) -> Result:
    """Count tags."""
    from lib_dsm.dataset.tag_index import TagIndex
    from lib_dsm.pruning.query import parse

    means = parse(arguments.where)
    index = TagIndex.read(arguments.folder, arguments.recursive)
    pictures, counted = index.where(means)
    counts = {tag: count for tag, count in sorted(counted.items(), key=lambda item: -item[1]) if count}
    lines = [f"{count:6} {tag}" for tag, count in counts.items()] or ["There are no tags."]
    data = {"pictures": pictures, "tags": counts, "notes": data_of(pairs(index.notes))}
    return Result(data, "\n".join([*lines, *lines_of(pairs(index.problems))]))


def prune(arguments: argparse.Namespace) -> Result:
    """Edit many captions."""
    from lib_dsm.dataset.history import recover
    from lib_dsm.dataset.matching import literal
    from lib_dsm.dataset.tag_index import TagIndex
    from lib_dsm.pruning.character import PRESETS, preset_of, propose, replacement
    from lib_dsm.pruning.prune import PruneOptions, plan_prune
    from lib_dsm.pruning.query import parse

    chosen = read_flags(arguments, PruneOptions)
    recovered = recover(arguments.folder)
    index = TagIndex.read(arguments.folder, chosen.recursive)
    if arguments.character:
        preset = preset_of(arguments.preset) or PRESETS[0]
        within = index.mask(parse(chosen.where))
        found = [item.tag for item in propose(index, arguments.share / 100, preset, within) if item.chosen]
        if not found:
            raise InputError(f"No frequent tag in {arguments.folder} looks like the character's own.", "Name some.")
        if preset.replace:
            chosen = dataclasses.replace(chosen, replace=(*chosen.replace, *replacement(found, preset.replace)))
        else:
            chosen = dataclasses.replace(chosen, remove=(*chosen.remove, *map(literal, found)))
    plan = plan_prune(arguments.folder, chosen, index)
    data: dict[str, Any] = {
        "title": plan.title,
        "matched": plan.matched,
        "changes": len(plan.changes),
        "notes": data_of(pairs(plan.notes)),
    }
    if recovered:
        data["recovered"] = recovered
    notes = [*recovered, *lines_of(pairs(plan.notes))]
    if arguments.dry_run:
        would = f"Would change {len(plan.changes)} of {plan.matched} captions: {plan.title}."
        lines = [*notes, would, *plan.examples()]
        return Result({**data, "dry_run": True, "examples": plan.examples()}, "\n".join(lines))
    outcome = run_job("Pruning", "captions", plan.apply)
    told = _told(outcome, "changed")
    return Result({**data, **told.data}, "\n".join([*notes, told.text]))


def undo(arguments: argparse.Namespace) -> Result:
    """Take the last act back."""
    from lib_dsm.dataset.history import go_to
    from lib_dsm.dataset.history import undo as take_back

    if arguments.to is not None:
        outcomes = run_job("Undoing", "captions", lambda job: go_to(arguments.folder, arguments.to, job))
        told = [_told(outcome, "written") for outcome in outcomes]
        text = "\n".join(item.text for item in told) or f"Edit {arguments.to} is the last one already."
        return Result({"acts": [item.data for item in told]}, text)
    outcome = run_job("Undoing", "captions", lambda job: take_back(arguments.folder, job))
    return _told(outcome, "put back")


def redo(arguments: argparse.Namespace) -> Result:
    """Do the act undone last once more."""
    from lib_dsm.dataset.history import redo as do_again

    outcome = run_job("Redoing", "captions", lambda job: do_again(arguments.folder, job))
    return _told(outcome, "changed again")


def history(arguments: argparse.Namespace) -> Result:
    """The acts of a folder."""
    from lib_dsm.dataset.captions import caption_of
    from lib_dsm.dataset.history import read_act, recover, summaries

    recovered = recover(arguments.folder)
    if arguments.act is not None:
        act = read_act(arguments.folder, arguments.act)
        changes = [
            {
                "path": change.path,
                "before": caption_of(Path(), change.before).tags,
                "after": caption_of(Path(), change.after).tags,
            }
            for change in act.changes
        ]
        lines = [f"{item['path']}: {', '.join(item['before'])} -> {', '.join(item['after'])}" for item in changes]
        lines += [f"{move.path} -> {move.to}" for move in act.moves]
        moves = [{"path": move.path, "to": move.to} for move in act.moves]
        return Result({"title": act.title, "changes": changes, "moves": moves}, "\n".join([act.title, *lines]))
    acts = [
        {"id": act.id, "time": act.time, "title": act.title, "captions": act.captions, "state": act.state}
        for act in summaries(arguments.folder)
    ]
    lines = [
        f"{act['id']:4}  {str(act['time'])[:19]}  {act['captions']:5}  {act['state']:8}  {act['title']}" for act in acts
    ]
    return Result({"acts": acts, "recovered": recovered}, "\n".join([*recovered, *lines]) or "Nothing was edited yet.")


def metadata(arguments: argparse.Namespace) -> Result:
    """Captions out of kohya's metadata, or into it."""
    from lib_dsm.pruning.metadata import export_metadata, import_metadata

    if arguments.out:
        count = export_metadata(arguments.folder, arguments.out, not arguments.stems, arguments.recursive)
        return Result({"file": str(arguments.out), "captions": count}, f"{count} captions are in {arguments.out}.")
    plan = import_metadata(arguments.folder, arguments.source, arguments.recursive)
    data = {
        "changes": len(plan.changes),
        "same": plan.same,
        "missing": plan.missing,
        "notes": data_of(pairs(plan.notes)),
    }
    notes = lines_of(pairs(plan.notes))
    if arguments.dry_run:
        return Result({**data, "dry_run": True}, "\n".join([*notes, f"Would change {len(plan.changes)} captions."]))
    told = _told(run_job("Importing", "captions", plan.apply), "changed")
    return Result({**data, **told.data}, "\n".join([*notes, told.text]))


def _told(outcome: Outcome, verb: str) -> Result:
    conflicts = [f"{note.path.name}: {note.text}" for note in outcome.conflicts]
    moved = f", {len(outcome.moved)} files moved" if outcome.moved else ""
    return Result(
        {"title": outcome.title, "changed": len(outcome.changed), "conflicts": conflicts},
        "\n".join([*outcome.recovered, *conflicts, f"{outcome.title}: {len(outcome.changed)} captions {verb}{moved}."]),
    )
