"""Variable-aspect batching: which size each picture is trained at, and which pictures make a step.

NovelAI's aspect ratio bucketing (2022) in purpose; here every picture is shown exactly once an epoch, a step averages
over exactly as many pictures as asked for, and nothing is enlarged or squashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from lib_dsm.dataset.training_sizes import AREA_WEIGHT as AREA_WEIGHT
from lib_dsm.dataset.training_sizes import Size as Size
from lib_dsm.dataset.training_sizes import crop_box as crop_box
from lib_dsm.dataset.training_sizes import lost_share as lost_share
from lib_dsm.dataset.training_sizes import size_cost as size_cost
from lib_dsm.dataset.training_sizes import training_size as training_size
from lib_dsm.training.draws import epoch_order


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
