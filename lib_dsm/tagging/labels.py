"""What a tagger's outputs mean: its list of tags, in the forms that the families have.

* `selected_tags.csv` (WD1.4, PixAI): columns tag_id, name, category, count; category 0, 4, 9 and others as on Danbooru
* `tag_mapping.json` (cl_tagger): `{"0": {"tag": "…", "category": "General"}, …}`, or camie's form
* `…metadata.json` (camie): `idx_to_tag` and `tag_to_category`, at the top or under `dataset_info.tag_mapping`
* `top_tags.txt` (JoyTag), `tags.txt` (DeepDanbooru): a tag a line; `tags-character.txt` beside it names the characters
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_dsm.dataset.matching import tag_key
from lib_dsm.errors import ModelError
from lib_dsm.files import parse_json

GENERAL, CHARACTER, RATING = "general", "character", "rating"
OTHERS = ("copyright", "artist", "meta", "quality")
_DANBOORU = {0: GENERAL, 1: "artist", 3: "copyright", 4: CHARACTER, 5: "meta", 9: RATING}
_RATING_PREFIX = "rating:"
_AGAIN = "Fetch the file again."


@dataclass(frozen=True)
class Labels:
    """The names of a tagger's outputs, in order, and the places of those of each category.

    `others` are the places of further kinds, by the kind's name (see `OTHERS`); a place may be in no category at all.
    """

    names: tuple[str, ...]
    general: NDArray[np.intp]
    character: NDArray[np.intp]
    rating: NDArray[np.intp]
    others: tuple[tuple[str, NDArray[np.intp]], ...] = ()

    @classmethod
    def of(cls, names: Sequence[str], kinds: Sequence[str]) -> Labels:
        """The labels of these names, each of the kind beside it."""
        found = np.array(kinds, dtype=object)

        def places(kind: str) -> NDArray[np.intp]:
            return np.flatnonzero(found == kind)

        others = tuple((kind, places(kind)) for kind in OTHERS if kind in kinds)
        return cls(tuple(names), places(GENERAL), places(CHARACTER), places(RATING), others)

    @cached_property
    def keys(self) -> frozenset[str]:
        """What each name has in common with its other spellings; see `tag_key`."""
        return frozenset(map(tag_key, self.names))

    @cached_property
    def kinds(self) -> tuple[str, ...]:
        """The category of each place, "" where it has none."""
        result = [""] * len(self.names)
        for kind, places in (*self.others, (GENERAL, self.general), (CHARACTER, self.character), (RATING, self.rating)):
            for place in places:
                result[place] = kind
        return tuple(result)


def read_labels(path: Path) -> Labels:
    """Read a tagger's list of tags, in the form that its name and content show.

    Raises:
        ModelError: there is no such file, or it is not such a list.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}.", "Fetch the tagger again.") from error
    except UnicodeDecodeError as error:
        raise ModelError(f"{path} is not a tagger's list of tags: it is no text.", _AGAIN) from error
    read = {".csv": _read_csv, ".json": _read_json}.get(path.suffix.lower(), _read_lines)
    names, kinds = read(path, text)
    if not names or not all(names):
        raise ModelError(f"{path} lists no tags, or one without a name.", _AGAIN)
    return Labels.of(names, kinds)


def _read_csv(path: Path, text: str) -> tuple[list[str], list[str]]:
    names: list[str] = []
    kinds: list[str] = []
    try:
        for row in csv.DictReader(io.StringIO(text, newline="")):
            names.append(row["name"])
            kinds.append(_DANBOORU.get(int(row["category"]), ""))
    except (KeyError, TypeError, ValueError, csv.Error, OverflowError) as error:
        raise ModelError(
            f"{path} is not a tagger's list of tags: line {len(names) + 2} lacks a name or a category ({error}).",
            "Fetch the file again; its columns are tag_id, name, category and count.",
        ) from error
    return names, kinds


def _read_json(path: Path, text: str) -> tuple[list[str], list[str]]:
    try:
        content: Any = parse_json(text)
        mapping = content.get("dataset_info", content)
        mapping = mapping.get("tag_mapping", mapping)
        if "idx_to_tag" in mapping or "tag_to_idx" in mapping:
            return _by_index(mapping)
        rows = [mapping[str(place)] for place in range(len(mapping))]
        return [str(row["tag"]) for row in rows], [_kind(row["category"]) for row in rows]
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"{path} is not a tagger's list of tags ({type(error).__name__}: {error}).", _AGAIN) from error


def _by_index(mapping: dict[str, Any]) -> tuple[list[str], list[str]]:
    if "idx_to_tag" in mapping:
        by_index = {int(index): str(tag) for index, tag in _items(mapping["idx_to_tag"])}
    else:
        by_index = {int(index): str(tag) for tag, index in mapping["tag_to_idx"].items()}
    names = [by_index[index] for index in range(len(by_index))]
    categories = mapping["tag_to_category"]
    return names, [_kind(categories.get(name, GENERAL)) for name in names]


def _items(value: dict[str, str] | list[str]) -> Iterable[tuple[Any, Any]]:
    return enumerate(value) if isinstance(value, list) else value.items()


def _kind(category: object) -> str:
    if isinstance(category, int):
        return _DANBOORU.get(category, "")
    name = str(category).lower()
    return name if name in (GENERAL, CHARACTER, RATING, *OTHERS) else ""


def _read_lines(path: Path, text: str) -> tuple[list[str], list[str]]:
    names = _lines(text)
    beside = path.with_name("tags-character.txt")
    try:
        characters = set(_lines(beside.read_text(encoding="utf-8-sig"))) if beside.is_file() else set()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"{beside} cannot be read ({error}).", _AGAIN) from error
    kinds = [
        RATING if name.startswith(_RATING_PREFIX) else CHARACTER if name in characters else GENERAL for name in names
    ]
    return names, kinds


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
