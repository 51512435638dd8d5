"""Fetching a tagger when it is first needed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from lib_dsm.dataset.locks import try_lock
from lib_dsm.errors import Cancelled, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.registry import TaggerModel

_LARGE = 5_000_000  # bytes, from which on it matters that a download goes on where it was
_MEGABYTE = 1_000_000
_BLOCK = 1 << 20  # bytes
_RETRY_SECONDS = 0.2
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
            fetched = _fetch(where, url, promised, job)
            _demand_whole(fetched, promised.etag, where)
        except (Cancelled, ModelError):
            raise
        except Exception as error:  # the hub and the network under it report in many ways
            cause = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ModelError(
                f"The tagger {model.name} could not be downloaded ({cause}).",
                f"Connect to the internet, or put {' and '.join(model.files)} of {model.repository} into a folder "
                "and name that folder as the model.",
            ) from error
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


def _fetch(where: dict[str, Any], url: str, promised: Any, job: Job | None) -> Path:
    """Download one file into the hub's cache, the job showing how far it is.

    The hub's own function starts from the beginning after a stop, in its newer versions. So what is large is fetched
    through the half of it that goes on, and then put where the whole one finds it.
    """
    import huggingface_hub

    if not promised.size or promised.size < _LARGE or not (_SHA256.fullmatch(_bare(promised.etag))):
        return Path(huggingface_hub.hf_hub_download(**where))
    blobs = Path(where["cache_dir"]) / f"models--{where['repo_id'].replace('/', '--')}" / "blobs"
    blobs.mkdir(parents=True, exist_ok=True)
    blob = blobs / _bare(promised.etag)
    part = blob.with_suffix(".dsm-part")
    with _alone(blob.with_suffix(".dsm-lock"), where["filename"], job):
        if not blob.is_file():  # else another one fetched it meanwhile
            begun = part.stat().st_size if part.is_file() else 0
            if begun > promised.size:
                part.unlink()
            if begun != promised.size:
                _go_on(part, url, promised, where["filename"], job)
            _demand_whole(part, promised.etag, where)
            part.replace(blob)
    return Path(huggingface_hub.hf_hub_download(**where))


@contextlib.contextmanager
def _alone(path: Path, name: str, job: Job | None) -> Iterator[None]:
    """Be the only one, of all processes, who fetches this file meanwhile; the job may be stopped while it waits."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        while not try_lock(handle):
            if job is not None:
                job.progress(job.done, text=f"waiting for another download of {name}")
                job.check()
            time.sleep(_RETRY_SECONDS)
        yield
    finally:
        os.close(handle)


def _go_on(part: Path, url: str, promised: Any, name: str, job: Job | None) -> None:
    """Fetch what is missing of a file that was begun before, or all of it."""
    from huggingface_hub import file_download

    location = promised.location or url
    headers = _utils().build_hf_headers()
    if urlsplit(location).netloc != urlsplit(url).netloc:
        headers.pop("authorization", None)  # the token is for the hub, not for whoever stores its files
    with part.open("ab") as file, _without_bars():
        target: Any = _Watched(file, promised.size, name, job)
        file_download.http_get(location, target, resume_size=file.tell(), headers=headers, expected_size=promised.size)


class _Watched:
    """A file that is being downloaded: writing to it moves the job on, and ends where the job was stopped."""

    def __init__(self, file: BinaryIO, size: int, name: str, job: Job | None) -> None:
        self._file, self._size, self._label, self._job = file, size, name, job
        self.name = name

    def write(self, content: bytes) -> int:
        written = self._file.write(content)
        if self._job is not None:
            self._file.flush()
            done = self._file.tell()
            text = f"downloading {self._label}: {done / _MEGABYTE:.0f} of {self._size / _MEGABYTE:.0f} MB"
            self._job.data["download"] = {"done": done, "total": self._size}
            self._job.progress(self._job.done, text=text)
            self._job.check()
        return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """The hub's own progress bars are for a terminal; they are as before afterwards."""
    utils = _utils()
    hidden = utils.are_progress_bars_disabled()
    utils.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            utils.enable_progress_bars()


def _utils() -> Any:
    import huggingface_hub.utils

    return huggingface_hub.utils


def _bare(etag: str | None) -> str:
    return (etag or "").strip('"').lower()


def _demand_whole(path: Path, named: str | None, where: dict[str, Any]) -> None:
    """The hub names a large file by its SHA-256, a small one by git's hash of it; one that differs is thrown away."""
    etag = _bare(named)
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
            f"{where['filename']} of {where['repo_id']} came damaged: its content is not the one the hub names.",
            "Try again; the damaged file was deleted.",
        )
