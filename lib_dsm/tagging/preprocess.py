"""A picture as the WD1.4 taggers want it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def prepare(image: Image.Image, side: int) -> NDArray[np.float32]:
    """An RGB picture as `side × side × 3`, BGR, 0 to 255: scaled as a whole and centred on a white square.

    It is shrunk before it is padded, so that a long picture costs no more memory than any other.
    """
    width, height = image.size
    scale = side / max(width, height)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    if size != image.size:
        image = image.resize(size, Image.Resampling.BICUBIC, reducing_gap=2.0)
    square = Image.new("RGB", (side, side), "white")
    square.paste(image, ((side - size[0]) // 2, (side - size[1]) // 2))
    return np.ascontiguousarray(np.asarray(square)[:, :, ::-1], dtype=np.float32)
