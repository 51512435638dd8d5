"""When two spellings are the same tag, and patterns of tags."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

_ESCAPED = re.compile(r"\\([\\()\[\]{},])")
_WEIGHTED = re.compile(r"\(([^,]*[^,\s\\][^,]*):\s*(?:\d+\.?\d*|\.\d+)\s*\)", re.DOTALL)
_SPACE = re.compile(r"[\s_]+")
_WILD = re.compile(r"\\?[*?]")


@lru_cache(maxsize=1 << 18)
def tag_key(tag: str) -> str:
    r"""What the spellings of one tag have in common: `Blue_Hair`, `(blue hair:1.2)`; `a \(b\)` and `a (b)`."""
    while weighted := _WEIGHTED.fullmatch(tag.strip()):
        tag = weighted.group(1)
    return _SPACE.sub(" ", _ESCAPED.sub(r"\1", tag)).strip().casefold() or tag


def literal(tag: str) -> str:
    """The pattern that matches this tag alone."""
    return re.sub(r"[*?]", r"\\\g<0>", tag)


class TagPattern:
    r"""One tag, or many by wildcards: `*` stands for any text, `?` for one character, `\*` and `\?` for themselves.

    A pattern without any letter or digit, such as the face `*_*` or the tag `?`, means just itself; only a lone `*`
    matches every tag. Upper and lower case, underscores and escaped brackets make no difference.
    """

    def __init__(self, pattern: str) -> None:
        key = tag_key(pattern)
        is_word = key == "*" or any(character.isalnum() for character in key)
        pieces, end = [""], 0
        self._wild = ""  # its wildcards, in order
        for wild in _WILD.finditer(key):
            sign = wild.group()
            pieces[-1] += re.escape(key[end : wild.start()])
            end = wild.end()
            if not is_word or len(sign) > 1:
                pieces[-1] += re.escape(sign[-1])
                continue
            self._wild += sign
            if sign == "*":
                pieces.append("")
            else:
                pieces[-1] += "(.)"
        pieces[-1] += re.escape(key[end:])
        self.text = pattern.strip()
        self._pieces = pieces
        self._expressions = [re.compile(piece, re.DOTALL) for piece in pieces]
        self._known: dict[str, bool] = {}

    def wild_texts(self, tag: str) -> list[str]:
        """What the `*` stand for in a tag that is meant, as it is written there; [] where there are none."""
        if "*" not in self._wild or not self.matches(tag):
            return []
        spaced = _SPACE.sub(" ", _ESCAPED.sub(r"\1", tag)).strip()
        found = _fit([re.compile(piece, re.DOTALL | re.IGNORECASE) for piece in self._pieces], spaced)
        if found is None:
            return []
        return [text for sign, text in zip(self._wild, found, strict=True) if sign == "*"]

    def matches(self, tag: str) -> bool:
        """Whether the tag is meant."""
        known = self._known.get(tag)
        if known is None:
            known = self._known[tag] = _fit(self._expressions, tag_key(tag)) is not None
        return known

    def parts(self, tag: str) -> tuple[str, ...] | None:
        """What the wildcards stand for in the tag's key, in order; None where it is not meant."""
        found = _fit(self._expressions, tag_key(tag)) if self.matches(tag) else None
        return None if found is None else tuple(found)


def _fit(pieces: Sequence[re.Pattern[str]], text: str) -> list[str] | None:
    """What the `*` between the pieces and the groups in them stand for if they make up the text, else None.

    As in a regular expression the first `*` gets the most. But where one matches in time to the power of its stars,
    this places the pieces from the last to the first, each as far right as it can be, and takes none of it back: that
    leaves most room for those before. A piece is of a fixed length.
    """
    if len(pieces) == 1:
        whole = pieces[0].fullmatch(text)
        return None if whole is None else list(whole.groups())
    first = pieces[0].match(text)
    if first is None:
        return None
    found: list[str] = []
    end = len(text)
    for number, piece in enumerate(reversed(pieces[1:])):
        matches = (piece.match(text, at, end) for at in range(end, first.end() - 1, -1))
        placed = next((match for match in matches if match and (number or match.end() == end)), None)
        if placed is None:
            return None
        found = [text[placed.end() : end], *found] if number else found
        found = [*placed.groups(), *found]
        end = placed.start()
    return [*first.groups(), text[first.end() : end], *found]


class Meant(dict[str, bool]):
    """Whether a tag is meant by one of some patterns, `meant[tag]`; each tag is looked at once."""

    def __init__(self, patterns: Iterable[TagPattern]) -> None:
        super().__init__()
        self.patterns = list(patterns)

    def __missing__(self, tag: str) -> bool:
        found = self[tag] = any_matches(self.patterns, tag)
        return found


def any_matches(patterns: Iterable[TagPattern], tag: str) -> bool:
    """Whether one of the patterns means the tag."""
    return any(pattern.matches(tag) for pattern in patterns)
