"""Which pictures of a set are copies of a better one: nearly equal to it, and of no more detail."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.cropping.pool import PixelBudget, in_parallel
from lib_dsm.dataset.looks import copies, paired
from lib_dsm.dataset.pictures import MAX_PIXELS, Size, picture_size, read_picture
from lib_dsm.errors import DsmError
from lib_dsm.jobs import Job

_SHRUNK = tuple(2 ** (-step / 4) for step in range(1, 9))  # of the side; enlarging by more than four times is rare
_LOST = 0.23  # of what a pixel's brightness differs from its neighbours', on average; enlarged pictures lose less
_SEEN = 1536  # pixels of a side of the middle in which detail is looked for


def find_duplicates(
    looks: Mapping[Path, bytes], sizes: Mapping[Path, Size], sharp: Mapping[Path, float], job: Job | None = None
) -> dict[Path, tuple[Path, float]]:
    """For each copy the better picture, which is kept, and the share of the edges of these two that agree.

    Better is the one of more detail, then of more pixels, then the sharper one. Only pictures that are nearly equal to
    another one are read for that, each once.

    Raises:
        Cancelled: the job was stopped.
    """
    candidates = sorted(paired(looks))
    budget = PixelBudget(MAX_PIXELS)

    def measure(path: Path) -> float:
        try:
            width, height = picture_size(path)
            with budget.holding(width * height):
                return detail(read_picture(path).image)
        except DsmError:  # too large to be seen whole, or damaged meanwhile
            return math.sqrt(sizes[path][0] * sizes[path][1])

    details = {}
    for path, found in in_parallel(measure, candidates):
        details[path] = found
        if job is not None:
            job.check()

    def worth(path: Path) -> tuple[float, int, float]:
        return details[path], sizes[path][0] * sizes[path][1], sharp[path]

    # Paths are in order, so that of equal ones the same is kept each time.
    return copies({path: looks[path] for path in sorted(candidates, key=worth, reverse=True)})


def detail(image: Image.Image) -> float:
    """The side in pixels, as of a square, to which an RGB picture can be shrunk without losing detail, and less for
    each pixel that it has beyond that: what was enlarged is worse than what it was made from."""
    share = _needed(image)
    return math.sqrt(image.width * image.height * share**3)


def _needed(image: Image.Image) -> float:
    """The share of its side to which a picture can be shrunk, and enlarged again, with hardly a loss."""
    left, top = max(0, (image.width - _SEEN) // 2), max(0, (image.height - _SEEN) // 2)
    middle = image.crop((left, top, min(image.width, left + _SEEN), min(image.height, top + _SEEN))).convert("L")
    grey = _levels(middle)
    slopes = float(np.square(np.diff(grey, axis=0)).mean() + np.square(np.diff(grey, axis=1)).mean())
    needed = 1.0
    for share in _SHRUNK:
        size = round(middle.width * share), round(middle.height * share)
        if min(size) < 1 or not slopes > 0:
            break
        small = middle.resize(size, Image.Resampling.LANCZOS)
        lost = _levels(small.resize(middle.size, Image.Resampling.BICUBIC)) - grey
        if math.sqrt(float(np.square(lost).mean()) / slopes) > _LOST:
            break
        needed = share
    return needed


def _levels(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image, dtype=np.float32)
