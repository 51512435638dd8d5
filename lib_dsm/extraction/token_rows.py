"""Changed words: rows of the text encoder's vocabulary that fine-tuning moved, as embeddings under the word itself.

A LoRA has no place for the vocabulary, but an embedding that is called like a word takes the word's place in a prompt.
So a row that changed is bundled under its word, and the prompt reads as it did for the fine-tuned model. Only whole
words can be written in a prompt by themselves; pieces of words cannot, and are told. Training of a whole text encoder
moves every row a little: then those that moved most are taken.

The list of words is the one that ships with the demo world's text encoder, which every Stable Diffusion uses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

_VOCABULARY = Path(__file__).resolve().parents[1] / "demo" / "models" / "clip" / "vocab.json"
_END = "</w>"
_OUTSTANDING = 25.0  # times the usual squared change


@dataclass(frozen=True)
class TokenRows:
    """What became of a changed vocabulary: `words` with the numbers of their rows, and the squared change of all.

    `changed` counts all rows that changed, `carried_square` is the squared change of the words.
    """

    words: dict[str, int]
    changed: int
    square: float
    carried_square: float


def changed_words(change: torch.Tensor, most: int) -> TokenRows:
    """The words whose rows changed, at most `most`, those that changed most first; `change` is rows×width."""
    squares = change.double().square().sum(1)
    changed = int((squares > 0).sum())
    words: dict[str, int] = {}
    carried = 0.0
    names = _words()
    # Where nearly all rows moved, as weight decay does it, only those count that stand out.
    least = _OUTSTANDING * float(squares.median()) if changed > most else 0.0
    for row in squares.argsort(descending=True)[: max(4 * most, most)].tolist():
        square = float(squares[row])
        word = names.get(row)
        if square <= least or len(words) >= most:
            break
        if word is not None:
            words[word] = row
            carried += square
    return TokenRows(words, changed, float(squares.sum()), carried)


@lru_cache(maxsize=1)
def _words() -> dict[int, str]:
    """The rows that a prompt can name: whole words of letters and digits alone."""
    vocabulary: dict[str, int] = json.loads(_VOCABULARY.read_text(encoding="utf-8"))
    return {
        row: token[: -len(_END)]
        for token, row in vocabulary.items()
        if token.endswith(_END) and token[: -len(_END)].isalpha() and token.isascii()
    }
