"""From a prompt's text to the token chunks that the text encoder sees, as the WebUI does it.

Emphasis: `(a)` weighs by 1.1, `[a]` by 1/1.1, `(a:1.3)` by 1.3, nested ones multiply, a backslash makes a bracket a
character, `BREAK` ends a chunk. Chunks hold 75 tokens; a sentence is cut at its last comma if that is near enough; an
embedding that does not fit into a chunk moves whole to the next one. The behaviour is that of AUTOMATIC1111's WebUI
v1.10.1 with its default settings, so that a prompt means the same there and here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from lib_dsm.diffusion.protocol import CHUNK

ROUND_WEIGHT = 1.1
SQUARE_WEIGHT = 1 / 1.1
COMMA_REACH = 20  # how many tokens back a comma may lie for the cut to be made there
_BREAK = re.compile(r"\s*\bBREAK\b\s*")
_CLOSING_WEIGHT = re.compile(r":\s*([+-]?[.\d]+)\s*\)")


@dataclass
class Span:
    """A piece of text with one weight; `text` None stands for `BREAK`."""

    text: str | None
    weight: float


@dataclass(frozen=True)
class SpecialTokens:
    """Ids the tokenizer gives to the start, the end, the padding after the end, and a comma."""

    start: int
    end: int
    padding: int
    comma: int


@dataclass(frozen=True)
class Placed:
    """An embedding's vectors begin at `offset` of a chunk's 77 positions."""

    offset: int
    name: str


@dataclass(frozen=True)
class Chunk:
    """77 token ids and their weights, and the embeddings that take the place of some of them."""

    tokens: tuple[int, ...]
    weights: tuple[float, ...]
    placed: tuple[Placed, ...]


@dataclass(frozen=True)
class Word:
    """How an embedding is recognised in a prompt: the ids of its name, and how many vectors stand for it."""

    name: str
    ids: tuple[int, ...]
    vectors: int


def parse_emphasis(prompt: str) -> list[Span]:
    """Cut a prompt into spans of equal weight; never empty, brackets that are never closed weigh up to the end."""
    spans: list[Span] = []
    open_round: list[int] = []
    open_square: list[int] = []

    def weigh_from(position: int, factor: float) -> None:
        for span in spans[position:]:
            if span.text is not None:
                span.weight *= factor

    def add(text: str) -> None:
        for index, part in enumerate(_BREAK.split(text)):
            if index:
                spans.append(Span(None, 1.0))
            spans.append(Span(part, 1.0))

    position = 0
    while position < len(prompt):
        character = prompt[position]
        closing = _CLOSING_WEIGHT.match(prompt, position) if character == ":" and open_round else None
        number = _number(closing.group(1)) if closing else None
        if closing and number is not None:
            weigh_from(open_round.pop(), number)
            position = closing.end()
            continue
        if character == "\\" and prompt[position + 1 : position + 2] in ("(", ")", "[", "]", "\\"):
            add(prompt[position + 1])
            position += 2
            continue
        if character == "(":
            open_round.append(len(spans))
        elif character == "[":
            open_square.append(len(spans))
        elif character == ")" and open_round:
            weigh_from(open_round.pop(), ROUND_WEIGHT)
        elif character == "]" and open_square:
            weigh_from(open_square.pop(), SQUARE_WEIGHT)
        elif character in "()[]:":
            add(character)
        elif character == "\\":
            pass  # escapes nothing: the WebUI drops it
        else:
            end = position + 1
            while end < len(prompt) and prompt[end] not in "\\()[]:":
                end += 1
            add(prompt[position:end])
            position = end
            continue
        position += 1
    for start in open_round:
        weigh_from(start, ROUND_WEIGHT)
    for start in open_square:
        weigh_from(start, SQUARE_WEIGHT)
    return _merge(spans) or [Span("", 1.0)]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _merge(spans: list[Span]) -> list[Span]:
    merged: list[Span] = []
    for span in spans:
        last = merged[-1] if merged else None
        if last and last.text is not None and span.text is not None and last.weight == span.weight:
            last.text += span.text
        else:
            merged.append(Span(span.text, span.weight))
    return merged


def chunk_prompt(
    prompt: str, tokenize: Callable[[str], Sequence[int]], special: SpecialTokens, words: Sequence[Word] = ()
) -> list[Chunk]:
    """Cut a prompt into chunks of 77 positions (start, 75 tokens, end). At least one chunk.

    `tokenize` gives a text's ids without start and end. `words` are the embeddings that the prompt may name; where two
    match at one place, the longer name wins. A word of more than 75 vectors cannot be placed (ValueError).
    """
    builder = _Builder(special)
    known = sorted(words, key=lambda word: len(word.ids), reverse=True)
    for span in parse_emphasis(prompt):
        if span.text is None:
            builder.close()
            continue
        ids = list(tokenize(span.text))
        position = 0
        while position < len(ids):
            builder.make_room_at_comma(ids[position])
            word = next((w for w in known if w.ids and tuple(ids[position : position + len(w.ids)]) == w.ids), None)
            if word is None:
                builder.add(ids[position], span.weight)
                position += 1
            else:
                builder.place(word, span.weight)
                position += len(word.ids)
    if builder.tokens or not builder.chunks:
        builder.close()
    return builder.chunks


def empty_chunk(special: SpecialTokens) -> Chunk:
    """The chunk of an empty prompt, with which the shorter prompts of a batch are filled up."""
    builder = _Builder(special)
    builder.close()
    return builder.chunks[0]


class _Builder:
    """Fills one chunk after another."""

    def __init__(self, special: SpecialTokens) -> None:
        self.special = special
        self.chunks: list[Chunk] = []
        self._begin()

    def _begin(self) -> None:
        self.tokens: list[int] = []
        self.weights: list[float] = []
        self.placed: list[Placed] = []
        self.last_comma: int | None = None

    def close(self) -> None:
        fill = CHUNK - len(self.tokens)
        special = self.special
        # The first end token ends the prompt; what follows is padding (the same id in SD1, another one in SD2).
        tail = ([special.end] + [special.padding] * fill) if fill else [special.end]
        self.chunks.append(
            Chunk(
                tokens=(special.start, *self.tokens, *tail),
                weights=(1.0, *self.weights, *[1.0] * (fill + 1)),
                placed=tuple(self.placed),
            )
        )
        self._begin()

    def make_room_at_comma(self, token: int) -> None:
        if token == self.special.comma:
            self.last_comma = len(self.tokens)
            return
        if len(self.tokens) != CHUNK or self.last_comma is None or CHUNK - self.last_comma > COMMA_REACH:
            return
        cut = self.last_comma + 1
        tokens, weights = self.tokens[cut:], self.weights[cut:]
        moved = [Placed(p.offset - cut, p.name) for p in self.placed if p.offset - 1 >= cut]
        self.placed = [p for p in self.placed if p.offset - 1 < cut]
        self.tokens, self.weights = self.tokens[:cut], self.weights[:cut]
        self.close()
        self.tokens, self.weights, self.placed = tokens, weights, moved

    def add(self, token: int, weight: float) -> None:
        if len(self.tokens) == CHUNK:
            self.close()
        self.tokens.append(token)
        self.weights.append(weight)

    def place(self, word: Word, weight: float) -> None:
        if word.vectors > CHUNK:
            raise ValueError(f"{word.name} has {word.vectors} vectors; a chunk holds {CHUNK}")
        if len(self.tokens) + word.vectors > CHUNK:
            self.close()
        self.placed.append(Placed(len(self.tokens) + 1, word.name))
        self.tokens += [0] * word.vectors
        self.weights += [weight] * word.vectors


def words_of(vectors: Mapping[str, int], tokenize: Callable[[str], Sequence[int]]) -> list[Word]:
    """The words under which embeddings of these names and numbers of vectors are found in prompts."""
    return [Word(name, tuple(tokenize(name)), count) for name, count in vectors.items()]
