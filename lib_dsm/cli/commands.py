"""What the commands do that set up and show; each returns its result as data and as text."""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.cli.flags import read_flags
from lib_dsm.cli.main import Result, logging_to
from lib_dsm.cli.progress import run_job
from lib_dsm.cli.telling import batch_result, data_of, lines_of, names_of
from lib_dsm.errors import InputError

if TYPE_CHECKING:
    from lib_dsm.cropping.plan import CropOptions


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


def clean(arguments: argparse.Namespace) -> Result:
    """What a set had better be without; what is asked for is moved aside."""
    from lib_dsm.cropping.cleaning import TOLD, CleanOptions, find_flaws, set_aside, to_set_aside
    from lib_dsm.dataset.acts import REMOVED
    from lib_dsm.dataset.listing import require_pictures

    folder = arguments.folder
    pictures = require_pictures(folder, arguments.recursive)
    chosen = read_flags(arguments, CleanOptions)
    flaws = run_job("Looking", "pictures", lambda job: find_flaws(pictures, chosen, job)).flaws
    names = {flaw.path: flaw.path.relative_to(folder).as_posix() for flaw in flaws}
    kinds = {kind for chosen in arguments.aside for kind in chosen}
    leaving, staying = ([names[path] for path in paths] for paths in to_set_aside(flaws, kinds))
    if len(leaving) == len(pictures):
        raise InputError(f"All pictures of {folder} would be set aside.", "Name fewer kinds, or other limits.")
    lines = [f"{names[flaw.path]}: {TOLD[flaw.kind]}. {flaw.text}" for flaw in flaws]
    lines += [f"{name} stays: a duplicate of it is set aside." for name in staying]
    lines.append(_worth_a_look(len(names), len(pictures)))
    moved = set_aside(folder, leaving) if leaving else None
    if moved is not None:
        verb = "was" if len(leaving) == 1 else "were"
        lines.append(f"{len(leaving)} {verb} set aside in {folder / REMOVED}; the command undo brings them back.")
    found = [{"picture": names[flaw.path], "kind": flaw.kind, "text": flaw.text} for flaw in flaws]
    return Result({"pictures": len(pictures), "flaws": found, "aside": leaving, "stay": staying}, "\n".join(lines))


def _worth_a_look(flawed: int, count: int) -> str:
    if not flawed:
        return "Nothing is wrong with the picture." if count == 1 else f"Nothing is wrong with the {count} pictures."
    return f"{flawed} of {count} picture{'s' * (count != 1)} {'is' if flawed == 1 else 'are'} worth a look."


def crop(arguments: argparse.Namespace) -> Result:
    """Crop a folder."""
    from lib_dsm.cropping.aside import take_back
    from lib_dsm.cropping.draft import left_unreviewed
    from lib_dsm.cropping.plan import LOOKING, CropOptions, CropPlan
    from lib_dsm.cropping.propose import plan_crops
    from lib_dsm.cropping.write import write_plan

    if arguments.undo:
        outcome = take_back(arguments.out)
        data = {"title": outcome.title, "moved": names_of(outcome.moved)}
        count = len(outcome.moved)
        return Result(data, f"{outcome.title}: {count} file{'s' * (count != 1)} moved.")
    if arguments.folder is None:
        raise InputError("There is no folder of pictures to crop.", "Name it: crop FOLDER --out FOLDER.")
    size = dict(zip(("width", "height"), arguments.size, strict=True)) if arguments.size else {}
    chosen = read_flags(arguments, CropOptions, **size)
    more = []
    if chosen.detector and (arguments.plan or chosen.mode not in LOOKING):
        why = "the plan has the frames" if arguments.plan else f"mode {chosen.mode} looks for nothing"
        more.append(f"The detector {chosen.detector} is not used: {why}.")
    else:
        chosen = _with_detector(chosen, arguments.data)
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
            {"plan": str(arguments.save_plan), "crops": len(plan.items), "failed": data_of(failed)},
            "\n".join([*lines_of(failed), *more, f"{len(plan.items)} crops are planned in {arguments.save_plan}."]),
        )
    report = run_job(
        "Cropping",
        "pictures",
        lambda job: write_plan(plan, arguments.folder, arguments.out, chosen, job, arguments.tidy),
    )
    unreviewed = left_unreviewed(plan)
    result = batch_result(report, "written", "were there", aside=names_of(report.aside), unreviewed=unreviewed)
    more += [f"{len(report.aside)} were moved aside."] if report.aside else []
    more += [f"{unreviewed} pictures are not confirmed; --accept-all writes them."] if unreviewed else []
    return Result(result.data, "\n".join([result.text, *more]), result.code)


def _with_detector(chosen: CropOptions, data: Path) -> CropOptions:
    """The options with the file of a detector that is meant by its name; it is fetched the first time."""
    from lib_dsm.cropping.known_detectors import DETECTORS, fetch_detector, find_known

    known = find_known(chosen.detector)
    if known is None:
        return chosen
    path = run_job(f"Fetching {known.name}", "", lambda job: fetch_detector(known, data / DETECTORS, job))
    return dataclasses.replace(chosen, detector=str(path))
