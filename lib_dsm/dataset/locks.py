"""One writer at a time in a folder, across windows and processes."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from lib_dsm.errors import BusyError, StorageError
from lib_dsm.files import try_lock

METADATA_FOLDER = ".dsm"
_WAIT_SECONDS = 5.0
_RETRY_SECONDS = 0.05


@contextlib.contextmanager
def writing_in(folder: Path, wait: float = _WAIT_SECONDS) -> Iterator[None]:
    """Be the only one who changes captions in `folder` meanwhile. The system lets go of it when a process dies.

    Raises:
        BusyError: somebody else still had it after `wait` seconds.
        StorageError: the folder cannot be written to, or its `.dsm` leads elsewhere.
    """
    path = folder / METADATA_FOLDER / "lock"
    try:
        demand_own(folder)
        path.parent.mkdir(exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise StorageError(
            f"{folder} cannot be written to: {error.strerror or error}.", "Give yourself the right to write there."
        ) from error
    try:
        deadline = time.monotonic() + wait
        while not try_lock(handle):
            if time.monotonic() >= deadline:
                raise BusyError(
                    f"Another window or job is changing captions in {folder}.", "Wait until it has ended or stop it."
                )
            time.sleep(_RETRY_SECONDS)
        yield
    finally:
        os.close(handle)  # which gives the lock back


def demand_own(folder: Path) -> None:
    """See that what is kept in `.dsm` of a folder lies there itself.

    Raises:
        OSError: it cannot be looked into.
        StorageError: it, or something in it, is a link.
    """
    linked = next(own_links(folder), None)
    if linked is not None:
        raise StorageError(f"{linked} is a link; what is kept there must lie there itself.", "Remove the link.")


def own_links(folder: Path) -> Iterator[Path]:
    """`.dsm` of a folder, or what lies in it, where it is a link: it may have come with the folder, and lead anywhere.

    Pictures that were taken out of the set may be links, as they were in it.
    """
    metadata = folder / METADATA_FOLDER
    if metadata.is_symlink():
        yield metadata
        return
    for place in (metadata, metadata / "history"):
        if place.is_dir() and not place.is_symlink():
            yield from (path for path in place.iterdir() if path.is_symlink())
