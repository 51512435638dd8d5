"""Which of a text's tokens each vector of an embedding begins as."""

from __future__ import annotations


def stretched(tokens: int, vectors: int) -> list[int]:
    """The place among so many tokens, for each vector: the tokens in order, evenly stretched as in the WebUI.

    Of more tokens than vectors some are left out; of none nothing can be stretched.
    """
    return [index * tokens // vectors for index in range(vectors)] if tokens else []
