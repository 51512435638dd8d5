"""The WD1.4 preprocessing done plainly: everything at full size, one step after the other."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps


def reference(path: Path, side: int) -> NDArray[np.float32]:
    """EXIF transposed, alpha over white, padded to a white square, resized, as BGR from 0 to 255."""
    with Image.open(path) as source:
        image = ImageOps.exif_transpose(source).convert("RGBA")
    ground = Image.new("RGBA", image.size, "white")
    ground.alpha_composite(image)
    longest = max(image.size)
    square = Image.new("RGB", (longest, longest), "white")
    square.paste(ground.convert("RGB"), ((longest - image.width) // 2, (longest - image.height) // 2))
    small = square.resize((side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(small)[:, :, ::-1], dtype=np.float32)
