"""How many tokens a text takes for CLIP's text encoder, the byte-pair code of Radford et al. 2021.

The list of merges is the one that ships with the demo world's text encoder, which every Stable Diffusion 1 and 2 uses.
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from pathlib import Path

_MERGES = Path(__file__).resolve().parents[1] / "demo" / "models" / "clip" / "merges.txt"
_END = "</w>"
_PIECE = re.compile(r"'s|'t|'re|'ve|'m|'ll|'d|[^\W\d_]+|\d|(?:[^\s\w]|_)+", re.IGNORECASE)
_ESCAPED = re.compile(r"\\([()\[\]\\])")


def token_count(text: str) -> int:
    """The tokens of a prompt without the two around it; backslashes before brackets do not count."""
    return sum(map(_tokens_of, _PIECE.findall(_ESCAPED.sub(r"\1", text).lower())))


@lru_cache(maxsize=1 << 16)
def _tokens_of(piece: str) -> int:
    """The tokens of one word: its bytes, merged pair by pair in the order of the list."""
    ranks = _ranks()
    parts = [_byte_sign(byte) for byte in piece.encode("utf-8")]
    parts[-1] += _END
    while len(parts) > 1:
        pairs = list(itertools.pairwise(parts))
        best = min(pairs, key=lambda pair: ranks.get(pair, len(ranks)))
        if best not in ranks:
            break
        merged, at = [], 0
        while at < len(parts):
            if at + 1 < len(parts) and (parts[at], parts[at + 1]) == best:
                merged.append(parts[at] + parts[at + 1])
                at += 2
            else:
                merged.append(parts[at])
                at += 1
        parts = merged
    return len(parts)


@lru_cache(maxsize=1)
def _ranks() -> dict[tuple[str, str], int]:
    lines = _MERGES.read_text(encoding="utf-8").splitlines()[1:]
    pairs = (line.split(" ") for line in lines if line)
    return {(pair[0], pair[1]): rank for rank, pair in enumerate(pairs)}


@lru_cache(maxsize=256)
def _byte_sign(byte: int) -> str:
    """The letter that stands for a byte in the list: itself where it is one, else one of those after U+0100."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    if byte in plain:
        return chr(byte)
    return chr(256 + [other for other in range(256) if other not in plain].index(byte))
