"""Gradient clipping on true gradients: each value cut at a bound, or the whole gradient shortened to it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch

from lib_dsm.training.stepwise import parse_bound, parse_norm


class Clipping:
    """Clipping of `mode` "off", "value" or "norm" at a bound that may change at given steps.

    `bound` and `norm` are as the settings have them (see stepwise.py).
    """

    def __init__(self, mode: str, bound: str, norm: str) -> None:
        self._mode = mode
        self._bound = parse_bound(bound)
        self._norm = parse_norm(norm)

    def apply(self, parameters: Iterable[torch.nn.Parameter], step: int) -> None:
        """Clip the gradients in place for the step after `step` finished ones."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # As in the WebUI the last bound holds on where its step is past.
        bound = self._bound.at(step) or self._bound.pieces[-1][0]
        if self._mode == "value":
            for gradient in gradients:
                gradient.clamp_(-bound, bound)
        elif self._mode == "norm":
            # torch's own adds 1e-6 to the norm, which is much where a prompt's vectors have gradients as small as that.
            length = total_norm(gradients, self._norm)
            if length > bound:
                for gradient in gradients:
                    gradient.mul_(bound / length)


def total_norm(tensors: Sequence[torch.Tensor], order: float = 2.0) -> torch.Tensor:
    """The norm of all values together: their number-`order` norm, with infinity the largest size of a value."""
    if not tensors:
        return torch.zeros(())
    values = [tensor.detach().float() for tensor in tensors]
    if order == 2.0:
        return torch.stack([value.square().sum() for value in values]).sum().sqrt()
    largest = torch.stack([value.abs().max() for value in values]).max()
    if math.isinf(order) or not largest > 0:
        return largest
    # Relative to the largest, so that no power of a small number becomes nothing.
    powers = torch.stack([(value.abs() / largest).pow(order).sum() for value in values])
    return largest * powers.sum().pow(1.0 / order)
