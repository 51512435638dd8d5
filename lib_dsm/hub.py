"""Fetching one file of a repository on the Hugging Face hub when it is first needed, in a way that can be stopped.

A mirror, a token and being offline are huggingface_hub's own settings (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

from lib_dsm.errors import Cancelled, ModelError
from lib_dsm.files import try_lock
from lib_dsm.jobs import Job

_LARGE = 5_000_000  # bytes, from which on it matters that a download goes on where it was
_MEGABYTE = 1_000_000
_BLOCK = 1 << 20  # bytes
_RETRY_SECONDS = 0.2
_SHA256, _GIT = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubFile:
    """A file of a repository at a branch, tag or commit; what a branch meant at the first download stays until the
    files are deleted."""

    repository: str
    name: str
    revision: str = "main"


def fetch(file: HubFile, cache_dir: Path, what: str, remedy: str, job: Job | None = None) -> Path:
    """The file's place in `cache_dir`; it is downloaded there unless it is there. A stopped download goes on later.

    `what` is how it is called in errors, such as "tagger wd14", and `remedy` says what to do where there is no network.

    Raises:
        ModelError: it is not there and cannot be downloaded, or what came is not what the hub promised.
        Cancelled: the job was stopped.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ModelError(
            f"The {what} cannot be downloaded: huggingface_hub is not installed.", "Install it."
        ) from error
    local = cached(file, cache_dir)
    if local is not None:
        return local
    if job is not None:
        job.check()
    where: dict[str, Any] = _where(file, cache_dir)
    try:
        # Asked for once beforehand: the download itself would knock for half a minute where there is no network.
        url = huggingface_hub.hf_hub_url(file.repository, file.name, revision=file.revision)
        promised = huggingface_hub.get_hf_file_metadata(url)
        if job is not None:
            size = f" ({promised.size / _MEGABYTE:.0f} MB)" if promised.size and promised.size > _MEGABYTE else ""
            job.say(f"Downloading {file.name} of {file.repository}{size} …")
        fetched = _fetch(where, url, promised, job)
        _demand_whole(fetched, promised.etag, where)
    except (Cancelled, ModelError):
        raise
    except Exception as error:  # the hub and the network under it report in many ways
        cause = str(error).strip().partition("\n")[0] or type(error).__name__
        raise ModelError(f"The {what} could not be downloaded ({cause}).", remedy) from error
    return fetched


def cached(file: HubFile, cache_dir: Path) -> Path | None:
    """The place of a file that was downloaded before, None where there is none; asks nobody."""
    try:
        import huggingface_hub

        return Path(huggingface_hub.hf_hub_download(**_where(file, cache_dir), local_files_only=True))
    except (ImportError, OSError):  # what it raises for a file that is not in the cache is one of these
        return None


def _where(file: HubFile, cache_dir: Path) -> dict[str, Any]:
    return {
        "repo_id": file.repository, "revision": file.revision, "filename": file.name, "cache_dir": str(cache_dir),
    }  # fmt: skip


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
