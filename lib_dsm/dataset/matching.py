"""When two spellings are the same tag, and patterns of tags."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_ESCAPED = re.compile(r"\\([\\()\[\]{},])")
_WEIGHTED = re.compile(r"\(([^,]*[^,\s\\][^,]*):\s*(?:\d+\.?\d*|\.\d+)\s*\)", re.DOTALL)
_SPACE = re.compile(r"[\s_]+")
_WILD = re.compile(r"\\?[*?]")
_WILDCARDS = {"*": "(.*)", "?": "(.)"}


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
        expression, end = "", 0
        for wild in _WILD.finditer(key):
            sign = wild.group()
            meaning = _WILDCARDS[sign] if is_word and sign in _WILDCARDS else re.escape(sign[-1])
            expression += re.escape(key[end : wild.start()]) + meaning
            end = wild.end()
        self.text = pattern.strip()
        self._expression = re.compile(expression + re.escape(key[end:]), re.DOTALL)
        self._known: dict[str, bool] = {}

    def wild_texts(self, tag: str) -> list[str]:
        """What the `*` stand for in a tag that is meant, as it is written there; [] where there are none."""
        expression, end, stars = "", 0, 0
        key = tag_key(self.text)
        for wild in _WILD.finditer(key):
            sign = wild.group()
            stars += sign == "*"
            meaning = {"*": "(.*)", "?": "."}.get(sign) or re.escape(sign[-1])
            expression += re.escape(key[end : wild.start()]) + meaning
            end = wild.end()
        expression += re.escape(key[end:])
        spaced = _SPACE.sub(" ", _ESCAPED.sub(r"\1", tag)).strip()
        found = re.fullmatch(expression, spaced, re.DOTALL | re.IGNORECASE)
        return list(found.groups()) if found is not None and stars else []

    def matches(self, tag: str) -> bool:
        """Whether the tag is meant."""
        known = self._known.get(tag)
        if known is None:
            known = self._known[tag] = self._expression.fullmatch(tag_key(tag)) is not None
        return known

    def parts(self, tag: str) -> tuple[str, ...] | None:
        """What the wildcards stand for in the tag's key, in order; None where it is not meant."""
        found = self._expression.fullmatch(tag_key(tag))
        return found.groups() if found else None


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
