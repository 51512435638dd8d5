"""Fetching a tagger when it is first needed."""

from __future__ import annotations

import hashlib
import inspect
import re
import threading
from pathlib import Path
from typing import Any

from lib_dsm.errors import Cancelled, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.registry import TaggerModel

_LOOK = 0.2  # seconds between two looks at how far a download is
_MEGABYTE = 1_000_000
_BLOCK = 1 << 20  # bytes
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def model_folder(model: TaggerModel | Path, cache_dir: Path, job: Job | None = None) -> Path:
    """The folder that holds a tagger's files; those of a known one are downloaded to `cache_dir` unless they are there.

    A mirror, a token and being offline are huggingface_hub's own settings (`HF_ENDPOINT`, `HF_TOKEN`,
    `HF_HUB_OFFLINE`). A download that was stopped goes on where it was.

    Raises:
        ModelError: they are not there and cannot be downloaded, or what came is not what the hub promised.
        Cancelled: the job was stopped.
    """
    if isinstance(model, Path):
        return model
    found = cached_folder(model, cache_dir)
    if found is not None:
        return found
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError(
            f"The tagger {model.name} cannot be downloaded: huggingface_hub is not installed.", "Install it."
        ) from error
    fetched = Path()
    for name in model.files:
        where: dict[str, Any] = {"repo_id": model.repository, "revision": model.revision, "filename": name}
        where["cache_dir"] = str(cache_dir)
        local = _cached(where)
        if local is not None:
            fetched = local
            continue
        if job is not None:
            job.check()
        try:
            # Asked for once beforehand: the download itself would knock for half a minute where there is no network.
            url = huggingface_hub.hf_hub_url(model.repository, name, revision=model.revision)
            promised = huggingface_hub.get_hf_file_metadata(url)
            if job is not None:
                size = f" ({promised.size / _MEGABYTE:.0f} MB)" if promised.size and promised.size > _MEGABYTE else ""
                job.say(f"Downloading {name} of {model.repository}{size} …")
            fetched = _fetch(where, promised.size or 0, job)
        except Cancelled:
            raise
        except Exception as error:  # the hub and the network under it report in many ways
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(
                f"The tagger {model.name} could not be downloaded ({cause}).",
                f"Connect to the internet, or put {' and '.join(model.files)} of {model.repository} into a folder "
                "and name that folder as the model.",
            ) from error
        _demand_whole(fetched, promised.etag or "", model)
    return fetched.parent


def cached_folder(model: TaggerModel, cache_dir: Path) -> Path | None:
    """The folder of a tagger that was downloaded before, None where it is not whole; asks nobody."""
    fetched = Path()
    for name in model.files:
        where = {"repo_id": model.repository, "revision": model.revision, "filename": name}
        found = _cached({**where, "cache_dir": str(cache_dir)})
        if found is None:
            return None
        fetched = found
    return fetched.parent


def _cached(where: dict[str, Any]) -> Path | None:
    try:
        import huggingface_hub

        return Path(huggingface_hub.hf_hub_download(**where, local_files_only=True))
    except (ImportError, OSError):  # what it raises for a file that is not in the cache is one of these
        return None


def _fetch(where: dict[str, Any], size: int, job: Job | None) -> Path:
    """Download one file, the job showing how far it is; a stop leaves what came for the next time."""
    import huggingface_hub

    stopped = threading.Event()
    outcome: dict[str, Any] = {}
    options = dict(where)
    if "tqdm_class" in inspect.signature(huggingface_hub.hf_hub_download).parameters:
        options["tqdm_class"] = _quiet_bar(stopped)

    def work() -> None:
        try:
            outcome["path"] = Path(huggingface_hub.hf_hub_download(**options))
        except BaseException as error:  # handed to whoever waits
            outcome["error"] = error

    thread = threading.Thread(target=work, name="dsm-download", daemon=True)
    thread.start()
    blobs = Path(where["cache_dir"]) / ("models--" + where["repo_id"].replace("/", "--")) / "blobs"
    while thread.is_alive():
        thread.join(_LOOK)
        if job is None:
            continue
        if job.cancel_requested:
            stopped.set()
            job.check()
        parts = [path.stat().st_size for path in blobs.glob("*.incomplete") if path.exists()]
        if parts and size:
            text = f"downloading {where['filename']}: {max(parts) / _MEGABYTE:.0f} of {size / _MEGABYTE:.0f} MB"
            job.progress(job.done, text=text)
            job.data["download"] = {"done": max(parts), "total": size}
    if job is not None:
        job.data.pop("download", None)
    if "error" in outcome:
        raise outcome["error"]
    path: Path = outcome["path"]
    return path


def _quiet_bar(stopped: threading.Event) -> type:
    """A progress bar that shows nothing, and ends the download when it is to stop."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped, unused-ignore]

    class Quiet(tqdm):  # type: ignore[type-arg, misc, unused-ignore]
        def __init__(self, *values: Any, **named: Any) -> None:
            named.pop("name", None)
            super().__init__(*values, **{**named, "disable": True})

        def update(self, n: float | None = 1) -> bool | None:
            if stopped.is_set():
                raise Cancelled()
            moved: bool | None = super().update(n)
            return moved

    return Quiet


def _demand_whole(path: Path, etag: str, model: TaggerModel) -> None:
    """The hub names a large file by its SHA-256, a small one by git's hash of it; one that differs is thrown away."""
    etag = etag.strip('"').lower()
    if _SHA256.fullmatch(etag):
        digest = hashlib.sha256()
    elif _GIT.fullmatch(etag):
        digest = hashlib.sha1(f"blob {path.stat().st_size}\0".encode())
    else:
        return  # a mirror that names files in its own way
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    if digest.hexdigest() != etag:
        blob = path.resolve()
        path.unlink(missing_ok=True)
        blob.unlink(missing_ok=True)
        raise ModelError(
            f"{path.name} of {model.repository} came damaged: its content is not the one the hub names.",
            "Try again; the damaged file was deleted.",
        )
