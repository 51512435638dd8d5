"""Tags of what is on one side of a character, or reads in one direction: a mirrored picture contradicts them."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ONE_SIDED = re.compile(
    r"^(heterochromia|eyepatch|monocle|side ponytail|one side up|one eye covered|split-color hair)$"
    r"|^(single|asymmetrical|mismatched|uneven) |^(mole|scar|tattoo) (on|under|above|across|over) |over one eye"
    r"|^(mechanical|prosthetic|cybernetic) (arm|leg|hand|eye)$|^(left|right)\b|\b(left|right)$|^clothes writing$"
)
_WRITTEN = re.compile(r"\btext$|^(text focus|speech bubble|thought bubble|logo|sign|copyright name|character name)$")


def plain(tag: str) -> str:
    """A tag as it is compared here: small letters, spaces for underscores."""
    return tag.strip().lower().replace("_", " ")


def one_sided(tags: Iterable[str]) -> list[str]:
    """Those of the tags, as `plain` has them, that name something on one side; each once, in order."""
    return [tag for tag in dict.fromkeys(map(plain, tags)) if _ONE_SIDED.search(tag)]


def not_mirrored(tags: Iterable[str]) -> list[str]:
    """Those of the tags that a mirrored copy would contradict: one-sided things, and writing."""
    known = list(dict.fromkeys(map(plain, tags)))
    return [tag for tag in known if _ONE_SIDED.search(tag) or _WRITTEN.search(tag)]
