"""Cropping: a plan to be looked at and changed in the page, saved as it goes, and writing what was confirmed."""

from __future__ import annotations

import dataclasses
import io
import os
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Bytes, Call, Route
from lib_dsm.api.service import ConflictError, Service
from lib_dsm.api.thumbnails import STAGE
from lib_dsm.cropping.aside import take_back
from lib_dsm.cropping.cleaning import CleanOptions, find_flaws, set_aside
from lib_dsm.cropping.colors import AUTO, parse_color
from lib_dsm.cropping.draft import DRAFT, Decision, Draft, left_unreviewed
from lib_dsm.cropping.known_detectors import DETECTORS, KNOWN, fetch_detector, find_known, here
from lib_dsm.cropping.plan import LOOKING, UNTOUCHED, CropItem, CropOptions, CropPlan, PlanPicture, stamp_of
from lib_dsm.cropping.propose import Proposer
from lib_dsm.cropping.render import render
from lib_dsm.cropping.tags import impossible_tags
from lib_dsm.cropping.write import CropReport, write_plan
from lib_dsm.dataset import history
from lib_dsm.dataset.acts import REMOVED
from lib_dsm.dataset.captions import caption_path
from lib_dsm.dataset.listing import list_pictures, require_pictures
from lib_dsm.dataset.locks import demand_own
from lib_dsm.dataset.one_sided import not_mirrored
from lib_dsm.dataset.pictures import Picture, may_be_transparent, picture_size, read_picture
from lib_dsm.dataset.project import Project
from lib_dsm.dataset.training_sizes import crop_box, lost_share, training_size
from lib_dsm.errors import DsmError, InputError, ModelError
from lib_dsm.files import inside
from lib_dsm.jobs import Job

LISTED = 50
_FARTHEST = 10**6


def show(service: Service, call: Call) -> Any:
    """The project's pictures with what is decided on each; the saved plan survives a reload and a crash."""
    project = _project(service, call)
    source, draft = _source(service, project), _draft(project)
    decided = draft.states()
    pictures, problems = [], [draft.note] if draft.note else []
    for path in list_pictures(source)[0] if source.is_dir() else ():
        try:
            service.demand_readable(path)
            width, height = picture_size(path)
        except DsmError as error:
            problems.append(str(error))
            continue
        facts = {"name": path.name, "path": str(path), "stamp": stamp_of(path), "width": width, "height": height}
        told = _told(decided[path.name]) if path.name in decided else {"state": UNTOUCHED, "items": [], "mark": ""}
        if path.name in decided and decided[path.name].picture.stamp not in ("", facts["stamp"]):
            told.update(state=UNTOUCHED, items=[])  # another picture by now
        pictures.append({**facts, **told})
    folder = service.host.folders.data / DETECTORS
    return {
        "folder": str(source),
        "out": str(project.dataset_imgs),
        "plan": str(draft.path),
        "pictures": pictures,
        "problems": problems,
        "detectors": _detectors(folder),
        "detector_folder": str(folder),
    }


def propose(service: Service, call: Call) -> Any:
    """The frames that `options` would give the project's pictures in `names`, or all; nothing is written or saved."""
    source = _source(service, _project(service, call))
    if source.is_dir():
        service.without_ways_out(source)
    chosen = _with_detector(service, _options(call))
    parse_color(chosen.color)
    names = set(call.texts("names", []))
    pictures, problems = [], []
    proposer = Proposer(chosen, service.thumbnails.picture)
    for path in list_pictures(source)[0] if source.is_dir() else ():
        if names and path.name not in names:
            continue
        try:
            proposal = proposer.propose(path, path.name)
        except DsmError as error:
            problems.append(str(error))
            continue
        facts = {"name": path.name, "path": str(path), "stamp": stamp_of(path), "notes": proposal.notes}
        items = [options.to_json(item) for item in proposal.items]
        pictures.append({**facts, "width": proposal.size[0], "height": proposal.size[1], "items": items})
    return {"folder": str(source), "pictures": pictures, "problems": problems}


def fetch(service: Service, call: Call) -> Any:
    """Fetch the known detector `name` in the background; the job's `detector` tells where it is."""
    known = find_known(call.text("name"))
    if known is None:
        raise InputError(f'There is no detector "{call.text("name")}".', "Choose one of the list.")
    folder = service.host.folders.data / DETECTORS

    def work(job: Job) -> Path:
        job.data["tab"] = "crop"
        path = fetch_detector(known, folder, job)
        job.data["detector"] = str(path)
        job.data["summary"] = f"{known.name} is here."
        return path

    return {"job": service.host.jobs.start(f"Fetching {known.name}", work, "").id}


def preview(service: Service, call: Call) -> Any:
    """What comes of the frame `box` of the picture `path`, padded with `color`: a PNG of at most `side` pixels a side.

    It is made from the picture as the page shows it, so its details are coarser than the finished crop's.
    """
    path = service.picture(call.text("path"))
    side = call.whole("side", 320, 16, 1024)
    box = _numbers(call.text("box"))
    shrunk = min(1.0, side / max(box[2] - box[0], box[3] - box[1], 1))
    width, height = (max(1, round(shrunk * (box[end] - box[end - 2]))) for end in (2, 3))
    item = CropItem(path.name, "free", box, width, height, call.text("color", AUTO))
    target = io.BytesIO()
    render(_shown(service, path), item).save(target, "PNG")
    return Bytes(target.getvalue(), "image/png")


def save(service: Service, call: Call) -> Any:
    """Save what was decided: `pictures` are objects with `source`, `state`, `stamp`, `items` and perhaps `mark`.

    A picture on which something else is saved than `mark` says, as from another window, is left as it is and told in
    `left`. `marks` are the new ones.
    """
    decided: list[PlanPicture] = []
    items: dict[str, list[CropItem]] = {}
    known: dict[str, str] = {}
    for value in call.objects("pictures"):
        frames, mark = value.pop("items", []), value.pop("mark", None)
        picture = options.from_json(PlanPicture, value, "decision")
        if not isinstance(frames, list):
            raise InputError(f'The frames of "{picture.source}" are no list.', "Give a list of items.")
        decided.append(picture)
        items[picture.source] = [options.from_json(CropItem, frame, "frame") for frame in frames]
        if mark is not None:
            known[picture.source] = str(mark)
    draft = _draft(_project(service, call))
    changed = draft.change(decided, items, known)
    due = changed.plan.due()
    return {
        "confirmed": len({item.source for item in due}),
        "crops": len(due),
        "marks": changed.marks,
        "left": [{"name": source, **_told(decision)} for source, decision in changed.left.items()],
        "note": draft.note,
    }


def write(service: Service, call: Call) -> Any:
    """Write the crops that are confirmed in the saved plan, or those in `plan`, to DATASET_IMGS in the background.

    Originals stay; crops that the saved plan no longer has are moved aside there.
    """
    project = _project(service, call)
    saved = not call.object("plan", {})
    given = _draft(project).load() if saved else options.from_json(CropPlan, call.object("plan"), "crop plan")
    chosen = _options(call)
    source, out = service.work_folder(project.source_folder(), recursive=True), _out(service, project)
    if saved and not given.pictures:
        raise InputError("Nothing is confirmed yet.", "Accept the frames of some pictures first.")
    plan = dataclasses.replace(given, notes=())
    if saved:
        there = {path.name for path in list_pictures(source)[0]}
        plan = dataclasses.replace(
            plan,
            items=tuple(item for item in plan.items if item.source in there),
            pictures=tuple(picture for picture in plan.pictures if picture.source in there),
        )
    for named in {source / item.source for item in plan.items}:  # a given plan's may lie where no list looks
        service.demand_readable(named)
        if named.name:
            service.demand_readable(caption_path(named))

    def work(job: Job) -> CropReport:
        job.data["tab"] = "crop"
        report = write_plan(plan, source, out, chosen, job, tidy=saved)
        unreviewed = left_unreviewed(plan)
        told = [
            f"{len(report.written)} written to {out.name}, {len(report.skipped)} were there already, "
            f"{len(report.failed)} failed."
        ]
        if report.aside:
            told.append(f"{len(report.aside)} that the plan no longer has were moved aside.")
        if unreviewed:
            told.append(f"{unreviewed} pictures have proposals that nobody has confirmed; they were not written.")
        job.data["summary"] = " ".join(told)
        said = [*(f"{path.name}: {text}" for path, text in report.failed)]
        job.data["problems"] = (said + [f"{note.path.name}: {note.text}" for note in report.notes])[:LISTED]
        return report

    return {"job": service.host.jobs.start(f"Cropping {source.name}", work, "pictures").id}


def undo(service: Service, call: Call) -> Any:
    """Take back what the last run wrote to DATASET_IMGS; what it had moved aside comes back. Nothing is deleted."""
    out = _out(service, _project(service, call))
    if not out.is_dir():
        raise InputError("There are no crops to take back.", "Write some first.")
    with service.indexes.changing(out):
        outcome = take_back(out)
    return {"title": outcome.title, "moved": len(outcome.moved)}


def judge(service: Service, call: Call) -> Any:
    """What the caption of the picture `name` says to its frames in `boxes`: the tags that each makes impossible, and
    those that a mirrored copy would contradict."""
    source = _source(service, _project(service, call))
    path = source / call.text("name")
    inside(path.parent, source)
    path = service.picture(str(path))
    size, tags = picture_size(path), service.caption(path).tags
    boxes = [options.from_json(CropItem, value, "frame") for value in call.objects("items")]
    drop = [impossible_tags(tags, _box(item), size, item.part) for item in boxes]
    return {"tags": tags, "drop": drop, "mirrored": not_mirrored(tags)}


def sizes(service: Service, call: Call) -> Any:
    """What variable-aspect training at `width` × `height` makes of the uncropped pictures: the size of each, the part
    that it keeps, and the share that it cuts away."""
    source = _source(service, _project(service, call))
    asked = call.whole("width", 512, 16, 8192), call.whole("height", 512, 16, 8192)
    step = call.whole("step", 64, 8, 64)
    pictures: dict[str, Any] = {}
    buckets: dict[tuple[int, int], list[float]] = {}
    small = 0
    for path in list_pictures(source)[0] if source.is_dir() else ():
        try:
            service.demand_readable(path)
            size = picture_size(path)
        except DsmError:
            continue
        target = training_size(size, asked, step, True, False)
        if target is None:
            small += 1
            pictures[path.name] = None
            continue
        lost = lost_share(size, target)
        buckets.setdefault(target, []).append(lost)
        pictures[path.name] = {"size": target, "box": crop_box(size, target), "lost": lost}
    told = [
        {"size": size, "pictures": len(lost), "mean": sum(lost) / len(lost), "most": max(lost)}
        for size, lost in sorted(buckets.items(), key=lambda item: (-len(item[1]), item[0]))
    ]
    return {"pictures": pictures, "buckets": told, "small": small}


def clean(service: Service, call: Call) -> Any:
    """Look for pictures that the set had better be without, in the background; the job's `flaws` tell what was found.

    `options` may hold the limits of what counts as what. Nothing is moved.
    """
    source = service.work_folder(_project(service, call).source_folder())
    chosen = options.from_json(CleanOptions, call.object("options", {}), "cleaning")
    pictures = require_pictures(source)

    def work(job: Job) -> int:
        found = find_flaws(pictures, chosen, job)
        job.data["flaws"] = [
            {
                "name": flaw.path.name, "path": str(flaw.path), "kind": flaw.kind, "text": flaw.text,
                "stamp": stamp_of(flaw.path), "like": str(flaw.like) if flaw.like else "",
                "size": found.sizes.get(flaw.path, (0, 0)),
            }
            for flaw in found.flaws
        ]  # fmt: skip
        return len(found.flaws)

    return {"job": service.host.jobs.start(f"Looking through {source.name}", work, "pictures").id}


def aside(service: Service, call: Call) -> Any:
    """Move the pictures `names` with their captions out of the project's pictures; nothing is deleted, and the act can
    be undone with `crop/back`."""
    source = _source(service, _project(service, call))
    with service.indexes.changing(source):
        outcome = set_aside(source, call.texts("names"))
    return {"title": outcome.title, "moved": len(outcome.moved), "folder": str(source / REMOVED), "act": outcome.act}


def bring_back(service: Service, call: Call) -> Any:
    """Undo the act `act` on the project's pictures, which `crop/aside` gave, unless there was another one since."""
    source = _source(service, _project(service, call))
    act = call.whole("act", 0, 1, 10**9)
    with service.indexes.changing(source):
        done = [one.id for one in history.summaries(source) if one.state == "done"]
        if done[-1:] != [act]:
            raise ConflictError(
                "Something else was changed in this folder since.", "Take it back in the history on the tab Prune."
            )
        outcome = history.undo(source)
    return {"title": outcome.title, "moved": len(outcome.moved)}


def _detectors(folder: Path) -> list[dict[str, Any]]:
    """The known detectors, with an empty path for one that is yet to be fetched, and those that a person put there."""
    known = [
        {
            "name": one.name, "finds": one.finds, "path": str(here(one, folder) or ""), "licence": one.licence,
            "megabytes": one.megabytes, "repository": one.file.repository,
        }
        for one in KNOWN
    ]  # fmt: skip
    return known + [{"name": path.name, "finds": "", "path": str(path)} for path in sorted(folder.glob("*.onnx"))]


def _numbers(text: str) -> tuple[int, int, int, int]:
    try:
        left, top, right, bottom = (int(part) for part in text.split(","))
    except ValueError:
        raise InputError(f'"{text}" is not a box.', "It is left, top, right, bottom in pixels.") from None
    if max(map(abs, (left, top, right, bottom))) > _FARTHEST:
        raise InputError(f"{_FARTHEST} pixels are the most that a frame may reach.", "Pull it smaller.")
    return left, top, right, bottom


def _project(service: Service, call: Call) -> Project:
    return Project(service.folder(call.text("project")))


def _source(service: Service, project: Project) -> Path:
    """Where the pictures to crop are; it need not exist yet, but leads nowhere else."""
    folder = project.source_folder()
    return service.folder(str(folder)) if folder.is_dir() else folder


def _out(service: Service, project: Project) -> Path:
    """Where the crops go; it need not exist yet, but neither it nor what lies there leads anywhere else."""
    folder = project.dataset_imgs
    return service.work_folder(folder, recursive=True) if os.path.lexists(folder) else folder


def _draft(project: Project) -> Draft:
    demand_own(project.root)
    return Draft(project.metadata / DRAFT)


def _options(call: Call) -> CropOptions:
    return options.from_json(CropOptions, call.object("options", {}), "cropping")


def _with_detector(service: Service, chosen: CropOptions) -> CropOptions:
    """The options with a detector's file, which must lie in their folder; a known one may be meant by its name."""
    if chosen.mode not in LOOKING or not chosen.detector:
        return chosen
    folder = service.host.folders.data / DETECTORS
    known = find_known(chosen.detector)
    if known is None:
        inside(Path(chosen.detector), folder)
        return chosen
    path = here(known, folder)
    if path is None:
        raise ModelError(f"The detector {known.name} is not here yet.", "Fetch it with crop/detector first.")
    return dataclasses.replace(chosen, detector=str(path))


def _told(decision: Decision) -> dict[str, Any]:
    items = [options.to_json(item) for item in decision.items]
    return {"state": decision.picture.state, "items": items, "mark": decision.mark}


def _shown(service: Service, path: Path) -> Picture:
    """A picture as it is shown, from what is kept of it where it has no transparency."""
    if may_be_transparent(path):
        return read_picture(path, max_side=STAGE, flatten=False)
    return service.thumbnails.picture(path)


def _box(item: CropItem) -> tuple[int, int, int, int]:
    if len(item.box) != 4:
        raise InputError(f"The box {list(item.box)} is not a box.", "It is left, top, right, bottom in pixels.")
    left, top, right, bottom = item.box
    return left, top, right, bottom


ROUTES = (
    Route("POST", "crop/open", show),
    Route("POST", "crop/propose", propose),
    Route("POST", "crop/detector", fetch),
    Route("GET", "crop/preview", preview),
    Route("POST", "crop/save", save),
    Route("POST", "crop/judge", judge),
    Route("POST", "crop/sizes", sizes),
    Route("POST", "crop/write", write),
    Route("POST", "crop/undo", undo),
    Route("POST", "crop/clean", clean),
    Route("POST", "crop/aside", aside),
    Route("POST", "crop/back", bring_back),
)
