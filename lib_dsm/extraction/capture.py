"""What a model's attention layers compute keys and values from while it draws captions: what a fit is made on."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import torch

from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.jobs import Job

_TIMES = (0.95, 0.75, 0.5, 0.25, 0.05)  # of the schedule, where the U-Net is looked at
_ATTENTION = re.compile(r"^(model\.diffusion_model\.(\w+)\.(\d+)\.(?:(\d+)\.)?.*?(\d+)\.attn([12]))\.to_k\.weight$")
_ROWS = 96  # kept of each layer's context at each time


@torch.no_grad()
def capture(
    model: DiffusionModel,
    widths: Sequence[int],
    captions: Sequence[str],
    clip_skip: int,
    side: int = 32,
    job: Job | None = None,
) -> list[list[torch.Tensor]]:
    """By attention layer, in the order of the U-Net's modules, and by caption: the contexts N×W it was given.

    Layers of other widths than `widths` have none. Latents of `side`×`side` are drawn from the noise down in a few
    deterministic steps (J. Song, C. Meng, S. Ermon, "Denoising diffusion implicit models", 2021), so that what the
    layers see of themselves is what they see when a picture is made.

    Raises:
        Cancelled: the job was.
    """
    found: dict[int, list[torch.Tensor]] = {}
    generator = torch.Generator().manual_seed(0)

    def note(context: torch.Tensor, number: int) -> torch.Tensor:
        rows = context.detach().float().reshape(-1, context.shape[-1]).cpu()
        if len(rows) > _ROWS:
            rows = rows[torch.randperm(len(rows), generator=generator)[:_ROWS]]
        found.setdefault(number, []).append(rows)
        return context

    def same(context: torch.Tensor, number: int) -> torch.Tensor:
        return context

    alphas = model.alphas_cumprod.cpu()
    steps = [int(share * (len(alphas) - 1)) for share in _TIMES]
    captured: dict[int, list[torch.Tensor]] = {}
    for index, caption in enumerate(captions):
        if job is not None:
            job.check()
            job.progress(index, len(captions), caption[:60])
        found.clear()
        conditioning = model.encode_prompts([caption], {}, clip_skip)
        latents = torch.randn(1, 4, side, side, generator=generator).to(model.device)
        with model.contexts_changed(dict.fromkeys(widths, (note, same))):
            for place, step in enumerate(steps):
                output = model.predict(latents, torch.tensor([step], device=model.device), conditioning).float()
                signal, sigma = float(alphas[step].sqrt()), float((1 - alphas[step]).sqrt())
                if model.prediction_type == "v_prediction":
                    noise, clean = sigma * latents + signal * output, signal * latents - sigma * output
                else:
                    noise, clean = output, (latents - sigma * output) / signal
                after = alphas[steps[place + 1]] if place + 1 < len(steps) else torch.tensor(1.0)
                latents = float(after.sqrt()) * clean + float((1 - after).sqrt()) * noise
        for number, rows in found.items():
            captured.setdefault(number, []).append(torch.cat(rows))
    return [captured.get(number, []) for number in range(max(captured, default=-1) + 1)]


def attention_names(keys: Iterable[str], middle_last: bool) -> list[str]:
    """The attention layers of a checkpoint (canonical keys) in the order of the U-Net's modules.

    ldm has the middle block between the others; diffusers has it last (`middle_last`).
    """
    places = {"input_blocks": 0, "middle_block": 3 if middle_last else 1, "output_blocks": 2}
    found = []
    for key in keys:
        match = _ATTENTION.match(key)
        if match:
            numbers = [int(part or 0) for part in match.groups()[2:]]
            found.append((places[match[2]], numbers, match[1]))
    return [name for _, _, name in sorted(found)]
