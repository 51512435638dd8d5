"""Edits of one caption's tags: pure functions from a list of tags to a list of tags.

Which tags are meant is decided as in `lib_dsm.dataset.matching`; the tags that stay keep their text and their order.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lib_dsm.dataset.matching import TagPattern, any_matches, tag_key

Tags = Sequence[str]


def remove(tags: Tags, unwanted: Iterable[TagPattern]) -> list[str]:
    """Without the tags that are meant."""
    patterns = list(unwanted)
    return [tag for tag in tags if not any_matches(patterns, tag)]


def replace(tags: Tags, old: TagPattern, new: str) -> list[str]:
    """With `new` for every tag that is meant; where `new` is there already, or comes twice, it stays once."""
    if not any(old.matches(tag) for tag in tags):
        return list(tags)
    result = []
    placed = False
    for tag in tags:
        meant = old.matches(tag)
        if not meant and tag_key(tag) != tag_key(new):
            result.append(tag)
        elif not placed:
            result.append(new if meant else tag)
            placed = True
    return result


def add(tags: Tags, new: Iterable[str], first: bool = False) -> list[str]:
    """With the new tags at the end or, with `first`, at the beginning; those that are there already stay in place."""
    keys = {tag_key(tag) for tag in tags}
    missing = []
    for tag in new:
        if tag_key(tag) not in keys:
            keys.add(tag_key(tag))
            missing.append(tag)
    return [*missing, *tags] if first else [*tags, *missing]


def dedupe(tags: Tags) -> list[str]:
    """Each tag once, where it came first."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(tag_key(tag), tag)
    return list(first.values())
