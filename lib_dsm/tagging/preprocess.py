"""A picture as a tagger wants it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.tagging.layouts import WD, Layout


def arrange(image: Image.Image, side: int, layout: Layout) -> NDArray[np.uint8]:
    """An RGB picture as `side × side × 3` of 0 to 255, made square and its channels ordered as the layout has it.

    It is shrunk before it is padded, so that a long picture costs no more memory than any other.
    """
    width, height = image.size
    if layout.fit == "squash":
        size = side, side
    else:
        scale = side / max(width, height)
        size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    left, top = (side - size[0]) // 2, (side - size[1]) // 2
    pixels = np.asarray(image)
    if layout.fit == "edge":
        rest = (top, side - size[1] - top), (left, side - size[0] - left), (0, 0)
        square = np.pad(pixels, rest, mode="edge")
    else:
        square = np.empty((side, side, 3), np.uint8)
        square[:] = layout.ground
        square[top : top + size[1], left : left + size[0]] = pixels
    return np.ascontiguousarray(square[:, :, ::-1] if layout.bgr else square)


def to_input(pictures: NDArray[np.uint8], layout: Layout) -> NDArray[np.float32]:
    """Arranged pictures, N × side × side × 3, as the numbers the network takes."""
    values = pictures.astype(np.float32)
    if layout.mean is not None:
        turn = slice(None, None, -1) if layout.bgr else slice(None)
        mean, std = np.array(layout.mean, np.float32)[turn], np.array(layout.std, np.float32)[turn]
        values *= 1 / (255 * std)
        values -= mean / std
    return np.ascontiguousarray(values.transpose(0, 3, 1, 2)) if layout.channels_first else values


def prepare(image: Image.Image, side: int) -> NDArray[np.float32]:
    """An RGB picture as the WD1.4 taggers want it: `side × side × 3`, BGR, 0 to 255, centred on a white square."""
    return arrange(image, side, WD).astype(np.float32)
