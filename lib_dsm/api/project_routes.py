"""The project: opening, making, filling."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lib_dsm.api.http import Call, Route, wrong
from lib_dsm.api.plain import plain
from lib_dsm.api.service import ForbiddenError, MissingError, Service
from lib_dsm.dataset.listing import has_pictures, list_pictures, scan_names
from lib_dsm.dataset.project import CopyReport, Project, create_project, open_project
from lib_dsm.errors import InputError
from lib_dsm.files import file_name, is_file
from lib_dsm.jobs import Job

LISTED_NOTES = 50
DEMO = "demo"  # the name of the project that is drawn


def open_folder(service: Service, call: Call) -> Any:
    """Open an existing folder as the project; from then on the routes may read and write in it.

    A name alone is looked for in the host's folder for projects.
    """
    project = open_project(service.open(_folder(call.text("path"), service.host.folders.projects)))

    def first() -> Path | None:
        pictures, _ = list_pictures(project.source_folder())
        return service.picture(str(pictures[0])) if pictures else None

    service.thumbnails.ahead(first)  # the Crop page begins with it
    return describe(project)


def new_folder(service: Service, call: Call) -> Any:
    """Make a project folder with IMGS, DATASET_IMGS and SET, and open it; what is there stays.

    A name alone makes it in the host's folder for projects.
    """
    project = create_project(_folder(call.text("path"), service.host.folders.projects))
    return describe(Project(service.open(project.root)))


def demo_project(service: Service, call: Call) -> Any:
    """Make a small project to try everything with, in the host's folder for projects, and open it.

    Its pictures are drawn here, and stay as they are where they have been drawn before.
    """
    from lib_dsm.demo.pictures import draw_pictures

    project = create_project(service.host.folders.projects / DEMO)
    draw_pictures(project, Job("Drawing the demo's pictures", "pictures"))
    return describe(Project(service.open(project.root)))


def show_project(service: Service, call: Call) -> Any:
    """The folders of an opened project, with what they hold."""
    return describe(Project(service.folder(call.text("path"))))


def take_picture(service: Service, call: Call) -> Any:
    """Copy a picture that the host generated, `picture`, into IMGS of the opened project `path`, byte by byte."""
    project = Project(service.folder(call.text("path")))
    source = Path(call.text("picture"))
    if not service.host.made_picture(source):
        raise ForbiddenError(f'"{source.name}" is no picture that was generated here.', "Generate it anew.")
    if not is_file(source):
        raise MissingError(f'There is no "{source}" any more.', "It may have been moved; add it from its folder.")
    report = CopyReport()
    taken = project.import_picture(source, source.name, report)
    return {"name": taken.name, "new": not report.same, "project": describe(project)}


def fill_set(service: Service, call: Call) -> Any:
    """Copy the tagged pictures with their captions to SET, in the background."""
    project = Project(service.folder(call.text("path")))
    tab = call.text("tab", "dataset")
    service.work_folder(project.tagging_folder())
    if os.path.lexists(project.set):
        service.work_folder(project.set)

    def work(job: Job) -> CopyReport:
        job.data["tab"] = tab
        return reported(job, project.fill_set(job), "SET")

    return {"job": service.host.jobs.start("Filling SET", work, "pictures").id}


def reported(job: Job, report: CopyReport, target: str) -> CopyReport:
    """Sum a copying act up in its job."""
    job.data["summary"] = f"{len(report.copied)} copied to {target}, {len(report.same)} were there already."
    job.data["problems"] = [f"{note.path.name}: {note.text}" for note in report.notes[:LISTED_NOTES]]
    return report


def describe(project: Project) -> dict[str, Any]:
    """The project as the page shows it."""
    folders = [_describe_folder(folder) for folder in (project.imgs, project.dataset_imgs, project.set)]
    if has_pictures(project.root):
        folders.insert(0, {**_describe_folder(project.root), "name": "Folder itself"})
    return plain(  # type: ignore[no-any-return]
        {
            "path": project.root,
            "name": project.root.name or str(project.root),
            "folders": folders,
            "crop": project.source_folder(),
            "cropped": project.dataset_imgs,
            "tag": project.tagging_folder(),
            "train": project.training_folder(),
        }
    )


def _describe_folder(folder: Path) -> dict[str, Any]:
    pictures, captions = scan_names(folder) if folder.is_dir() else ([], set())
    stems = {name[: name.rfind(".")] for name in captions}
    captioned = sum(name[: name.rfind(".")] in stems for name in pictures)
    return {"name": folder.name, "path": folder, "pictures": len(pictures), "captions": captioned}


def _folder(text: str, projects: Path) -> Path:
    cleaned = text.strip().strip('"')
    if not cleaned:
        raise wrong("path", None, "a folder")
    try:
        path = Path(cleaned).expanduser()
    except RuntimeError:
        raise InputError(f'"{cleaned}" begins with a user who is not known here.', "Write the whole path.") from None
    if not path.is_absolute() and "/" not in cleaned and "\\" not in cleaned and cleaned not in (".", ".."):
        path = projects / file_name(cleaned, "project's name")
    if not path.is_absolute():
        raise InputError(
            f'"{cleaned}" is not a whole path.', "Write it from the start, such as /home/me/set or D:\\set."
        )
    return path


ROUTES = (
    Route("POST", "project/open", open_folder),
    Route("POST", "project/new", new_folder),
    Route("POST", "project/demo", demo_project),
    Route("GET", "project", show_project),
    Route("POST", "project/take", take_picture),
    Route("POST", "project/fill-set", fill_set),
)
