"""Trains the micro model's autoencoder from nothing: `python -m lib_dsm.demo.train_autoencoder --state DIR`.

Mean absolute and squared error with a trace of Kullback-Leibler divergence (Rombach et al. 2022), first on crops, which
are cheap, then on whole pictures. Residual branches begin as nothing. The folder holds the whole state, so a run may be
killed and goes on where it last saved; `--export FILE` writes the micro checkpoint with the new autoencoder, for which
`train_diffusion --autoencoder FILE` then trains a U-Net.
"""

from __future__ import annotations

import argparse
import io
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from lib_dsm.demo import world
from lib_dsm.demo.install import CHECKPOINT, write_yaml
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.sizes import sizes_of
from lib_dsm.files import write_bytes

SEED = 1
STEPS = 6_000
CROPS_SHARE = 0.8  # of the steps, the first ones
CROPS = 16  # a step
CROP_SIDE = 32
WHOLE = 4  # whole pictures a step
RATE = 1e-3
WARM_UP = 100
KL_WEIGHT = 1e-5
FIRST_LOG_VARIANCE = -4.0
DEVIATION_SAMPLES = 64
SAVE_EVERY = 300.0  # seconds
LOG_EVERY = 50  # steps


class Training:
    """One training run in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sizes = sizes_of(CHECKPOINT)
        self.start = load_file(CHECKPOINT)
        tokenizer = Path(self.sizes.text_version)
        self.model = DiffusersModel.from_state(self.start, self.sizes, tokenizer, torch.device("cpu"), torch.float32)
        self.autoencoder = self.model.autoencoder.requires_grad_(True).train()
        _forget(self.autoencoder)
        self.optimizer = torch.optim.AdamW(
            self.autoencoder.parameters(), lr=0.0, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.step = 0
        self._resume()

    def run(self, minutes: float = 0.0, steps: int = STEPS) -> None:
        """Train until the time (0: as long as it takes) or the number of steps is over."""
        began = saved = time.monotonic()
        errors: list[float] = []
        while self.step < steps:
            errors.append(self.one_step())
            now = time.monotonic()
            if self.step % LOG_EVERY == 0:
                print(f"step {self.step} L1 {sum(errors) / len(errors):.4f} {now - began:.0f} s", flush=True)
                errors.clear()
            if now - saved > SAVE_EVERY:
                self.save()
                saved = now
            if 0 < minutes * 60 < now - began:
                break
        self.save()

    def one_step(self) -> float:
        """One optimiser step; every draw is a function of the step. Returns the mean absolute error on [-1, 1]."""
        rng = random.Random(f"{SEED}/autoencoder/{self.step}")
        pixels = _crops(rng) if self.step < CROPS_SHARE * STEPS else _whole(rng)
        posterior = self.autoencoder.encode(pixels.contiguous(memory_format=torch.channels_last)).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=torch.Generator().manual_seed(rng.randrange(2**62)))
        returned = self.autoencoder.decode(posterior.mean + posterior.std * noise).sample
        error = returned - pixels
        absolute = error.abs().mean()
        loss = absolute + error.square().mean() + KL_WEIGHT * posterior.kl().mean()
        for group in self.optimizer.param_groups:
            group["lr"] = RATE * min(1.0, (self.step + 1) / WARM_UP) * (1 - self.step / STEPS)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.autoencoder.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.step += 1
        return float(absolute.detach())

    def save(self) -> None:
        """Write everything that the run needs to go on."""
        state = {
            "step": self.step,
            "weights": self.autoencoder.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_bytes(self.folder / "autoencoder.pt", buffer.getvalue())

    def _resume(self) -> None:
        if not (self.folder / "autoencoder.pt").exists():
            return
        state = torch.load(self.folder / "autoencoder.pt", weights_only=True)
        self.step = state["step"]
        self.autoencoder.load_state_dict(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])

    @torch.no_grad()
    def export(self, path: Path) -> None:
        """Write the micro checkpoint with this autoencoder, its latents scaled to the deviation that 0.18215 wants."""
        rng = random.Random(f"{SEED}/deviation")
        latents = torch.cat(
            [self.autoencoder.encode(_whole(rng)).latent_dist.mean.flatten() for _ in range(DEVIATION_SAMPLES)]
        )
        change = 1.0 / (self.sizes.latent_scale * float(latents.std()))
        trained = ldm_layout.to_ldm(dict(self.autoencoder.state_dict()), ldm_layout.vae_key_map(self.sizes))
        _scale_latents(trained, change)
        state = self.start | {
            name: value.reshape(self.start[name].shape).to(self.start[name].dtype).contiguous()
            for name, value in trained.items()
        }
        write_bytes(path, save(state, {"format": "pt"}))
        write_yaml(path)


def _scale_latents(state: dict[str, torch.Tensor], change: float) -> None:
    """Multiply what the encoder gives by `change` and have the decoder take it back."""
    mean = slice(0, 4)
    for name in ("quant_conv.weight", "quant_conv.bias"):
        state[f"{ldm_layout.VAE_PREFIX}{name}"][mean] *= change
    state[f"{ldm_layout.VAE_PREFIX}quant_conv.bias"][4:] += 2 * float(np.log(change))  # the log-variance
    state[f"{ldm_layout.VAE_PREFIX}post_quant_conv.weight"] /= change


def _forget(autoencoder: Any) -> None:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(SEED)
        fresh = type(autoencoder)(**autoencoder.config)
        for name, parameter in fresh.named_parameters():
            if ".conv2." in name or ".to_out.0." in name:
                parameter.zero_()
        fresh.quant_conv.bias[4:] = FIRST_LOG_VARIANCE
    autoencoder.load_state_dict(fresh.state_dict())


def _crops(rng: random.Random) -> torch.Tensor:
    """Crops that lie on whole cells of 8 pixels, as latents do."""
    crops = []
    for _ in range(CROPS):
        picture = _picture(rng, rng.choice(world.SIZES))
        left, top = (8 * rng.randrange((side - CROP_SIDE) // 8 + 1) for side in (picture.shape[2], picture.shape[1]))
        crops.append(picture[:, top : top + CROP_SIDE, left : left + CROP_SIDE])
    return torch.stack(crops)


def _whole(rng: random.Random) -> torch.Tensor:
    size = rng.choice(world.SIZES)
    return torch.stack([_picture(rng, size) for _ in range(WHOLE)])


def _picture(rng: random.Random, size: tuple[int, int]) -> torch.Tensor:
    picture = world.render(world.sample_seen(rng), *size, rng)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the demo world's autoencoder.")
    parser.add_argument("--state", type=Path, required=True, help="folder of the run; a run that is there goes on")
    parser.add_argument("--minutes", type=float, default=0.0, help="how long at most; 0 until it is done")
    parser.add_argument("--threads", type=int, default=1, help="processor threads")
    parser.add_argument("--export", type=Path, help="write a checkpoint with the autoencoder to this file instead")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    training = Training(options.state)
    if options.export:
        training.export(options.export)
    else:
        training.run(options.minutes)


if __name__ == "__main__":
    main()
