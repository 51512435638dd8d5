"""Thumbnails that were made lately, kept in memory; a large picture is decoded once for all that show it."""

from __future__ import annotations

import io
import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import nullcontext, suppress
from pathlib import Path

from PIL import Image

from lib_dsm.dataset.pictures import Picture, picture_size, thumbnail_bytes
from lib_dsm.errors import DsmError

LIMIT = 64 * 2**20  # bytes
STAGE = 1400
"""Pixels of a picture's longer side as the Crop page first shows it; the same as in dsm_crop_stage.js, so that one is
made for both."""

_SHRINK_WHILE_READ = (".jpg", ".jpeg")  # these are decoded small in a part of the time
_LARGE = 4_000_000  # pixels, from which on it matters that others are decoded once
_TURNS = 16
_Key = tuple[Path, int, int]  # a file with its time and size


class Thumbnails:
    """The thumbnails asked for last, `limit` bytes of them at most, known by the file, its time and size, and the side.

    May be asked by several threads at once; those that want the same picture wait for one another.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._kept: OrderedDict[tuple[_Key, int], bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()
        self._turns = tuple(threading.Lock() for _ in range(_TURNS))
        # One core is left to answer what takes no time, such as the list of the pictures.
        self._large = threading.Semaphore(max(1, (os.cpu_count() or 1) - 1))

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
        key = path, facts.st_mtime_ns, facts.st_size
        found = self._find(key, side)
        if found is not None:
            return found
        with self._turns[hash(path) % _TURNS]:
            found = self._find(key, side)  # made while this one waited
            if found is not None:
                return found
            if side < STAGE and path.suffix.lower() not in _SHRINK_WHILE_READ and _pixels(path) > _LARGE:
                return self._keep(key, side, _smaller(self._made(key, STAGE), side))
            return self._made(key, side)

    def ahead(self, first: Callable[[], Path | None]) -> threading.Thread:
        """Make the picture that `first` finds in the background, as the Crop page will show it; None is none.

        What cannot be read says so when it is asked for.
        """

        def make() -> None:
            with suppress(DsmError, OSError):
                path = first()
                if path is not None:
                    self.of(path, STAGE)

        thread = threading.Thread(target=make, name="dsm-thumbnail", daemon=True)
        thread.start()
        return thread

    def picture(self, path: Path) -> Picture:
        """A picture as it was read, but from its thumbnail of `STAGE` pixels: over white, without its transparency.

        Raises:
            PictureError, OSError: as `of`.
        """
        return Picture(path, Image.open(io.BytesIO(self.of(path, STAGE))).convert("RGB"), None, picture_size(path))

    def _find(self, key: _Key, side: int) -> bytes | None:
        """What is kept of that side, or is made in no time from what is kept larger."""
        with self._lock:
            if (key, side) in self._kept:
                self._kept.move_to_end((key, side))
                return self._kept[key, side]
            larger = self._kept.get((key, STAGE)) if side < STAGE else None
        return None if larger is None else self._keep(key, side, _smaller(larger, side))

    def _made(self, key: _Key, side: int) -> bytes:
        with self._large if _pixels(key[0]) > _LARGE else nullcontext():
            return self._keep(key, side, thumbnail_bytes(key[0], side))

    def _keep(self, key: _Key, side: int, content: bytes) -> bytes:
        with self._lock:
            self._bytes += len(content) - len(self._kept.pop((key, side), b""))
            self._kept[key, side] = content
            while self._bytes > self._limit:
                self._bytes -= len(self._kept.popitem(last=False)[1])
        return content


def _pixels(path: Path) -> int:
    width, height = picture_size(path)
    return width * height


def _smaller(content: bytes, side: int) -> bytes:
    target = io.BytesIO()
    image = Image.open(io.BytesIO(content))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    image.save(target, "JPEG", quality=85)
    return target.getvalue()
