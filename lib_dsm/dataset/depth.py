"""Pictures of more than 8 bits a channel, brought down to 8."""

from __future__ import annotations

import numpy as np
from PIL import Image


def to_8_bit(image: Image.Image, notes: list[str]) -> Image.Image:
    """Return a greyscale picture of 16 or 32 bits or of floats as "L", every other one as it is.

    White is 65535 for whole numbers and 1.0 for floats; where a picture goes beyond, white is its own largest value,
    and a note says so. Values below zero become black.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.nan_to_num(np.asarray(image, dtype=np.float64), posinf=0.0, neginf=0.0)
    usual = 1.0 if image.mode == "F" else 65535.0
    largest = float(values.max())
    if largest > usual:
        notes.append(f"Its values go up to {largest:g}, beyond {usual:g}; the largest was taken as white.")
    scaled = np.clip(values * (255.0 / max(usual, largest)), 0.0, 255.0)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))
