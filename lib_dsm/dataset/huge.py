"""Pictures too large to be decoded whole, brought down while they are read.

A JPEG's decoder gives it smaller by itself. A PNG is a stream of filtered rows: so many of them at a time are handed to
Pillow as a small PNG of their own, the row before them in front since their filters refer to it, and shrunk. So a
picture of 20,000 × 20,000 pixels takes some tens of megabytes.

PNG: "Portable Network Graphics (PNG) Specification", third edition, W3C, sections 5, 7 and 9.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import Image, JpegImagePlugin

from lib_dsm.errors import PictureError

FULL_SIZE = "dsm_full_size"
"""The key of a reduced picture's `info` that holds the size it has in the file."""

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_CARRIERS = {1: ("L", 0), 2: ("LA", 4), 3: ("RGB", 2), 4: ("RGBA", 6)}
"""By the bytes of a pixel: the mode, and PNG's number for it, whose filters work on pixels of so many bytes."""

_BAND_BYTES = 8 << 20  # of rows that are decoded at a time
_LARGEST_CHUNK = 64 << 20  # bytes; those before the pixels are far smaller
_MOST_PIXELS = 4_000_000_000
_MOST_DRAFT = 8000  # pixels a side of what a JPEG's decoder can give at the least, an eighth


def open_huge(path: Path, side: int) -> Image.Image | None:
    """A picture brought down while it is read, to no less than twice `side` pixels a side.

    A PNG comes decoded and reduced, its profile and EXIF in `info`; a JPEG is left to its own `draft`. None for other
    kinds, and for those of these kinds that can only be decoded whole: progressive JPEGs, interlaced PNGs, and PNGs of
    16 bits in colour.

    Raises:
        PictureError: it is damaged.
    """
    with path.open("rb") as file:
        start = file.read(len(_PNG))
    if start.startswith(_JPEG):
        # Not `Image.open`, which refuses by the header's size what would be decoded at an eighth of it.
        image = JpegImagePlugin.JpegImageFile(str(path))
        if image.info.get("progressive") or max(image.size) // 8 > _MOST_DRAFT:
            image.close()
            return None
        return image
    return _Png(path).reduced(side) if start == _PNG else None


@dataclass(frozen=True)
class _Shape:
    """What a PNG's header says of its rows."""

    width: int
    height: int
    depth: int
    color: int

    @property
    def pixel_bytes(self) -> int:
        """What the filters take for one pixel."""
        return max(1, self.depth * _CHANNELS[self.color] // 8)

    @property
    def row_bytes(self) -> int:
        """A row without its filter."""
        return (self.width * self.depth * _CHANNELS[self.color] + 7) // 8


class _Png:
    """A PNG that is read once, from its beginning to its end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def reduced(self, side: int) -> Image.Image | None:
        """See `open_huge`."""
        with self._path.open("rb") as file:
            file.seek(len(_PNG))
            shape, before, usable = self._header(file)
            if not usable:
                return None
            look = self._look(shape, before)
            factor = max(1, max(shape.width, shape.height) // (2 * side))
            rows = max(1, _BAND_BYTES // shape.row_bytes // factor) * factor
            result: Image.Image | None = None
            done = 0
            for band in self._bands(file, shape, rows):
                height = len(band) // shape.row_bytes
                small = _as_seen(band, height, shape, look).reduce(factor)
                if result is None:
                    result = Image.new(small.mode, (small.width, -(-shape.height // factor)))
                result.paste(small, (0, done // factor))
                done += height
        assert result is not None  # no height is 0 in a header that Pillow takes
        result.info = {key: look.info[key] for key in ("icc_profile", "exif") if key in look.info}
        result.info[FULL_SIZE] = shape.width, shape.height
        return result

    def _header(self, file: BinaryIO) -> tuple[_Shape, list[bytes], bool]:
        """The shape, the chunks before the pixels as they are, and whether rows can be read one after the other."""
        kind, header = self._chunk(file)
        if kind != b"IHDR" or len(header) != 13:
            raise self._damaged("its header is missing")
        width, height, depth, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
        shape = _Shape(width, height, depth, color)
        if color not in _CHANNELS or shape.pixel_bytes not in _CARRIERS or interlaced or width * height > _MOST_PIXELS:
            return shape, [], False
        before: list[bytes] = []
        while True:
            place = file.tell()
            kind, content = self._chunk(file, stop=b"IDAT")
            if kind == b"IDAT":
                file.seek(place)
                return shape, before, True
            before.append(_pack(kind, content))

    def _look(self, shape: _Shape, before: list[bytes]) -> Image.Image:
        """One row of nothing, with all that the file says about its pixels."""
        header = struct.pack(">IIBBBBB", shape.width, 1, shape.depth, shape.color, 0, 0, 0)
        row = _pack(b"IDAT", zlib.compress(bytes(1 + shape.row_bytes)))
        image = Image.open(io.BytesIO(_PNG + _pack(b"IHDR", header) + b"".join(before) + row + _pack(b"IEND", b"")))
        image.load()
        return image

    def _bands(self, file: BinaryIO, shape: _Shape, rows: int) -> Iterator[bytes]:
        """The rows without their filters, so many at a time."""
        unpacked = zlib.decompressobj()
        pending = bytearray()
        last = b""
        left = shape.height
        stride = 1 + shape.row_bytes
        for part in self._pixels(file):
            rest = part
            while rest:
                try:
                    pending += unpacked.decompress(rest, _BAND_BYTES)
                except zlib.error as error:
                    raise self._damaged(str(error)) from error
                rest = unpacked.unconsumed_tail
                while left and len(pending) >= stride * min(rows, left):
                    count = min(rows, left)
                    band = _unfiltered(bytes(pending[: count * stride]), last, shape)
                    del pending[: count * stride]
                    last = band[-shape.row_bytes :]
                    left -= count
                    yield band
            if not left:
                return
        raise self._damaged(f"it is truncated: {left} of its {shape.height} rows are missing")

    def _pixels(self, file: BinaryIO) -> Iterator[bytes]:
        while True:
            kind, content = self._chunk(file)
            if kind != b"IDAT":
                return
            yield content

    def _chunk(self, file: BinaryIO, stop: bytes = b"") -> tuple[bytes, bytes]:
        """The kind and the content of the next chunk; the content of one of kind `stop` is not read."""
        head = file.read(8)
        if len(head) < 8:
            raise self._damaged("it is truncated")
        length, kind = struct.unpack(">I4s", head)
        if kind == stop:
            return kind, b""
        if length > _LARGEST_CHUNK and kind != b"IDAT":
            raise self._damaged("one of its parts is far too large")
        content = file.read(length)
        if len(content) < length:
            raise self._damaged("it is truncated")
        file.seek(4, io.SEEK_CUR)
        return bytes(kind), content

    def _damaged(self, cause: str) -> PictureError:
        return PictureError(f"{self._path} is damaged and cannot be read ({cause}).", "Fetch the picture again.")


def _unfiltered(rows: bytes, last: bytes, shape: _Shape) -> bytes:
    """Filtered rows without their filters; `last` is the unfiltered row before them, b"" for none."""
    mode, color = _CARRIERS[shape.pixel_bytes]
    if last:
        rows = b"\0" + last + rows
    height = len(rows) // (1 + shape.row_bytes)
    width = shape.row_bytes // shape.pixel_bytes
    header = _pack(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0))
    content = _PNG + header + _pack(b"IDAT", zlib.compress(rows, 0)) + _pack(b"IEND", b"")
    with Image.open(io.BytesIO(content)) as image:
        found = image.convert(mode) if image.mode != mode else image
        found.load()
        return found.tobytes()[shape.row_bytes if last else 0 :]


def _as_seen(rows: bytes, height: int, shape: _Shape, look: Image.Image) -> Image.Image:
    """Rows as a picture in RGB, or RGBA where something may be transparent."""
    size = shape.width, height
    if shape.depth == 16:
        rows = rows[::2]  # the high bytes
    elif shape.depth < 8:
        signs = {1: "P;1", 2: "P;2", 4: "P;4"}[shape.depth]
        rows = Image.frombytes("P", size, rows, "raw", signs).tobytes()
        if shape.color == 0:
            rows = rows.translate(bytes(min(255, value * 255 // (2**shape.depth - 1)) for value in range(256)))
    mode = {0: "L", 2: "RGB", 3: "P", 4: "LA", 6: "RGBA"}[shape.color]
    image = Image.frombytes(mode, size, rows)
    if mode == "P":
        image.putpalette(look.getpalette() or [])
    clear = look.info.get("transparency")
    if clear is not None and shape.depth == 8:
        image.info["transparency"] = clear
    return image.convert("RGBA" if mode in ("LA", "RGBA") or "transparency" in image.info else "RGB")


def _pack(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
