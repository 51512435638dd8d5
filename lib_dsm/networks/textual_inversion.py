"""An embedding in training: some vectors that stand for a new word (Gal et al., "An Image is Worth One Word", 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from lib_dsm.diffusion.protocol import DiffusionModel, Replacements
from lib_dsm.errors import InputError, ModelError


def initial_vectors(model: DiffusionModel, text: str, count: int) -> torch.Tensor:
    """`count` vectors (count × hidden size, float32) that begin as the tokens of `text`.

    Fewer tokens than vectors are stretched evenly, as in the WebUI; an empty text gives zeros.

    Raises:
        InputError: `text` has more tokens than vectors; a part of it would be lost.
    """
    ids = model.tokenize(text)
    if len(ids) > count:
        raise InputError(
            f'The initialization text "{text}" has {len(ids)} tokens, more than the {count} vectors.',
            f"Shorten it, or use at least {len(ids)} vectors.",
        )
    if not ids:
        return torch.zeros(count, model.hidden_size)
    rows = model.token_vectors(ids).cpu()
    return torch.stack([rows[index * len(ids) // count] for index in range(count)])


class TextualInversion:
    """`Trainable` (see trainable.py) of an embedding."""

    def __init__(self, name: str, vectors: torch.Tensor, device: torch.device) -> None:
        self.name = name
        self.vectors = torch.nn.Parameter(vectors.detach().clone().to(device, torch.float32))

    def parameters(self) -> list[torch.nn.Parameter]:
        """See trainable.py."""
        return [self.vectors]

    @contextmanager
    def applied(self, model: DiffusionModel) -> Iterator[Replacements]:
        """See trainable.py; an embedding acts through the prompts alone."""
        yield {self.name: self.vectors}

    def state(self) -> dict[str, torch.Tensor]:
        """See trainable.py."""
        return {"vectors": self.vectors.detach().cpu().clone()}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """See trainable.py."""
        saved = state.get("vectors")
        if saved is None or saved.shape != self.vectors.shape:
            found = "no vectors" if saved is None else f"{saved.shape[0]} vectors of width {saved.shape[-1]}"
            raise ModelError(
                f"The saved state of {self.name} has {found}; the settings ask for {self.vectors.shape[0]} of width "
                f"{self.vectors.shape[1]}.",
                "Resume with the settings that it was started with, or start a new run.",
            )
        with torch.no_grad():
            self.vectors.copy_(saved)

    def description(self) -> dict[str, Any]:
        """See trainable.py."""
        return {"kind": "embedding", "vectors": self.vectors.shape[0], "width": self.vectors.shape[1]}
