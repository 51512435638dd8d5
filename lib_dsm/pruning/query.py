r"""Choosing captions by their tags: `blue hair AND (hat OR NOT outdoors), -1boy`.

query  = both { "OR" both }
both   = one { ("AND" | "," | nothing before a "-") one }
one    = ("NOT" | "-") one | "(" query ")" | tag
tag    = words with wildcards * and ?, brackets as \( and \)  |  "in quotes, taken literally"
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lib_dsm.dataset.matching import TagPattern, literal
from lib_dsm.errors import InputError

Query = Callable[[Sequence[str]], bool]
"""Whether a caption with these tags is meant."""

_MAX_DEPTH = 100
_TOKEN = re.compile(
    r"""\s*(?:
        "(?P<quoted>(?:[^"\\]|\\.)*)"
      | (?P<open>\()
      | (?P<close>\))
      | (?P<comma>,)
      | (?P<minus>-)
      | (?P<word>(?:\\\S|[^\s(),"\\]|\\(?=\s|$))+)
      | (?P<unclosed>")
    )""",
    re.VERBOSE | re.DOTALL,
)
_OPERATORS = {"AND": "and", "OR": "or", "NOT": "not"}


class QueryError(InputError):
    """A query that cannot be understood; `position` counts the characters before the fault."""

    def __init__(self, query: str, position: int, problem: str, remedy: str) -> None:
        self.query = query
        self.position = position
        super().__init__(f'{problem} at character {position + 1} of "{query}".', remedy)


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    position: int


def parse(query: str) -> Query:
    """The query as a test on tags; an empty one means every caption.

    Raises:
        QueryError: it cannot be understood; the error says where.
    """
    if not query.strip():
        return lambda tags: True
    return _Parser(query).parse()


class _Parser:
    def __init__(self, query: str) -> None:
        self._query = query
        self._tokens = _tokens(query)
        self._next = 0
        self._depth = 0

    def parse(self) -> Query:
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

    def _either(self) -> Query:
        choices = [self._both()]
        while self._kind == "or":
            self._take()
            choices.append(self._both())
        return choices[0] if len(choices) == 1 else lambda tags: any(choice(tags) for choice in choices)

    def _both(self) -> Query:
        parts = [self._one()]
        while self._kind not in ("or", "close", "end"):
            if self._kind in ("and", "comma"):
                self._take()
            elif self._kind != "not":
                raise self._error(
                    "AND, OR or a comma is missing", 'Brackets that belong to a tag are written \\( \\) or "in quotes".'
                )
            parts.append(self._one())
        return parts[0] if len(parts) == 1 else lambda tags: all(part(tags) for part in parts)

    def _one(self) -> Query:
        if self._depth >= _MAX_DEPTH:
            raise self._error("Too many brackets or NOTs", "Write the query more simply.")
        self._depth += 1
        try:
            if self._kind == "not":
                self._take()
                inner = self._one()
                return lambda tags: not inner(tags)
            if self._kind == "open":
                self._take()
                result = self._either()
                if self._kind != "close":
                    raise self._error('A ")" is missing', "Close the bracket, or write a tag's own as \\( and \\).")
                self._take()
                return result
            if self._kind == "tag":
                pattern = TagPattern(self._take().text)
                return lambda tags: any(pattern.matches(tag) for tag in tags)
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
            tokens.append(_Token("tag", literal(re.sub(r'\\"', '"', text)), position - 1))
        elif kind == "minus":
            tokens.append(_Token("not", text, position))
        else:
            tokens.append(_Token(_OPERATORS.get(text, kind), text, position))
    return [*tokens, _Token("end", "", len(query))]
