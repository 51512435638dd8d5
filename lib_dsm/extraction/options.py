"""The options of an extraction, apart from the work so that a form can be built without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

from lib_dsm.options import option


@dataclass(frozen=True)
class ExtractionOptions:
    """How much of the difference between two checkpoints to keep."""

    rank: int = option(64, "Rank of linear layers and 1×1 convolutions.", minimum=1, maximum=1024)
    conv_rank: int = option(
        32, "Rank of larger convolutions; 0 leaves them out.", label="Convolution rank", minimum=0, maximum=1024
    )
    precision: str = option("fp16", "Numbers in the file.", choices=("fp16", "fp32"))
    overwrite: bool = option(False, "Replace an existing file.")
