"""What the text encoder makes of prompts, kept where nothing that is trained goes into it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch

from lib_dsm.diffusion.protocol import DiffusionModel, Replacements

KEPT_BYTES = 256 << 20


class Conditionings:
    """Encodes prompts for a run's steps.

    Where vectors in training stand in the prompts, all are encoded each time, for the gradient. Otherwise a prompt that
    comes again, as it does where captions are not shuffled, is taken from memory. Such prompts are encoded one by one,
    so that the numbers do not depend on what they were encoded with, nor on whether they were kept.
    """

    def __init__(self, model: DiffusionModel, clip_skip: int, kept_bytes: int = KEPT_BYTES) -> None:
        self._model = model
        self._clip_skip = clip_skip
        self._left = kept_bytes
        self._kept: OrderedDict[str, torch.Tensor] = OrderedDict()

    def encode(self, prompts: Sequence[str], replacements: Replacements) -> torch.Tensor:
        """B×77k×D for prompts of equally many chunks (see `DiffusionModel.encode_prompts`)."""
        if replacements:
            return self._model.encode_prompts(prompts, replacements, self._clip_skip)
        return torch.cat([self._one(prompt) for prompt in prompts])

    def _one(self, prompt: str) -> torch.Tensor:
        found = self._kept.get(prompt)
        if found is not None:
            self._kept.move_to_end(prompt)
            return found
        with torch.no_grad():
            made = self._model.encode_prompts([prompt], {}, self._clip_skip)
        size = made.element_size() * made.numel()
        while self._kept and self._left < size:
            _, oldest = self._kept.popitem(last=False)
            self._left += oldest.element_size() * oldest.numel()
        if self._left >= size:
            self._kept[prompt] = made
            self._left -= size
        return made
