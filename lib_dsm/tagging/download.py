"""Fetching a tagger when it is first needed."""

from __future__ import annotations

from pathlib import Path

from lib_dsm import hub
from lib_dsm.hub import HubFile
from lib_dsm.jobs import Job
from lib_dsm.tagging.registry import TaggerModel


def model_folder(model: TaggerModel | Path, cache_dir: Path, job: Job | None = None) -> Path:
    """The folder that holds a tagger's files; those of a known one are downloaded to `cache_dir` unless they are there.

    Raises:
        ModelError, Cancelled: as `hub.fetch`.
    """
    if isinstance(model, Path):
        return model
    found = cached_folder(model, cache_dir)
    if found is not None:
        return found
    remedy = (
        f"Connect to the internet, or put {' and '.join(model.files)} of {model.repository} into a folder "
        "and name that folder as the model."
    )
    fetched = [hub.fetch(file, cache_dir, f"tagger {model.name}", remedy, job) for file in _files(model)]
    return fetched[-1].parent


def cached_folder(model: TaggerModel, cache_dir: Path) -> Path | None:
    """The folder of a tagger that was downloaded before, None where it is not whole; asks nobody."""
    found = [path for file in _files(model) if (path := hub.cached(file, cache_dir)) is not None]
    return found[-1].parent if len(found) == len(model.files) else None


def _files(model: TaggerModel) -> list[HubFile]:
    return [HubFile(model.repository, name, model.revision) for name in model.files]
