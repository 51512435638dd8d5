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

    def applied(self, model: DiffusionModel) -> AbstractContextManager[Replacements]:
        """While the context lasts the network acts on `model`; gives the replacements to encode prompts with."""
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
