"""One crop's pixels, and its file's content."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable
from typing import Any

from PIL import Image

from lib_dsm.cropping.boxes import Box, Size, fitted
from lib_dsm.cropping.colors import BLUR, TRANSPARENT, blurred, edge_color, parse_color
from lib_dsm.cropping.plan import CropItem, CropOptions, check_item
from lib_dsm.dataset.pictures import MAX_PIXELS, Picture
from lib_dsm.errors import InputError

_Region = tuple[float, float, float, float]  # left, top, right, bottom

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
_PNG_BY_RUNS = 3  # zlib's Z_RLE: files as small as by the usual way, in about a quarter of the time
_GAP = 3.0  # reducing by whole pixels first, but to no less than three times the size: the eye sees no difference


def needed_side(items: Iterable[CropItem], size: Size) -> int | None:
    """The pixels of the longer side at which a picture of that upright size holds all that these crops show of it;
    None where one of them takes its pixels as they are."""
    needed = 0.0
    for item in items:
        left, top, right, bottom = check_item(item)
        scale = max(item.width / (right - left), item.height / (bottom - top))
        if scale >= 1 or item.mode == "keep":
            return None
        needed = max(needed, scale)
    return math.ceil(needed * max(size)) or None


def render(picture: Picture, item: CropItem) -> Image.Image:
    """The item's crop of a picture that was read unflattened: RGB, or RGBA where it has transparency or gets some.

    The picture may have been read smaller than it is, see `needed_side`. It is scaled before it is padded. What a box
    has beyond the finished crop's proportions is cut off at both sides, not squashed. Notes on the padding are added to
    the picture's.

    Raises:
        InputError: the box does not touch the picture, or the finished crop would have too many pixels.
    """
    box = check_item(item)
    source, (width, height) = picture.image, picture.size
    for frame in (fitted(box, (item.width, item.height)), box):  # the box itself where the picture is only at its end
        seen = max(frame[0], 0), max(frame[1], 0), min(frame[2], width), min(frame[3], height)
        if seen[0] < seen[2] and seen[1] < seen[3]:
            break
    else:
        raise InputError(f"The box {list(box)} lies outside {item.source}, which is {picture.size}.", "Move it.")
    if item.width * item.height > MAX_PIXELS:
        raise InputError(
            f"{item.source} would become {item.width}×{item.height} pixels, over {MAX_PIXELS // 1_000_000} megapixels.",
            "Shrink it, or cut instead of padding.",
        )
    if picture.alpha is not None:
        source = Image.merge("RGBA", (*source.split(), picture.alpha))

    place = _scaled(seen, frame, item)
    size = place[2] - place[0], place[3] - place[1]
    whole = round(seen[0]), round(seen[1]), round(seen[2]), round(seen[3])
    if source.size == picture.size and size == (whole[2] - whole[0], whole[3] - whole[1]):
        result = source.crop(whole)
    else:
        across, down = source.width / width, source.height / height
        right, bottom = min(seen[2] * across, source.width), min(seen[3] * down, source.height)
        region = seen[0] * across, seen[1] * down, right, bottom
        result = source.resize(size, Image.Resampling.LANCZOS, box=region, reducing_gap=_GAP)
    if size != (item.width, item.height):
        result = _padded(picture, item, box, result, place[:2])
    return result.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if item.flip else result


def encode(image: Image.Image, options: CropOptions) -> bytes:
    """The content of a file of the format that the options name; JPEG has no transparency and gets it over white.

    Raises:
        InputError: the format cannot hold the picture.
    """
    if image.mode == "RGBA" and options.format == "jpeg":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    how: dict[str, Any] = {"compress_type": _PNG_BY_RUNS} if options.format == "png" else {"quality": options.quality}
    if options.format == "jpeg":
        how["subsampling"] = 0  # coloured lines stay sharp
    target = io.BytesIO()
    try:
        image.save(target, options.format.upper(), **how)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"A picture of {image.width}×{image.height} pixels cannot be saved as {options.format} ({error}).",
            "Choose PNG, or a smaller size.",
        ) from error
    return target.getvalue()


def _scaled(seen: _Region, frame: _Region, item: CropItem) -> Box:
    """Where the seen part of the frame lies in the finished crop; at least one pixel."""
    across, down = item.width / (frame[2] - frame[0]), item.height / (frame[3] - frame[1])
    left = min(round((seen[0] - frame[0]) * across), item.width - 1)
    top = min(round((seen[1] - frame[1]) * down), item.height - 1)
    right = max(left + 1, round((seen[2] - frame[0]) * across))
    bottom = max(top + 1, round((seen[3] - frame[1]) * down))
    return left, top, right, bottom


def _padded(picture: Picture, item: CropItem, box: Box, inner: Image.Image, place: tuple[int, int]) -> Image.Image:
    """The scaled part of the picture on its ground; with "auto" that is nothing around one that has transparency."""
    kind = item.color.strip().lower()
    size = item.width, item.height
    color = parse_color(item.color)
    if kind == TRANSPARENT or (picture.alpha is not None and color is None and kind != BLUR):
        canvas = Image.new("RGBA", size, (255, 255, 255, 0))
        inner = inner.convert("RGBA")
    elif kind == BLUR:
        canvas = blurred(inner, size)
    else:
        if color is None:
            width, height = picture.size
            color = edge_color(picture.image, (box[0] < 0, box[1] < 0, box[2] > width, box[3] > height))
        if color is None:
            picture.notes.append("Its edge has more than one colour; it was padded with white.")
            color = (255, 255, 255)
        canvas = Image.new(inner.mode, size, color if inner.mode == "RGB" else (*color, 255))
    canvas.paste(inner, place)
    return canvas
