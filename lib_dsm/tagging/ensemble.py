"""Several taggers as one: whose tags are put together by name, and whose scores are combined."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.matching import tag_key
from lib_dsm.tagging.labels import Labels
from lib_dsm.tagging.scores import LEVELS, Scores


class Ensemble:
    """The tags that any of several taggers knows, `labels`, and how their scores become one.

    A tagger that does not know a tag has no say in it: "mean" is that of those who know it, "union" the highest of
    theirs, "intersection" the lowest.
    """

    def __init__(self, members: Sequence[Labels], combine: str) -> None:
        self._combine = combine
        places: dict[str, int] = {}
        names: list[str] = []
        kinds: list[str] = []
        self._maps: list[NDArray[np.intp]] = []
        for labels in members:
            mapped = []
            for name, kind in zip(labels.names, labels.kinds, strict=True):
                key = tag_key(name)
                if key not in places:
                    places[key] = len(names)
                    names.append(name)
                    kinds.append(kind)
                mapped.append(places[key])
            self._maps.append(np.array(mapped, np.intp))
        self.labels = Labels.of(names, kinds) if len(members) > 1 else members[0]
        self._knowing = np.zeros(len(names), np.float32)
        for mapped_places in self._maps:
            self._knowing[np.unique(mapped_places)] += 1

    def combined(self, scores: Sequence[Scores]) -> Scores:
        """The scores of one picture, of each tagger in order, as one, in the places of `labels`."""
        if len(scores) == 1:
            return scores[0]
        width = len(self.labels.names)
        start = LEVELS if self._combine == "intersection" else 0
        result = np.full(width, start, np.float32)
        for mapped, own in zip(self._maps, scores, strict=True):
            levels = np.zeros(width, np.float32)
            levels[mapped[own.places]] = own.levels
            if self._combine == "mean":
                result += levels
            elif self._combine == "union":
                np.maximum(result, levels, out=result)
            else:
                result[mapped] = np.minimum(result[mapped], levels[mapped])
        if self._combine == "mean":
            result /= self._knowing
        return Scores.of(result / LEVELS)
