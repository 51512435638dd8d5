"""Variable-aspect batching: which size each picture is trained at, and which pictures make a step.

NovelAI's aspect ratio bucketing (2022) in purpose; here every picture is shown exactly once an epoch, a step averages
over exactly as many pictures as asked for, and nothing is enlarged or squashed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lib_dsm.training.draws import epoch_order

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


@dataclass(frozen=True)
class Shown:
    """One showing of a picture: `index` into the pictures, `place` in the endless sequence of showings."""

    index: int
    place: int


def showings(seed: int, sizes: Sequence[Size], repeats: int, begin: int, count: int, together: int = 1) -> list[Shown]:
    """Showings `begin` … `begin + count - 1` of pictures trained at `sizes`: epoch after epoch, each showing every
    picture `repeats` times.

    With `together` above 1, as many showings in a row are of one size wherever an epoch allows it, counted from the
    first showing of all: a step whose batches have that many pictures is cut into as few as there can be.
    """
    each, result = tuple(sizes), []
    for place in range(begin, begin + count):
        epoch, offset = divmod(place, len(each) * repeats)
        result.append(Shown(_epoch(seed, epoch, each, repeats, together)[offset] % len(each), place))
    return result


@lru_cache(maxsize=4)
def _epoch(seed: int, epoch: int, sizes: tuple[Size, ...], repeats: int, together: int) -> list[int]:
    """The order in which an epoch shows its items; item i is picture i modulo the number of pictures."""
    length = len(sizes) * repeats
    order = epoch_order(seed, epoch, length)
    if together == 1:
        return order
    by_size: dict[Size, list[int]] = {}
    for item in order:
        by_size.setdefault(sizes[item % len(sizes)], []).append(item)
    full, rest = [], []
    for _, items in sorted(by_size.items()):
        whole = len(items) // together * together
        full += [items[start : start + together] for start in range(0, whole, together)]
        rest += items[whole:]
    # The first of an epoch complete what the one before left over; where that takes more, a full batch is broken up.
    first = -(epoch * length) % together
    full = [full[index] for index in epoch_order(seed, epoch, len(full), "batches")]
    while first > len(rest) and full:
        rest += full.pop()
    return [*rest[:first], *(item for items in full for item in items), *rest[first:]]


def batches(
    shown: Sequence[Shown], sizes: Sequence[Size], batch_size: int, chunks: Sequence[int] | None = None
) -> list[list[Shown]]:
    """A step's showings as batches of one size each, none larger than `batch_size`, in a fixed order.

    `chunks` says of each showing how many its prompt has. A batch then holds one number of them too: filled up to its
    neighbours' length, a prompt would be learned otherwise than alone.
    """
    alike: dict[tuple[Size, int], list[Shown]] = {}
    for item, count in zip(shown, chunks or [1] * len(shown), strict=True):
        alike.setdefault((sizes[item.index], count), []).append(item)
    return [
        group[start : start + batch_size]
        for _, group in sorted(alike.items())
        for start in range(0, len(group), batch_size)
    ]
