"""The labels of the micro tagger, in the WD1.4 layout: what stands in its selected_tags.csv, in order."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping

from lib_dsm.demo import world

RATING, GENERAL, CHARACTER = 9, 0, 4  # the layout's categories
RATINGS = ("general", "sensitive", "questionable", "explicit")
NAMED = {"pip_(demo)": 1, "momo": 2, "zuzu_(demo)": 3}  # characters the tagger knows by name: their seeds


def labels() -> list[tuple[str, int]]:
    """Every (name, category) of the tagger, with underscores."""
    general = [(tag.replace(" ", "_"), GENERAL) for tag in world.all_tags()]
    return [*((name, RATING) for name in RATINGS), *general, *((name, CHARACTER) for name in NAMED)]


def labels_of(character: world.Character) -> set[str]:
    """The names that are true of a picture of this character; the world is always rated general."""
    found = {tag.replace(" ", "_") for tag in world.tags(character)} | {RATINGS[0]}
    return found | {name for name, seed in NAMED.items() if _same(character, world.character_of(seed))}


def _same(one: world.Character, other: world.Character) -> bool:
    return all(getattr(one, name) == getattr(other, name) for name in world.CONSTANT)


def write_csv(counts: Mapping[str, int]) -> str:
    """The content of selected_tags.csv; `counts` says how often each name was seen in training."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["tag_id", "name", "category", "count"])
    for index, (name, category) in enumerate(labels()):
        writer.writerow([index, name, category, counts.get(name, 0)])
    return text.getvalue()
