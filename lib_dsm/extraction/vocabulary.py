"""The vocabularies of two checkpoints, SDXL's two taken together: which words changed, and their vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lib_dsm.extraction.key_map import text_prefixes
from lib_dsm.extraction.pair import TOKENS, Pair
from lib_dsm.extraction.token_rows import TokenRows, changed_words


@dataclass(frozen=True)
class Vocabulary:
    """What changed; `shapes` are those of the tables by key, CLIP's before OpenCLIP's, `changed` the keys that did."""

    shapes: Mapping[str, tuple[int, ...]]
    changed: tuple[str, ...]
    rows: TokenRows

    def numbers(self) -> dict[str, int]:
        """By the name of an embedding in the file, how many numbers it has."""
        width = sum(shape[1] for shape in self.shapes.values())
        return {f"bundle_emb.{word}": width for word in self.rows.words}


def vocabulary_keys(pair: Pair) -> list[str]:
    """The keys of the tables, in the order in which a bundled embedding has them, whatever that of the file."""
    keys = [key for key in pair.base.shapes if key.endswith(TOKENS)]
    return [key for prefix in text_prefixes(pair.base.family) for key in keys if key.startswith(prefix)]


def changed_vocabulary(pair: Pair, most: int) -> Vocabulary | None:
    """Compare the tables; None if they are equal. `most` is how many words to name."""
    keys = vocabulary_keys(pair)
    changes = {key: change for key in keys if (change := pair.change(key)) is not None}
    if not changes:
        return None
    common = min(map(len, changes.values()))
    rows = changed_words(torch.cat([change[:common] for change in changes.values()], 1), most)
    return Vocabulary({key: pair.base.shapes[key] for key in keys}, tuple(changes), rows)
