"""The gate of the U-Net's feed-forward parts (GEGLU; Shazeer, "GLU Variants Improve Transformer", 2020).

Written plainly, x · GELU(g) keeps x, g and GELU(g) for the backward pass, more than a third of all that a step with
frozen weights keeps. GELU(g) costs next to nothing to compute again, so here it is not kept.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F


class _Gate(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, both: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(both)
        x, gate = both.chunk(2, dim=-1)
        return x * F.gelu(gate)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        (both,) = ctx.saved_tensors
        x, gate = both.chunk(2, dim=-1)
        passed = torch.empty_like(both)
        to_x, to_gate = passed.chunk(2, dim=-1)
        torch.mul(gradient, F.gelu(gate), out=to_x)
        to_gate.copy_(torch.ops.aten.gelu_backward(gradient * x, gate))
        return passed


def gated(module: Any, hidden: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """What diffusers' and ldm's `GEGLU` modules compute of `hidden` B×N×C: B×N×(half the width of their projection).

    The same bits as theirs, forward and backward.
    """
    output: torch.Tensor = _Gate.apply(module.proj(hidden))  # type: ignore[no-untyped-call]
    return output
