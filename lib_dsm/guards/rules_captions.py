"""Guards on the captions. One rule, one function."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.telling import some

_PIECES = re.compile(r"[^\W\d_]+|\d|(?:[^\w\s]|_)+")
_BARE_BRACKET = re.compile(r"(?<!\\)[()\[\]]")


def captions_missing(facts: RunFacts) -> Iterator[Finding]:
    """Pictures without a caption, or with an empty one."""
    missing = [picture.path.name for picture in facts.plan.pictures if not picture.tags]
    if missing:
        yield Finding(
            "caption-missing",
            Severity.WARN,
            f"{len(missing)} pictures have no caption: {some(missing)}.",
            "Tag them, or everything in them becomes a part of the embedding.",
        )


def guessed_encodings(facts: RunFacts) -> Iterator[Finding]:
    """A caption that is not UTF-8 is read as what it most likely is, which may be wrong."""
    for path, sentence in facts.plan.guessed:
        yield Finding(
            "caption-encoding", Severity.WARN, f"{path.name}: {sentence}", "Look at it, and save it as UTF-8."
        )


def brackets(facts: RunFacts) -> Iterator[Finding]:
    """Brackets without a backslash weigh words instead of being part of a tag."""
    tags = {tag for picture in facts.plan.pictures for tag in picture.tags if _BARE_BRACKET.search(tag)}
    if tags:
        yield Finding(
            "brackets",
            Severity.WARN,
            f"Tags with unescaped brackets are read as emphasis: {some(sorted(tags))}.",
            "Tag again with escaped brackets, or write \\( and \\).",
        )


def long_captions(facts: RunFacts) -> Iterator[Finding]:
    """Captions over 75 tokens push the embedding into another chunk."""
    long = [
        picture.path.name
        for picture in facts.plan.pictures
        if facts.token_counts.get(", ".join(picture.tags), 0) + facts.config.vectors > 75
    ]
    if long:
        yield Finding(
            "long-caption",
            Severity.WARN,
            f"{len(long)} captions with the {facts.config.vectors} vectors take over 75 tokens: {some(long)}.",
            "Prune them, or the embedding moves to a second chunk in these steps.",
        )


def other_embeddings(facts: RunFacts) -> Iterator[Finding]:
    """A caption with the name of another embedding is trained with that one's vectors in it."""
    beginning: dict[str, list[tuple[tuple[str, ...], str]]] = {}
    for name in facts.injected:
        words = _words(name)
        if words and name.casefold() != facts.config.name.casefold():
            beginning.setdefault(words[0], []).append((words, name))
    counts: dict[str, int] = {}
    for picture in facts.plan.pictures:
        caption = _words(", ".join(picture.tags))
        held = {
            name
            for at, first in enumerate(caption)
            for words, name in beginning.get(first, ())
            if caption[at : at + len(words)] == words
        }
        for name in held:
            counts[name] = counts.get(name, 0) + 1
    if counts:
        told = [f"{name} ({counts[name]})" for name in sorted(counts, key=lambda name: (-counts[name], name))]
        yield Finding(
            "other-embedding-in-caption",
            Severity.WARN,
            f"Captions hold the names of other embeddings, whose vectors stand there while training: {some(told)}.",
            "Rename those embeddings, or prune these words.",
        )


def _words(text: str) -> tuple[str, ...]:
    """A text in the pieces that CLIP's tokenizer never joins: words, single digits, runs of other signs."""
    return tuple(_PIECES.findall(text.casefold()))
