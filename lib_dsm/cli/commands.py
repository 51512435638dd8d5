"""What the commands do; each returns its result as data and as text."""

from __future__ import annotations

import argparse
import dataclasses
import json
import logging
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.cli.flags import read_flags
from lib_dsm.cli.main import FAILED, STOPPED, Result, logging_to
from lib_dsm.cli.progress import run_job
from lib_dsm.errors import InputError

if TYPE_CHECKING:
    from lib_dsm.cropping.write import CropReport
    from lib_dsm.dataset.history import Outcome
    from lib_dsm.dataset.notes import Note
    from lib_dsm.extraction.hypernetwork_lora import HypernetworkReport
    from lib_dsm.host.protocol import Host
    from lib_dsm.jobs import Job
    from lib_dsm.tagging.options import TagOptions
    from lib_dsm.tagging.writing import CaptionChange, TagReport
    from lib_dsm.training.config import RunConfig


def demo(arguments: argparse.Namespace) -> Result:
    """The whole way on the demo world, then the page with its result; or the proof."""
    from lib_dsm.cli.progress import Terminal
    from lib_dsm.demo.walk import STEPS, summary, walk

    if arguments.prove:
        return _prove(arguments.out.resolve() / "proof")
    with Terminal() as terminal:
        result = walk(arguments.out.resolve(), arguments.steps or STEPS, terminal.new_job)
    if arguments.no_serve:
        return Result(dataclasses.asdict(result), summary(result))
    print(summary(result), flush=True)
    arguments.data, arguments.project = arguments.out / "studio", result.project
    return studio(arguments)


def _prove(folder: Path) -> Result:
    from lib_dsm.demo.prove import prove

    proof = run_job("Proving", "steps", lambda job: prove(folder, job))
    return Result(
        dataclasses.asdict(proof), f"{proof.markdown()}\n\nTable: {proof.table}\nContact sheet: {proof.sheet}"
    )


def studio(arguments: argparse.Namespace) -> Result:
    """Serve the page until Ctrl-C; the terminal is its log."""
    from lib_dsm.dataset.listing import require_folder
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.ui.studio import serve

    project = arguments.project.resolve() if arguments.project else None
    if project is not None:
        require_folder(project)
    with logging_to(logging.StreamHandler()):
        serve(StudioHost(arguments.data), arguments.host, arguments.port, project, arguments.password)
    return Result({}, "")


def new(arguments: argparse.Namespace) -> Result:
    """Make a project folder."""
    from lib_dsm.dataset.project import create_project

    project = create_project(arguments.folder)
    return Result(
        {"project": str(project.root), "imgs": str(project.imgs)},
        f"{project.root} is ready. Put pictures into {project.imgs}.",
    )


def tag(arguments: argparse.Namespace) -> Result:
    """Tag a folder, or say what a tagger sees in one picture."""
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.tagging.options import TagOptions
    from lib_dsm.tagging.run import tag_folder

    chosen = read_flags(arguments, TagOptions)
    taggers = StudioHost(arguments.data).folders.taggers
    if arguments.folder.is_file():
        return _seen(arguments.folder, chosen, taggers)
    report = run_job(
        "Tagging",
        "pictures",
        lambda job: tag_folder(arguments.folder, chosen, taggers, job, dry_run=arguments.dry_run),
    )
    if not arguments.dry_run:
        return _batch(report, "tagged", "had a caption", act=report.act)
    changed = [change for change in report.changes if change.added or change.removed]
    changes = [
        {"picture": str(change.picture), "added": change.added, "removed": change.removed, "after": change.after}
        for change in changed
    ]
    told = _batch(report, "tagged", "had a caption", dry_run=True, changes=changes)
    lines = [f"{change.picture.name}: {_difference(change)}" for change in changed]
    would = f"{len(changed)} captions would change, {len(report.skipped)} had one, {len(report.failed)} failed."
    code = FAILED if report.failed and not report.changes and not report.skipped else 0
    return Result(told.data, "\n".join([*_lines([*report.failed, *_pairs(report.notes)]), *lines, would]), code)


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
    data = {"pictures": pictures, "tags": counts, "notes": _data(_pairs(index.notes))}
    return Result(data, "\n".join([*lines, *_lines(_pairs(index.problems))]))


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
        "notes": _data(_pairs(plan.notes)),
    }
    if recovered:
        data["recovered"] = recovered
    notes = [*recovered, *_lines(_pairs(plan.notes))]
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
        "notes": _data(_pairs(plan.notes)),
    }
    notes = _lines(_pairs(plan.notes))
    if arguments.dry_run:
        return Result({**data, "dry_run": True}, "\n".join([*notes, f"Would change {len(plan.changes)} captions."]))
    told = _told(run_job("Importing", "captions", plan.apply), "changed")
    return Result({**data, **told.data}, "\n".join([*notes, told.text]))


def crop(arguments: argparse.Namespace) -> Result:
    """Crop a folder."""
    from lib_dsm.cropping.aside import take_back
    from lib_dsm.cropping.draft import left_unreviewed
    from lib_dsm.cropping.plan import CropOptions, CropPlan
    from lib_dsm.cropping.propose import plan_crops
    from lib_dsm.cropping.write import write_plan

    if arguments.undo:
        outcome = take_back(arguments.out)
        data = {"title": outcome.title, "moved": _names(outcome.moved)}
        return Result(data, f"{outcome.title}: {len(outcome.moved)} files moved.")
    size = dict(zip(("width", "height"), arguments.size, strict=True)) if arguments.size else {}
    chosen = read_flags(arguments, CropOptions, **size)
    if arguments.plan:
        plan = CropPlan.load(arguments.plan)
        plan = plan.confirmed() if arguments.accept_all else plan
    else:
        hashes = bool(arguments.save_plan)
        plan = run_job(
            "Planning", "pictures", lambda job: plan_crops(arguments.folder, chosen, arguments.out, hashes, job)
        )
    if arguments.save_plan:
        plan.save(arguments.save_plan)
        failed = [(arguments.folder / note.source, note.text) for note in plan.notes]
        return Result(
            {"plan": str(arguments.save_plan), "crops": len(plan.items), "failed": _data(failed)},
            "\n".join([*_lines(failed), f"{len(plan.items)} crops are planned in {arguments.save_plan}."]),
        )
    report = run_job(
        "Cropping",
        "pictures",
        lambda job: write_plan(plan, arguments.folder, arguments.out, chosen, job, arguments.tidy),
    )
    unreviewed = left_unreviewed(plan)
    result = _batch(report, "written", "were there", aside=_names(report.aside), unreviewed=unreviewed)
    more = [f"{len(report.aside)} were moved aside."] if report.aside else []
    more += [f"{unreviewed} pictures are not confirmed; --accept-all writes them."] if unreviewed else []
    return Result(result.data, "\n".join([result.text, *more]), result.code)


def create(arguments: argparse.Namespace) -> Result:
    """An embedding that is not trained yet."""
    from lib_dsm.host.create import create_network

    config, host = _run(arguments, dataset="")  # the pictures have no part in it
    made = run_job(f"Creating {config.name}", "", lambda job: create_network(host, config, job))
    return Result(
        {"published": str(made.published), "files": _names(list(made.files)), "kept": _names(list(made.kept))},
        "\n".join(map(str, [*made.files, made.published])),
    )


def check(arguments: argparse.Namespace) -> Result:
    """The guards."""
    from lib_dsm.guards.finding import Severity
    from lib_dsm.host.run import examine_run

    config, host = _run(arguments)
    findings, passed = examine_run(host, config, arguments.resume)
    blocked = [item for item in findings if item.severity is Severity.BLOCK and item.id not in config.override]
    lines = []
    for item in findings:
        lines.append(f"[{item.severity.value}] {item.id}: {item.problem} {item.remedy}".rstrip())
        data = item.to_json()
        if data["apply"]:
            lines.append(f"    to apply it: {' '.join(_flag(*pair) for pair in data['apply'].items())}")
    lines.append(f"{len(passed)} checks passed." if findings else f"Nothing to object to; {len(passed)} checks passed.")
    return Result(
        {
            "findings": [item.to_json() for item in findings],
            "passed": [guard.ids[0] for guard in passed],
            "may_start": not blocked,
        },
        "\n".join(lines),
        FAILED if blocked else 0,
    )


def train(arguments: argparse.Namespace) -> Result:
    """Train to the end, or until Ctrl-C, which saves."""
    from lib_dsm.host.run import train as run_training

    config, host = _run(arguments)
    result = run_job(f"Training {config.name}", "steps", lambda job: run_training(host, config, job, arguments.resume))
    state = "Stopped" if result.stopped else "Finished"
    lines = [f"{state} after step {result.step}; the run is in {result.folder}.", *map(str, result.files)]
    return Result(
        {
            "folder": str(result.folder),
            "step": result.step,
            "stopped": result.stopped,
            "files": _names(result.files),
            "published": str(result.published) if result.published else None,
        },
        "\n".join(lines),
        STOPPED if result.stopped else 0,
    )


def tune(arguments: argparse.Namespace) -> Result:
    """Train every combination of some settings; Ctrl-C saves, and --resume goes on."""
    from lib_dsm.host.tune import table, tune

    config, host = _run(arguments)
    varied: dict[str, list[Any]] = {}
    for text in arguments.vary:
        key, sign, values = text.partition("=")
        if not sign:
            raise InputError(f'"{text}" is not of the form KEY=VALUE|VALUE.', "Write for example --vary vectors=4|16.")
        varied.setdefault(key.strip(), []).extend(_setting(f"{key}={value}")[1] for value in values.split("|"))
    made = run_job(f"Tuning {config.name}", "steps", lambda job: tune(host, config, varied, job, arguments.resume))
    lines = [table(made.rows), f"The grid is in {made.folder}."]
    if made.stopped:
        lines.append("Stopped; --resume goes on.")
    return Result(
        {"folder": str(made.folder), "trials": made.rows, "stopped": made.stopped},
        "\n".join(lines),
        STOPPED if made.stopped else FAILED if all(row["state"] == "failed" for row in made.rows) else 0,
    )


def extract_checkpoint(arguments: argparse.Namespace) -> Result:
    """The difference of two checkpoints as a LoRA, or what it would be."""
    from lib_dsm.extraction.about import About
    from lib_dsm.extraction.checkpoint import extract_checkpoint as extract
    from lib_dsm.extraction.options import ExtractionOptions
    from lib_dsm.extraction.survey import survey

    chosen = read_flags(arguments, ExtractionOptions)
    base, tuned = arguments.base, arguments.tuned
    if arguments.survey:
        found = run_job("Looking", "layers", lambda job: survey(base, tuned, chosen, job))
        outlooks = [*found.outlooks(chosen), found.outlook(chosen)]
        return Result(
            {"outlooks": [dataclasses.asdict(item) for item in outlooks]},
            "\n".join(f"{item.label:>22}: {item.bytes / 1e6:8.1f} MB, error {item.error:.1%}" for item in outlooks),
        )
    about = About(embeddings=tuple(arguments.embedding), made="extracted from two checkpoints")
    report = run_job("Extracting", "layers", lambda job: extract(base, tuned, arguments.out, chosen, job, about=about))
    return Result(
        {
            "file": str(report.path),
            "layers": len(report.modules),
            "error": report.error,
            "total_error": report.total_error,
            "left_out": [{"key": item.key, "reason": item.reason} for item in report.left_out],
        },
        report.text(),
    )


def extract_hypernetwork(arguments: argparse.Namespace) -> Result:
    """A hypernetwork as a LoRA; one that is not linear is fitted on captions."""
    from lib_dsm.extraction.about import About
    from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork as extract
    from lib_dsm.extraction.options import HypernetworkOptions
    from lib_dsm.host.capturing import captured_contexts

    chosen = read_flags(arguments, HypernetworkOptions)
    about = About(embeddings=tuple(arguments.embedding), made="made from a hypernetwork")

    def work(job: Job) -> HypernetworkReport:
        captured = captured_contexts(arguments.file, arguments.base, arguments.captions, job)
        return extract(arguments.file, arguments.base, arguments.out, chosen, captured, job, about)

    report = run_job("Extracting", "layers", work)
    data = {"file": str(report.path), "exact": report.exact, "fit": report.fit, "fits": report.fits,
            "lost": report.lost}  # fmt: skip
    return Result(data, report.text())


def edit_lora(arguments: argparse.Namespace) -> Result:
    """LoRA files of any tool, one or the sum of several, as the WebUI loads them."""
    from lib_dsm.extraction.about import About
    from lib_dsm.extraction.edit_lora import edit_lora as edit
    from lib_dsm.extraction.options import EditOptions

    chosen = read_flags(arguments, EditOptions)
    sources = [_weighted(path) for path in arguments.file]
    about = About(embeddings=tuple(arguments.embedding))
    report = run_job(
        "Writing", "modules", lambda job: edit(sources, arguments.out, chosen, job, arguments.text_encoder, about)
    )
    data = {"file": str(report.path), "modules": report.modules, "error": report.error, "pruned": report.pruned,
            "kept": report.kept, "embeddings": report.embeddings}  # fmt: skip
    return Result(data, report.text())


def _weighted(path: Path) -> tuple[Path, float]:
    name, sign, weight = str(path).rpartition("=")
    if not sign or path.exists():
        return path, 1.0
    try:
        return Path(name), float(weight)
    except ValueError:
        raise InputError(f'"{weight}" is no weight.', "Write for example mine.safetensors=0.7.") from None


def extract_embedding(arguments: argparse.Namespace) -> Result:
    """An embedding bundled in a LoRA file."""
    from lib_dsm.extraction.embedding_lora import embedding_to_lora

    made = embedding_to_lora(arguments.file, arguments.out, name=arguments.name, overwrite=arguments.overwrite)
    return Result(
        {"file": str(made.path), "name": made.name, "vectors": made.vectors, "prompt": made.prompt},
        f"{made.path} holds {made.name}. In a prompt: {made.prompt}",
    )


def inspect(arguments: argparse.Namespace) -> Result:
    """What a file is, or how far two LoRAs are apart."""
    from lib_dsm.networks.inspect import describe, describe_text

    if arguments.compare:
        from lib_dsm.extraction.edit_lora import compare

        apart = compare(arguments.file, arguments.compare)
        lines = [f"{len(apart.modules)} modules in both: distance {apart.distance:.3f}, cosine {apart.cosine:.3f}."]
        for names, file in ((apart.only_first, arguments.file), (apart.only_second, arguments.compare)):
            lines += [f"{len(names)} modules only in {file}."] if names else []
        return Result(dataclasses.asdict(apart), "\n".join(lines))
    found = describe(arguments.file)
    return Result(found, describe_text(found))


def _run(arguments: argparse.Namespace, **changes: Any) -> tuple[RunConfig, Host]:
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.training.config import read_config

    changes = {**dict(map(_setting, arguments.set)), **changes}
    return read_config(arguments.settings, changes), StudioHost(arguments.data)


def _setting(text: str) -> tuple[str, Any]:
    from lib_dsm import options
    from lib_dsm.training.config import RunConfig

    key, sign, value = text.partition("=")
    if not sign:
        raise InputError(f'"{text}" is not of the form KEY=VALUE.', "Write for example --set max_steps=500.")
    key = key.strip()
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    # A text that looks like a number stays as it was typed.
    spec = options.specs(RunConfig).get(key)
    typed = spec is not None and spec.type is str and isinstance(parsed, (int, float))
    return key, value.strip() if typed else parsed


def _flag(key: str, value: Any) -> str:
    """The flag by which `_setting` reads this value."""
    text = f"{key}={value}"
    if not isinstance(value, str) or _setting(text) != (key, value):
        text = f"{key}={json.dumps(value, ensure_ascii=False)}"
    return f"--set {shlex.quote(text)}"


def _batch(report: CropReport | TagReport, written: str, skipped: str, **more: Any) -> Result:
    """What was done to many pictures; failed only if nothing came of it."""
    lines = _lines([*report.failed, *_pairs(report.notes)])
    lines.append(f"{len(report.written)} {written}, {len(report.skipped)} {skipped}, {len(report.failed)} failed.")
    return Result(
        {
            "written": _names(report.written),
            "skipped": _names(report.skipped),
            "failed": _data(report.failed),
            "notes": _data(_pairs(report.notes)),
            **more,
        },
        "\n".join(lines),
        FAILED if report.failed and not report.written and not report.skipped else 0,
    )


def _told(outcome: Outcome, verb: str) -> Result:
    conflicts = [f"{note.path.name}: {note.text}" for note in outcome.conflicts]
    moved = f", {len(outcome.moved)} files moved" if outcome.moved else ""
    return Result(
        {"title": outcome.title, "changed": len(outcome.changed), "conflicts": conflicts},
        "\n".join([*outcome.recovered, *conflicts, f"{outcome.title}: {len(outcome.changed)} captions {verb}{moved}."]),
    )


def _pairs(notes: Iterable[Note]) -> list[tuple[Path, str]]:
    return [(note.path, note.text) for note in notes]


def _lines(told: Iterable[tuple[Path, str]]) -> list[str]:
    """Each sentence with its file's path, which most sentences name themselves."""
    return [text if str(path) in text else f"{path}: {text}" for path, text in told]


def _data(told: Iterable[tuple[Path, str]]) -> list[dict[str, str]]:
    return [{"path": str(path), "text": text} for path, text in told]


def _names(paths: list[Path]) -> list[str]:
    return [str(path) for path in paths]
