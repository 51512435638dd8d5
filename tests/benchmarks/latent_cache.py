"""What keeping latents on the disk is worth: the second start of a training set against the first.

Run: `python -m tests.benchmarks.latent_cache [--pictures 8] [--side 256]`. The autoencoder has Stable Diffusion 1's
sizes and random weights; the pictures are 1024×1024 noise, which takes longest to decode. Both starts do the same
per picture, so that the ratio holds for any number of them.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import LatentCache
from lib_dsm.training.pictures import load_pictures, plan_pictures


class Encoder:
    """What the cache wants of a model."""

    vae_hash = "random"

    def __init__(self) -> None:
        self.vae = AutoencoderKL(**ldm_layout.vae_config(Sizes())).requires_grad_(False)

    def encode_images(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        posterior = self.vae.encode(pixels).latent_dist
        return posterior.mean, posterior.logvar


def draw(folder: Path, count: int) -> None:
    """Pictures with captions."""
    random = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        pixels = random.integers(0, 256, (1024, 1024, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text("solo", encoding="utf-8")


def start(folder: Path, cache: Path, encoder: Encoder, side: int) -> float:
    """Seconds until all pictures are ready for training."""
    began = time.perf_counter()
    plan = plan_pictures(RunConfig("zorgle", "model", str(folder), width=side, height=side))
    load_pictures(plan.pictures, LatentCache(cache, encoder), lambda done, total: None)
    return time.perf_counter() - began


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--side", type=int, default=256, help="picture side in pixels")
    options = parser.parse_args()
    encoder = Encoder()
    with tempfile.TemporaryDirectory(prefix="dsm-latents-") as name:
        folder = Path(name)
        draw(folder / "pictures", options.pictures)
        first, second = (start(folder / "pictures", folder / "cache", encoder, options.side) for _ in range(2))
    print(f"{options.pictures} pictures at {options.side}×{options.side}: first {first:.2f} s, second {second:.3f} s")
    print(f"ratio {second / first:.4f}")


if __name__ == "__main__":
    main()
