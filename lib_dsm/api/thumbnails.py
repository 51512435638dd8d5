"""Thumbnails that were made lately, kept in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

from lib_dsm.dataset.pictures import thumbnail_bytes

LIMIT = 64 * 2**20  # bytes


class Thumbnails:
    """The thumbnails asked for last, `limit` bytes of them at most, known by the file, its time and size, and the side.

    May be asked by several threads at once.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[Path, int, int, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """The bytes kept at present."""
        return self._bytes

    def of(self, path: Path, side: int) -> bytes:
        """The thumbnail of a picture as a JPEG of at most `side` pixels a side.

        Raises:
            PictureError: it cannot be read.
            OSError: there is no such file.
        """
        facts = path.stat()
        key = path, facts.st_mtime_ns, facts.st_size, side
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        made = thumbnail_bytes(path, side)
        with self._lock:
            self._bytes += len(made) - len(self._kept.pop(key, b""))
            self._kept[key] = made
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return made


THUMBNAILS = Thumbnails()
"""Those of all pages."""
