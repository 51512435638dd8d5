"""An embedding in training: some vectors that stand for a new word (Gal et al., "An Image is Worth One Word", 2022)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lib_dsm.diffusion.protocol import DiffusionModel, Replacements
from lib_dsm.errors import InputError, ModelError
from lib_dsm.networks.embedding import Embedding, load_embedding
from lib_dsm.networks.stretching import stretched
from lib_dsm.networks.webui_optimizer import moments_beside


@dataclass(frozen=True, eq=False)
class Start:
    """What a run starts from.

    Attributes:
        vectors: count × hidden size, float32 on the CPU.
        step: steps that were made before, elsewhere.
        moments: AdamW's state after them (see webui_optimizer.MOMENTS), None to begin anew.
        embedding: the embedding it was read from, None if it was made of words.
        note: a sentence on it for the person, "" if there is nothing to say.
    """

    vectors: torch.Tensor
    step: int = 0
    moments: Mapping[str, torch.Tensor] | None = None
    embedding: Embedding | None = None
    note: str = ""


def initial_vectors(model: DiffusionModel, text: str, count: int, mode: str = "tokens") -> torch.Tensor:
    """`count` vectors (count × hidden size, float32) that begin as the tokens of `text`.

    Fewer tokens than vectors are stretched evenly, as in the WebUI; an empty text gives zeros. With `mode` "mean" every
    vector begins as the mean of the words' tokens, however many, without the commas and other marks between them; their
    positions in the prompt tell them apart.

    Raises:
        InputError: `text` has more tokens than vectors ("tokens" alone); a part of it would be lost.
    """
    ids = model.tokenize(text)
    if mode == "mean" and ids:
        ids = model.tokenize(without_marks(text)) or ids
        return model.token_vectors(ids).cpu().mean(dim=0).repeat(count, 1)
    if len(ids) > count:
        raise InputError(
            f'The initialization text "{text}" has {len(ids)} tokens, more than the {count} vectors.',
            f"Shorten it, or use at least {len(ids)} vectors.",
        )
    if not ids:
        return torch.zeros(count, model.hidden_size)
    rows = model.token_vectors(ids).cpu()
    return rows[stretched(len(ids), count)]


def without_marks(text: str) -> str:
    """The text with spaces for its punctuation and symbols, but for an apostrophe within a word.

    CLIP's tokenizer cuts words off at these marks, so the tokens of the words themselves stay the same.
    """
    marked = [
        unicodedata.category(sign)[0] in "PS" and not (sign in "'’" and before.isalpha() and after.isalpha())
        for before, sign, after in zip(f" {text}", text, f"{text[1:]} ", strict=False)
    ]
    return "".join(" " if mark else sign for sign, mark in zip(text, marked, strict=True))


def start_from(model: DiffusionModel, path: Path, count: int, go_on: bool) -> Start:
    """Start from the embedding in a file (see `load_embedding`), which must have `count` vectors.

    With `go_on` its step, and what the WebUI saved of its optimizer beside it, are taken over too.

    Raises:
        InputError: there is no such file, or it has another number of vectors.
        ModelError: it is no embedding, or one for models of another width.
    """
    embedding = load_embedding(path)
    found, width = embedding.vectors.shape
    if width != model.hidden_size:
        raise ModelError(
            f"The vectors of {path} are {width} wide; those of the checkpoint {model.hidden_size}.",
            "Start from an embedding that was made for this kind of model.",
        )
    if found != count:
        raise InputError(
            f"The embedding {path} has {found} vectors; the settings ask for {count}.", f"Set the vectors to {found}."
        )
    if not go_on:
        return Start(embedding.vectors, embedding=embedding, note=f"The vectors start as those of {path.name}.")
    moments, note = moments_beside(path, embedding.vectors)
    step = max(embedding.step or 0, 0)
    known = f"after step {step}" if embedding.step is not None else "from step 0, as it does not tell its own"
    return Start(embedding.vectors, step, moments, embedding, f"The training of {path.name} goes on {known}. {note}")


class TextualInversion:
    """`Trainable` (see trainable.py) of an embedding."""

    def __init__(self, name: str, vectors: torch.Tensor, device: torch.device) -> None:
        self.name = name
        self.vectors = torch.nn.Parameter(vectors.detach().clone().to(device, torch.float32))

    def parameters(self) -> list[torch.nn.Parameter]:
        """See trainable.py."""
        return [self.vectors]

    @contextmanager
    def applied(self, model: DiffusionModel, strength: float = 1.0) -> Iterator[Replacements]:
        """See trainable.py; an embedding acts through the prompts alone."""
        yield {self.name: self.vectors}

    def training(self, seed: int, places: Sequence[int]) -> AbstractContextManager[None]:
        """See trainable.py; an embedding draws nothing."""
        return nullcontext()

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
