"""What a tagger's outputs mean: `selected_tags.csv`, with the columns tag_id, name, category, count."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import ModelError

_GENERAL, _CHARACTER, _RATING = 0, 4, 9


@dataclass(frozen=True)
class Labels:
    """The names of a tagger's outputs, in order, and the places of those of each category."""

    names: tuple[str, ...]
    general: NDArray[np.intp]
    character: NDArray[np.intp]
    rating: NDArray[np.intp]

    @cached_property
    def keys(self) -> frozenset[str]:
        """What each name has in common with its other spellings; see `tag_key`."""
        return frozenset(map(tag_key, self.names))


def read_labels(path: Path) -> Labels:
    """Read a tagger's list of tags. Categories other than general, character and rating are passed over later.

    Raises:
        ModelError: there is no such file, or it is not such a list.
    """
    names: list[str] = []
    categories: list[int] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file):
                names.append(row["name"])
                categories.append(int(row["category"]))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.", "Fetch the tagger again.") from error
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise ModelError(
            f"{path} is not a tagger's list of tags: line {len(names) + 2} lacks a name or a category ({error}).",
            "Fetch the file again; its columns are tag_id, name, category and count.",
        ) from error
    if not names or not all(names):
        raise ModelError(f"{path} lists no tags, or one without a name.", "Fetch the file again.")
    places = np.array(categories)
    general, character, rating = (np.flatnonzero(places == kind) for kind in (_GENERAL, _CHARACTER, _RATING))
    return Labels(tuple(names), general, character, rating)
