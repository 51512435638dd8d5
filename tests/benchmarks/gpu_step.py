"""Embedding steps of Stable Diffusion 1.5's sizes on an NVIDIA GPU: time, memory, and what smaller cards hold.

Run: `python -m tests.benchmarks.gpu_step [--side 512] [--steps 10]`. Weights are random, which changes neither time nor
memory. Ours are real steps of the trainer. The other is a step as the WebUI's own trainer makes it, on the same model
and in the same precision: gradients for all of the U-Net's weights, and its blocks computed twice. Memory is the most
that PyTorch had allocated above the loaded model. For a smaller card, PyTorch is held to its memory less what the
driver and a desktop take, and the trainer decides by itself.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from lib_dsm.diffusion.diffusers import DiffusersModel
from lib_dsm.diffusion.recompute import Recomputation
from lib_dsm.diffusion.sizes import Sizes
from lib_dsm.errors import GuardError
from lib_dsm.host.studio import MODELS
from lib_dsm.networks.textual_inversion import TextualInversion
from lib_dsm.training import memory
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import Posterior
from lib_dsm.training.loop import Callbacks, Commands, StepReport, Trainer, diffusion_losses
from lib_dsm.training.pictures import TrainingPicture, TrainingSet
from lib_dsm.training.run_folder import RunFolder
from tests.benchmarks.webui_step import random_state

GIB = 1 << 30
TAKEN = int(0.8 * GIB)  # by the driver and a desktop
BATCHES = (1, 2, 4, 8)
DEVICE = torch.device("cuda")


@dataclasses.dataclass(frozen=True)
class Measured:
    """Seconds of each step, and the most bytes allocated above the loaded model."""

    seconds: list[float]
    bytes: int

    def __str__(self) -> str:
        return f"{1000 * statistics.median(self.seconds):7.1f} ms  {self.bytes / 1e9:5.2f} GB"


def pictures(side: int, count: int) -> TrainingSet:
    """Pictures that were encoded already."""
    generator = torch.Generator().manual_seed(0)
    shape = (4, side // 8, side // 8)
    return TrainingSet(
        tuple(
            TrainingPicture(
                path=Path(f"{number}.png"),
                size=(side, side),
                tags=("solo", "smile", "red hair"),
                content_hash=str(number),
                posterior=Posterior(torch.randn(shape, generator=generator), torch.full(shape, -10.0)),
            )
            for number in range(count)
        )
    )


def settings(side: int, batch: int, steps: int, recompute: str) -> RunConfig:
    """A run without anything but steps."""
    return RunConfig(
        "zorgle", "random", "pictures", vectors=16, max_steps=steps, batch_size=batch, gradient_accumulation=1,
        width=side, height=side, save_every=0, preview_every=0, validate_every=0, recompute=recompute,
    )  # fmt: skip


def ours(model: DiffusersModel, config: RunConfig, free: int | None = None) -> tuple[Measured, str]:
    """Steps of the trainer, the first three uncounted, and what it said of memory. `free` bytes are there, if told."""
    said: list[str] = []
    data = pictures(config.width, 2 * config.batch_size)
    known = {} if free is None else {"free": lambda device: free - torch.cuda.memory_allocated()}
    parts = memory.plan(config, model, set(data.sizes), said.append, **known)
    seconds: list[float] = []

    def stepped(report: StepReport) -> None:
        seconds.append(report.seconds)
        if len(seconds) == 3:
            torch.cuda.reset_peak_memory_stats()

    quiet = Callbacks(stepped, lambda step: None, lambda step, folder: None, lambda step, path: None)
    never = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)
    network = TextualInversion("zorgle", 0.02 * torch.randn(16, model.hidden_size), DEVICE)
    before = torch.cuda.memory_allocated()
    try:
        with tempfile.TemporaryDirectory() as name:
            Trainer(config, model, network, data, RunFolder(Path(name)), quiet, never, parts).run()
    finally:
        model.recompute = False
    return Measured(seconds[3:], torch.cuda.max_memory_allocated() - before), " ".join(said)


@contextmanager
def as_peers(model: DiffusersModel) -> Iterator[None]:
    """Meanwhile all of the U-Net's weights have gradients, and its blocks are computed twice."""
    twice = Recomputation(
        module for module in model.unet.modules() if isinstance(module, (ResnetBlock2D, BasicTransformerBlock))
    )
    model.unet.requires_grad_(True)
    twice.switch(True)
    try:
        yield
    finally:
        twice.switch(False)
        model.unet.requires_grad_(False)
        model.unet.zero_grad(set_to_none=True)


def theirs(model: DiffusersModel, side: int, batch: int, steps: int) -> Measured:
    """Steps as the WebUI's own trainer makes them."""
    vectors = (0.02 * torch.randn(16, model.hidden_size, device=DEVICE)).requires_grad_()
    optimizer = torch.optim.AdamW([vectors], lr=0.0)
    seconds = []
    before = torch.cuda.memory_allocated()
    with as_peers(model):
        for number in range(steps):
            if number == 3:
                torch.cuda.reset_peak_memory_stats()
            torch.manual_seed(number)
            began = time.perf_counter()
            latents = torch.randn(batch, 4, side // 8, side // 8)
            conditioning = model.encode_prompts(["solo, smile, red hair, zorgle"] * batch, {"zorgle": vectors}, 1)
            moments = torch.randint(0, 1000, (batch,))
            loss = diffusion_losses(model, latents, torch.randn_like(latents), moments, conditioning).mean()
            (1024 * loss).backward()
            loss.item()
            optimizer.step()
            optimizer.zero_grad()
            torch.cuda.synchronize()
            seconds.append(time.perf_counter() - began)
    return Measured(seconds[3:], torch.cuda.max_memory_allocated() - before)


def emptied() -> None:
    """Nothing is left of what came before."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def compare(model: DiffusersModel, side: int, steps: int) -> None:
    """Print time and memory for each batch."""
    print(f"{'batch':>5}  {'ours':22}  {'ours, recomputing':22}  {'as the WebUI does':22}  ratio of time, of memory")
    for batch in BATCHES:
        found = []
        for recompute in ("never", "always"):
            emptied()
            found.append(ours(model, settings(side, batch, steps, recompute), None)[0])
        emptied()
        found.append(theirs(model, side, batch, steps))
        time_, memory_ = (
            statistics.median(found[0].seconds) / statistics.median(found[2].seconds), found[0].bytes / found[2].bytes,
        )  # fmt: skip
        print(f"{batch:5}  {found[0]}    {found[1]}    {found[2]}    {time_:.2f}, {memory_:.2f}", flush=True)


def smaller_cards(model: DiffusersModel) -> None:
    """Print what the trainer does where there is less memory, and that it goes."""
    total = torch.cuda.get_device_properties(0).total_memory
    for gibibytes, (side, batch) in itertools.product((8, 6, 4), ((512, 1), (512, 8), (768, 8), (1024, 4))):
        emptied()
        there = gibibytes * GIB - TAKEN
        torch.cuda.set_per_process_memory_fraction(there / total)
        try:
            measured, said = ours(model, settings(side, batch, 5, "auto"), there)
            print(f"{gibibytes} GB card, {side}×{side}, batch {batch}: {measured}, reserved "
                  f"{torch.cuda.max_memory_reserved() / 1e9:.2f} GB. {said}", flush=True)  # fmt: skip
        except GuardError as error:
            print(f"{gibibytes} GB card, {side}×{side}, batch {batch}: {error}", flush=True)
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=512, help="picture side in pixels")
    parser.add_argument("--steps", type=int, default=10, help="steps that are timed")
    options = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {options.side}×{options.side}")
    for dtype in (torch.float16, torch.bfloat16):
        state = random_state(Sizes())
        model = DiffusersModel.from_state(state, Sizes(), MODELS / "clip", DEVICE, dtype)
        emptied()
        print(f"\n{dtype}: the model takes {torch.cuda.memory_allocated() / 1e9:.2f} GB")
        compare(model, options.side, options.steps + 3)
        if dtype == torch.float16:
            smaller_cards(model)
        del model


if __name__ == "__main__":
    main()
