"""Pictures as the autoencoder's posterior, computed once and kept on the disk by content."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.files import write_bytes
from lib_dsm.training.buckets import Size, crop_box
from lib_dsm.training.draws import normal

_PREPARATION = "1"  # raise when pixels are prepared in another way, so that old cache entries are not taken


@dataclass(frozen=True)
class Posterior:
    """Mean and log variance of a picture's latent, each 4×h×w float32 on the CPU, unscaled."""

    mean: torch.Tensor
    logvar: torch.Tensor

    def is_finite(self) -> bool:
        """Whether all of it is numbers."""
        return bool(torch.isfinite(self.mean).all() and torch.isfinite(self.logvar).all())


def prepare_pixels(image: Image.Image, size: Size) -> torch.Tensor:
    """The centred part of an RGB picture that has the shape of `size`, as 3×H×W float32 in [-1, 1]."""
    resized = image.resize(size, Image.Resampling.LANCZOS, box=crop_box(image.size, size), reducing_gap=3.0)
    array = np.asarray(resized, dtype=np.float32) / 127.5 - 1.0
    return torch.from_numpy(array).permute(2, 0, 1).contiguous()


class LatentCache:
    """Posteriors in a folder, keyed by picture content, size and autoencoder; a damaged entry is made anew."""

    def __init__(self, folder: Path, model: DiffusionModel) -> None:
        self._folder = folder
        self._model = model

    def find(self, content_hash: str, size: Size, *, mirrored: bool = False, variant: str = "") -> Posterior | None:
        """What is kept of the picture whose file has `content_hash`, at `size`; see `get`."""
        return self._read(self._path(content_hash, size, mirrored, variant), size)

    def get(
        self, image: Image.Image, content_hash: str, size: Size, *, mirrored: bool = False, variant: str = ""
    ) -> Posterior:
        """The posterior of `image` (whose file has `content_hash`) at `size`, left and right exchanged if `mirrored`.

        `variant` tells pictures apart that were read from the same file in another way.
        """
        path = self._path(content_hash, size, mirrored, variant)
        cached = self._read(path, size)
        if cached is not None:
            return cached
        pixels = prepare_pixels(image, size)
        mean, logvar = self._model.encode_images((pixels.flip(-1) if mirrored else pixels)[None])
        posterior = Posterior(mean[0].cpu().contiguous(), logvar[0].cpu().contiguous())
        # What is no number stops the run, and is not to stop the next one.
        if posterior.is_finite():
            write_bytes(path, save({"mean": posterior.mean, "logvar": posterior.logvar}))
        return posterior

    def _path(self, content_hash: str, size: Size, mirrored: bool, variant: str) -> Path:
        text = f"{_PREPARATION}/{content_hash}/{size[0]}x{size[1]}/{self._model.vae_hash}"
        text += "/mirrored" * mirrored + f"/{variant}" * bool(variant)
        return self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.safetensors"

    def _read(self, path: Path, size: Size) -> Posterior | None:
        try:
            tensors = load_file(path)
            posterior = Posterior(tensors["mean"], tensors["logvar"])
        except (OSError, SafetensorError, KeyError):
            return None
        fits = posterior.mean.shape[1:] == (size[1] // 8, size[0] // 8)
        return posterior if fits and posterior.is_finite() else None


def draw_latent(
    posterior: Posterior, sampling: str, seed: int, index: int, place: int, factor: float = 1.0, least: float = 0.0
) -> torch.Tensor:
    """The unscaled latent 4×h×w of one showing.

    `sampling` "deterministic" gives the mean, "once" one draw for each picture (`index`), "random" one for each
    showing (`place`). The posterior's deviation is multiplied by `factor` and raised to `least` where it lies below.
    """
    if sampling == "deterministic":
        return posterior.mean
    purpose, where = ("latent once", index) if sampling == "once" else ("latent", place)
    noise = normal(seed, purpose, where, tuple(posterior.mean.shape))
    deviation = torch.exp(0.5 * posterior.logvar.clamp(-30.0, 20.0)) * factor
    return posterior.mean + deviation.clamp(min=least) * noise
