"""From pictures to scores, as fast as the network goes: pictures are read ahead in threads while it works.

What is kept already is not worked out again, and what is worked out is kept at once.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.pictures import Picture, read_picture
from lib_dsm.errors import DsmError, PictureError
from lib_dsm.jobs import Job
from lib_dsm.tagging.members import Members
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.store import ScoreStore

_READERS = min(8, os.cpu_count() or 1)
_BATCHES_AHEAD = 2
_READ_AT_LEAST = 448  # pixels; what a small network sees would suffer from coarser decoding, and it saves nothing
_TOGETHER = 64  # pictures handed on at a time where nothing needs the network


@dataclass(frozen=True)
class Scored:
    """A picture with its scores, or with the sentence that says why it has none; `notes` are on what was odd in it."""

    picture: Path
    scores: Scores | None
    problem: str = ""
    notes: list[str] = field(default_factory=list)


@dataclass
class _Looked:
    """A picture on its way: the scores that each tagger has of it already, and the pixels for those that have none."""

    picture: Path
    digest: bytes
    scores: list[Scores | None]
    pixels: list[NDArray[np.uint8] | None]
    notes: list[str]

    @property
    def waiting(self) -> bool:
        return any(scores is None for scores in self.scores)


def score_pictures(
    pictures: Sequence[Path], members: Members, store: ScoreStore, batch: int = 0, job: Job | None = None
) -> Iterator[list[Scored]]:
    """Every picture in order, a few at a time. One that cannot be read comes with a problem instead of scores.

    No more than a few batches are in memory at a time, however many pictures there are.

    Raises:
        ModelError: a tagger cannot be loaded or fails.
        Cancelled: the job was stopped; the scores up to there are kept.
    """
    looking = _Looking(members, store)
    size = batch or 1
    with ThreadPoolExecutor(_READERS, "dsm-read") as readers:
        begun: deque[Future[_Looked | Scored]] = deque()
        rest = iter(pictures)
        together: list[_Looked | Scored] = []
        try:
            waiting = 0
            while True:
                while len(begun) < size * _BATCHES_AHEAD + _READERS and (picture := next(rest, None)) is not None:
                    begun.append(readers.submit(looking.look, picture))
                if not begun:
                    break
                if job is not None:
                    job.check()
                looked = begun.popleft().result()
                together.append(looked)
                if isinstance(looked, _Looked) and looked.waiting:
                    if not waiting and not batch:
                        size = batch = min(member.tagger().good_batch() for member in members.all)
                    waiting += 1
                if waiting >= size or len(together) >= max(size, _TOGETHER):
                    yield looking.finish(together, size)
                    together, waiting = [], 0
            if together:
                yield looking.finish(together, size)
        finally:
            readers.shutdown(wait=False, cancel_futures=True)


class _Looking:
    """The two halves of the way: `look` in any of many threads, `finish` in one."""

    def __init__(self, members: Members, store: ScoreStore) -> None:
        self._members, self._store = members, store
        self._keys = members.keys

    def look(self, picture: Path) -> _Looked | Scored:
        try:
            digest = self._store.digest(picture)
            scores = [self._store.get(key, digest) for key in self._keys]
            pixels: list[NDArray[np.uint8] | None] = [None] * len(scores)
            notes: list[str] = []
            reads: dict[int, Picture] = {}  # by the side it was decoded for; taggers of one side share it
            for index, (member, found) in enumerate(zip(self._members.all, scores, strict=True)):
                if found is None:
                    tagger = member.tagger()
                    side = max(tagger.side, _READ_AT_LEAST)
                    if side not in reads:
                        reads[side] = read_picture(picture, draft_side=side)
                    pixels[index], notes = tagger.prepare(reads[side].image), reads[side].notes
            return _Looked(picture, digest, scores, pixels, notes)
        except (PictureError, OSError) as error:
            text = str(error) if isinstance(error, DsmError) else f"It cannot be read: {error.strerror or error}."
            return Scored(picture, None, text)

    def finish(self, together: Sequence[_Looked | Scored], batch: int) -> list[Scored]:
        looked = [item for item in together if isinstance(item, _Looked)]
        for index, member in enumerate(self._members.all):
            waiting = [item for item in looked if item.scores[index] is None]
            for start in range(0, len(waiting), batch):
                part = waiting[start : start + batch]
                pixels = np.stack([pixels for item in part if (pixels := item.pixels[index]) is not None])
                rows = [Scores.of(row) for row in member.tagger().scores(pixels)]
                for item, row in zip(part, rows, strict=True):
                    item.scores[index] = row
                self._store.put(self._keys[index], [(item.digest, row) for item, row in zip(part, rows, strict=True)])
        return [item if isinstance(item, Scored) else self._combined(item) for item in together]

    def _combined(self, item: _Looked) -> Scored:
        scores = [scores for scores in item.scores if scores is not None]
        return Scored(item.picture, self._members.combined(scores), notes=item.notes)
