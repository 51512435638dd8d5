"""Tagging: the taggers, tagging a folder or a picture, and trying options on the scores that are kept."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route, wrong
from lib_dsm.api.plain import plain
from lib_dsm.api.service import Service
from lib_dsm.dataset.listing import is_picture
from lib_dsm.errors import InputError, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.live import Live
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.registry import MODELS

PAGE = 60
LISTED = 50
TAGS = 2000
SHOWN = 40
_LOOKED_LATELY = 5.0  # seconds; a slider that is moved asks many times, and a large folder takes a tenth of one


def list_taggers(service: Service, call: Call) -> Any:
    """The known taggers with about what they weigh, their licences and balanced thresholds, and which are here."""
    from lib_dsm.tagging.download import cached_folder

    cache = service.host.folders.taggers
    rows = [
        {
            "name": model.name,
            "repository": model.repository,
            "revision": model.revision,
            "megabytes": model.megabytes or None,
            "licence": model.licence,
            "threshold": model.threshold,
            "character_threshold": model.character_threshold,
            "note": model.note,
            "here": cached_folder(model, cache) is not None,
        }
        for model in MODELS
    ]
    return {"taggers": rows, "loaded": len(service.shelf)}


def start_tagging(service: Service, call: Call) -> Any:
    """Tag the pictures of `folder` by the `options` in the background; with `dry_run` only say what would become."""
    folder, chosen = service.folder(call.text("folder")), _options(call)
    return {"job": tagging_job(service, folder, chosen, call.flag("dry_run"), call.text("tab", "tag")).id}


def start_looking(service: Service, call: Call) -> Any:
    """Let the taggers look at the pictures of `folder` in the background and keep their scores; nothing is written."""
    return {
        "job": looking_job(service, service.folder(call.text("folder")), _options(call), call.text("tab", "tag")).id
    }


def tagging_job(service: Service, folder: Path, chosen: TagOptions, dry_run: bool = False, tab: str = "tag") -> Job:
    """The job that tags a folder, shown by the host's own progress.

    Raises:
        ForbiddenError: something to be read or written there leads out of the opened folders.
    """
    from lib_dsm.tagging.run import tag_folder

    service.work_folder(folder, chosen.recursive)

    def work(job: Job) -> Any:
        job.data.update(tab=tab, kind="tag")
        changing = contextlib.nullcontext() if dry_run else service.indexes.changing(folder)
        with service.host.showing(job), changing:
            report = tag_folder(folder, chosen, service.host.folders.taggers, job, dry_run=dry_run, shelf=service.shelf)
        verb = "would change" if dry_run else "tagged"
        done = [change for change in report.changes if change.added or change.removed] if dry_run else report.written
        job.data["summary"] = f"{len(done)} {verb}, {len(report.skipped)} had a caption, {len(report.failed)} failed."
        job.data["problems"] = [f"{path.name}: {text}" for path, text in report.failed[:LISTED]]
        return report

    return service.host.jobs.start(f"Tagging {folder.name}", work, "pictures")


def looking_job(service: Service, folder: Path, chosen: TagOptions, tab: str = "tag") -> Job:
    """The job that lets the taggers look at a folder, shown by the host's own progress; see `tagging_job`."""
    from lib_dsm.tagging.run import score_folder

    service.work_folder(folder, chosen.recursive)

    def work(job: Job) -> Any:
        job.data.update(tab=tab, kind="look")
        with service.host.showing(job):
            report = score_folder(folder, chosen, service.host.folders.taggers, job, shelf=service.shelf)
        job.data["summary"] = f"{len(report.written)} looked at, {len(report.failed)} failed. No caption was written."
        job.data["problems"] = [f"{path.name}: {text}" for path, text in report.failed[:LISTED]]
        return report

    return service.host.jobs.start(f"Looking at {folder.name}", work, "pictures")


def try_options(service: Service, call: Call) -> Any:
    """What the `options` would write in `folder`, from the kept scores: every tag with its count; `fresh` rereads them.

    `missing` pictures have no scores yet, see `tag/look`; where there is nothing to try them on, `reason` says why.
    """
    chosen = _options(call)
    folder = service.folder(call.text("folder"))
    try:
        live = _live(service, folder, chosen, call.flag("fresh"))
    except (ModelError, InputError) as error:
        return {
            "pictures": 0,
            "missing": 0,
            "total": 0,
            "thresholds": None,
            "distinct": 0,
            "tags": [],
            "reason": str(error),
        }
    counts = live.counts(chosen)
    return plain(
        {
            "pictures": len(live.pictures),
            "missing": len(live.missing),
            "total": counts.total,
            "thresholds": counts.thresholds,
            "distinct": len(counts.tags),
            "tags": counts.tags[:TAGS],
            "reason": "",
        }
    )


def show_changes(service: Service, call: Call) -> Any:
    """A `page` of the pictures of `folder` with what the `options` would make of their captions."""
    chosen = _options(call)
    live = _live(service, service.folder(call.text("folder")), chosen)
    page, size = call.whole("page", 0, 0, 1_000_000), call.whole("size", 12, 1, PAGE)
    changes = live.changes(chosen, page * size, size)
    return plain(
        {
            "page": page,
            "pages": max(1, -(-len(live.pictures) // size)),
            "changes": [
                {
                    "path": change.picture,
                    "name": change.picture.name,
                    "stamp": str(change.picture.stat().st_mtime_ns),
                    "after": change.after,
                    "added": change.added,
                    "removed": change.removed,
                    "exists": change.exists,
                }
                for change in changes
            ],
        }
    )


def show_histogram(service: Service, call: Call) -> Any:
    """How the scores of a `tag` are spread over the pictures of `folder`, and the threshold that the `options` set."""
    chosen = _options(call)
    live = _live(service, service.folder(call.text("folder")), chosen)
    return plain(live.histogram(call.text("tag"), chosen))


def tag_one(service: Service, call: Call) -> Any:
    """One picture's tags, rating and scores: the one at `path` in an opened folder, or `picture` itself as base64."""
    from lib_dsm.tagging.run import tag_picture

    chosen = _options(call)
    cache = service.host.folders.taggers
    text = call.text("picture", "")
    if not text:
        path = service.path(call.text("path"))
        if not is_picture(path):
            raise InputError(f"{path.name} is no picture.", "Choose one from the list.")
        return _told(tag_picture(path, chosen, cache, service.shelf))
    try:
        content = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=True)
    except ValueError:  # binascii.Error is one
        raise wrong("picture", text, "a picture's file as base64") from None
    with tempfile.TemporaryDirectory(prefix="dsm-") as folder:
        path = Path(folder) / "picture"
        path.write_bytes(content)
        return _told(tag_picture(path, chosen, cache, service.shelf))


def unload(service: Service, call: Call) -> Any:
    """Let go of the taggers that were kept in memory."""
    return {"unloaded": service.shelf.clear()}


def _live(service: Service, folder: Path, chosen: TagOptions, fresh: bool = False) -> Live:
    service.work_folder(folder, chosen.recursive, within=_LOOKED_LATELY)
    return service.lives.of(folder, chosen, service.host.folders.taggers, fresh)


def _told(found: Any) -> Any:
    facts = dataclasses.asdict(found)
    for key in ("general", "character"):
        facts[key] = dict(list(facts[key].items())[:SHOWN])
    return plain(facts)


def _options(call: Call) -> TagOptions:
    return options.from_json(TagOptions, call.object("options", {}), "tagging")


ROUTES = (
    Route("GET", "taggers", list_taggers),
    Route("POST", "taggers/unload", unload),
    Route("POST", "tag", start_tagging),
    Route("POST", "tag/look", start_looking),
    Route("POST", "tag/try", try_options),
    Route("POST", "tag/changes", show_changes),
    Route("POST", "tag/histogram", show_histogram),
    Route("POST", "tag/picture", tag_one),
)
