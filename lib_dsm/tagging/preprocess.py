"""A picture as a tagger wants it."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.tagging.layouts import WD, Layout

_GAP, _GAP_PIXELS = 1.5, 672  # shrinking by a whole factor down to so many times the wanted size loses next to nothing


def arrange(image: Image.Image, side: int, layout: Layout) -> NDArray[np.uint8]:
    """An RGB picture as `side × side × 3` of 0 to 255, made square and its channels ordered as the layout has it.

    What is much too large is shrunk by a whole factor before it is padded, so that a long picture costs no more memory
    than any other; the rest of the shrinking comes after, so that everything lies where it would if the picture had
    been padded at its full size, to a fraction of a pixel.
    """
    width, height = image.size
    enough = max(_GAP * side, _GAP_PIXELS)
    factors = max(1, int(width / enough)), max(1, int(height / enough))
    if layout.fit != "squash":
        factors = (max(factors),) * 2
    if factors != (1, 1):
        image = image.reduce(factors) if layout.fit == "squash" else _reduced(image, factors[0], layout)
    if layout.fit == "squash":
        box = (0.0, 0.0, width / factors[0], height / factors[1])
    else:
        image, box = _square(image, (width, height), factors[0], layout)
    if image.size != (side, side) or box != (0, 0, side, side):
        image = image.resize((side, side), Image.Resampling.BICUBIC, box)
    pixels = np.asarray(image)
    return np.ascontiguousarray(pixels[:, :, ::-1] if layout.bgr else pixels)


def _reduced(image: Image.Image, factor: int, layout: Layout) -> Image.Image:
    """A picture shrunk by a whole factor; where that does not divide a side, the ground makes up what is missing."""
    small = image.reduce(factor)
    rest = [length % factor for length in image.size]
    if layout.fit == "edge" or not any(rest):
        return small  # which is what Pillow makes it up with
    width, height = image.size
    for axis, (box, size, place) in enumerate((
        ((width - rest[0], 0, width, height), (factor, small.height * factor), (small.width - 1, 0)),
        ((0, height - rest[1], width, height), (small.width * factor, factor), (0, small.height - 1)),
    )):  # fmt: skip
        if rest[axis]:
            strip = Image.new("RGB", size, layout.ground)
            strip.paste(image.crop(box))
            small.paste(strip.reduce(factor), place)
    return small


def _square(
    image: Image.Image, full: tuple[int, int], factor: int, layout: Layout
) -> tuple[Image.Image, tuple[float, float, float, float]]:
    """A picture, reduced by a factor from its full size, on a square ground, and where in that the padded square is."""
    longest = max(full)
    before = [(longest - length) // 2 / factor for length in full]
    left, top = (math.ceil(margin) for margin in before)
    x, y, length = left - before[0], top - before[1], longest / factor
    size = max(math.ceil(x + length), left + image.width), max(math.ceil(y + length), top + image.height)
    if layout.fit == "edge":
        rest = (top, size[1] - top - image.height), (left, size[0] - left - image.width), (0, 0)
        ground = Image.fromarray(np.pad(np.asarray(image), rest, mode="edge"))
    elif size == image.size:
        ground = image
    else:
        ground = Image.new("RGB", size, layout.ground)
        ground.paste(image, (left, top))
    return ground, (x, y, x + length, y + length)


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
