"""From a tagger's scores to the tags of a caption."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.matching import TagPattern, any_matches, tag_key
from lib_dsm.tagging.labels import Labels
from lib_dsm.tagging.options import TagOptions

KAOMOJI = frozenset(
    (
        "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
        "o_o", "u_u", "x_x", "|_|", "||_||",
    )
)  # fmt: skip
"""Faces, whose underscore is a mouth and stays."""

_MCUT_CHARACTER_FLOOR = 0.15
_TO_ESCAPE = re.compile(r"[\\()]")


def mcut(scores: NDArray[np.float32]) -> float:
    """The threshold in the middle of the widest gap between neighbouring scores.

    Largeron, Moulin and Géry, "MCut: a thresholding strategy for multi-label classification", 2012.
    """
    if len(scores) < 2:
        return 0.0
    falling = np.sort(scores.astype(np.float64))[::-1]
    widest = int(np.argmax(falling[:-1] - falling[1:]))
    return float((falling[widest] + falling[widest + 1]) / 2)


def select(scores: NDArray[np.float32], labels: Labels, options: TagOptions) -> dict[str, float]:
    """The tags whose scores reach the thresholds, by the model's own names, in the order that the options want.

    `scores` are those of one picture, in the order of `labels`. `only` and `exclude` are obeyed.
    """
    general, character = options.threshold, options.character_threshold
    if options.mcut:
        general = mcut(scores[labels.general])
        character = max(mcut(scores[labels.character]), _MCUT_CHARACTER_FLOOR)
    places = np.concatenate(
        [
            labels.general[scores[labels.general] >= general],
            labels.character[scores[labels.character] >= character],
        ]
    )
    chosen = [(labels.names[place], float(scores[place])) for place in np.sort(places)]
    only, exclude = ([TagPattern(tag) for tag in tags if tag.strip()] for tags in (options.only, options.exclude))
    chosen = [
        (name, score)
        for name, score in chosen
        if (not only or any_matches(only, name)) and not any_matches(exclude, name)
    ]
    if options.sort == "score":
        chosen.sort(key=lambda item: -item[1])
    elif options.sort == "alphabetical":
        chosen.sort(key=lambda item: item[0].casefold())
    return dict(chosen)


def rating(scores: NDArray[np.float32], labels: Labels) -> str:
    """The name of the likeliest rating, "" where the tagger gives none."""
    if not len(labels.rating):
        return ""
    return labels.names[int(labels.rating[np.argmax(scores[labels.rating])])]


def spell(name: str, options: TagOptions) -> str:
    """A model's tag as it stands in a caption: spaces for underscores, brackets escaped, as the options want."""
    if not options.keep_underscores and name not in KAOMOJI:
        name = name.replace("_", " ")
    return _TO_ESCAPE.sub(r"\\\g<0>", name) if options.escape else name


def caption_tags(selected: Sequence[str], labels: Labels, options: TagOptions) -> list[str]:
    """The tags of a caption, spelled, with those of `first` in front.

    A tag of `first` that the tagger knows only moves to the front where it was found; one that it does not know, such
    as a trigger word, is put in front of every caption.
    """
    spelled = {tag_key(name): spell(name, options) for name in selected}
    front = []
    for tag in options.first:
        key = tag_key(tag)
        if key in spelled:
            front.append(spelled.pop(key))
        elif tag.strip() and key not in labels.keys:
            front.append(tag.strip())
    return front + list(spelled.values())


def merge(existing: Sequence[str], new: Sequence[str], on_existing: str) -> list[str]:
    """The tags of a caption that had some: `on_existing` is "replace", "append" or "prepend".

    Tags that are there already stay as and where they are.
    """
    if on_existing == "replace":
        return list(new)
    known = set(map(tag_key, existing))
    added = [tag for tag in new if tag_key(tag) not in known]
    return [*added, *existing] if on_existing == "prepend" else [*existing, *added]
