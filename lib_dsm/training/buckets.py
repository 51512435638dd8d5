"""Variable-aspect batching: which size each picture is trained at, and which pictures make a step.

NovelAI's aspect ratio bucketing (2022) in purpose; here every picture is shown exactly once an epoch, a step averages
over exactly as many pictures as asked for, and nothing is enlarged or squashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lib_dsm.training.draws import epoch_order

Size = tuple[int, int]  # width, height in pixels


def candidate_sizes(width: int, height: int, step: int, limit: Size | None = None) -> list[Size]:
    """All sizes of multiples of `step` with area ≤ width × height that could not grow on either side.

    `limit` bounds them by a picture's own pixels. Empty if not even step × step fits.
    """
    area = width * height
    most_wide, most_high = limit or (area // step, area // step)
    sizes: list[Size] = []
    tallest = 0
    for wide in range(min(most_wide, area // step) // step * step, 0, -step):
        high = min(area // wide, most_high) // step * step
        if high > tallest:  # else a wider size is as high
            sizes.append((wide, high))
            tallest = high
    return sizes


def training_size(source: Size, config_size: Size, step: int, variable_aspect: bool, enlarge: bool) -> Size | None:
    """The size a picture of `source` pixels is trained at, or None if it is too small to be trained at all.

    With `variable_aspect` the candidate nearest in shape (by the ratio's logarithm), the larger where two are as near;
    without it the size asked for. Unless `enlarge`, a picture never grows beyond its pixels.
    """
    width, height = config_size
    if not variable_aspect:
        fixed = (max(width // step, 1) * step, max(height // step, 1) * step)
        fits = source[0] >= fixed[0] and source[1] >= fixed[1]
        return fixed if fits or enlarge else None
    sizes = candidate_sizes(width, height, step, None if enlarge else source)
    if not sizes:
        return None
    shape = math.log(source[0] / source[1])
    return min(sizes, key=lambda size: (round(abs(math.log(size[0] / size[1]) - shape), 9), -size[0] * size[1], size))


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


@dataclass(frozen=True)
class Shown:
    """One showing of a picture: `index` into the pictures, `place` in the endless sequence of showings."""

    index: int
    place: int


def showings(seed: int, pictures: int, repeats: int, begin: int, count: int) -> list[Shown]:
    """Showings `begin` … `begin + count - 1`: epoch after epoch, each showing every picture `repeats` times."""
    length = pictures * repeats
    result = []
    order: list[int] = []
    order_epoch = -1
    for place in range(begin, begin + count):
        epoch, offset = divmod(place, length)
        if epoch != order_epoch:
            order, order_epoch = epoch_order(seed, epoch, length), epoch
        result.append(Shown(order[offset] % pictures, place))
    return result


def batches(shown: Sequence[Shown], sizes: Sequence[Size], batch_size: int) -> list[list[Shown]]:
    """A step's showings as batches of one size each, none larger than `batch_size`, in a fixed order."""
    by_size: dict[Size, list[Shown]] = {}
    for item in shown:
        by_size.setdefault(sizes[item.index], []).append(item)
    return [
        group[start : start + batch_size]
        for _, group in sorted(by_size.items())
        for start in range(0, len(group), batch_size)
    ]
