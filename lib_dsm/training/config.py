"""The settings of a training run, as `RUN.json` holds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.files import file_name, read_json
from lib_dsm.options import option

VERSION = 1
_SPECIAL_IN_PROMPT = re.compile(r"[,.()\[\]{}:|]")
SAMPLERS = ("Euler a", "Euler", "DDIM", "DPM++ 2M")


@dataclass(frozen=True)
class PreviewRequest:
    """One picture to be generated while training."""

    prompt: str = option("", "Prompt; [name] stands for the embedding; empty uses a caption of the dataset.")
    negative: str = option("", "Negative prompt.")
    seed: int = option(1, "Seed of the preview's noise.", minimum=0, maximum=2**32 - 1)
    steps: int = option(20, "Sampling steps.", minimum=1, maximum=150)
    cfg: float = option(7.0, "Guidance scale.", label="CFG scale", minimum=1.0, maximum=30.0, step=0.5)
    width: int = option(512, "Width in pixels.", minimum=64, maximum=2048, step=8)
    height: int = option(512, "Height in pixels.", minimum=64, maximum=2048, step=8)
    sampler: str = option("Euler a", "Sampler.", choices=SAMPLERS)


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. Equal configurations give equal bits on the CPU."""

    name: str = option(help="What to call the embedding; this word then stands for it in prompts.")
    checkpoint: str = option(help="The Stable Diffusion checkpoint to train on: a file or a name the host knows.")
    dataset: str = option(help="Folder with pictures and their captions (.txt beside each).")
    version: int = option(VERSION, "Version of this layout.", minimum=1, maximum=VERSION)
    kind: str = option("embedding", "What to train.", choices=("embedding",))
    template: tuple[str, ...] = option(
        ("[filewords], [name]",), "Lines of the prompt template; one is drawn each time."
    )
    vectors: int = option(16, "Vectors per token.", label="Vectors per token", minimum=1, maximum=75)
    init_text: str = option("*", "Words the vectors start from.", label="Initialization text")
    learning_rate: str = option("0.0005:5000, 0.0001:10000", "Rate, or rate:step pairs; a rate holds up to its step.")
    max_steps: int = option(5000, "Optimiser steps to finish at.", minimum=1, maximum=1_000_000)
    batch_size: int = option(1, "Pictures that go through the model at once.", minimum=1, maximum=64)
    gradient_accumulation: int = option(5, "Batches that make one optimiser step.", minimum=1, maximum=256)
    width: int = option(
        512, "With the height: the largest area of a training picture.", minimum=64, maximum=2048, step=8
    )
    height: int = option(512, "With the width: the largest area.", minimum=64, maximum=2048, step=8)
    variable_aspect: bool = option(True, "Train each picture at the size nearest its own shape.")
    size_step: int = option(64, "Training sizes are multiples of this many pixels.", choices=(8, 16, 32, 64))
    enlarge: bool = option(False, "Enlarge pictures smaller than the training size.")
    repeats: int = option(1, "How often an epoch shows each picture.", minimum=1, maximum=1000)
    shuffle_tags: bool = option(True, "Shuffle the caption's tags each time.")
    keep_tags: int = option(0, "How many tags at the front stay in place.", minimum=0, maximum=75)
    tag_dropout: float = option(0.0, "Chance to leave out a tag.", minimum=0.0, maximum=1.0, step=0.05)
    latent_sampling: str = option(
        "deterministic", "The autoencoder's mean, one draw for good, or a draw each time.",
        choices=("once", "deterministic", "random"),
    )  # fmt: skip
    clip_skip: int = option(1, "CLIP skip of the whole run; use the one you will generate with.", minimum=1, maximum=12)
    seed: int = option(0, "Decides order, noise, timesteps and shuffles.", minimum=0, maximum=2**32 - 1)
    weight_decay: float = option(0.0, "AdamW's weight decay.", minimum=0.0, maximum=10.0)
    save_every: int = option(250, "Steps between saved copies; 0 saves at the end only.", minimum=0, maximum=1_000_000)
    preview_every: int = option(250, "Steps between previews; 0 makes none.", minimum=0, maximum=1_000_000)
    previews: tuple[PreviewRequest, ...] = option((PreviewRequest(),), "The pictures of each preview.")
    output: str = option("", "Folder of the finished files; empty for the host's own.")
    overwrite: bool = option(False, "Move an existing run of this name aside instead of refusing.")
    override: tuple[str, ...] = option((), "Ids of guards that block and that you take responsibility for.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", file_name(self.name, "embedding's name"))
        special = _SPECIAL_IN_PROMPT.search(self.name)
        if special:
            raise InputError(
                f'The embedding\'s name "{self.name}" holds "{special.group()}", which prompts read as a sign.',
                "Use letters, digits, spaces, - and _.",
            )
        if self.width % 8 or self.height % 8:
            raise InputError(f"The size {self.width}×{self.height} is no multiple of 8.", "Use multiples of 8.")

    @property
    def pictures_per_step(self) -> int:
        """Over how many pictures an optimiser step averages."""
        return self.batch_size * self.gradient_accumulation


def read_config(path: Path, changes: dict[str, Any] | None = None) -> RunConfig:
    """Read `RUN.json`; relative paths in it are relative to the file. `changes` replace keys of the file.

    Raises:
        InputError: the file is missing or not JSON, a key is unknown or a value wrong.
    """
    values = read_json(path)
    if isinstance(values, dict):
        values = {**values, **(changes or {})}
    config = options.from_json(RunConfig, values, "run settings")
    base = path.resolve().parent
    changed: dict[str, Any] = {}
    for key in ("checkpoint", "dataset", "output"):
        value = getattr(config, key)
        # A checkpoint may also be a name that the host knows.
        if value and not Path(value).is_absolute() and (key != "checkpoint" or (base / value).exists()):
            changed[key] = str(base / value)
    return replace(config, **changed)
