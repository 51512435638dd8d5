"""From a tagger's scores to the tags of a caption."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.matching import Replacement, TagPattern, any_matches, tag_key
from lib_dsm.errors import InputError
from lib_dsm.tagging.labels import CHARACTER, GENERAL, OTHERS, Labels
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.scores import FLOOR, LEVELS, Scores, to_levels

KAOMOJI = frozenset(
    (
        "0_0", "(o)_(o)", "+_+", "+_-", "._.", "<o>_<o>", "<|>_<|>", "=_=", ">_<", "3_3", "6_9", ">_o", "@_@", "^_^",
        "o_o", "u_u", "x_x", "|_|", "||_||",
    )
)  # fmt: skip
"""Faces, whose underscore is a mouth and stays."""

_MCUT_CHARACTER_FLOOR = 0.15
_TO_ESCAPE = re.compile(r"[\\()]")
_NEVER = LEVELS + 1


@dataclass(frozen=True)
class Chosen:
    """A tag that is written: its place among the tagger's outputs (-1 for none), its text, and its score."""

    place: int
    text: str
    score: float


def mcut(scores: NDArray[np.floating]) -> float:
    """The threshold in the middle of the widest gap between neighbouring scores.

    Largeron, Moulin and Géry, "MCut: a thresholding strategy for multi-label classification", 2012.
    """
    if len(scores) < 2:
        return 0.0
    falling = np.sort(scores.astype(np.float64))[::-1]
    widest = int(np.argmax(falling[:-1] - falling[1:]))
    return float((falling[widest] + falling[widest + 1]) / 2)


class Wording:
    """What each of a tagger's tags is called in a caption: excluded, replaced, spelled. Worked out when first asked."""

    def __init__(self, labels: Labels, options: TagOptions) -> None:
        """Raises:
        InputError: a replacement is not of the form OLD=NEW.
        """
        self.labels = labels
        self.key = wording_key(options)
        self._options = options
        self._only, self._exclude = (_patterns(tags) for tags in (options.only, options.exclude))
        self._rules = [Replacement.parse(text) for text in options.replace if text.strip()]
        self._texts: dict[int, str] = {}

    def text(self, place: int) -> str:
        """The text for the tag at a place of the tagger's outputs, "" where it is not to be written."""
        found = self._texts.get(place)
        if found is None:
            found = self._texts[place] = self.of(self.labels.names[place])
        return found

    def of(self, name: str) -> str:
        """The text for a tag by the model's own name, "" where it is not to be written."""
        if (self._only and not any_matches(self._only, name)) or any_matches(self._exclude, name):
            return ""
        for rule in self._rules:
            text = rule.written(name, lambda part: spell(part, self._options))
            if text is not None:
                return "" if any_matches(self._exclude, text) else text
        return spell(name, self._options)


def wording_key(options: TagOptions) -> tuple[object, ...]:
    """What of the options decides how a tag is called."""
    return options.only, options.exclude, options.replace, options.escape, options.keep_underscores, options.weights


class Chooser:
    """The options made ready for one tagger, to choose the tags of any number of pictures."""

    def __init__(
        self,
        labels: Labels,
        options: TagOptions,
        balanced: tuple[float | None, float | None] = (None, None),
        wording: Wording | None = None,
    ) -> None:
        """`balanced` are the tagger's own thresholds for general tags and for characters; a `wording` made from the
        same options before saves making it again.

        Raises:
            InputError: a replacement is not of the form OLD=NEW, or a kind of tags is unknown.
        """
        _demand_kinds(options.kinds)
        self.labels = labels
        self.options = options
        self.wording = (
            wording if wording is not None and wording.key == wording_key(options) else Wording(labels, options)
        )
        general, character = options.threshold, options.character_threshold
        if options.balanced:
            general = balanced[0] if balanced[0] is not None else general
            character = balanced[1] if balanced[1] is not None else character
        self.thresholds = general, character
        self._wanted = {name: places for name, places in labels.others if name in options.kinds}
        self._kinds = np.zeros(len(labels.names), np.uint8)
        self._kinds[labels.general] = _GENERAL
        self._kinds[labels.character] = _CHARACTER
        for places in self._wanted.values():
            self._kinds[places] = _FURTHER
        self.limits = _limits(self._kinds, general, character)

    def choose(self, scores: Scores) -> list[Chosen]:
        """The tags of one picture, in the order and the words that the options want, without `first` and the rating."""
        limits = self.limits[scores.places] if not self.options.mcut else self._mcut_limits(scores)
        kept = np.flatnonzero(scores.levels >= limits)
        if self.options.sort == "score":
            kept = kept[np.argsort(-scores.levels[kept].astype(np.int32), kind="stable")]
        values = scores.values[kept].tolist()
        found: dict[str, Chosen] = {}
        for place, value in zip(scores.places[kept].tolist(), values, strict=True):
            text = self.wording.text(place)
            if text:
                key = tag_key(text)
                if key not in found or found[key].score < value:
                    found[key] = Chosen(place, text, value)
        if self.options.sort == "alphabetical":
            return sorted(found.values(), key=lambda chosen: chosen.text.casefold())
        return list(found.values())

    def caption(self, scores: Scores) -> list[str]:
        """The tags of one picture's caption, those of `first` in front.

        A tag of `first` that the tagger knows only moves to the front where it was found; one that it does not know,
        such as a trigger word, is put in front of every caption.
        """
        texts = {tag_key(chosen.text): self._weighted(chosen) for chosen in self.choose(scores)}
        front: dict[str, str] = {}
        for tag in self.options.first:
            key = tag_key(tag)
            if key in texts:
                front[key] = texts.pop(key)
            elif tag.strip() and key not in self.labels.keys and key not in front:
                front[key] = tag.strip()
        rated = rating(scores, self.labels) if self.options.rating else ""
        return [*front.values(), *texts.values(), *_some(self.wording.of(as_rating_tag(rated)) if rated else "")]

    def _weighted(self, chosen: Chosen) -> str:
        return f"({chosen.text}:{chosen.score:.2f})" if self.options.weights else chosen.text

    def _mcut_limits(self, scores: Scores) -> NDArray[np.uint32]:
        kinds = self._kinds[scores.places]
        values = scores.values

        def gap(kind: int, places: NDArray[np.intp]) -> float:
            found = values[kinds == kind]
            # What is below the floor is 0; one 0 stands for all of them.
            return mcut(np.append(found, 0.0) if len(found) < len(places) else found)

        general = gap(_GENERAL, self.labels.general)
        character = max(gap(_CHARACTER, self.labels.character), _MCUT_CHARACTER_FLOOR)
        return _limits(kinds, general, character)


_GENERAL, _CHARACTER, _FURTHER = 1, 2, 3


def _limits(kinds: NDArray[np.uint8], general: float, character: float) -> NDArray[np.uint32]:
    """The lowest level that is written, for each of these kinds."""
    by_kind = [np.uint32(_NEVER), *(to_levels(max(limit, FLOOR)) for limit in (general, character, general))]
    return np.array(by_kind, np.uint32)[kinds]


def rating(scores: Scores, labels: Labels) -> str:
    """The name of the likeliest rating, "" where the tagger gives none."""
    if not len(labels.rating):
        return ""
    dense = scores.dense(len(labels.names))[labels.rating]
    return labels.names[int(labels.rating[np.argmax(dense)])] if dense.any() else ""


def as_rating_tag(name: str) -> str:
    """A rating as a tag that is no other tag: "general" alone would be one."""
    return name if name.startswith("rating:") else f"rating:{name}"


def spell(name: str, options: TagOptions) -> str:
    """A model's tag as it stands in a caption: spaces for underscores, brackets escaped, as the options want."""
    if not options.keep_underscores and name not in KAOMOJI:
        name = name.replace("_", " ")
    return _TO_ESCAPE.sub(r"\\\g<0>", name) if options.escape or options.weights else name


def merge(existing: Sequence[str], new: Sequence[str], on_existing: str) -> list[str]:
    """The tags of a caption that had some: `on_existing` is "replace", "append" or "prepend".

    Tags that are there already, with or without a weight, stay as and where they are.
    """
    if on_existing == "replace":
        return list(new)
    known = {tag_key(tag) for tag in existing}
    added = [tag for tag in new if tag_key(tag) not in known]
    return [*added, *existing] if on_existing == "prepend" else [*existing, *added]


def _patterns(tags: Iterable[str]) -> list[TagPattern]:
    return [TagPattern(tag) for tag in tags if tag.strip()]


def _some(text: str) -> list[str]:
    return [text] if text else []


def _demand_kinds(kinds: Iterable[str]) -> None:
    for kind in kinds:
        if kind not in OTHERS:
            both = f"{GENERAL} and {CHARACTER} are always written"
            raise InputError(f'"{kind}" is no further kind of tags.', f"Choose of: {', '.join(OTHERS)}; {both}.")
