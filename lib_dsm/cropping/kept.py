"""Which files can be taken over as they are instead of being written anew."""

from __future__ import annotations

import dataclasses
import io
from pathlib import Path

from PIL import Image, ImageCms

from lib_dsm.cropping.plan import CropItem
from lib_dsm.dataset.pictures import exif_orientation, is_srgb


def kept_where_it_can_be(item: CropItem, path: Path, file_format: str) -> CropItem:
    """The item, in mode "keep" where the source's file is what would be written, which then loses nothing by being
    saved once more."""
    whole = item.box == (0, 0, item.width, item.height) and not item.flip
    return dataclasses.replace(item, mode="keep") if whole and _is_as_wanted(path, item, file_format) else item


def _is_as_wanted(path: Path, item: CropItem, file_format: str) -> bool:
    """Whether a file is a still picture of the item's size and that format, in 8-bit sRGB and upright."""
    try:
        with Image.open(path) as image:
            if image.format != file_format.upper() or image.size != (item.width, item.height):
                return False
            plain = image.mode in ("RGB", "RGBA") and "transparency" not in image.info
            still = not getattr(image, "is_animated", False)
            damaged: list[str] = []
            upright = exif_orientation(image, damaged) == 1 and not damaged
            deep = any("16" in str(tile[3]) for tile in image.tile)  # a PNG's 16 bits are told only there
            profile = image.info.get("icc_profile")
            standard = not profile or is_srgb(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
            return plain and still and upright and not deep and standard
    except Exception:  # Pillow's readers raise nearly any kind of error; whoever decodes it says what is wrong
        return False
