"""Edits of one caption's tags: pure functions from a list of tags to a list of tags.

Which tags are meant is decided as in `lib_dsm.dataset.matching`; the tags that stay keep their text and their order.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from lib_dsm.dataset.matching import Meant, Replacement, TagPattern, tag_key

Tags = Sequence[str]


def remove(tags: Tags, unwanted: Iterable[TagPattern] | Meant) -> list[str]:
    """Without the tags that are meant."""
    meant = unwanted if isinstance(unwanted, Meant) else Meant(unwanted)
    return [tag for tag in tags if not meant[tag]]


def replace(tags: Tags, replacement: Replacement) -> list[str]:
    """With the new tag for every one that is meant; where the new is there already, or comes twice, it stays once."""
    return _with(tags, [replacement.written(tag) for tag in tags])


def add(tags: Tags, new: Iterable[str], first: bool = False) -> list[str]:
    """With the new tags at the end or, with `first`, at the beginning; those that are there already stay in place."""
    return add_at(tags, new, 0 if first else len(tags))


def add_at(tags: Tags, new: Iterable[str], place: int) -> list[str]:
    """With the new tags before the one that is at `place` now, counted from 0; those that are there already stay."""
    keys = {tag_key(tag) for tag in tags}
    missing = []
    for tag in new:
        if tag_key(tag) not in keys:
            keys.add(tag_key(tag))
            missing.append(tag)
    return [*tags[:place], *missing, *tags[place:]]


def add_beside(tags: Tags, new: Iterable[str], anchor: TagPattern, after: bool) -> list[str]:
    """With the new tags before or after the first that the anchor means; at the end where there is none."""
    at = next((place for place, tag in enumerate(tags) if anchor.matches(tag)), len(tags) - after)
    return add_at(tags, new, at + after)


def dedupe(tags: Tags) -> list[str]:
    """Each tag once, where it came first."""
    first: dict[str, str] = {}
    for tag in tags:
        first.setdefault(tag_key(tag), tag)
    return list(first.values())


def order(tags: Tags, rank: Callable[[str], object], leave: int = 0) -> list[str]:
    """Sorted by `rank`, equals as they were; the first `leave` stay where they are."""
    return [*tags[:leave], *sorted(tags[leave:], key=rank)]  # type: ignore[arg-type]


def merge(tags: Tags, preferred: Mapping[str, str]) -> list[str]:
    """With the preferred tag, by the key of each that has one, in the place of the first that means the same."""
    written: list[str | None] = []
    for tag in tags:
        new = preferred.get(tag_key(tag))
        written.append(new if new is not None and tag_key(new) != tag_key(tag) else None)
    return _with(tags, written)


def keep_specific(tags: Tags, implied: Callable[[str], Collection[str]]) -> list[str]:
    """Without the tags that another one implies: `long hair` goes where there is `very long hair`."""
    general = set().union(*(implied(tag) for tag in tags)) if tags else set()
    return [tag for tag in tags if tag_key(tag) not in general] if general else list(tags)


def keep_general(tags: Tags, implied: Callable[[str], Collection[str]], write: Callable[[str], str]) -> list[str]:
    """With the most general tag that it implies in the place of each; `write` spells a tag by its key."""
    result: list[str] = []
    seen: set[str] = set()
    present = {tag_key(tag): tag for tag in reversed(tags)}
    changed = False
    for tag in tags:
        general = [key for key in implied(tag) if not implied(key)]
        if not general:
            if not (changed and tag_key(tag) in seen):
                result.append(tag)
            seen.add(tag_key(tag))
            continue
        changed = True
        for key in sorted(general):
            if key not in seen:
                seen.add(key)
                result.append(present.get(key) or write(key))
    return result


def add_general(tags: Tags, implied: Callable[[str], Collection[str]], write: Callable[[str], str]) -> list[str]:
    """With every tag that one implies after it, where it is missing."""
    keys = {tag_key(tag) for tag in tags}
    result = []
    for tag in tags:
        result.append(tag)
        for key in sorted(implied(tag)):
            if key not in keys:
                keys.add(key)
                result.append(write(key))
    return result


def _with(tags: Tags, written: Sequence[str | None]) -> list[str]:
    """With what is written for each tag, None for what stays; what comes, or is there already, stays once."""
    coming = {tag_key(new) for new in written if new is not None}
    if not coming:
        return list(tags)
    result = []
    placed = set()
    for old, new in zip(tags, written, strict=True):
        tag = old if new is None else new
        key = tag_key(tag)
        if key not in coming:
            result.append(tag)
        elif key not in placed:
            result.append(tag)
            placed.add(key)
    return result
