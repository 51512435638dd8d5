"""Completion of tags as they are typed: from the set itself, then from lists of tags with their aliases.

A list is a CSV of the form that the completion extensions use (`tag,category,count,"alias,alias"`), in the folder
`tag-lists` of the person's own files, or a tagger's `selected_tags.csv`. Without any there are still the tags and
synonyms of the shipped tables.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path

from lib_dsm.dataset.matching import tag_key
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.pruning.tables import Tables

LISTS = "tag-lists"
_MOST = 400_000  # tags of all lists together
_MOST_DIGITS = 15  # of a count


@dataclass(frozen=True)
class Suggestion:
    """A tag to complete to; `count` is in the set, `known` elsewhere, `alias` the other word that was typed, or ""."""

    tag: str
    count: int
    known: int
    alias: str = ""


@dataclass
class TagList:
    """Known tags by key with how often they are used elsewhere, and aliases by key."""

    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)

    @cached_property
    def most(self) -> int:
        """How often the most used tag is used elsewhere, 1 where that is known of none."""
        return max(self.counts.values(), default=1)

    def suggest(self, index: TagIndex, text: str, most: int = 12) -> list[Suggestion]:
        """The tags that what was typed may become: those that begin so, then those with a word that does."""
        needle = tag_key(text).strip()
        if not needle:
            return []
        found: dict[str, tuple[tuple[int, int, int, int], Suggestion]] = {}

        def offer(key: str, tag: str, count: int, alias: str = "") -> None:
            said = alias or key
            place = 0 if said.startswith(needle) else 1 if f" {needle}" in f" {said}" else 2
            rank = (place, -count, -self.counts.get(key, 0), len(key))
            if key not in found or rank < found[key][0]:
                found[key] = (rank, Suggestion(tag, count, self.counts.get(key, 0), alias))

        counts: dict[str, int] = {}
        for tag, count in index.counts.items():
            key = tag_key(tag)
            counts[key] = counts.get(key, 0) + count
            if needle in key and key not in found:
                offer(key, tag, count)
        for key, name in self.names.items():
            if needle in key and key not in counts:
                offer(key, name, 0)
        for alias, key in self.aliases.items():
            if needle in alias and key not in found:
                offer(key, self.names.get(key, key), counts.get(key, 0), alias)
        ranked = sorted(found.values(), key=lambda item: (*item[0], item[1].tag))
        return [suggestion for _, suggestion in ranked[:most]]


def load_tag_list(tables: Tables, folder: Path, taggers: Path | None = None) -> TagList:
    """The lists in `folder`/tag-lists and the taggers' labels, over the shipped tables; other files are left out."""
    paths = sorted((folder / LISTS).glob("*.csv"))
    if taggers is not None and taggers.is_dir():
        paths += sorted(taggers.rglob("selected_tags.csv"))
    return _over(tables, tuple((str(path), path.stat().st_mtime_ns) for path in paths))


@lru_cache(maxsize=2)
def _over(tables: Tables, paths: tuple[tuple[str, int], ...]) -> TagList:
    found = _read(paths)
    terms = {key for table in (tables.kinds.ends, tables.kinds.exact) for key in table if key not in tables.synonyms}
    result = TagList(found.counts, {**{key: key for key in terms}, **found.names}, dict(found.aliases))
    for alias, tag in tables.synonyms.items():
        result.aliases.setdefault(alias, tag_key(tag))
    return result


@lru_cache(maxsize=2)
def _read(paths: tuple[tuple[str, int], ...]) -> TagList:
    result = TagList()
    for path, _ in paths:
        try:
            with Path(path).open(encoding="utf-8-sig", newline="") as file:
                _read_rows(result, csv.reader(file))
        except (OSError, UnicodeDecodeError, csv.Error):
            continue
    return result


def _read_rows(result: TagList, rows: Iterable[list[str]]) -> None:
    shift = 0
    for row in rows:
        if row[:2] == ["tag_id", "name"]:
            shift = 1
            continue
        if len(result.names) >= _MOST:
            return
        if len(row) < 3 + shift or not row[shift].strip() or (shift and row[2] == "9"):
            continue
        name, count = row[shift].strip(), row[2 + shift].strip()
        key = tag_key(name)
        result.names.setdefault(key, name.replace("_", " ") if any(map(str.isalnum, name)) else name)
        if count.isdecimal() and len(count) <= _MOST_DIGITS:
            result.counts[key] = max(result.counts.get(key, 0), int(count))
        for alias in row[3 + shift].split(",") if len(row) > 3 + shift else ():
            if alias.strip():
                result.aliases.setdefault(tag_key(alias), key)
