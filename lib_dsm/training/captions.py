"""From a picture's tags and a template to the prompt it is trained with."""

from __future__ import annotations

import re
from collections.abc import Sequence

from lib_dsm.dataset.captions import split_tags
from lib_dsm.training.config import RunConfig
from lib_dsm.training.draws import generator

NAME = "[name]"
FILEWORDS = "[filewords]"
_NUMBER_AT_START = re.compile(r"^[-\d]+\s*")  # as the WebUI takes it for a mere place in the folder


def name_tags(stem: str, word_regex: str, join: str) -> list[str]:
    """The tags that a picture's file name (without its ending) stands for; none where there is no `word_regex`.

    As in the WebUI: the number at the start is left out, and what the expression finds is joined. The WebUI without an
    expression of its own takes the whole name, which is `.+` here.
    """
    if not word_regex:
        return []
    found = re.findall(word_regex, _NUMBER_AT_START.sub("", stem))
    return split_tags(join.join(found))


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


def draw_prompt(config: RunConfig, name: str, tags: Sequence[str], place: int) -> str:
    """The prompt that showing `place` of a picture with these tags is trained with; `name` is the network's."""
    drawn = draw_tags(
        tags, config.seed, place, shuffle=config.shuffle_tags, keep=config.keep_tags, dropout=config.tag_dropout
    )
    return fill(draw_template(config.template, config.seed, place), name, ", ".join(drawn))
