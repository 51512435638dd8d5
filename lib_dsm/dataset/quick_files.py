"""Reading and writing very many small files, where a path object and a flush for each would cost more than the file."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from lib_dsm.files import READING, write_bytes

_CAN_FLUSH_ALL = hasattr(os, "sync")
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
_BLOCK = 1 << 16


def read_bytes(path: str) -> bytes:
    """A file's bytes.

    Raises:
        OSError: there is no such file, or it cannot be read.
    """
    handle = os.open(path, READING)
    try:
        content = os.read(handle, _BLOCK)
        while len(content) >= _BLOCK and (more := os.read(handle, _BLOCK)):
            content += more
            if len(more) < _BLOCK:
                break
        return content
    finally:
        os.close(handle)


def flush_all() -> None:
    """Have the system bring to the disk whatever was written."""
    if _CAN_FLUSH_ALL:
        os.sync()


class Put:
    """Writes files, or removes them, each at once in the place of the old one, whose permissions it keeps.

    `flushed`: each is on the disk when the call returns. Without it `flush_all` must follow, and until then only the
    order of things is certain: whoever reads a file meanwhile sees the old content or the new one.
    """

    def __init__(self, flushed: bool) -> None:
        self.flushed = flushed or not _CAN_FLUSH_ALL
        self._numbers = itertools.count()
        self._usual_mode: int | None = None

    def __call__(self, path: Path, content: bytes | None) -> None:
        """Give `path` the content; None removes it.

        Raises:
            StorageError, OSError: the disk does not take it; `path` is as it was.
        """
        if content is None:
            path.unlink(missing_ok=True)
        elif self.flushed:
            write_bytes(path, content)
        else:
            self._write(str(path), content)

    def _write(self, path: str, content: bytes) -> None:
        folder = path[: path.rfind(os.sep) + 1]
        temporary = f"{folder}.dsm-{os.getpid()}-{next(self._numbers)}.part"
        handle = os.open(temporary, _NEW, 0o666)
        try:
            try:
                self._keep_mode(path, temporary, handle)
                written = os.write(handle, content)
                while written < len(content):
                    written += os.write(handle, content[written:])
            finally:
                os.close(handle)
            os.replace(temporary, path)  # noqa: PTH105 - a path object each would cost more than the renaming
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _keep_mode(self, path: str, temporary: str, handle: int) -> None:
        try:
            mode = os.stat(path).st_mode & 0o7777  # noqa: PTH116
        except FileNotFoundError:
            return
        if self._usual_mode is None:
            self._usual_mode = os.fstat(handle).st_mode & 0o7777
        if mode != self._usual_mode:
            os.chmod(temporary, mode)  # noqa: PTH101
