"""What a picture shows and where: heads by a detector, figures on a plain ground, or else what catches the eye."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lib_dsm.cropping.boxes import Box, Size
from lib_dsm.cropping.colors import ALL_SIDES, Color, edge_color
from lib_dsm.cropping.detect import Detector, Found

Mask = NDArray[np.bool_]
LOOKED_AT = 640
"""Pixels of the longer side that suffice for all of this."""

GROUND, EYE = "background", "saliency"
_BESIDE, _ABOVE = (True, False, True, False), (False, True, False, True)
_MOSTLY = 0.7  # of the border is ground where a figure may stand on the picture's edge
_SIDE = 96  # pixels of the longer side at which figures are told from the ground
_SPECTRUM = 64  # of the side at which saliency is computed, as its paper has it
_DIFFERENT = 24  # levels from the ground's colour
_SMALL = 0.12  # figures with less than this share of the largest one's area are not figures
_UNUSUAL = 1.5  # standard deviations above the mean that catch the eye
_LEAST, _MOST = 0.01, 0.85  # shares of the picture between which something can be its subject


@dataclass(frozen=True)
class Scene:
    """What was found in an upright picture of `size` pixels, as boxes in its pixels from left to right.

    `heads` are a detector's. `figures` are what stands out: each figure on a plain ground, or the one place that
    catches the eye; empty where nothing does. `how` tells which, `GROUND` or `EYE`. `blends` says whether padding
    at left and right, and at top and bottom, would go over into the picture.
    """

    size: Size
    blends: tuple[bool, bool]
    heads: tuple[Box, ...]
    figures: tuple[Box, ...]
    how: str


def look_at(image: Image.Image, size: Size, detector: Detector | None = None) -> Scene:
    """Look at an RGB picture that is `size` in full and may be shrunk.

    Raises:
        ModelError: the detector fails.
    """
    heads = [_in_pixels(found, size) for found in detector.find(image)] if detector is not None else []
    ground = edge_color(image, ALL_SIDES, _MOSTLY)
    blends = edge_color(image, _BESIDE) is not None, edge_color(image, _ABOVE) is not None
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE), Image.Resampling.BOX)
    figures = _figures(small, ground) if ground is not None else _catching(small)
    shares = [
        (left / small.width, top / small.height, right / small.width, bottom / small.height)
        for left, top, right, bottom in figures
    ]
    boxes = sorted(_in_pixels(share, size) for share in shares)
    return Scene(size, blends, tuple(sorted(heads)), tuple(boxes), GROUND if ground is not None else EYE)


def _in_pixels(found: Found, size: Size) -> Box:
    left, top = int(found[0] * size[0]), int(found[1] * size[1])
    right, bottom = -int(-found[2] * size[0] // 1), -int(-found[3] * size[1] // 1)
    return left, top, min(max(right, left + 1), size[0]), min(max(bottom, top + 1), size[1])


def _figures(image: Image.Image, ground: Color) -> list[Box]:
    """The connected things that differ from the ground, without specks."""
    difference = np.abs(np.asarray(image, dtype=np.int16) - np.array(ground, dtype=np.int16)).max(axis=2)
    found = _boxes(difference > _DIFFERENT)
    if not found:
        return []
    largest = max(count for count, _ in found)
    sizes = [(count, box) for count, box in found if count >= _SMALL * largest]
    least = _LEAST * image.width * image.height
    return [box for count, box in sizes if count >= least]


def _catching(image: Image.Image) -> list[Box]:
    """The place that catches the eye, if any: where the spectrum is unusual and the colour is not the border's.

    Spectral residual: Hou and Zhang, "Saliency Detection: A Spectral Residual Approach", 2007, equations 2 to 6.
    """
    grey = np.asarray(image.convert("L").resize((_SPECTRUM, _SPECTRUM), Image.Resampling.BOX), dtype=np.float64)
    spectrum = np.fft.fft2(grey)
    amplitude = np.log(np.abs(spectrum) + 1e-9)
    residual = amplitude - _mean_3(amplitude)
    odd = np.abs(np.fft.ifft2(np.exp(residual + 1j * np.angle(spectrum)))) ** 2
    small = image.resize((_SPECTRUM, _SPECTRUM), Image.Resampling.BOX).convert("LAB")
    colours = np.asarray(small).view(np.int8).astype(np.float64)  # a and b are signed
    colours[..., 0] = np.asarray(small)[..., 0]
    border = np.concatenate([colours[0], colours[-1], colours[:, 0], colours[:, -1]])
    spread = border.std(axis=0) + 8.0
    distinct = np.sqrt((((colours - border.mean(axis=0)) / spread) ** 2).sum(axis=2))
    salient = _smooth(_unit(odd)) + _smooth(_unit(distinct))
    place = np.linspace(-1, 1, _SPECTRUM)
    salient *= np.exp(-(place[None, :] ** 2 + place[:, None] ** 2) / 2)  # photographers and painters aim
    found = _boxes(salient > salient.mean() + _UNUSUAL * salient.std())
    if not found:
        return []
    _, (left, top, right, bottom) = max(found, key=lambda item: item[0])
    share = (right - left) * (bottom - top) / _SPECTRUM**2
    if not _LEAST <= share <= _MOST:
        return []
    across, down = image.width / _SPECTRUM, image.height / _SPECTRUM
    return [(int(left * across), int(top * down), round(right * across), round(bottom * down))]


def _unit(values: NDArray[np.float64]) -> NDArray[np.float64]:
    low, high = np.percentile(values, (1, 99))
    unit: NDArray[np.float64] = np.clip((values - low) / max(float(high - low), 1e-9), 0, 1)
    return unit


def _mean_3(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each value's mean with its eight neighbours; the spectrum repeats at its edges."""
    rows = (np.roll(values, 1, 0) + values + np.roll(values, -1, 0)) / 3
    mean: NDArray[np.float64] = (np.roll(rows, 1, 1) + rows + np.roll(rows, -1, 1)) / 3
    return mean


def _smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    image = Image.fromarray(np.rint(values * 255).astype(np.uint8))
    return np.asarray(image.filter(ImageFilter.GaussianBlur(3)), dtype=np.float64) / 255


def connected(mask: Mask) -> list[NDArray[np.intp]]:
    """The connected parts of a mask, diagonals too: the row and column of each cell, cells × 2."""
    waiting = mask.copy()
    height, width = mask.shape
    parts = []
    for start in zip(*(axis.tolist() for axis in np.nonzero(mask)), strict=True):
        if not waiting[start]:
            continue
        waiting[start] = False
        queue, cells = deque([start]), []
        while queue:
            row, column = queue.popleft()
            cells.append((row, column))
            for y in range(max(0, row - 1), min(height, row + 2)):
                for x in range(max(0, column - 1), min(width, column + 2)):
                    if waiting[y, x]:
                        waiting[y, x] = False
                        queue.append((y, x))
        parts.append(np.array(cells, dtype=np.intp))
    return parts


def _boxes(mask: Mask) -> list[tuple[int, Box]]:
    """The connected parts of a mask: how many cells each has, and its box."""
    found = []
    for cells in connected(mask):
        (top, left), (bottom, right) = cells.min(axis=0).tolist(), cells.max(axis=0).tolist()
        found.append((len(cells), (left, top, right + 1, bottom + 1)))
    return found
