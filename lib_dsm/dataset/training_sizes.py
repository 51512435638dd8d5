"""The sizes of variable-aspect training: which one each picture is trained at, and what it loses by that.

NovelAI's aspect ratio bucketing (2022) in purpose; here nothing is enlarged or squashed.
"""

from __future__ import annotations

import math
from functools import lru_cache

Size = tuple[int, int]  # width, height in pixels
AREA_WEIGHT = 0.15


def training_size(source: Size, config_size: Size, step: int, variable_aspect: bool, enlarge: bool) -> Size | None:
    """The size a picture of `source` pixels is trained at, or None if it is too small to be trained at all.

    Without `variable_aspect` it is the size asked for. With it, it is the one of least cost (see `size_cost`) among all
    sizes of multiples of `step` whose area is at most width × height: that nearest in shape, unless a larger one crops
    hardly more. So a picture that is itself of such a size stays as it is, and none falls to a small size for the sake
    of a few rows. Unless `enlarge`, a picture never grows beyond its pixels.
    """
    if not variable_aspect:
        fits = source[0] >= config_size[0] and source[1] >= config_size[1]
        return config_size if fits or enlarge else None
    return _nearest(source, config_size[0] * config_size[1], step, enlarge)


def size_cost(source: Size, target: Size) -> float:
    """What training a picture of `source` pixels at `target` costs: cropped share - 0.15 × log(area of `target`).

    Half the area is worth a tenth of the picture: less, and 720×600 would fall to 384×320 for the sake of its edges;
    more, and 700×300 would lose a fourteenth for a tenth more pixels.
    """
    return lost_share(source, target) - AREA_WEIGHT * math.log(target[0] * target[1])


@lru_cache(maxsize=4096)  # pictures of a folder are of few sizes
def _nearest(source: Size, area: int, step: int, enlarge: bool) -> Size | None:
    # Of one width the best height is one of the two beside the picture's own shape: lower ones crop more and have less
    # area, higher ones crop away more than their area is worth.
    most_wide, most_high = (area // step, area // step) if enlarge else source
    sizes: list[Size] = []
    for wide in range(step, min(most_wide, area // step) + 1, step):
        highest = min(area // wide, most_high) // step * step
        below = wide * source[1] // source[0] // step * step
        sizes += [(wide, min(max(high, step), highest)) for high in (below, below + step) if highest]

    def rank(size: Size) -> tuple[float, int, Size]:
        return (round(size_cost(source, size), 9), -size[0] * size[1], size)

    return min(sizes, key=rank, default=None)


def crop_box(source: Size, target: Size) -> tuple[float, float, float, float]:
    """The centred part of `source` (left, top, right, bottom) that has the shape of `target`: cropped, not squashed."""
    scale = max(target[0] / source[0], target[1] / source[1])
    wide, high = target[0] / scale, target[1] / scale
    left, top = (source[0] - wide) / 2, (source[1] - high) / 2
    return (max(left, 0.0), max(top, 0.0), min(left + wide, source[0]), min(top + high, source[1]))


def lost_share(source: Size, target: Size) -> float:
    """The share of a picture's area, 0 to 1, that the crop to `target`'s shape takes away."""
    left, top, right, bottom = crop_box(source, target)
    return 1.0 - (right - left) * (bottom - top) / (source[0] * source[1])
