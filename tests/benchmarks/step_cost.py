"""What freezing and not recomputing is worth: one embedding step, frozen U-Net, against unfrozen with recomputation.

Run: `python -m tests.benchmarks.step_cost [--sizes sd15|micro] [--side 256] [--steps 3]`. Weights are random where the
sizes are Stable Diffusion 1.5's; time and memory do not depend on their values. Both kinds take turns in one run.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path

import torch

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes, sizes_of
from lib_dsm.host.studio import MICRO, MODELS, load_model
from lib_dsm.training.loop import diffusion_losses


def sd15():
    """The studio's model in Stable Diffusion 1.5's sizes with random weights."""
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from lib_dsm.diffusion.diffusers import DiffusersModel

    sizes = Sizes()
    # The autoencoder has no part in a step whose latents are cached; a small one stands in its place.
    small = ldm_layout.vae_config(sizes_of(MICRO))
    return DiffusersModel(
        UNet2DConditionModel(**ldm_layout.unet_config(sizes)).to(memory_format=torch.channels_last),
        AutoencoderKL(**small),
        CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(sizes))),
        CLIPTokenizer.from_pretrained(MODELS / "clip"),
        ldm_layout.alphas_cumprod(sizes),
        sizes.latent_scale,
    )


def step(model, side: int, seed: int) -> float:
    """Seconds of one forward and backward through text encoder and U-Net."""
    torch.manual_seed(seed)
    vectors = torch.randn(16, model.hidden_size).mul_(0.02).requires_grad_()
    latents = torch.randn(1, 4, side // 8, side // 8)
    begun = time.perf_counter()
    conditioning = model.encode_prompts(["solo, smile, zorgle"], {"zorgle": vectors}, 1)
    timesteps = torch.tensor([500])
    diffusion_losses(model, latents, torch.randn_like(latents), timesteps, conditioning).sum().backward()
    seconds = time.perf_counter() - begun
    assert vectors.grad is not None
    return seconds


def as_peers(model, yes: bool) -> None:
    """Gradients for all weights, and activations computed twice, as the WebUI's own trainer does it; or neither."""
    model.unet.requires_grad_(yes)
    model.unet.train(yes)
    if yes:
        model.unet.enable_gradient_checkpointing()
    else:
        model.unet.disable_gradient_checkpointing()
        model.unet.zero_grad(set_to_none=True)


def main() -> None:
    """Measure and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", choices=("sd15", "micro"), default="sd15")
    parser.add_argument("--side", type=int, default=256, help="picture side in pixels")
    parser.add_argument("--steps", type=int, default=3)
    options = parser.parse_args()
    model = sd15() if options.sizes == "sd15" else load_model(Path(MICRO))
    times: dict[bool, list[float]] = {False: [], True: []}
    for number in range(-1, options.steps):
        for peers in (False, True):
            as_peers(model, peers)
            seconds = step(model, options.side, number)
            if number >= 0:
                times[peers].append(seconds)
    ours, theirs = statistics.median(times[False]), statistics.median(times[True])
    print(
        f"{options.sizes}, {options.side}×{options.side}, {torch.get_num_threads()} threads, median of {options.steps}"
    )
    print(f"frozen, no recomputation   {ours:.2f} s")
    print(f"unfrozen, recomputing      {theirs:.2f} s")
    print(f"ratio                      {ours / theirs:.2f}")


if __name__ == "__main__":
    main()
