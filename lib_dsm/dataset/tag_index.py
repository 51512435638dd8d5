"""Which tags a folder's captions hold, and how often: read once, and again only where files changed.

A row is a picture. The tags of all rows lie in one array of numbers, so that a question on 50,000 captions of 30 tags
is answered by a handful of array operations; the captions' bytes are kept as well, so that an edit need not read them
again. Nothing here is ever written to but the cache in `.dsm`.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from lib_dsm.dataset import index_cache
from lib_dsm.dataset.captions import Caption, caption_of, split_tags
from lib_dsm.dataset.listing import CAPTION_SUFFIXES, scan_names
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.pictures import picture_size
from lib_dsm.dataset.quick_files import read_bytes
from lib_dsm.dataset.token_count import token_count
from lib_dsm.errors import InputError, PictureError

_MISSING = "It has no caption."
_TOO_FRESH = 0.1  # seconds: what was written just now may be written once more with the same time
_WORTH_A_CACHE = 1000  # pictures
_UNREADABLE = -1

Array = Any
"""A numpy array."""


class TagIndex:
    """A folder's captions at the time of reading.

    `names` are the pictures in natural order, by their name in the folder with the system's separator. `usable` tells
    rows whose caption can be used from those that share it with an earlier row or cannot be read; `exists` those with a
    caption. `ids` are the tags of all rows one after the other, as numbers of `vocabulary`; row r has those from
    `starts[r]` to `starts[r + 1]`. `notes` are on captions that are missing, guessed, shared or unreadable.
    """

    def __init__(self, folder: Path, recursive: bool = False) -> None:
        self.folder = folder
        self.recursive = recursive
        self.names: list[str] = []
        self.vocabulary: list[str] = []
        self.notes: list[Note] = []
        self.ids: Array = np.empty(0, np.int32)
        self.starts: Array = np.zeros(1, np.int64)
        self.usable: Array = np.empty(0, bool)
        self.exists: Array = np.empty(0, bool)
        self.changed: list[str] = []  # captions that are other than in the index this was made from
        self._caption_names: list[str] = []
        self._raw: list[bytes | None] = []
        self._stamps: Array = np.empty((0, 3), np.int64)
        self._numbers: dict[str, int] = {}
        self._sizes: dict[str, tuple[int, int, int, int]] = {}
        self._may_read: Callable[[str], bool] | None = None

    # ---- reading -----------------------------------------------------------------------------------------------------

    @classmethod
    def read(
        cls,
        folder: Path,
        recursive: bool = False,
        before: TagIndex | None = None,
        may_read: Callable[[str], bool] | None = None,
    ) -> TagIndex:
        """Read the captions of a folder, but those that have not changed since `before`, or since the cache in `.dsm`.

        A caption that cannot be read is noted and left out, and so is one, a link, that `may_read` forbids; of a
        picture that it forbids the size is not known.
        Where nothing changed, the answer is `before` itself.

        Raises:
            InputError: there is no such folder.
        """
        if before is None:
            before = cls._load(folder, recursive, may_read)
        names, found = scan_names(folder, recursive, before.names if before is not None else None)
        captions = [_caption_name(name, found) for name in names]
        stamps = _stamps(str(folder), captions, found)
        if (
            before is not None
            and before.names == names
            and before._caption_names == captions
            and np.array_equal(before._stamps, stamps)
            and (stamps[:, 0] != _UNREADABLE).all()
        ):
            before.changed = []
            return before
        index = cls(folder, recursive)
        index._may_read = may_read
        index.names, index._caption_names, index._stamps = names, captions, stamps
        index._read_captions(before)
        if len(names) >= _WORTH_A_CACHE:
            index._save()
        return index

    def _read_captions(self, before: TagIndex | None) -> None:
        known: dict[str, int] = {}
        if before is not None:
            self.vocabulary, self._numbers = before.vocabulary, before._numbers  # only ever grow
            self._sizes = before._sizes
            known = {name: row for row, name in enumerate(before._caption_names)}
            old_stamps = before._stamps.tolist()
            old_starts = before.starts.tolist()
        root, numbers = str(self.folder), self._numbers
        count = len(self.names)
        self.usable, self.exists = np.ones(count, bool), np.zeros(count, bool)
        self._raw = [None] * count
        new_stamps = self._stamps.tolist()
        rows: list[Array] = []
        owners: dict[str, int] = {}
        nothing = np.empty(0, np.int32)
        fresh = time.time_ns() - int(_TOO_FRESH * 1e9)
        for row, caption_name in enumerate(self._caption_names):
            owner = owners.setdefault(caption_name, row)
            if owner != row:
                owned = Path(self.names[owner]).name
                self._leave_out(row, f"It shares its caption with {owned}; rename one of them.")
                rows.append(nothing)
                continue
            if new_stamps[row][1] < 0:  # there is no caption
                self.notes.append(Note(self.picture(row), _MISSING))
                rows.append(nothing)
                if caption_name in known and before is not None and before.exists[known[caption_name]]:
                    self.changed.append(caption_name)
                continue
            old = known.get(caption_name)
            if old is not None and before is not None and old_stamps[old] == new_stamps[row]:
                raw = before._raw[old]
            else:
                raw = None
            kept = raw is not None
            if raw is None:
                try:
                    place = os.path.join(root, caption_name)  # noqa: PTH118 - there may be very many
                    if self._may_read is not None and not self._may_read(place):
                        raise PermissionError(errno.EPERM, "it is a link that leads out of the opened folders")
                    raw = read_bytes(place)
                except OSError as error:
                    path = self.caption_path(row)
                    self._leave_out(row, f"The caption {path} cannot be read: {error.strerror or error}.")
                    self._stamps[row, 0] = _UNREADABLE
                    rows.append(nothing)
                    continue
                if new_stamps[row][0] > fresh:
                    self._stamps[row, 0] = _UNREADABLE
                if old is not None and before is not None:
                    kept = before._raw[old] == raw
                    if not kept:
                        self.changed.append(caption_name)
            self._raw[row] = raw
            text = self._text(row, raw)
            if text is None:
                rows.append(nothing)
            elif kept and before is not None and old is not None:
                rows.append(before.ids[old_starts[old] : old_starts[old + 1]])
            else:
                tags = split_tags(text)
                rows.append(np.fromiter((_number(numbers, tag) for tag in tags), np.int32, len(tags)))
        if len(numbers) > len(self.vocabulary):
            self.vocabulary.extend(list(numbers)[len(self.vocabulary) :])
        self.starts = np.zeros(count + 1, np.int64)
        np.cumsum([len(row) for row in rows], out=self.starts[1:])
        self.ids = np.concatenate(rows) if rows else nothing

    def _leave_out(self, row: int, text: str) -> None:
        self.usable[row] = False
        self.notes.append(Note(self.picture(row), text))

    def _text(self, row: int, raw: bytes) -> str | None:
        """What a row's caption says, None and a note if it is no text."""
        if raw.isascii() and b"\0" not in raw:
            self.exists[row] = True
            return raw.decode("ascii")
        try:
            caption = caption_of(self.caption_path(row), raw)
        except InputError as error:
            self._leave_out(row, str(error))
            return None
        if caption.note:
            self.notes.append(Note(caption.path, caption.note))
        self.exists[row] = True
        return caption.text

    # ---- one row -----------------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self.names)

    def picture(self, row: int) -> Path:
        """The picture of a row."""
        return self.folder / self.names[row]

    def caption_path(self, row: int) -> Path:
        """Where the caption of a row lies, or would lie."""
        return self.folder / self._caption_names[row]

    def slashed(self, row: int) -> str:
        """The picture's name in the folder, with `/`."""
        return self.names[row].replace(os.sep, "/")

    def caption_name(self, row: int) -> str:
        """The caption's name in the folder, with `/`."""
        return self._caption_names[row].replace(os.sep, "/")

    def caption(self, row: int, placed: bool = True) -> Caption:
        """The caption of a row that is usable; without `placed` its path is only the folder, which is quicker."""
        return caption_of(self.caption_path(row) if placed else self.folder, self._raw[row])

    def tags(self, row: int) -> list[str]:
        """The tags of a row, in order."""
        vocabulary = self.vocabulary
        return [vocabulary[number] for number in self.ids[self.starts[row] : self.starts[row + 1]].tolist()]

    @cached_property
    def rows(self) -> dict[str, int]:
        """The row of each picture by its name in the folder, with `/`."""
        return {name.replace(os.sep, "/"): row for row, name in enumerate(self.names)}

    @cached_property
    def owners(self) -> dict[str, list[int]]:
        """The rows that each caption belongs to, by its name in the folder as `caption_name` gives it."""
        owners: dict[str, list[int]] = {}
        for row in range(len(self)):
            owners.setdefault(self.caption_name(row), []).append(row)
        return owners

    # ---- all rows ----------------------------------------------------------------------------------------------------

    @property
    def problems(self) -> list[Note]:
        """The notes on captions that are there: guessed, shared or unreadable."""
        return [note for note in self.notes if note.text != _MISSING]

    @cached_property
    def lengths(self) -> Array:
        """The number of tags of each row."""
        return np.diff(self.starts)

    @cached_property
    def row_of(self) -> Array:
        """The row that each of `ids` is of."""
        return np.repeat(np.arange(len(self), dtype=np.int32), self.lengths)

    @cached_property
    def _postings(self) -> tuple[Array, Array]:
        """The rows by tag, one after the other, each once; and where those of each tag begin."""
        # As numbers of 16 bits, numpy sorts them in time that grows with their count alone.
        if len(self.vocabulary) < 1 << 16:
            order = np.argsort(self.ids.astype(np.uint16), kind="stable")
            return self._posted(order)
        return self._posted(np.argsort(self.ids, kind="stable"))

    def _posted(self, order: Array) -> tuple[Array, Array]:
        ids, rows = self.ids[order], self.row_of[order]
        if len(ids):
            once = np.ones(len(ids), bool)
            once[1:] = (ids[1:] != ids[:-1]) | (rows[1:] != rows[:-1])
            ids, rows = ids[once], rows[once]
        return rows, np.searchsorted(ids, np.arange(len(self.vocabulary) + 1))

    def rows_with(self, numbers: Iterable[int]) -> Array:
        """Which rows have one of the tags of these numbers."""
        rows, begins = self._postings
        mask = np.zeros(len(self), bool)
        for number in numbers:
            if number + 1 < len(begins):
                mask[rows[begins[number] : begins[number + 1]]] = True
        return mask

    def number(self, tag: str) -> int:
        """The number of a tag of the vocabulary."""
        return self._numbers[tag]

    def numbers_of(self, matches: Callable[[str], bool]) -> list[int]:
        """The numbers of the tags that are meant."""
        return [number for number, tag in enumerate(self.vocabulary) if matches(tag)]

    @cached_property
    def _counts(self) -> Array:
        return np.diff(self._postings[1])

    @cached_property
    def _order(self) -> list[int]:
        counts, vocabulary = self._counts.tolist(), self.vocabulary
        used = [number for number in range(len(counts)) if counts[number]]
        return sorted(used, key=lambda number: (-counts[number], vocabulary[number].casefold(), vocabulary[number]))

    @property
    def counts(self) -> dict[str, int]:
        """The number of pictures that have each tag, the most frequent first, then by alphabet."""
        counts = self._counts.tolist()
        return {self.vocabulary[number]: counts[number] for number in self._order}

    @property
    def pictures(self) -> dict[str, list[Path]]:
        """The pictures that have each tag, the most frequent tag first."""
        rows, begins = self._postings
        return {
            self.vocabulary[number]: [self.picture(row) for row in rows[begins[number] : begins[number + 1]].tolist()]
            for number in self._order
        }

    def counts_in(self, mask: Array) -> dict[str, int]:
        """`counts` among the rows of the mask alone, zeros included."""
        rows, begins = self._postings
        sums = np.concatenate(([0], np.cumsum(mask[rows], dtype=np.int64)))
        counts = (sums[begins[1:]] - sums[begins[:-1]]).tolist()
        return {self.vocabulary[number]: counts[number] for number in self._order}

    def where(self, means: Callable[[list[str]], bool]) -> tuple[int, dict[str, int]]:
        """The number of usable pictures that are meant, and `counts` among them alone, zeros included."""
        mask = self.mask(means)
        return int(mask.sum()), self.counts_in(mask)

    def mask(self, means: Callable[[list[str]], bool]) -> Array:
        """Which usable rows are meant: by a query as a whole, by any other test row by row."""
        as_a_whole: Callable[[TagIndex], Array] | None = getattr(means, "mask", None)
        if as_a_whole is not None:
            return as_a_whole(self) & self.usable
        return np.fromiter((means(self.tags(row)) for row in range(len(self))), bool, len(self)) & self.usable

    @cached_property
    def tokens(self) -> Array:
        """The tokens that each row's tags take in a prompt, joined by commas."""
        used = np.unique(self.ids)
        with_comma, alone = (np.zeros(len(self.vocabulary) + 1, np.int64) for _ in range(2))
        for number in used.tolist():
            tag = self.vocabulary[number]
            alone[number], with_comma[number] = token_count(tag), token_count(tag + ",")
        sums = np.concatenate(([0], np.cumsum(with_comma[self.ids])))
        tokens = sums[self.starts[1:]] - sums[self.starts[:-1]]
        filled = np.flatnonzero(self.lengths)
        last = self.ids[self.starts[filled + 1] - 1]
        tokens[filled] += alone[last] - with_comma[last]
        return tokens

    @cached_property
    def sizes(self) -> Array:
        """Each picture's upright width and height in pixels, zeros where it cannot be read: n × 2.

        Reads every picture's header once; what was read before is kept as long as the file is the same.
        """
        result = np.zeros((len(self), 2), np.int64)
        new = 0
        for row, name in enumerate(self.names):
            place = os.path.join(self.folder, name)  # noqa: PTH118 - there may be very many
            if self._may_read is not None and not self._may_read(place):
                continue
            try:
                facts = os.stat(place)  # noqa: PTH116
            except OSError:
                continue
            known = self._sizes.get(name)
            if known is None or known[:2] != (facts.st_mtime_ns, facts.st_size):
                try:
                    size = picture_size(self.picture(row))
                except PictureError:
                    size = (0, 0)
                known = self._sizes[name] = (facts.st_mtime_ns, facts.st_size, *size)
                new += 1
            result[row] = known[2:]
        if new and len(self) >= _WORTH_A_CACHE:
            self._save()
        return result

    @cached_property
    def repeated(self) -> Array:
        """Which rows have a tag more than once."""
        distinct = np.bincount(self._postings[0], minlength=len(self)) if len(self) else np.empty(0, np.int64)
        return distinct < self.lengths

    @cached_property
    def foreign(self) -> Array:
        """Which rows have a caption that is not plain UTF-8."""

        def is_foreign(row: int) -> bool:
            raw = self._raw[row]
            return (
                bool(self.exists[row])
                and raw is not None
                and not raw.isascii()
                and self.caption(row).encoding != "utf-8"
            )

        return np.fromiter((is_foreign(row) for row in range(len(self))), bool, len(self))

    # ---- the cache ---------------------------------------------------------------------------------------------------

    def _save(self) -> None:
        index_cache.save(
            self.folder,
            self.recursive,
            {
                "names": self.names, "captions": self._caption_names, "vocabulary": self.vocabulary,
                "sizes": self._sizes, "raw": self._raw, "stamps": self._stamps, "ids": self.ids, "starts": self.starts,
                "rows": self._postings[0], "begins": self._postings[1],
            },
        )  # fmt: skip

    @classmethod
    def _load(cls, folder: Path, recursive: bool, may_read: Callable[[str], bool] | None) -> TagIndex | None:
        kept = index_cache.load(folder, recursive)
        if kept is None:
            return None
        if may_read is not None and not all(map(may_read, (f"{folder}{os.sep}{name}" for name in kept["captions"]))):
            return None  # it may have been made by somebody who may read more
        index = cls(folder, recursive)
        index._may_read = may_read
        index.names, index._caption_names, index.vocabulary = kept["names"], kept["captions"], kept["vocabulary"]
        index._raw, index._stamps, index._sizes = kept["raw"], kept["stamps"], kept["sizes"]
        index.ids, index.starts = kept["ids"], kept["starts"]
        index.__dict__["_postings"] = kept["rows"], kept["begins"]
        index._numbers = {tag: number for number, tag in enumerate(index.vocabulary)}
        index._note_all()
        return index

    def _note_all(self) -> None:
        """Which rows are usable, and the notes, for captions that are known already."""
        self.usable, self.exists = np.ones(len(self), bool), np.zeros(len(self), bool)
        owners: dict[str, int] = {}
        for row, (name, raw) in enumerate(zip(self._caption_names, self._raw, strict=True)):
            owner = owners.setdefault(name, row)
            if owner != row:
                self._leave_out(row, f"It shares its caption with {Path(self.names[owner]).name}; rename one of them.")
            elif raw is None:
                self.notes.append(Note(self.picture(row), _MISSING))
            else:
                self._text(row, raw)


def _number(numbers: dict[str, int], tag: str) -> int:
    number = numbers.get(tag)
    if number is None:
        number = numbers[tag] = len(numbers)
    return number


def _caption_name(picture: str, found: set[str]) -> str:
    stem = picture[: picture.rfind(".")]
    for suffix in CAPTION_SUFFIXES:
        if stem + suffix in found:
            return stem + suffix
    return stem + CAPTION_SUFFIXES[0]


def _stamps(root: str, captions: list[str], found: set[str]) -> Array:
    """For each caption when it was written, its size, -1 where there is none, and when anything about it changed."""
    facts = []
    for name in captions:
        try:
            stat = os.stat(f"{root}{os.sep}{name}") if name in found else None  # noqa: PTH116 - there may be very many
        except OSError:
            stat = None
        facts.append((0, -1, 0) if stat is None else (stat.st_mtime_ns, stat.st_size, stat.st_ctime_ns))
    return np.array(facts, np.int64).reshape(-1, 3)
