r"""Choosing captions by their tags and what else is known: `blue hair AND (hat OR NOT outdoors), -1boy, tokens > 75`.

query  = both { "OR" both }
both   = one { ("AND" | "," | nothing before a "-") one }
one    = ("NOT" | "-") one | "(" query ")" | fact | tag
fact   = ("tags" | "tokens" | "width" | "height" | "pixels" | "ratio" | "count(" pattern ")") comparison number
       | "name:" pattern | "is:" ("missing" | "empty" | "repeated" | "foreign")
tag    = words with wildcards * and ?, brackets as \( and \)  |  "in quotes, taken literally"

`tags` is the number of tags, `count(* hair)` of those that a pattern means, `tokens` what CLIP makes of the caption,
`width`, `height`, `pixels` and `ratio` (width to height) are the picture's. `name:` goes by the picture's file name.
`is:missing` means no caption, `is:empty` one without tags, `is:repeated` one with a tag twice, `is:foreign` one that is
not plain UTF-8. A tag that looks like one of these goes in quotes.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lib_dsm.dataset.matching import TagPattern, literal
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.dataset.token_count import token_count
from lib_dsm.errors import InputError

_MAX_DEPTH = 100
_NUMBERS = ("tags", "tokens", "width", "height", "pixels", "ratio")
_STATES = ("missing", "empty", "repeated", "foreign")
_COMPARISONS: dict[str, Callable[[Any, float], Any]] = {
    "<=": lambda a, b: a <= b,
    ">=": lambda a, b: a >= b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    ">": lambda a, b: a > b,
    "=": lambda a, b: a == b,
}
_TOKEN = re.compile(
    r"""\s*(?:
        "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<fact>(?i:tags|tokens|width|height|pixels|ratio)(?=\s*(?:<=|>=|!=|<|>|=|:))|(?i:count)(?=\s*\())
      | (?P<file>(?i:name|is)(?=:))
      | (?P<open>\()
      | (?P<close>\))
      | (?P<comma>,)
      | (?P<minus>-)
      | (?P<word>(?:\\\S|[^\s(),"\\]|\\(?=\s|$))+)
      | (?P<unclosed>")
    )""",
    re.VERBOSE | re.DOTALL,
)
_COUNTED = re.compile(r'\s*\(\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>(?:\\.|[^()"\\])*))\s*(?P<close>\))?')
_COMPARED = re.compile(r"\s*(?P<sign><=|>=|!=|<|>|=|:)\s*(?P<number>[^\s(),]*)")
_NAMED = re.compile(r':\s*(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s(),"]*))')
_OPERATORS = {"AND": "and", "OR": "or", "NOT": "not"}

Mask = Any
"""A numpy array of truth values, one for each row of an index."""


class QueryError(InputError):
    """A query that cannot be understood; `position` counts the characters before the fault."""

    def __init__(self, query: str, position: int, problem: str, remedy: str) -> None:
        self.query = query
        self.position = position
        super().__init__(f'{problem} at character {position + 1} of "{query}".', remedy)

    @property
    def pointer(self) -> str:
        """The query with a mark under the place, as two lines."""
        flat = self.query.replace("\n", " ").replace("\t", " ")
        return f"{flat}\n{' ' * self.position}^"


@dataclass(frozen=True)
class Query:
    """A query that was understood: a test on one caption's tags, and on all captions of an index at once."""

    text: str
    node: Node

    def __call__(self, tags: Sequence[str]) -> bool:
        """Whether a caption with these tags is meant.

        Raises:
            InputError: the query asks for what tags alone do not tell.
        """
        return self.node.holds(tags)

    def mask(self, index: TagIndex) -> Mask:
        """Which rows of the index are meant; those that are not usable may be among them."""
        return self.node.mask(index)


class Node(ABC):
    """A part of a query."""

    def holds(self, tags: Sequence[str]) -> bool:
        """Whether a caption with these tags is meant."""
        raise InputError("This query asks for more than tags.", "Ask it of a folder.")

    @abstractmethod
    def mask(self, index: TagIndex) -> Mask:
        """Which rows of an index are meant."""


@dataclass(frozen=True)
class _Every(Node):
    def holds(self, tags: Sequence[str]) -> bool:
        return True

    def mask(self, index: TagIndex) -> Mask:
        return np.ones(len(index), bool)


@dataclass(frozen=True)
class _Tag(Node):
    pattern: TagPattern

    def holds(self, tags: Sequence[str]) -> bool:
        return any(map(self.pattern.matches, tags))

    def mask(self, index: TagIndex) -> Mask:
        return index.rows_with(index.numbers_of(self.pattern.matches))


@dataclass(frozen=True)
class _Not(Node):
    inner: Node

    def holds(self, tags: Sequence[str]) -> bool:
        return not self.inner.holds(tags)

    def mask(self, index: TagIndex) -> Mask:
        return ~self.inner.mask(index)


@dataclass(frozen=True)
class _All(Node):
    parts: tuple[Node, ...]

    def holds(self, tags: Sequence[str]) -> bool:
        return all(part.holds(tags) for part in self.parts)

    def mask(self, index: TagIndex) -> Mask:
        return np.logical_and.reduce([part.mask(index) for part in self.parts])


@dataclass(frozen=True)
class _AnyOf(Node):
    parts: tuple[Node, ...]

    def holds(self, tags: Sequence[str]) -> bool:
        return any(part.holds(tags) for part in self.parts)

    def mask(self, index: TagIndex) -> Mask:
        return np.logical_or.reduce([part.mask(index) for part in self.parts])


@dataclass(frozen=True)
class _Number(Node):
    what: str
    sign: str
    value: float
    counted: TagPattern | None = None

    def holds(self, tags: Sequence[str]) -> bool:
        if self.what == "tags":
            return bool(_COMPARISONS[self.sign](len(tags), self.value))
        if self.what == "tokens":
            return bool(_COMPARISONS[self.sign](token_count(", ".join(tags)), self.value))
        if self.counted is not None:
            return bool(_COMPARISONS[self.sign](sum(map(self.counted.matches, tags)), self.value))
        return super().holds(tags)

    def mask(self, index: TagIndex) -> Mask:
        return _COMPARISONS[self.sign](self._values(index), self.value)

    def _values(self, index: TagIndex) -> Any:
        if self.counted is not None:
            meant = np.zeros(len(index.vocabulary) + 1, np.int64)
            meant[index.numbers_of(self.counted.matches)] = 1
            sums = np.concatenate(([0], np.cumsum(meant[index.ids])))
            return sums[index.starts[1:]] - sums[index.starts[:-1]]
        if self.what == "tags":
            return index.lengths
        if self.what == "tokens":
            return index.tokens
        width, height = index.sizes[:, 0], index.sizes[:, 1]
        if self.what == "pixels":
            return width * height
        if self.what == "ratio":
            return width / np.maximum(height, 1)
        return width if self.what == "width" else height


@dataclass(frozen=True)
class _Name(Node):
    pattern: TagPattern

    def mask(self, index: TagIndex) -> Mask:
        matches = self.pattern.matches
        return np.fromiter((matches(name) or matches(_last(name)) for name in index.rows), bool, len(index))


@dataclass(frozen=True)
class _Is(Node):
    state: str

    def holds(self, tags: Sequence[str]) -> bool:
        if self.state == "repeated":
            return len(set(tags)) < len(tags)
        return not tags if self.state == "empty" else super().holds(tags)

    def mask(self, index: TagIndex) -> Mask:
        if self.state == "missing":
            return ~index.exists
        if self.state == "empty":
            return index.exists & (index.lengths == 0)
        return index.repeated if self.state == "repeated" else index.foreign


def parse(query: str) -> Query:
    """The query; an empty one means every caption.

    Raises:
        QueryError: it cannot be understood; the error says where.
    """
    return Query(query, _Parser(query).parse() if query.strip() else _Every())


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int
    node: Node | None = None


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = _tokens(query)
        self._next = 0
        self._depth = 0

    def parse(self) -> Node:
        result = self._either()
        if self._kind != "end":
            raise self._error('Unexpected ")"', 'Add the "(" that it closes, or write it as \\).')
        return result

    @property
    def _kind(self) -> str:
        return self._tokens[self._next].kind

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _error(self, problem: str, remedy: str) -> QueryError:
        return QueryError(self._query, self._tokens[self._next].position, problem, remedy)

    def _either(self) -> Node:
        choices = [self._both()]
        while self._kind == "or":
            self._take()
            choices.append(self._both())
        return choices[0] if len(choices) == 1 else _AnyOf(tuple(choices))

    def _both(self) -> Node:
        parts = [self._one()]
        while self._kind not in ("or", "close", "end"):
            if self._kind in ("and", "comma"):
                self._take()
            elif self._kind != "not":
                raise self._error(
                    "AND, OR or a comma is missing", 'Brackets that belong to a tag are written \\( \\) or "in quotes".'
                )
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else _All(tuple(parts))

    def _one(self) -> Node:
        if self._depth >= _MAX_DEPTH:
            raise self._error("Too many brackets or NOTs", "Write the query more simply.")
        self._depth += 1
        try:
            if self._kind == "not":
                self._take()
                return _Not(self._one())
            if self._kind == "open":
                self._take()
                result = self._either()
                if self._kind != "close":
                    raise self._error('A ")" is missing', "Close the bracket, or write a tag's own as \\( and \\).")
                self._take()
                return result
            if self._kind == "tag":
                return _Tag(TagPattern(self._take().text))
            if self._kind == "fact":
                node = self._take().node
                assert node is not None
                return node
        finally:
            self._depth -= 1
        raise self._error("A tag is missing", 'Operators that are part of a tag go "in quotes".')


def _tokens(query: str) -> list[_Token]:
    """The query's tokens; words that follow each other are one tag."""
    tokens: list[_Token] = []
    end, in_words = 0, False
    while found := _TOKEN.match(query, end):
        kind = found.lastgroup or ""
        text, position = found.group(kind), found.start(kind)
        # A minus only denies at the start of a word; inside one it is a hyphen, and belongs to it.
        end = found.end()
        if kind == "unclosed":
            raise QueryError(query, position, "A quotation mark is not closed", "Close it.")
        if kind == "word" and text not in _OPERATORS:
            if in_words:
                tokens[-1] = _Token("tag", f"{tokens[-1].text} {text}", tokens[-1].position)
            else:
                tokens.append(_Token("tag", text, position))
            in_words = True
            continue
        in_words = False
        if kind == "quoted":
            tokens.append(_Token("tag", literal(_unquoted(text)), position - 1))
        elif kind in ("fact", "file"):
            node, end = _fact(query, text.lower(), end)
            tokens.append(_Token("fact", text, position, node))
        elif kind == "minus":
            tokens.append(_Token("not", text, position))
        else:
            tokens.append(_Token(_OPERATORS.get(text, kind), text, position))
    return [*tokens, _Token("end", "", len(query))]


def _fact(query: str, what: str, end: int) -> tuple[Node, int]:
    """The fact whose word ends at `end`, and where it ends itself."""
    if what in ("name", "is"):
        named = _NAMED.match(query, end)
        assert named is not None
        given = named["quoted"] if named["quoted"] is not None else named["plain"]
        place = named.start("quoted" if named["quoted"] is not None else "plain")
        if what == "is" and given.lower() not in _STATES:
            raise QueryError(query, place, f'"{given}" is no state', f"There are is:{', is:'.join(_STATES)}.")
        if not given:
            raise QueryError(query, place, "A file name is missing", "Write it as name:*.png.")
        return (_Is(given.lower()) if what == "is" else _Name(TagPattern(given))), named.end()
    pattern = None
    if what == "count":
        counted = _COUNTED.match(query, end)
        if counted is None or counted["close"] is None:
            raise QueryError(query, end, 'A tag and a ")" are missing', "Write it as count(* hair) > 1.")
        given = literal(_unquoted(counted["quoted"])) if counted["quoted"] is not None else counted["plain"]
        if not given.strip():
            raise QueryError(query, counted.end() - 1, "A tag is missing", "Write it as count(* hair) > 1.")
        pattern, end = TagPattern(given), counted.end()
    compared = _COMPARED.match(query, end)
    if compared is None:
        raise QueryError(
            query, end, "A comparison is missing", f"Write it as {what}{'(…)' * (pattern is not None)} > 1."
        )
    try:
        number = float(compared["number"])
    except ValueError:
        raise QueryError(
            query, compared.start("number"), f"A number is missing after {what} {compared['sign']}", "Write one there."
        ) from None
    sign = "=" if compared["sign"] == ":" else compared["sign"]
    return _Number(what, sign, number, pattern), compared.end()


def _unquoted(text: str) -> str:
    return re.sub(r'\\"', '"', text)


def _last(name: str) -> str:
    return name[name.rfind("/") + 1 :]
