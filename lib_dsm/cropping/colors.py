"""What pads a picture: a colour, the edge's own colour, the picture blurred, or nothing at all."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageColor, ImageFilter

from lib_dsm.errors import InputError

Color = tuple[int, int, int]
Sides = tuple[bool, bool, bool, bool]
"""Left, top, right, bottom."""
AUTO = "auto"
"""Stands for the colour of the edge that is padded, white where it has more than one."""
BLUR = "blur"
"""Stands for the picture itself, stretched over the whole crop and blurred."""
TRANSPARENT = "transparent"
"""Stands for transparency, which training can take as "do not learn this"."""

ALL_SIDES = (True, True, True, True)
_ALIKE = 12  # the farthest a uniform edge's pixel may be from its median, a channel; JPEG noise stays within
_ALIKE_SHARE = 0.97
_BLUR_SIDE = 96  # pixels of the picture that is blurred; finer detail would be blurred away


def parse_color(text: str) -> Color | None:
    """A colour by its name or as #rrggbb; None for "auto", "blur" and "transparent".

    Raises:
        InputError: there is no such colour.
    """
    if text.strip().lower() in (AUTO, BLUR, TRANSPARENT):
        return None
    try:
        red, green, blue = ImageColor.getrgb(text.strip())[:3]
    except ValueError as error:
        raise InputError(
            f'"{text}" is not a colour.',
            "Use a name such as white, a code such as #ffeedd, or auto, blur or transparent.",
        ) from error
    return red, green, blue


def edge_color(image: Image.Image, sides: Sides, share: float = _ALIKE_SHARE) -> Color | None:
    """The colour that at least this share of these edges of an RGB picture has; None where there is none."""
    pixels = np.asarray(image)
    edges = (pixels[:, 0], pixels[0], pixels[:, -1], pixels[-1])
    border = np.concatenate([edge for edge, padded in zip(edges, sides, strict=True) if padded]).astype(np.int16)
    median = np.median(border, axis=0)
    alike = np.abs(border - median).max(axis=1) <= _ALIKE
    if alike.mean() < share:
        return None
    red, green, blue = (int(value) for value in np.rint(median))
    return red, green, blue


def blurred(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """A picture stretched to a size in pixels and blurred until nothing in it can be told."""
    small = image.resize((_BLUR_SIDE, _BLUR_SIDE), Image.Resampling.BOX)
    return small.filter(ImageFilter.GaussianBlur(_BLUR_SIDE / 16)).resize(size, Image.Resampling.BICUBIC)
