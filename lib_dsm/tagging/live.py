"""The kept scores of a folder's pictures in memory, to see at once what other options would write."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib_dsm.dataset.listing import require_pictures
from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import DsmError, InputError
from lib_dsm.tagging.labels import Labels
from lib_dsm.tagging.members import Members
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.scores import LEVELS, Scores
from lib_dsm.tagging.store import ScoreStore, score_store
from lib_dsm.tagging.tags import Chooser, Wording
from lib_dsm.tagging.writing import CaptionChange, Captioner

BINS = 50
_KEPT = 2  # folders


@dataclass(frozen=True)
class TagCount:
    """A tag as it would be written, in how many pictures, and of which kind."""

    tag: str
    count: int
    kind: str


@dataclass(frozen=True)
class Counts:
    """What options would write: `tags`, the most frequent first, `total` over all pictures, and the thresholds in use,
    None for those that MCut finds for each picture."""

    tags: list[TagCount]
    total: int
    thresholds: tuple[float, float] | None


@dataclass(frozen=True)
class Histogram:
    """How many pictures have a tag's score in each of `BINS` equal parts of 0 to 1; `name` is the tagger's own."""

    name: str
    bins: list[int]
    threshold: float | None


class Live:
    """The pictures of a folder that have kept scores. `missing` are those that have none yet."""

    def __init__(self, folder: Path, members: Members, store: ScoreStore, pictures: Sequence[Path]) -> None:
        self.folder = folder
        self.labels: Labels = members.labels
        self.balanced = members.balanced
        self.pictures: list[Path] = []
        self.missing: list[Path] = []
        self._scores: list[Scores] = []
        self._wording: Wording | None = None
        digests: dict[Path, bytes] = {}
        for picture in pictures:
            try:
                digests[picture] = store.digest(picture)
            except OSError:
                self.missing.append(picture)
        rows = [store.get_many(key, list(digests.values())) for key in members.keys]
        for picture, digest in digests.items():
            found = [row[digest] for row in rows if digest in row]
            if len(found) == len(rows):
                self.pictures.append(picture)
                self._scores.append(members.combined(found))
            else:
                self.missing.append(picture)
        empty = [Scores(np.zeros(0, np.uint32), np.zeros(0, np.uint16))]
        self._places = np.concatenate([scores.places for scores in self._scores or empty]).astype(np.int64)
        self._levels = np.concatenate([scores.levels for scores in self._scores or empty])
        lengths = [len(scores.places) for scores in self._scores]
        self._owners = np.repeat(np.arange(len(lengths)), lengths)

    @classmethod
    def read(cls, folder: Path, options: TagOptions, cache_dir: Path) -> Live:
        """Take up what is kept for the taggers of the options; looks at no picture, fetches and loads nothing.

        Raises:
            InputError: the folder holds no pictures, or there is no such tagger.
            ModelError: the tagger is not here yet.
        """
        pictures = require_pictures(folder, options.recursive)
        with score_store(cache_dir) as store:
            return cls(folder, Members(options, cache_dir, store, at_hand=True), store, pictures)

    def chooser(self, options: TagOptions) -> Chooser:
        """The options made ready for these pictures."""
        chooser = Chooser(self.labels, options, self.balanced, self._wording)
        self._wording = chooser.wording
        return chooser

    def counts(self, options: TagOptions) -> Counts:
        """What the options would write, over all pictures; `first` and what captions hold already are not counted."""
        chooser = self.chooser(options)
        if options.mcut:
            return self._counted_one_by_one(chooser)
        kept = self._levels >= chooser.limits[self._places]
        places = self._places[kept]
        found = np.unique(places)
        texts = [chooser.wording.text(place) for place in found.tolist()]
        groups: dict[str, int] = {}
        numbers = [groups.setdefault(tag_key(text), len(groups)) if text else -1 for text in texts]
        group = np.full(len(self.labels.names), -1, np.int64)
        group[found] = numbers
        mine = group[places]
        owners = self._owners[kept][mine >= 0]
        mine = mine[mine >= 0]
        if len(set(numbers) - {-1}) < sum(number >= 0 for number in numbers):
            # Several tags became one: it counts once a picture.
            pairs = np.unique(owners * len(groups) + mine)
            mine = pairs % max(1, len(groups))
        totals = np.bincount(mine, minlength=len(groups))
        named: dict[int, tuple[str, str]] = {}
        for place, text, number in zip(found.tolist(), texts, numbers, strict=True):
            named.setdefault(number, (text, self.labels.kinds[place]))
        return _sorted({named[number]: int(totals[number]) for number in groups.values()}, chooser)

    def _counted_one_by_one(self, chooser: Chooser) -> Counts:
        counted: dict[tuple[str, str], int] = {}
        for scores in self._scores:
            for chosen in chooser.choose(scores):
                key = chosen.text, self.labels.kinds[chosen.place]
                counted[key] = counted.get(key, 0) + 1
        return _sorted(counted, chooser)

    def histogram(self, tag: str, options: TagOptions) -> Histogram:
        """A tag's scores over all pictures, the tag by the tagger's own name or as it would be written.

        Raises:
            InputError: the tagger does not know it.
        """
        place = self._place(tag, options)
        levels = self._levels[self._places == place]
        bins = np.bincount(np.minimum(levels.astype(np.int64) * BINS // LEVELS, BINS - 1), minlength=BINS)
        bins[0] += len(self.pictures) - len(levels)
        limit = None if options.mcut else float(self.chooser(options).limits[place]) / LEVELS
        return Histogram(self.labels.names[place], bins.tolist(), limit if limit is not None and limit <= 1 else None)

    def _place(self, tag: str, options: TagOptions) -> int:
        key = tag_key(tag)
        for place, name in enumerate(self.labels.names):
            if tag_key(name) == key:
                return place
        wording = self.chooser(options).wording
        for place in np.unique(self._places).tolist():
            if tag_key(wording.text(place)) == key:
                return int(place)
        raise InputError(f'The tagger does not know "{tag}".', "Choose a tag of the list.")

    def changes(self, options: TagOptions, start: int = 0, count: int | None = None) -> list[CaptionChange]:
        """What would become of the captions of some of the pictures, in order; those that cannot be read are left out.

        Where captions that are there are skipped, such a one stays as it is.
        """
        captioner = Captioner(self.chooser(options))
        end = len(self.pictures) if count is None else start + count
        found = []
        for picture, scores in zip(self.pictures[start:end], self._scores[start:end], strict=True):
            try:
                caption, change = captioner.change(picture, scores)
            except DsmError:
                continue
            if captioner.skips(caption):
                change = dataclasses.replace(change, after=change.before)
            found.append(change)
        return found


class Lives:
    """The folders whose scores were taken up last. May be asked by several threads at once."""

    def __init__(self) -> None:
        self._kept: dict[tuple[object, ...], Live] = {}
        self._lock = threading.Lock()

    def of(self, folder: Path, options: TagOptions, cache_dir: Path, fresh: bool) -> Live:
        """The scores of a folder for the taggers of the options; `fresh` reads them anew.

        Raises:
            InputError, ModelError: as `Live.read`.
        """
        key = folder, options.model, options.also, options.combine, options.recursive
        with self._lock:
            if fresh or key not in self._kept:
                self._kept.pop(key, None)
                self._kept[key] = Live.read(folder, options, cache_dir)
                while len(self._kept) > _KEPT:
                    del self._kept[next(iter(self._kept))]
            return self._kept[key]


def _sorted(counted: dict[tuple[str, str], int], chooser: Chooser) -> Counts:
    tags = [TagCount(text, count, kind) for (text, kind), count in counted.items()]
    tags.sort(key=lambda tag: (-tag.count, tag.tag.casefold()))
    limits = None if chooser.options.mcut else chooser.thresholds
    return Counts(tags, sum(tag.count for tag in tags), limits)
