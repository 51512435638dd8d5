"""A proposal of the tags that describe the character itself, to be pruned so that the network absorbs them.

A tag belongs to the character when it is frequent across the set and of the kinds hair, eyes, body or clothes; never
when it tells of background, pose, camera or number, or of a state such as `closed eyes`. A person decides in the end,
and sees for it why a tag is proposed, pictures with and without it, and what will follow: what no caption says any more
is learned as inherent, what captions go on saying stays promptable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from lib_dsm.dataset.matching import literal, tag_key
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.pruning.query import Mask
from lib_dsm.pruning.tables import KindTable, Tables, load_tables, main_kind

OWN = ("hair", "eyes", "body", "clothes")
_SAMPLES = 6


@dataclass(frozen=True)
class Preset:
    """Which kinds of tags are proposed, as a guide has it; `replace` puts one tag for all of the kinds instead."""

    name: str
    title: str
    text: str
    kinds: tuple[str, ...]
    replace: str = ""


PRESETS = (
    Preset(
        "character", "Everything that is always there",
        "Hair, eyes, body and clothes: the embedding draws the character dressed as it always is.",
        (*OWN, "clothes/accessory"),
    ),
    Preset(
        "accessories", "Keep optional accessories tagged",
        "As above, but hats, glasses and jewellery stay in the captions, so that they can be asked for or left off.",
        OWN,
    ),
    Preset(
        "features", "Features only",
        "Hair, eyes and body: every outfit stays promptable.",
        ("hair", "eyes", "body"),
    ),
    Preset(
        "outfit", "Prune an outfit",
        "Clothes only. Filter by a tag of the outfit first: what its pictures have in common becomes one thing, which "
        "saves naming every piece of it.",
        ("clothes", "clothes/accessory"),
    ),
    Preset(
        "nudity", "Nudity as one tag",
        "Whatever directly implies nudity is replaced by nsfw, which makes it easier to ask for, or to leave out.",
        ("body/nudity",), "nsfw",
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Proposal:
    """A tag that probably belongs to the character; `share` of the captions, 0 to 1, have it.

    `chosen` is whether it is frequent enough to be taken; the others are shown so that a person can. `reason` is a
    sentence; `samples` and `without` are pictures, by their names in the folder, that have it and that have not.
    """

    tag: str
    kind: str
    count: int
    share: float
    chosen: bool = True
    reason: str = ""
    samples: tuple[str, ...] = ()
    without: tuple[str, ...] = ()


@dataclass(frozen=True)
class Consequence:
    """What follows from pruning tags: `inherent` is learned without a word, `promptable` stays in captions, with the
    share of the captions, 0 to 1, the most frequent first; `missed` are pruned tags that only few pictures had."""

    inherent: tuple[str, ...]
    promptable: tuple[tuple[str, str, float], ...]
    missed: tuple[str, ...]


def kind_of(tag: str, kinds: KindTable | None = None) -> str | None:
    """The kind of feature that a tag describes, or None where it is none of the character's own."""
    kind = (kinds if kinds is not None else load_tables().kinds).of(tag)
    return main_kind(kind) if kind in PRESETS[0].kinds else None


def character_tags(index: TagIndex, share: float = 0.4, tables: Tables | None = None) -> list[Proposal]:
    """The tags of a character's kinds that at least `share` of the captions have, by kind, the most frequent first."""
    return [proposal for proposal in propose(index, share, tables=tables) if proposal.chosen]


def propose(
    index: TagIndex,
    share: float = 0.4,
    preset: Preset = PRESETS[0],
    within: Mask | None = None,
    tables: Tables | None = None,
    least: float = 0.05,
) -> list[Proposal]:
    """Tags of the preset's kinds, by kind, the most frequent first; chosen are those with at least `share` of them.

    Spellings of one tag are counted together and all proposed. `within` are the rows that count, all if it is not
    given; tags of less than `least` of them are left out. A preset that replaces chooses whatever there is.
    """
    tables = tables if tables is not None else load_tables()
    rows = index.exists & index.usable
    if within is not None:
        rows = rows & within
    captions = int(rows.sum())
    if not captions:
        return []
    counts = index.counts_in(rows)
    together: Counter[str] = Counter()
    for tag, count in counts.items():
        together[tag_key(tag)] += count
    order = {kind: place for place, kind in enumerate(preset.kinds)}
    found = []
    for tag, count in counts.items():
        kind = tables.kinds.of(tag)
        portion = min(1.0, together[tag_key(tag)] / captions)
        if not count or kind not in order or (portion < least and not preset.replace):
            continue
        chosen = portion >= share or bool(preset.replace)
        having = index.rows_with([index.number(tag)]) & rows
        found.append(
            Proposal(
                tag,
                kind,
                count,
                portion,
                chosen,
                _reason(tag, kind, count, captions, share, preset),
                _some_of(index, having),
                _some_of(index, rows & ~having),
            )
        )
    return sorted(found, key=lambda item: (order[item.kind], not item.chosen, -item.count, item.tag))


def consequence(
    index: TagIndex, pruned: Collection[str], within: Mask | None = None, tables: Tables | None = None, most: int = 60
) -> Consequence:
    """What the network will learn as inherent and what stays promptable once these tags are pruned."""
    tables = tables if tables is not None else load_tables()
    rows = index.exists & index.usable
    if within is not None:
        rows = rows & within
    captions = max(1, int(rows.sum()))
    keys = {tag_key(tag) for tag in pruned}
    inherent: list[str] = []
    missed: list[str] = []
    promptable = []
    for tag, count in index.counts_in(rows).items():
        if not count:
            continue
        if tag_key(tag) not in keys:
            promptable.append((tag, main_kind(tables.kinds.of(tag)), count / captions))
        else:
            (inherent if count >= 0.25 * captions else missed).append(tag)
    return Consequence(tuple(inherent), tuple(promptable[:most]), tuple(missed))


def replacement(tags: Collection[str], new: str) -> tuple[str, ...]:
    """The replacements, as `PruneOptions.replace` has them, of each of these tags by the new one."""
    return tuple(f"{literal(tag).replace('=', chr(92) + '=')}={new}" for tag in tags)


def preset_of(name: str) -> Preset | None:
    """The preset of that name."""
    return next((preset for preset in PRESETS if preset.name == name), None)


def _reason(tag: str, kind: str, count: int, captions: int, share: float, preset: Preset) -> str:
    having = f"{count} of {captions} captions have it"
    what = {
        "clothes/accessory": "an accessory", "hair": "hair", "eyes": "eyes", "body": "the body", "clothes": "clothes",
        "body/nudity": "nudity",
    }.get(kind, kind)  # fmt: skip
    if preset.replace:
        return f"{having}, and it directly implies {what}."
    if count >= 0.95 * captions:
        return f"Nearly always there: {having}, and it tells of {what}."
    if count >= share * captions:
        return f"Frequent: {having}, and it tells of {what}."
    return f"Only {having}; it tells of {what}, but may be another outfit, another picture or a slip of the tagger."


def _some_of(index: TagIndex, rows: Mask) -> tuple[str, ...]:
    """A few of the rows, spread evenly."""
    found = np.flatnonzero(rows)
    if len(found) > _SAMPLES:
        found = found[np.linspace(0, len(found) - 1, _SAMPLES).astype(int)]
    return tuple(index.slashed(row) for row in found.tolist())
