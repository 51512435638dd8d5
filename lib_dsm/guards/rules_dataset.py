"""Guards on the pictures and captions. One rule, one function."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.buckets import lost_share

FEW_PICTURES = 100
EXTREME_RATIO = 4.0
MUCH_LOST = 0.15
_BARE_BRACKET = re.compile(r"(?<!\\)[()\[\]]")
_SEVERAL = re.compile(r"^([2-9]|\d\d+|6\+)(girls|boys|others)$|^multiple[ _]")


def few_pictures(facts: RunFacts) -> Iterator[Finding]:
    """Under a hundred pictures an embedding is less consistent."""
    count = len(facts.plan.pictures)
    if count < FEW_PICTURES:
        yield Finding(
            "few-images",
            Severity.INFO,
            f"{count} pictures; the guides find embeddings of fewer than {FEW_PICTURES} less consistent.",
            "More pictures from other angles help.",
        )


def unusable_pictures(facts: RunFacts) -> Iterator[Finding]:
    """Files that cannot be trained on are left out, by name."""
    for path, sentence in facts.plan.skipped:
        yield Finding("corrupt-image", Severity.WARN, f"Left out: {sentence}", f"Replace or remove {path.name}.")
    for note in facts.plan.notes:
        yield Finding("dataset-note", Severity.WARN, note)


def captions_missing(facts: RunFacts) -> Iterator[Finding]:
    """Pictures without a caption, or with an empty one."""
    missing = [picture.path.name for picture in facts.plan.pictures if not picture.tags]
    if missing:
        yield Finding(
            "caption-missing",
            Severity.WARN,
            f"{len(missing)} pictures have no caption: {_some(missing)}.",
            "Tag them, or everything in them becomes a part of the embedding.",
        )


def extreme_aspect(facts: RunFacts) -> Iterator[Finding]:
    """Very long pictures shrink to very little."""
    extreme = [
        f"{picture.path.name} ({picture.source[0]}×{picture.source[1]} → {picture.size[0]}×{picture.size[1]})"
        for picture in facts.plan.pictures
        if max(picture.source) > EXTREME_RATIO * min(picture.source)
    ]
    if extreme:
        yield Finding("extreme-aspect", Severity.WARN, f"Very long pictures: {_some(extreme)}.", "Split or crop them.")


def much_cropped(facts: RunFacts) -> Iterator[Finding]:
    """Pictures whose training size cuts much of them away."""
    cut = [
        f"{picture.path.name} ({lost:.0%})"
        for picture in facts.plan.pictures
        if (lost := lost_share(picture.source, picture.size)) > MUCH_LOST
    ]
    if cut:
        yield Finding(
            "much-cropped",
            Severity.INFO,
            f"{len(cut)} pictures lose much at their edges: {_some(cut)}.",
            "Use variable aspect with smaller multiples, or crop them by hand.",
        )


def brackets(facts: RunFacts) -> Iterator[Finding]:
    """Brackets without a backslash weigh words instead of being part of a tag."""
    tags = {tag for picture in facts.plan.pictures for tag in picture.tags if _BARE_BRACKET.search(tag)}
    if tags:
        yield Finding(
            "brackets",
            Severity.WARN,
            f"Tags with unescaped brackets are read as emphasis: {_some(sorted(tags))}.",
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
            f"{len(long)} captions with the {facts.config.vectors} vectors take over 75 tokens: {_some(long)}.",
            "Prune them, or the embedding moves to a second chunk in these steps.",
        )


def several_characters(facts: RunFacts) -> Iterator[Finding]:
    """Pictures that show more than one character."""
    several = [picture.path.name for picture in facts.plan.pictures if any(map(_SEVERAL.search, picture.tags))]
    if several:
        yield Finding(
            "several-characters",
            Severity.WARN,
            f"{len(several)} pictures show several characters by their tags: {_some(several)}.",
            "Crop to the one you mean, or leave them out.",
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")
