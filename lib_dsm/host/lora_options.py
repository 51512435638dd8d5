"""The options of a fit on captions, apart from the work so that a form can be built without loading torch."""

from __future__ import annotations

from dataclasses import dataclass

from lib_dsm.options import option


@dataclass(frozen=True)
class CaptureOptions:
    """How captions are encoded that a hypernetwork is fitted on."""

    clip_skip: int = option(
        1, "CLIP skip the hypernetwork was trained with; it is fitted on captions encoded so.",
        label="CLIP skip", minimum=1, maximum=12,
    )  # fmt: skip
