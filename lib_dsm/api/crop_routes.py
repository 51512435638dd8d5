"""Cropping: proposals to be looked at and changed in the page, and writing what was decided."""

from __future__ import annotations

from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import Service
from lib_dsm.cropping.colors import parse_color
from lib_dsm.cropping.plan import CropOptions, CropPlan, plan_picture
from lib_dsm.cropping.write import CropReport, write_plan
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.pictures import picture_size
from lib_dsm.dataset.project import Project
from lib_dsm.errors import DsmError
from lib_dsm.jobs import Job

LISTED = 50


def propose(service: Service, call: Call) -> Any:
    """The frames that `options` would give the project's pictures, or those in `names`; nothing is written."""
    source = Project(service.folder(call.text("project"))).source_folder()
    chosen = _options(call)
    parse_color(chosen.color)
    names = set(call.texts("names", []))
    pictures, problems = [], []
    for path in list_pictures(source)[0] if source.is_dir() else ():
        if names and path.name not in names:
            continue
        try:
            size = picture_size(path)
        except DsmError as error:
            problems.append(str(error))
            continue
        items = [options.to_json(item) for item in plan_picture(path.name, size, chosen)]
        facts = {"name": path.name, "path": str(path), "stamp": str(path.stat().st_mtime_ns)}
        pictures.append({**facts, "width": size[0], "height": size[1], "items": items})
    return {"folder": str(source), "pictures": pictures, "problems": problems}


def write(service: Service, call: Call) -> Any:
    """Write the crops in `plan` to DATASET_IMGS in the background; originals stay, nothing is overwritten."""
    project = Project(service.folder(call.text("project")))
    plan = options.from_json(CropPlan, call.object("plan"), "crop plan")
    chosen = _options(call)
    source, out = project.source_folder(), project.dataset_imgs

    def work(job: Job) -> CropReport:
        job.data["tab"] = "crop"
        report = write_plan(plan, source, out, chosen, job)
        job.data["summary"] = (
            f"{len(report.written)} written to {out.name}, {len(report.skipped)} were there already, "
            f"{len(report.failed)} failed."
        )
        said = [*(f"{path.name}: {text}" for path, text in report.failed)]
        job.data["problems"] = (said + [f"{note.path.name}: {note.text}" for note in report.notes])[:LISTED]
        return report

    return {"job": service.host.jobs.start(f"Cropping {source.name}", work, "pictures").id}


def _options(call: Call) -> CropOptions:
    return options.from_json(CropOptions, call.object("options", {}), "cropping")


ROUTES = (Route("POST", "crop/propose", propose), Route("POST", "crop/write", write))
