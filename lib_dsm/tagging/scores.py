"""One picture's scores, without those that no caption would ever use."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib_dsm.errors import InputError

FLOOR = 0.01
"""Scores below it count as 0: no threshold that anybody uses is so low, and nine outputs of ten are."""

LEVELS = 65535
_COUNT_BYTES = 4


@dataclass(frozen=True)
class Scores:
    """The scores of at least `FLOOR`: `places` among the tagger's outputs, rising, and `levels` (score × `LEVELS`)."""

    places: NDArray[np.uint32]
    levels: NDArray[np.uint16]

    @classmethod
    def of(cls, dense: NDArray[np.floating]) -> Scores:
        """From the scores of every output, 0 to 1."""
        levels = to_levels(dense)
        places = np.flatnonzero(levels >= to_levels(FLOOR))
        return cls(places.astype(np.uint32), levels[places].astype(np.uint16))

    @property
    def values(self) -> NDArray[np.float32]:
        """The scores as numbers from 0 to 1."""
        values: NDArray[np.float32] = self.levels.astype(np.float32) / np.float32(LEVELS)
        return values

    def dense(self, width: int) -> NDArray[np.float32]:
        """The scores of all `width` outputs, 0 where they are below `FLOOR`."""
        result = np.zeros(width, np.float32)
        result[self.places] = self.values
        return result

    def to_bytes(self) -> bytes:
        """As a few hundred bytes, with a checksum; `from_bytes` reads them."""
        content = b"".join((
            np.uint32(len(self.places)).astype("<u4").tobytes(),
            self.places.astype("<u4").tobytes(),
            self.levels.astype("<u2").tobytes(),
        ))  # fmt: skip
        return content + zlib.crc32(content).to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, content: bytes) -> Scores:
        """What `to_bytes` wrote.

        Raises:
            InputError: the bytes are damaged.
        """
        body, checksum = content[:-4], content[-4:]
        if len(content) < 2 * _COUNT_BYTES or zlib.crc32(body).to_bytes(4, "little") != checksum:
            raise InputError("Kept scores are damaged.", "The picture is looked at again.")
        count = int(np.frombuffer(body, "<u4", 1)[0])
        if len(body) < _COUNT_BYTES + 6 * count:
            raise InputError("Kept scores are cut short.", "The picture is looked at again.")
        places = np.frombuffer(body, "<u4", count, _COUNT_BYTES)
        levels = np.frombuffer(body, "<u2", count, _COUNT_BYTES + 4 * count)
        return cls(places.astype(np.uint32), levels.astype(np.uint16))


def to_levels(scores: NDArray[np.floating] | float) -> NDArray[np.uint32]:
    """Scores or thresholds, 0 to 1, as whole numbers that compare in the same order, up to half of 1 / `LEVELS`."""
    levels: NDArray[np.uint32] = np.rint(np.clip(np.nan_to_num(scores), 0, 1) * LEVELS).astype(np.uint32)
    return levels
