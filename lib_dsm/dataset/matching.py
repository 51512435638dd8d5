"""When two spellings are the same tag, and patterns of tags."""

from __future__ import annotations

import re
from collections.abc import Iterable

_ESCAPED = re.compile(r"\\([\\()\[\]{}])")
_SPACE = re.compile(r"[\s_]+")
_WILD = re.compile(r"\\?[*?]")
_WILDCARDS = {"*": "(.*)", "?": "(.)"}


def tag_key(tag: str) -> str:
    r"""What two spellings of one tag have in common: `Blue_Hair` and `blue hair`, `a \(b\)` and `a (b)`."""
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

    def matches(self, tag: str) -> bool:
        """Whether the tag is meant."""
        return self._expression.fullmatch(tag_key(tag)) is not None

    def parts(self, tag: str) -> tuple[str, ...] | None:
        """What the wildcards stand for in the tag, in order; None where it is not meant."""
        found = self._expression.fullmatch(tag_key(tag))
        return found.groups() if found else None


def any_matches(patterns: Iterable[TagPattern], tag: str) -> bool:
    """Whether one of the patterns means the tag."""
    return any(pattern.matches(tag) for pattern in patterns)
