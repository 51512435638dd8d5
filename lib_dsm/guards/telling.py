"""Lists in a sentence."""

from __future__ import annotations

from collections.abc import Sequence


def some(names: Sequence[str], most: int = 5, of: int | None = None) -> str:
    """The first names, and how many more there are; `of` so many where `names` are not all."""
    rest = (len(names) if of is None else of) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
