"""The project: opening, making, filling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm.api.http import Call, Route, wrong
from lib_dsm.api.plain import plain
from lib_dsm.api.service import Service
from lib_dsm.dataset.listing import has_pictures, scan_names
from lib_dsm.dataset.project import CopyReport, Project, create_project, open_project
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job

LISTED_NOTES = 50


def open_folder(service: Service, call: Call) -> Any:
    """Open an existing folder as the project; from then on the routes may read and write in it."""
    return describe(open_project(service.open(_folder(call.text("path")))))


def new_folder(service: Service, call: Call) -> Any:
    """Make a project folder with IMGS, DATASET_IMGS and SET, and open it; what is there stays."""
    project = create_project(_folder(call.text("path")))
    return describe(Project(service.open(project.root)))


def show_project(service: Service, call: Call) -> Any:
    """The folders of an opened project, with what they hold."""
    return describe(Project(service.folder(call.text("path"))))


def fill_set(service: Service, call: Call) -> Any:
    """Copy the tagged pictures with their captions to SET, in the background."""
    project = Project(service.folder(call.text("path")))
    tab = call.text("tab", "dataset")

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


def _folder(text: str) -> Path:
    cleaned = text.strip().strip('"')
    if not cleaned:
        raise wrong("path", None, "a folder")
    try:
        path = Path(cleaned).expanduser()
    except RuntimeError:
        raise InputError(f'"{cleaned}" begins with a user who is not known here.', "Write the whole path.") from None
    if not path.is_absolute():
        raise InputError(
            f'"{cleaned}" is not a whole path.', "Write it from the start, such as /home/me/set or D:\\set."
        )
    return path


ROUTES = (
    Route("POST", "project/open", open_folder),
    Route("POST", "project/new", new_folder),
    Route("GET", "project", show_project),
    Route("POST", "project/fill-set", fill_set),
)
