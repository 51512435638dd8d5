"""Computing activations again in the backward pass instead of keeping them (Chen et al., "Training Deep Nets with
Sublinear Memory Cost", 2016), block by block, on whichever U-Net.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

_FORWARD = "forward"
_MISSING = object()


class Recomputation:
    """Switches recomputation on and off for the given blocks; the results are the same bits on the CPU.

    PyTorch's non-reentrant form is used: the other one fails where neither weights nor arguments need a gradient.
    """

    def __init__(self, blocks: Iterable[torch.nn.Module]) -> None:
        self._blocks = list(blocks)
        self._before: list[Any] = []

    @property
    def on(self) -> bool:
        """Whether it is switched on."""
        return bool(self._before)

    def switch(self, on: bool) -> None:
        """Switch it on or off; what somebody else has put in the place of a block's forward comes back."""
        if on == self.on:
            return
        if on:
            self._before = [vars(block).get(_FORWARD, _MISSING) for block in self._blocks]
            for block in self._blocks:
                block.forward = functools.partial(_recomputed, block.forward)
            return
        for block, before in zip(self._blocks, self._before, strict=True):
            if before is _MISSING:
                del block.forward
            else:
                block.forward = before
        self._before = []


def _recomputed(forward: Callable[..., torch.Tensor], *inputs: Any, **named: Any) -> torch.Tensor:
    if not torch.is_grad_enabled():
        return forward(*inputs, **named)
    # Nothing in a U-Net in evaluation mode draws random numbers, so their state needs no keeping.
    output: torch.Tensor = checkpoint(forward, *inputs, use_reentrant=False, preserve_rng_state=False, **named)
    return output
