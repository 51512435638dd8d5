"""Counted operations of one embedding step against the least that it needs.

Run: `python -m tests.benchmarks.step_flops [--side 512]`. Nothing is computed: the model of Stable Diffusion 1.5's
sizes has no values. The least is the U-Net forward, back to its context alone, and the text encoder forward and back
for the chunks that hold the embedding, forward only for the others.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.prompts import chunk_prompt, words_of
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.training.loop import diffusion_losses
from tests.benchmarks.step_cost import sd15

CAPTION = "solo, red hair, smile, looking at viewer, hat"
PROMPTS = {
    "one caption": [f"{CAPTION}, zorgle"],
    "a caption of three chunks": [", ".join([CAPTION] * 14) + ", zorgle"],
    "four captions of different lengths": [", ".join([CAPTION] * count) + ", zorgle" for count in (1, 2, 9, 14)],
}


class _Counter(TorchDispatchMode):
    """Adds up what PyTorch's formulas say of each operation. Its own counter does not see through `autograd.grad`."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self.total += formula(*args, **(kwargs or {}), out_val=result)
        return result


def counted(work: Callable[[], object]) -> float:
    """Floating-point operations of `work` in TFLOP, a multiplication and an addition being two.

    Attention is written out meanwhile, because there is no formula for the fused one of the CPU.
    """
    with _Counter() as counter, sdpa_kernel(SDPBackend.MATH):
        work()
    return counter.total / 1e12


@dataclass(frozen=True)
class Chunks:
    """What a batch's prompts are cut into: how many for each prompt, and how many different ones in all.

    `each` has one number a prompt.
    """

    each: tuple[int, ...]
    with_embedding: int
    plain: int

    @classmethod
    def of(cls, model: DiffusersModel, prompts: list[str]) -> Chunks:
        """Those of prompts with an embedding of 16 vectors."""
        words = words_of({"zorgle": 16}, model.tokenize)
        chunked = [chunk_prompt(prompt, model.tokenize, model.special, words) for prompt in prompts]
        different = {chunk for chunks in chunked for chunk in chunks}
        placed = sum(bool(chunk.placed) for chunk in different)
        return cls(tuple(map(len, chunked)), placed, len(different) - placed)


def floor(model: DiffusersModel, height: int, width: int, chunks: Chunks, clip_skip: int = 1) -> float:
    """The least for latents of that size, one a prompt, TFLOP. No prompt is longer than it is."""

    def through_unet(batch: int, length: int) -> None:
        context = torch.zeros(batch, 77 * length, model.hidden_size, device=model.device, requires_grad=True)
        noisy = torch.zeros(batch, 4, height, width, device=model.device)
        moments = torch.zeros(batch, dtype=torch.long, device=model.device)
        output = model.unet(noisy, moments, encoder_hidden_states=context, return_dict=False)[0]
        torch.autograd.grad(output.sum(), context)

    return (
        sum(counted(partial(through_unet, batch, length)) for length, batch in Counter(chunks.each).items())
        + counted(lambda: _through_text(model, chunks.with_embedding, clip_skip, True))
        + counted(lambda: _through_text(model, chunks.plain, clip_skip, False))
    )


def _through_text(model: DiffusersModel, chunks: int, clip_skip: int, back: bool) -> None:
    if not chunks:
        return
    encoder = model.text_encoder.encoder
    handle = model.text_encoder.get_input_embeddings().register_forward_hook(
        lambda module, inputs, embedded: embedded.requires_grad_(back)
    )
    layers = encoder.layers
    encoder.layers = layers[: len(layers) + 1 - clip_skip]
    try:
        ids = torch.zeros(chunks, 77, dtype=torch.long, device=model.device)
        hidden = model.text_encoder(input_ids=ids).last_hidden_state
    finally:
        handle.remove()
        encoder.layers = layers
    if back:
        hidden.sum().backward()


def ours(model: DiffusersModel, height: int, width: int, prompts: list[str], clip_skip: int = 1) -> float:
    """What a step of ours takes on latents of that size, TFLOP; prompts of one length are a batch, as in training."""
    vectors = torch.zeros(16, model.hidden_size, device=model.device, requires_grad=True)
    replacements = {"zorgle": vectors}
    chunks = model.chunk_counts(prompts, replacements)

    def step(batch: list[str]) -> None:
        latents = torch.zeros(len(batch), 4, height, width)
        conditioning = model.encode_prompts(batch, replacements, clip_skip)
        moments = torch.full((len(batch),), 500)
        losses = diffusion_losses(model, latents, torch.zeros_like(latents), moments, conditioning)
        torch.autograd.grad(losses.sum(), vectors)

    groups = [[prompt for prompt, its in zip(prompts, chunks, strict=True) if its == count] for count in set(chunks)]
    return sum(counted(partial(step, group)) for group in groups)


def on_paper() -> DiffusersModel:
    """The model of Stable Diffusion 1.5's sizes without any values."""
    with torch.device("meta"):
        model = sd15()
    model.alphas_cumprod = ldm_layout.alphas_cumprod(Sizes())
    return model


def main() -> None:
    """Count and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="picture side in pixels")
    side = parser.parse_args().side // 8
    model = on_paper()
    print(f"Stable Diffusion 1.5, {8 * side}×{8 * side}, TFLOP a step")
    for name, prompts in PROMPTS.items():
        for clip_skip in (1, 2):
            least = floor(model, side, side, Chunks.of(model, prompts), clip_skip)
            taken = ours(model, side, side, prompts, clip_skip)
            print(f"{name:36} CLIP skip {clip_skip}   {taken:6.3f}   least {least:6.3f}   ratio {taken / least:.3f}")
    model.recompute = True
    taken = ours(model, side, side, PROMPTS["one caption"])
    print(f"{'one caption, recomputing':36} CLIP skip 1   {taken:6.3f}")


if __name__ == "__main__":
    main()
