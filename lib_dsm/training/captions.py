"""From a picture's tags and a template to the prompt it is trained with."""

from __future__ import annotations

from collections.abc import Sequence

from lib_dsm.training.draws import generator

NAME = "[name]"
FILEWORDS = "[filewords]"


def fill(template: str, name: str, words: str) -> str:
    """The template with `[name]` and `[filewords]` filled in."""
    return template.replace(FILEWORDS, words).replace(NAME, name)


def draw_tags(
    tags: Sequence[str], seed: int, place: int, *, shuffle: bool, keep: int = 0, dropout: float = 0.0
) -> list[str]:
    """The tags in the order and number in which showing `place` gives them; the first `keep` stay as they are."""
    draw = generator(seed, "tags", place)
    first, rest = list(tags[:keep]), list(tags[keep:])
    if shuffle:
        rest = [rest[index] for index in draw.permutation(len(rest))]
    if dropout > 0:
        rest = [tag for tag, number in zip(rest, draw.random(len(rest)), strict=True) if number >= dropout]
    return first + rest


def draw_template(templates: Sequence[str], seed: int, place: int) -> str:
    """The template line that showing `place` uses."""
    return templates[int(generator(seed, "template", place).integers(len(templates)))]
