"""How a text is cut into CLIP's tokens, without a model."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CLIP = Path(__file__).parents[1] / "demo" / "models" / "clip"  # the demo's, which is everybody's
_counting = threading.Lock()


def cut(text: str, folder: Path) -> list[str]:
    """The pieces of `text` as a person reads them, by the vocabulary in `folder`."""
    with _counting:  # tokenizers, and their library's first import, are not made for several threads
        tokenizer = _tokenizer(folder)
        ids = tokenizer(text, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        return [str(tokenizer.decode([token])).strip() for token in ids]


@functools.lru_cache(maxsize=4)
def _tokenizer(folder: Path) -> CLIPTokenizer:
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(folder)
