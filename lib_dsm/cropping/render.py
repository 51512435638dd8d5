"""One crop's pixels, and its file's content."""

from __future__ import annotations

import io
from typing import Any

from PIL import Image

from lib_dsm.cropping.boxes import Box
from lib_dsm.cropping.colors import edge_color, parse_color
from lib_dsm.cropping.plan import CropItem, CropOptions, check_item
from lib_dsm.dataset.pictures import MAX_PIXELS, Picture
from lib_dsm.errors import InputError

SUFFIXES = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}


def render(picture: Picture, item: CropItem) -> Image.Image:
    """The item's crop of a picture that was read unflattened: RGB, or RGBA where the picture has transparency.

    It is scaled before it is padded. Notes on the padding are added to the picture's.

    Raises:
        InputError: the box does not touch the picture, or the finished crop would have too many pixels.
    """
    box = check_item(item)
    source = picture.image
    seen = max(box[0], 0), max(box[1], 0), min(box[2], source.width), min(box[3], source.height)
    if seen[0] >= seen[2] or seen[1] >= seen[3]:
        raise InputError(f"The box {list(box)} lies outside {item.source}, which is {picture.size}.", "Move it.")
    if item.width * item.height > MAX_PIXELS:
        raise InputError(
            f"{item.source} would become {item.width}×{item.height} pixels, over {MAX_PIXELS // 1_000_000} megapixels.",
            "Shrink it, or cut instead of padding.",
        )
    if picture.alpha is not None:
        source = Image.merge("RGBA", (*source.split(), picture.alpha))

    place = _scaled(seen, box, item)
    size = place[2] - place[0], place[3] - place[1]
    result = source.crop(seen)
    if result.size != size:
        result = result.resize(size, Image.Resampling.LANCZOS)
    if seen == box:
        return result
    canvas = Image.new(source.mode, (item.width, item.height), _padding(picture, item, box))
    canvas.paste(result, place[:2])
    return canvas


def encode(image: Image.Image, options: CropOptions) -> bytes:
    """The content of a file of the format that the options name; JPEG has no transparency and gets it over white.

    Raises:
        InputError: the format cannot hold the picture.
    """
    if image.mode == "RGBA" and options.format == "jpeg":
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    how: dict[str, Any] = {} if options.format == "png" else {"quality": options.quality}
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


def _scaled(seen: Box, box: Box, item: CropItem) -> Box:
    """Where the seen part of the box lies in the finished crop; at least one pixel."""
    across, down = item.width / (box[2] - box[0]), item.height / (box[3] - box[1])
    left = min(round((seen[0] - box[0]) * across), item.width - 1)
    top = min(round((seen[1] - box[1]) * down), item.height - 1)
    right = max(left + 1, round((seen[2] - box[0]) * across))
    bottom = max(top + 1, round((seen[3] - box[1]) * down))
    return left, top, right, bottom


def _padding(picture: Picture, item: CropItem, box: Box) -> tuple[int, ...]:
    """The colour around the picture; with "auto", nothing at all around one that has transparency."""
    color = parse_color(item.color)
    if picture.alpha is not None:
        return (255, 255, 255, 0) if color is None else (*color, 255)
    if color is None:
        color = edge_color(picture.image, box)
    if color is None:
        picture.notes.append("Its edge has more than one colour; it was padded with white.")
        return 255, 255, 255
    return color
