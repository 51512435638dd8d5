"""Keeping the vectors about as long as the model's own words, or exactly as long as something.

Vectors that grow far longer than any word drown the rest of a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.training.config import EMBEDDING, RunConfig

WORDS = 49406
"""CLIP's vocabulary without its two marks."""


def word_lengths(model: DiffusionModel) -> torch.Tensor:
    """The Euclidean lengths of the vectors of all the model's own words, float32 on the CPU."""
    lengths: torch.Tensor = model.token_vectors(range(WORDS)).norm(dim=1).cpu()
    return lengths


class NormControl:
    """What is done to the rows of the parameters around each optimiser step; it has no state of its own.

    "decay" moves each length by a share of its difference to the median word's, as decoupled weight decay moves it to
    zero (Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019). "fixed" trains the directions alone:
    a step of the tangent's gradient on the sphere, and back onto it.
    """

    def __init__(self, config: RunConfig, model: DiffusionModel) -> None:
        # Lengths are those of words' vectors; a hypernetwork has none.
        self._kind = config.norm_control if config.kind == EMBEDDING else "off"
        self._decay = config.norm_decay
        self._median: float | None = None
        if self._kind == "decay" or (self._kind == "fixed" and config.norm_target == "median"):
            self._median = float(word_lengths(model).median())

    def begin(self, parameters: Sequence[torch.Tensor]) -> None:
        """Bring rows that are about to be trained to a fixed length that is not their own."""
        if self._kind == "fixed" and self._median is not None:
            with torch.no_grad():
                for parameter in parameters:
                    parameter.mul_(_ratio(self._median, parameter))

    def project(self, parameters: Sequence[torch.Tensor]) -> None:
        """Take out of the gradients what would only change lengths that are fixed."""
        if self._kind != "fixed":
            return
        with torch.no_grad():
            for parameter in parameters:
                if parameter.grad is not None:
                    direction = torch.nn.functional.normalize(parameter, dim=-1)
                    along = (parameter.grad * direction).sum(dim=-1, keepdim=True)
                    parameter.grad.sub_(along * direction)

    def end(self, parameters: Sequence[torch.Tensor], start: Sequence[torch.Tensor]) -> None:
        """Correct the lengths after a step; `start` is what the parameters were when the run began."""
        if self._kind == "off":
            return
        with torch.no_grad():
            for parameter, begun in zip(parameters, start, strict=True):
                if self._kind == "decay":
                    parameter.mul_(1.0 + self._decay * (_ratio(self._median, parameter) - 1.0))
                elif self._median is not None:
                    parameter.mul_(_ratio(self._median, parameter))
                else:
                    parameter.mul_(_ratio(begun.norm(dim=-1, keepdim=True), parameter))


def _ratio(wanted: torch.Tensor | float | None, rows: torch.Tensor) -> torch.Tensor:
    """What to multiply each row with to give it the length `wanted`; 1 where it has no direction."""
    assert wanted is not None
    lengths = rows.norm(dim=-1, keepdim=True)
    return torch.where(lengths > 0, wanted / lengths, torch.ones_like(lengths))
