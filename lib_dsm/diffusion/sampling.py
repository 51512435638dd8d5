"""Generating pictures in the studio, with diffusers' samplers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image

from lib_dsm.diffusion.protocol import LATENT_FACTOR, DiffusionModel

_SAMPLERS: dict[str, type[Any]] = {
    "Euler a": EulerAncestralDiscreteScheduler,
    "Euler": EulerDiscreteScheduler,
    "DDIM": DDIMScheduler,
    "DPM++ 2M": DPMSolverMultistepScheduler,
}


class Request(Protocol):
    """What is asked for; sizes in pixels, multiples of 8."""

    @property
    def prompt(self) -> str: ...
    @property
    def negative(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def steps(self) -> int: ...
    @property
    def cfg(self) -> float: ...
    @property
    def width(self) -> int: ...
    @property
    def height(self) -> int: ...
    @property
    def sampler(self) -> str: ...


@torch.no_grad()
def generate(
    model: DiffusionModel,
    request: Request,
    replacements: Mapping[str, torch.Tensor],
    clip_skip: int,
    check: Callable[[], None] = lambda: None,
) -> Image.Image:
    """The RGB picture of a request, from the prompt to the pixels; `check` is as `sample`'s."""
    latents = sample(
        model,
        model.encode_prompts([request.prompt], replacements, clip_skip),
        model.encode_prompts([request.negative], replacements, clip_skip),
        width=request.width,
        height=request.height,
        steps=request.steps,
        cfg=request.cfg,
        sampler=request.sampler,
        seeds=[request.seed],
        check=check,
    )
    return decode(model, latents)[0]


@torch.no_grad()
def decode(model: DiffusionModel, latents: torch.Tensor) -> list[Image.Image]:
    """The RGB pictures of scaled latents B×4×h×w."""
    pixels = ((model.decode_latents(latents) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return [Image.fromarray(picture.permute(1, 2, 0).numpy()) for picture in pixels]


def sample(
    model: DiffusionModel,
    conditioning: torch.Tensor,
    unconditional: torch.Tensor,
    *,
    width: int,
    height: int,
    steps: int,
    cfg: float,
    sampler: str,
    seeds: Sequence[int],
    check: Callable[[], None] = lambda: None,
) -> torch.Tensor:
    """Latents B×4×height/8×width/8, scaled, for conditionings B×77k×D (or 1×77k×D for all) and as many seeds B, under
    classifier-free guidance (Ho 2022).

    Each picture's noise comes from a generator of its own, so it does not depend on the others, and no global random
    state is read or moved. `check` is called before each sampling step and may raise to end it.
    """
    alphas = model.alphas_cumprod.cpu().double()
    betas = 1.0 - alphas / torch.cat([torch.ones(1, dtype=torch.float64), alphas[:-1]])
    scheduler = _SAMPLERS[sampler](
        trained_betas=betas.float().numpy(), prediction_type=model.prediction_type, timestep_spacing="leading",
        steps_offset=1,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    noise = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    shape = (1, 4, height // LATENT_FACTOR, width // LATENT_FACTOR)
    begun = torch.cat([torch.randn(shape, generator=generator) for generator in noise])
    latents: torch.Tensor = begun.to(model.device) * scheduler.init_noise_sigma
    longest = max(conditioning.shape[1], unconditional.shape[1])
    sides = (_lengthen(side, longest).expand(len(seeds), -1, -1) for side in (unconditional, conditioning))
    both = torch.cat(list(sides))
    extra = {"generator": noise} if sampler in ("Euler a", "DDIM") else {}
    for timestep in scheduler.timesteps:
        check()
        scaled = scheduler.scale_model_input(latents, timestep)
        moment = timestep.reshape(1).expand(2 * len(seeds)).to(model.device)
        without, with_prompt = model.predict(torch.cat([scaled, scaled]), moment, both).chunk(2)
        guided = without + cfg * (with_prompt - without)
        latents = scheduler.step(guided, timestep, latents, **extra).prev_sample
    return latents


def _lengthen(conditioning: torch.Tensor, length: int) -> torch.Tensor:
    """Repeat the last chunk until both sides of the guidance are equally long."""
    missing = (length - conditioning.shape[1]) // 77
    return torch.cat([conditioning, *[conditioning[:, -77:]] * missing], dim=1)
