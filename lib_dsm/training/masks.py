"""A picture's transparency as weights of the loss, one for each cell of the latent."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from lib_dsm.diffusion.protocol import LATENT_FACTOR
from lib_dsm.training.buckets import Size, crop_box


def loss_weights(alpha: Image.Image, size: Size) -> torch.Tensor | None:
    """How much each latent cell counts, h×w float32 with mean 1; None where all count the same.

    `alpha` is an "L" picture, 255 opaque; the part of it that training at `size` keeps is averaged over the area of
    each cell. All zeros where that part is transparent everywhere.
    """
    left, top, right, bottom = crop_box(alpha.size, size)
    rows = _overlaps(top, bottom, size[1] // LATENT_FACTOR, alpha.height)
    columns = _overlaps(left, right, size[0] // LATENT_FACTOR, alpha.width)
    opacity = rows @ (np.asarray(alpha, dtype=np.float64) / 255.0) @ columns.T
    if np.ptp(opacity) < 1e-9 and opacity.max() > 0:  # the same everywhere but for rounding
        return None
    return torch.from_numpy(opacity / (opacity.mean() or 1.0)).float()


def _overlaps(begin: float, end: float, cells: int, pixels: int) -> np.ndarray:
    """The share of each cell that each pixel covers, cells × pixels, where the cells divide `begin` to `end` evenly."""
    edges = np.linspace(begin, end, cells + 1)
    pixel = np.arange(pixels)
    covered = np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel)
    shares: np.ndarray = np.clip(covered, 0.0, None) * (cells / (end - begin))
    return shares
