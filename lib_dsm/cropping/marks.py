"""Marks that many pictures of a set share at one place: a site's watermark, a signature, a logo.

Where pictures differ, the slopes of their brightness differ in sign, and their median over the set is about zero; where
a mark was laid over all of them the median is the mark's own slopes, as in Dekel, Rubinstein, Liu and Freeman, "On the
Effectiveness of Visible Watermarks" (2017), section 3.1.

Pictures of one character share more than marks: a hat at one place, a badge, a mount, the box that a visual novel's
text stands in. So only what is like writing counts, rows of narrow strokes close together, away from the middle. What
has few strokes is missed, such as a plain logo, and so is writing from top to bottom of letters that lie; what is
written on a character's clothes at one place, or on a game's buttons, is taken for a mark.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lib_dsm.cropping.scene import connected

Slopes = NDArray[np.float32]
"""2 × height × width: how brightness rises to the right and downwards, levels a pixel."""

FEWEST = 8
"""Pictures of one size from which on what they share can be told from chance."""

_SIDE = 320  # pixels of the longer side at which pictures are compared
_MOST = 40  # pictures from which a mark is learnt; more make it no surer
_CLEAR = 5.0  # levels a pixel of the median from which on a slope is to be seen
_SURE = 3.0  # standard errors of the median from which on it is hardly chance
_PART = 6  # connected pixels from which on it is none
_LEAST = 24  # pixels of a mark
_READABLE = 160  # pixels of the shorter side from which on marks can be told from what a picture shows
_MIDDLE = 0.5  # of both sides; what reaches there, or leaves the picture, is its subject and not a mark
_LARGEST = 0.12  # of the picture; more in common is what the pictures show
_BESIDE = 3  # pixels between strokes of one group
_STROKES = 6  # changes between rising and falling in the rows of a group, on average
_DENSE = 0.25  # such changes a pixel; letters have 0.3 and more, badges and hats with bands 0.2 at most
_SURELY = 0.1  # of these between pixels that are surely a mark's, so that a ground's grain does not count for strokes
_ALIKE = 0.6  # correlation of a picture's slopes with the mark's
_MARKED = 0.5  # of the mark's strength that a picture has which bears it

_WHERE = (("top left", "top", "top right"), ("left", "middle", "right"), ("bottom left", "bottom", "bottom right"))


def small(image: Image.Image) -> NDArray[np.uint8]:
    """What is kept of an RGB picture for comparing it: its brightness, at most 320 pixels a side."""
    shrunk = image.convert("L")
    shrunk.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    return np.asarray(shrunk)


def shared_marks(
    sizes: Mapping[Path, tuple[int, int]], read: Callable[[Sequence[Path]], Iterator[NDArray[np.uint8] | None]]
) -> dict[Path, tuple[str, int, int]]:
    """The pictures that bear a mark which others of their size bear too: where it is, how many bear it, of how many.

    `read` gives what `small` makes of pictures, in order, None for one that cannot be read. At most 40 of a size are
    held at a time, and only where these share something are the others looked at, one by one.
    """
    groups: dict[tuple[int, int], list[Path]] = {}
    for path, size in sizes.items():
        groups.setdefault(size, []).append(path)
    marked: dict[Path, tuple[str, int, int]] = {}
    for group in groups.values():
        if len(group) < FEWEST:
            continue
        learnt = [group[index] for index in np.linspace(0, len(group) - 1, min(len(group), _MOST)).round().astype(int)]
        mark, inked = _learn([seen for seen in read(learnt) if seen is not None])
        if not inked.any():
            continue
        bearing = [
            path for path, seen in zip(group, read(group), strict=True)
            if seen is not None and seen.shape == inked.shape and _bears(_slopes(seen), mark, inked)
        ]  # fmt: skip
        if len(bearing) >= FEWEST // 2:
            place = _place(inked)
            marked.update({path: (place, len(bearing), len(group)) for path in bearing})
    return marked


def _slopes(small: NDArray[np.uint8]) -> Slopes:
    grey = small.astype(np.float32)
    return np.stack([np.diff(grey, axis=1, append=grey[:, -1:]), np.diff(grey, axis=0, append=grey[-1:])])


def _learn(smalls: Sequence[NDArray[np.uint8]]) -> tuple[Slopes, NDArray[np.bool_]]:
    """What the pictures have in common, and which of its pixels are a mark's: none where there is no mark."""
    if len(smalls) < FEWEST or min(smalls[0].shape) < _READABLE or len({seen.shape for seen in smalls}) > 1:
        return np.zeros((2, 1, 1), np.float32), np.zeros((1, 1), np.bool_)
    slopes = np.stack([_slopes(seen) for seen in smalls])
    mark = np.median(slopes, axis=0).astype(np.float32)
    spread = 1.4826 * np.median(np.abs(slopes - mark), axis=0)  # the deviation, of normally distributed values
    chance = 1.2533 * spread / np.sqrt(len(slopes))  # the standard error of a median
    inked: NDArray[np.bool_] = ((np.abs(mark) > _CLEAR) & (np.abs(mark) > _SURE * chance)).any(axis=0)
    height, width = inked.shape
    top, left = round(height * (1 - _MIDDLE) / 2), round(width * (1 - _MIDDLE) / 2)
    for part in connected(inked):
        rows, columns = part.T
        inside = (rows >= top) & (rows < height - top) & (columns >= left) & (columns < width - left)
        leaving = (rows % (height - 1) == 0) | (columns % (width - 1) == 0)
        if len(part) < _PART or inside.any() or leaving.any():
            inked[rows, columns] = False
    for group in connected(_grown(inked)):
        rows, columns = group.T
        if not _is_writing(mark[0], rows, columns, inked):
            inked[rows, columns] = False
    if not _LEAST <= inked.sum() <= _LARGEST * inked.size:
        inked[:] = False
    return mark, inked


def _grown(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(Image.fromarray(mask).convert("L").filter(ImageFilter.MaxFilter(2 * _BESIDE + 1))) > 0


def _is_writing(
    across: NDArray[np.float32], rows: NDArray[np.intp], columns: NDArray[np.intp], inked: NDArray[np.bool_]
) -> bool:
    """Whether a group of a mark's pixels is rows of narrow strokes: along its rows brightness rises and falls often."""
    ours = np.zeros_like(inked)
    ours[rows, columns] = inked[rows, columns]
    weights = ours.sum(axis=1)
    if not weights.any():
        return False
    left, right = np.percentile(np.nonzero(ours)[1], (5, 95)).round().astype(int)  # a stray pixel makes no width
    right += 1
    surely, probably = (
        np.average([_changes(row[left:right]) for row in slopes], weights=weights)
        for slopes in (np.where(ours, across, 0), across)
    )
    width = right - left
    return bool(probably >= _STROKES and probably >= _DENSE * width and surely >= _SURELY * width)


def _changes(slopes: NDArray[np.float32]) -> int:
    """How often clear slopes in a row change between rising and falling."""
    rising = slopes[np.abs(slopes) > _CLEAR] > 0
    return int(np.count_nonzero(rising[1:] != rising[:-1]))


def _bears(slopes: Slopes, mark: Slopes, inked: NDArray[np.bool_]) -> bool:
    """Whether a picture has the mark: as strong as others, or fainter (on light ground) and little else there."""
    own, its = slopes[:, inked].ravel(), mark[:, inked].ravel()
    both, strength = float(own @ its), float(np.linalg.norm(its))
    return both > _MARKED * strength**2 or both > _ALIKE * strength * float(np.linalg.norm(own)) > 0


def _place(inked: NDArray[np.bool_]) -> str:
    rows, columns = np.nonzero(inked)
    row, column = (
        min(2, int(3 * float(np.median(found)) / length))
        for found, length in zip((rows, columns), inked.shape, strict=True)
    )
    return _WHERE[row][column]
