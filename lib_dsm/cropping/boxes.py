"""The geometry of crops: pure functions on sizes and boxes in whole pixels.

A size is (width, height); a box (left, top, right, bottom), right and bottom exclusive, in the upright picture. A box
may reach beyond the picture: what lies outside is to be padded.
"""

from __future__ import annotations

_FILLED = 0.8

Size = tuple[int, int]
Box = tuple[int, int, int, int]


def center_box(size: Size, shape: Size) -> Box:
    """The largest box of the shape's proportions in the middle of a picture."""
    width, height = size
    if width * shape[1] > height * shape[0]:
        width = max(1, round(height * shape[0] / shape[1]))
    else:
        height = max(1, round(width * shape[1] / shape[0]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def padded_box(size: Size, shape: Size, exact: bool = False) -> Box:
    """The smallest box of the shape's proportions around a whole picture, which lies in its middle.

    With `exact` a picture that nearly fills the shape, by 80 % of its width or height, gets the shape's own pixels: a
    little more ground makes it exact without enlarging. A smaller one would be mostly ground.
    """
    width, height = size
    if exact and width <= shape[0] and height <= shape[1] and max(width / shape[0], height / shape[1]) >= _FILLED:
        width, height = shape
    elif width * shape[1] > height * shape[0]:
        height = max(height, round(width * shape[1] / shape[0]))
    else:
        width = max(width, round(height * shape[0] / shape[1]))
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return left, top, left + width, top + height


def fitted(box: Box, size: Size) -> tuple[float, float, float, float]:
    """The largest part of a box that has the proportions of a size, in the box's middle: cut and not squashed."""
    left, top, right, bottom = box
    scale = max(size[0] / (right - left), size[1] / (bottom - top))
    across, down = (right - left - size[0] / scale) / 2, (bottom - top - size[1] / scale) / 2
    return left + across, top + down, right - across, bottom - down


def split_boxes(size: Size, shape: Size) -> dict[str, Box]:
    """Two boxes of the shape's proportions at the ends of a long picture: "left" and "right", or "top" and "bottom".

    They overlap where the picture is less than twice as long as the shape, and leave the middle out where it is more.
    """
    width, height = size
    left, top, right, bottom = center_box(size, shape)
    if right - left < width:
        return {"left": (0, 0, right - left, height), "right": (width - (right - left), 0, width, height)}
    return {"top": (0, 0, width, bottom - top), "bottom": (0, height - (bottom - top), width, height)}


def elongation(size: Size, shape: Size) -> float:
    """How many times as long, in its longer direction, a picture is as one of the shape's proportions; 1 or more."""
    ratio = size[0] * shape[1] / (size[1] * shape[0])
    return max(ratio, 1 / ratio)


def output_size(box: Box, shape: Size, enlarge: bool) -> Size:
    """The pixels of the finished crop: the shape's, or the box's own where it has fewer and may not be enlarged."""
    own = box[2] - box[0], box[3] - box[1]
    return shape if enlarge or (own[0] >= shape[0] and own[1] >= shape[1]) else own
