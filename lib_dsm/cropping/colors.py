"""The colour that pads a picture."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor

from lib_dsm.cropping.boxes import Box
from lib_dsm.errors import InputError

Color = tuple[int, int, int]
AUTO = "auto"
"""Stands for the colour of the edge that is padded."""

_ALIKE = 12  # the farthest a uniform edge's pixel may be from its median, a channel; JPEG noise stays within
_ALIKE_SHARE = 0.97


def parse_color(text: str) -> Color | None:
    """A colour by its name or as #rrggbb; None for "auto".

    Raises:
        InputError: there is no such colour.
    """
    if text.strip().lower() == AUTO:
        return None
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        raise InputError(
            f'"{text}" is not a colour.', 'Use a name such as white, a code such as #ffeedd, or "auto".'
        ) from error
    return red, green, blue


def edge_color(image: Image.Image, box: Box) -> Color | None:
    """The colour of the edges of an RGB picture beyond which a box reaches; None where they have more than one."""
    pixels = np.asarray(image)
    beyond = (box[0] < 0, box[1] < 0, box[2] > image.width, box[3] > image.height)
    edges = (pixels[:, 0], pixels[0], pixels[:, -1], pixels[-1])
    border = np.concatenate([edge for edge, padded in zip(edges, beyond, strict=True) if padded]).astype(np.int16)
    median = np.median(border, axis=0)
    alike = np.abs(border - median).max(axis=1) <= _ALIKE
    if alike.mean() < _ALIKE_SHARE:
        return None
    red, green, blue = (int(value) for value in np.rint(median))
    return red, green, blue
