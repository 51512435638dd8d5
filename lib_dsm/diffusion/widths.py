"""The context widths of a checkpoint's attention layers, from the header of its file alone."""

from __future__ import annotations

import re
from collections.abc import Mapping

_KEYS = re.compile(r"^model\.diffusion_model\..+\.attn([12])\.to_k\.weight$")
STABLE_DIFFUSION_1: Mapping[int, int] = {768: 16, 320: 5, 640: 5, 1280: 6}


def widths_in(shapes: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    """How many attention layers there are for each width; the prompt's comes first. Empty where `shapes` have none.

    `shapes` are those of a checkpoint's tensors in the ldm layout.
    """
    counts: dict[int, int] = {}
    prompt = 0
    for name, shape in shapes.items():
        match = _KEYS.match(name)
        if match is not None and len(shape) == 2:
            counts[shape[1]] = counts.get(shape[1], 0) + 1
            prompt = shape[1] if match[1] == "2" else prompt
    return {width: counts[width] for width in sorted(counts, key=lambda width: (width != prompt, width))}
