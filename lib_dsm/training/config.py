"""The settings of a training run, as `RUN.json` holds them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.files import exists, file_name, read_json
from lib_dsm.networks.hypernetwork_structure import ACTIVATIONS, INITIALISATIONS, LINEAR_UPSAMPLING, Structure
from lib_dsm.options import option
from lib_dsm.training.settings_file import settings_in
from lib_dsm.training.stepwise import parse_bound, parse_norm

VERSION = 1
EMBEDDING, HYPERNETWORK = KINDS = ("embedding", "hypernetwork")
# Signs that prompts read as such where an embedding's name stands, or end it in <hypernet:NAME:1>.
_SPECIAL_IN_PROMPT = {EMBEDDING: re.compile(r"[,.()\[\]{}:|]"), HYPERNETWORK: re.compile(r"[:<>]")}
OPTIMIZERS = ("adamw", "prodigy", "dadapt")
RECOMPUTE = ("auto", "always", "never")
STOP_WHEN = ("never", "flat", "overtrained")
SCHEDULES = ("steps", "cosine", "cosine restarts")
WARMUP_REPEATS = ("once", "each cycle")
LOSS_WEIGHTINGS = ("none", "min-snr", "soft-min-snr", "debiased", "p2")
TIMESTEP_SAMPLINGS = ("uniform", "stratified", "logit-normal", "range")
NORM_CONTROLS = ("off", "decay", "fixed")
TEMPLATE_SOURCES = ("lines", "file", "subject", "subject_filewords", "style", "style_filewords")
TIMESTEPS = 1000  # of every Stable Diffusion model
# The WebUI's own rate; what is fit for the few numbers of an embedding kills a hypernetwork. And it acts unnamed.
HYPERNETWORK_DEFAULTS: Mapping[str, Any] = {"learning_rate": "0.00001", "template": ["[filewords]"]}
# What only one kind of network has: elsewhere it is passed over, and not asked for.
EMBEDDING_ONLY = frozenset(
    {"vectors", "init_text", "init_mode", "init_embedding", "norm_control", "norm_decay", "norm_target"}
)
HYPERNETWORK_ONLY = frozenset(
    {
        "widths", "layer_structure", "activation", "activate_output", "layer_norm", "dropout_structure",
        "skip_connection", "upsample_linear", "weight_init", "weight_init_deviation", "weight_init_seed",
        "init_hypernetwork", "preview_strength", "save_optimizer",
    }
)  # fmt: skip
STARTS = ("init_embedding", "init_hypernetwork")


def _demand_multiples(width: int, height: int, what: str) -> None:
    """A latent cell is eight pixels wide and high."""
    if width % 8 or height % 8:
        raise InputError(f"The {what} {width}×{height} is no multiple of 8.", "Use multiples of 8.")


@dataclass(frozen=True)
class PreviewRequest:
    """One picture to be generated while training."""

    prompt: str = option("", "Prompt; [name] stands for the network's name; empty uses a caption of the dataset.")
    negative: str = option("", "Negative prompt.")
    seed: int = option(1, "Seed of the preview's noise.", minimum=0, maximum=2**32 - 1)
    steps: int = option(20, "Sampling steps.", minimum=1, maximum=150)
    cfg: float = option(7.0, "Guidance scale.", label="CFG scale", minimum=1.0, maximum=30.0, step=0.5)
    width: int = option(512, "Width in pixels.", minimum=64, maximum=2048, step=8)
    height: int = option(512, "Height in pixels.", minimum=64, maximum=2048, step=8)
    # Which there are is for the host to say (host/previews.py): a file may come from another program.
    sampler: str = option("Euler a", "Sampler, by the name that the host has for it.")
    scheduler: str = option(
        "", "The WebUI's schedule type, such as Karras; empty is its Automatic.", label="Schedule type"
    )

    def __post_init__(self) -> None:
        _demand_multiples(self.width, self.height, "preview's size")


@dataclass(frozen=True)
class RunConfig:
    """Everything that decides what a run computes. Equal configurations give equal bits on the CPU."""

    name: str = option(help="What to call it; in prompts this word stands for an embedding, <hypernet:NAME:1> for it.")
    checkpoint: str = option(help="The Stable Diffusion checkpoint to train on: a file or a name the host knows.")
    dataset: str = option(help="Folder with pictures and their captions (.txt beside each).")
    version: int = option(VERSION, "Version of this layout.", minimum=1, maximum=VERSION)
    kind: str = option(EMBEDDING, "What to train.", choices=KINDS)
    template: tuple[str, ...] = option(
        ("[filewords], [name]",), "Lines of the prompt template; one is drawn each time."
    )
    template_source: str = option(
        "lines", "The lines above, those of a text file, or a set that comes with the program.",
        choices=TEMPLATE_SOURCES,
    )  # fmt: skip
    template_file: str = option(
        "",
        "A text file with one template a line, where the source is file: its path, or its name in the host's folder.",
    )
    vectors: int = option(
        16,
        "Vectors per token; guides: 16 to 24, from 32 on features melt.",
        label="Vectors per token",
        minimum=1,
        maximum=75,
    )
    init_text: str = option(
        "*",
        "Words the vectors start from: a few tags of the subject, no more tokens than vectors.",
        label="Initialization text",
    )
    init_mode: str = option(
        "tokens", "Each vector starts as one token of these words, or all of them as the words' mean.",
        label="Initialization", choices=("tokens", "mean"),
    )  # fmt: skip
    init_embedding: str = option(
        "", "An embedding to start from instead of words: a file or a name the host knows.",
        label="Start from embedding",
    )  # fmt: skip
    init_continue: bool = option(
        False, "Go on after that network's own step, with its optimizer state (the WebUI's .pt.optim) if it matches.",
        label="Continue its training",
    )  # fmt: skip
    norm_control: str = option(
        "off", "Pull the vectors' lengths towards that of the model's words, or keep them fixed.",
        label="Length control", choices=NORM_CONTROLS,
    )  # fmt: skip
    norm_decay: float = option(
        0.01, "With decay: the share of the difference to the median word's length that each step takes away.",
        label="Length decay", minimum=0.0, maximum=1.0, step=0.01,
    )  # fmt: skip
    norm_target: str = option(
        "initial", "With fixed: the length each vector starts with, or that of the median word.",
        label="Fixed length", choices=("initial", "median"),
    )  # fmt: skip
    widths: tuple[int, ...] = option(
        (), "Widths of the contexts that it acts on, such as 768, 320, 640, 1280; empty takes all that the model has."
    )
    layer_structure: tuple[float, ...] = option(
        (1.0, 2.0, 1.0), "Width of each layer, in times the context's; begins and ends with 1."
    )
    activation: str = option("linear", "Activation function after each layer but the last.", choices=ACTIVATIONS)
    activate_output: bool = option(False, "Activate the last layer too.")
    layer_norm: bool = option(False, "Normalise each layer's output.", label="Layer norm")
    dropout_structure: tuple[float, ...] = option(
        (), "Share of each layer's outputs that is left out in training, such as 0, 0.1, 0; empty for none.",
        label="Dropout structure",
    )  # fmt: skip
    skip_connection: bool = option(
        False, "Add each layer's input to its output, as Train_Gamma does; the WebUI itself cannot load such a file."
    )
    upsample_linear: bool = option(
        False, "With skip connections: a layer's input gets to another width by a matrix that is learned.",
        label="Learn the stretching",
    )  # fmt: skip
    weight_init: str = option(
        "Normal", "First weights: Normal with a deviation; Kaiming suits relu and its like, Xavier sigmoid and tanh.",
        label="Weight initialization", choices=INITIALISATIONS,
    )  # fmt: skip
    weight_init_deviation: float = option(
        0.01, "Deviation of Normal weights.", label="Deviation", minimum=0.0, maximum=1.0, step=0.001
    )
    weight_init_seed: int = option(0, "Decides the first weights.", label="Weight seed", minimum=0, maximum=2**32 - 1)
    init_hypernetwork: str = option(
        "", "A hypernetwork to start from, built as it is, instead of a new one: a file or a name the host knows.",
        label="Start from hypernetwork",
    )  # fmt: skip
    learning_rate: str = option(
        "0.0005:5000, 0.0001:10000",
        "Rate, or rate:step pairs; a rate holds up to its step. Guides: 0.0005:5000, 0.0001:10000 for embeddings.",
    )
    schedule: str = option(
        "steps", "The rate as written, along a cosine down to the last step, or along cosines that start again.",
        label="Rate schedule", choices=SCHEDULES,
    )  # fmt: skip
    warmup_steps: int = option(
        0, "Steps over which the rate rises in the beginning.", label="Warm-up steps", minimum=0, maximum=1_000_000
    )
    warmup_repeat: str = option(
        "once", "With restarts: whether the rate rises in the beginning of the run alone, or of each cycle.",
        label="Warm-up comes", choices=WARMUP_REPEATS,
    )  # fmt: skip
    rate_floor: float = option(
        0.0, "The end of each cosine, as a share of the rate.", label="Lowest rate", minimum=0.0, maximum=1.0, step=0.01
    )
    cycle_length: int = option(500, "With restarts: steps of the first cycle.", minimum=1, maximum=1_000_000)
    cycle_multiplier: float = option(
        1.0, "With restarts: how many times as long as the one before each cycle is.", minimum=1.0, maximum=10.0
    )
    cycle_decay: float = option(
        1.0, "With restarts: each cycle begins at this share of the rate that the one before began at.",
        minimum=1e-9, maximum=1.0, step=0.001,
    )  # fmt: skip
    cycle_save: bool = option(
        False, "With restarts: save a copy whenever a cycle ends.", label="Save at the end of a cycle"
    )
    cycle_preview: bool = option(
        False, "With restarts: make previews whenever a cycle ends.", label="Preview at the end of a cycle"
    )
    clip_gradient: str = option(
        "off", "Cut each gradient value at the bound, or shorten the whole gradient to it.",
        label="Gradient clipping", choices=("off", "value", "norm"),
    )  # fmt: skip
    clip_bound: str = option(
        "1", "The bound of gradient clipping, or bound:step pairs; a bound holds up to its step, the last for good.",
        label="Clipping bound",
    )  # fmt: skip
    clip_norm: str = option(
        "2", "With norm: which one is measured; 2 the Euclidean, 1 the sum, inf the largest value, or another number.",
        label="Clipping norm",
    )  # fmt: skip
    optimizer: str = option(
        "adamw", "AdamW; or Prodigy or D-Adaptation, which find their rate, where their packages are installed.",
        choices=OPTIMIZERS,
    )  # fmt: skip
    adam_beta1: float = option(
        0.9, "AdamW: memory of the mean gradient.", label="AdamW beta 1", minimum=0.0, maximum=0.9999, step=0.01
    )
    adam_beta2: float = option(
        0.999, "AdamW: memory of the squared gradient.", label="AdamW beta 2", minimum=0.0, maximum=0.999999, step=0.001
    )
    adam_epsilon: float = option(
        1e-8, "AdamW: added to the divisor.", label="AdamW epsilon", minimum=1e-16, maximum=1.0, step=1e-9
    )
    weight_decay: float = option(0.0, "AdamW's weight decay.", minimum=0.0, maximum=10.0)
    max_steps: int = option(
        5000, "Optimiser steps to finish at; guides: 5000, often less.", minimum=1, maximum=1_000_000
    )
    batch_size: int = option(1, "Pictures that go through the model at once; guides: 1.", minimum=1, maximum=64)
    gradient_accumulation: int = option(5, "Batches that make one optimiser step; guides: 5.", minimum=1, maximum=256)
    recompute: str = option(
        "auto", "Save memory by computing activations again in the backward pass, a third slower; auto where needed.",
        label="Recompute activations", choices=RECOMPUTE,
    )  # fmt: skip
    width: int = option(
        512, "With the height: the largest area of a training picture.", minimum=64, maximum=2048, step=8
    )
    height: int = option(512, "With the width: the largest area.", minimum=64, maximum=2048, step=8)
    variable_aspect: bool = option(True, "Train each picture at the size nearest its own shape.")
    size_step: int = option(
        64, "With variable aspect: training sizes are multiples of this many pixels.", choices=(8, 16, 32, 64)
    )
    enlarge: bool = option(False, "Enlarge pictures smaller than the training size.")
    batch_by_size: bool = option(
        True, "Show pictures of one size together where an epoch allows it, so that batches are full; off mixes them.",
        label="Batch by size",
    )  # fmt: skip
    repeats: int = option(1, "How often an epoch shows each picture.", minimum=1, maximum=1000)
    shuffle_tags: bool = option(True, "Shuffle the caption's tags each time; guides: on.")
    keep_tags: int = option(0, "How many tags at the front stay in place.", minimum=0, maximum=75)
    tag_dropout: float = option(0.0, "Chance to leave out a tag.", minimum=0.0, maximum=1.0, step=0.05)
    filename_regex: str = option(
        "", "Where a picture has no .txt: what is read as words in its file's name, without the number that it begins "
        "with; .+ takes the whole name, empty none.",
        label="Words of file names",
    )  # fmt: skip
    filename_join: str = option(" ", "What is put between the words of a file's name.", label="Between the words")
    latent_sampling: str = option(
        "deterministic", "The autoencoder's mean, which the guides take, one draw for good, or a draw each time.",
        choices=("once", "deterministic", "random"),
    )  # fmt: skip
    latent_deviation: float = option(
        1.0, "With once or random: factor on the deviation that the autoencoder gives; 0 draws the mean.",
        label="Factor on the deviation", minimum=0.0, maximum=100.0,
    )  # fmt: skip
    latent_deviation_least: float = option(
        0.0, "With once or random: the least deviation of a draw, in the autoencoder's own unit.",
        label="Least deviation", minimum=0.0, maximum=100.0,
    )  # fmt: skip
    flip: float = option(
        0.0,
        "Chance that a picture is shown mirrored; guides: 0 for a character whose sides differ.",
        label="Flip chance",
        minimum=0.0,
        maximum=1.0,
        step=0.05,
    )
    alpha_loss: bool = option(
        False, "A picture's transparency weighs the loss: what is transparent is not learned.",
        label="Alpha as loss mask",
    )  # fmt: skip
    loss_weighting: str = option(
        "none", "Weigh each loss by how much noise was added, so that draws with little noise do not dominate.",
        choices=LOSS_WEIGHTINGS,
    )  # fmt: skip
    snr_gamma: float = option(
        5.0, "Bound of (soft) min-snr: the lower, the less the steps with little noise count.",
        label="SNR gamma", minimum=0.1, maximum=50.0, step=0.5,
    )  # fmt: skip
    timestep_sampling: str = option(
        "uniform", "How the amount of noise is drawn: evenly, spread over each step, from the middle, or from a range.",
        choices=TIMESTEP_SAMPLINGS,
    )  # fmt: skip
    timestep_min: int = option(
        0, "With range: the lowest timestep.", label="Lowest timestep", minimum=0, maximum=TIMESTEPS - 1
    )
    timestep_max: int = option(
        TIMESTEPS - 1, "With range: the highest timestep.", label="Highest timestep", minimum=0, maximum=TIMESTEPS - 1
    )
    logit_mean: float = option(
        0.0, "With logit-normal: above 0 more noise, below 0 less.", minimum=-5.0, maximum=5.0, step=0.1
    )
    logit_spread: float = option(1.0, "With logit-normal: how far from the middle.", minimum=0.1, maximum=5.0, step=0.1)
    clip_skip: int = option(1, "CLIP skip of the whole run; use the one you will generate with.", minimum=1, maximum=12)
    seed: int = option(0, "Decides order, noise, timesteps and shuffles.", minimum=0, maximum=2**32 - 1)
    save_every: int = option(
        250, "Steps between saved copies; 0 saves at the end only. Guides: 250.", minimum=0, maximum=1_000_000
    )
    preview_every: int = option(250, "Steps between previews; 0 makes none. Guides: 250.", minimum=0, maximum=1_000_000)
    previews: tuple[PreviewRequest, ...] = option((PreviewRequest(),), "The pictures of each preview.")
    preview_strength: float = option(
        1.0, "Strength of the hypernetwork in previews, as in <hypernet:NAME:1>.", minimum=0.0, maximum=2.0, step=0.05
    )
    validate_every: int = option(
        250, "Steps between validations, which measure the loss on noise that training never draws; 0 makes none.",
        minimum=0, maximum=1_000_000,
    )  # fmt: skip
    validation_share: float = option(
        0.0, "Share of the pictures that is held out of training, to validate on; 0 validates on training pictures.",
        minimum=0.0, maximum=0.5, step=0.05,
    )  # fmt: skip
    stop_when: str = option(
        "never", "Stop by itself when validations no longer improve (flat), or get worse (overtrained).",
        choices=STOP_WHEN,
    )  # fmt: skip
    tensorboard: bool = option(
        False, "Write curves and previews for TensorBoard as well, where it is installed.", label="TensorBoard"
    )
    save_optimizer: bool = option(
        False, "Write AdamW's state beside the finished .pt, as .pt.optim: the WebUI's own trainer can go on with it.",
        label="Optimizer state for the WebUI",
    )  # fmt: skip
    output: str = option("", "Folder of the finished files; empty for the host's own.")
    overwrite: bool = option(False, "Move an existing run of this name aside instead of refusing.")
    override: tuple[str, ...] = option((), "Ids of guards that block and that you take responsibility for.")

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", file_name(self.name, f"{self.kind}'s name"))
        special = _SPECIAL_IN_PROMPT[self.kind].search(self.name)
        if special:
            raise InputError(
                f'The {self.kind}\'s name "{self.name}" holds "{special.group()}", which prompts read as a sign.',
                "Use letters, digits, spaces, - and _.",
            )
        if self.kind == HYPERNETWORK:
            self.structure(self.widths or (1024,))
        _demand_multiples(self.width, self.height, "size")
        _demand_word_regex(self.filename_regex)
        parse_bound(self.clip_bound)
        parse_norm(self.clip_norm)
        warm_each = self.schedule == "cosine restarts" and self.warmup_repeat == "each cycle"
        if warm_each and self.warmup_steps >= self.cycle_length:
            raise InputError(
                f"The warm-up of each cycle takes {self.warmup_steps} steps; a cycle has {self.cycle_length}.",
                "Shorten the warm-up, or lengthen the cycle.",
            )
        if self.timestep_sampling == "range" and self.timestep_min > self.timestep_max:
            raise InputError(
                f"The lowest timestep, {self.timestep_min}, lies above the highest, {self.timestep_max}.",
                "Exchange them.",
            )

    @staticmethod
    def defaults_for(values: Mapping[str, Any]) -> Mapping[str, Any]:
        """What is taken for an option that `values` do not name, where the kind of network decides; see options.py."""
        return HYPERNETWORK_DEFAULTS if values.get("kind") == HYPERNETWORK else {}

    def structure(self, widths: Sequence[int]) -> Structure:
        """How a new hypernetwork of these settings is built for a model with such `widths`, where they name none.

        Raises:
            InputError: nothing can be built like this.
        """
        return Structure(
            widths=self.widths or tuple(widths),
            layers=self.layer_structure,
            activation=self.activation,
            activate_output=self.activate_output,
            layer_norm=self.layer_norm,
            dropout=self.dropout_structure if any(self.dropout_structure) else (),
            skip=self.skip_connection,
            upsampling=LINEAR_UPSAMPLING if self.skip_connection and self.upsample_linear else "",
        )

    @property
    def shown_together(self) -> int:
        """How many pictures of one size an epoch shows in a row where it can."""
        return self.batch_size if self.batch_by_size else 1

    @property
    def pictures_per_step(self) -> int:
        """Over how many pictures an optimiser step averages."""
        return self.batch_size * self.gradient_accumulation


def _demand_word_regex(text: str) -> None:
    try:
        groups = re.compile(text).groups
    except (re.error, OverflowError, RecursionError) as error:
        raise InputError(f'"{text}" is no regular expression: {error}.', r"Write for example \w+ or .+") from None
    if groups > 1:
        raise InputError(f'The regular expression "{text}" has {groups} groups.', "Use one at most, or (?:…).")


def read_config(path: Path, changes: dict[str, Any] | None = None) -> RunConfig:
    """Read `RUN.json`, or the record of a run or a preset; relative paths in it are relative to the file.

    `changes` replace keys of the file.

    Raises:
        InputError: the file is missing or not JSON, a key is unknown or a value wrong.
    """
    values = {**settings_in(read_json(path), str(path)), **(changes or {})}
    config = options.from_json(RunConfig, values, "run settings")
    base = path.resolve().parent
    changed: dict[str, Any] = {}
    for key in ("checkpoint", "dataset", "output", *STARTS, "template_file"):
        value = getattr(config, key)
        # These may also be names that the host knows.
        may_be_name = key in ("checkpoint", *STARTS, "template_file")
        if value and not Path(value).is_absolute() and (not may_be_name or exists(base / value)):
            changed[key] = str(base / value)
    return replace(config, **changed)
