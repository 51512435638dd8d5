"""The options of an extraction, apart from the work so that a form can be built without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

from lib_dsm.options import option

PRECISIONS = ("fp16", "bf16", "fp32")


@dataclass(frozen=True)
class ExtractionOptions:
    """How much of the difference between two checkpoints to keep."""

    rank: int = option(64, "Rank of linear layers and 1×1 convolutions.", minimum=1, maximum=1024)
    conv_rank: int = option(
        32, "Rank of larger convolutions; 0 leaves them out.", label="Convolution rank", minimum=0, maximum=1024
    )
    energy: float = option(
        0.0, "Share of each layer's squared change to keep, instead of a fixed rank; 0: off.", minimum=0.0, maximum=1.0
    )
    size: float = option(
        0.0, "Size of the file in MB, spent where the error falls most, instead of a fixed rank; 0: off.",
        label="Size in MB", minimum=0.0, maximum=20_000.0,
    )  # fmt: skip
    max_rank: int = option(
        192, "Highest rank of a layer when energy or size decide.", label="Highest rank", minimum=1, maximum=1024
    )
    precision: str = option("fp16", "Numbers in the file.", choices=PRECISIONS)
    averages: str = option(
        "auto", "The averaged (EMA) weights of the fine-tuned file: auto uses them where they are its own.",
        label="EMA weights", choices=("auto", "never"),
    )  # fmt: skip
    tokens: int = option(
        32, "Changed words of the vocabulary to bundle as embeddings, at most; 0: none.",
        label="Changed words", minimum=0, maximum=200,
    )  # fmt: skip
    overwrite: bool = option(False, "Replace an existing file.")


@dataclass(frozen=True)
class EditOptions:
    """What is done to LoRA files, one or the sum of several, before the result is written."""

    rank: int = option(0, "Highest rank; 0 keeps what there is.", minimum=0, maximum=4096)
    conv_rank: int = option(
        0, "Highest rank of convolutions larger than 1×1; 0: as the others.", label="Convolution rank",
        minimum=0, maximum=4096,
    )  # fmt: skip
    energy: float = option(
        0.0, "Share of each module's squared change to keep, instead of a rank; 0: off.", minimum=0.0, maximum=1.0
    )
    size: float = option(
        0.0, "Size of the file in MB, spent where the error falls most; 0: off.", label="Size in MB",
        minimum=0.0, maximum=20_000.0,
    )  # fmt: skip
    scale: float = option(1.0, "Factor for the whole change.", minimum=-100.0, maximum=100.0)
    prune: float = option(
        0.0, "Modules whose change is at most this share of the greatest one are left out; 0: only empty ones.",
        minimum=0.0, maximum=1.0,
    )  # fmt: skip
    precision: str = option("fp16", "Numbers in the file.", choices=PRECISIONS)
    overwrite: bool = option(False, "Replace an existing file.")


@dataclass(frozen=True)
class HypernetworkOptions:
    """How a hypernetwork becomes a LoRA."""

    rank: int = option(0, "Rank; 0: exact for a linear one, 32 for others.", minimum=0, maximum=1024)
    strength: float = option(1.0, "Strength the hypernetwork is used at.", minimum=-4.0, maximum=4.0)
    independent: bool = option(
        False, "For any checkpoint instead of the base alone; linear ones without bias of the values only."
    )
    least_fit: float = option(
        0.5, "Share of the effect (R² on prompts kept apart) that a fit must reach.", minimum=0.0, maximum=1.0
    )
    force: bool = option(False, "Write the file even if the fit is worse.")
    precision: str = option("fp16", "Numbers in the file.", choices=PRECISIONS)
    overwrite: bool = option(False, "Replace an existing file.")


@dataclass(frozen=True)
class PictureOptions:
    """Pictures side by side from the same noise: by the base, by what was tuned, and by the base with the LoRA."""

    previews: int = option(
        0, "Pictures to compare, each from a noise of its own; 0: none.", label="Pictures", minimum=0, maximum=32
    )
    preview_seed: int = option(1, "Seed of the first picture's noise.", label="Seed", minimum=0, maximum=2**32 - 64)
    preview_steps: int = option(20, "Sampling steps.", label="Steps", minimum=1, maximum=150)
    preview_cfg: float = option(7.0, "Guidance scale.", label="CFG scale", minimum=1.0, maximum=30.0, step=0.5)
    preview_side: int = option(
        0, "Pixels of a side; 0: what the checkpoint was made for.", label="Side", minimum=0, maximum=2048, step=8
    )
    preview_clip_skip: int = option(1, "CLIP skip of the pictures.", label="CLIP skip", minimum=1, maximum=12)
