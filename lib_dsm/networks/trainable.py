"""What can be trained, as the loop sees it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch

    from lib_dsm.diffusion.protocol import DiffusionModel, Replacements


class Trainable(Protocol):
    """A network with parameters, float32 on the model's device."""

    name: str

    def parameters(self) -> Sequence[torch.nn.Parameter]:
        """What the optimizer moves, in a fixed order."""
        ...

    def applied(self, model: DiffusionModel, strength: float = 1.0) -> AbstractContextManager[Replacements]:
        """While the context lasts the network acts on `model`; gives the replacements to encode prompts with.

        `strength` is that of a hypernetwork outside of training; an embedding knows none.
        """
        ...

    def training(self, seed: int, places: Sequence[int]) -> AbstractContextManager[None]:
        """Within `applied`: what goes through the model is a training batch, whose pictures are shown at `places`.

        All that the network draws in it, such as dropout, is a function of the seed, the picture's place and the layer.
        It must last until the backward pass is over.
        """
        ...

    def state(self) -> dict[str, torch.Tensor]:
        """Its tensors by name, detached copies on the CPU."""
        ...

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Take the tensors of `state()` back.

        Raises:
            ModelError: they are of another shape.
        """
        ...

    def description(self) -> dict[str, Any]:
        """Plain data for the run's record."""
        ...
