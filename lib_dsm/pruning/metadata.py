"""The captions of a folder as one JSON file, as kohya's scripts read and write it, and back.

The file's keys are pictures, by their whole path or by their name without the ending, the values objects with "tags"
and "caption" beside whatever else was noted of the picture, which stays:

    {"set/001.png": {"tags": "1girl, solo", "caption": "a girl", "train_resolution": [512, 768]}}
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.captions import join_tags, split_tags
from lib_dsm.dataset.history import Outcome, apply
from lib_dsm.dataset.notes import Note
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError
from lib_dsm.files import read_json, write_json
from lib_dsm.jobs import Job

_KEYS = ("tags", "caption")


@dataclass
class Import:
    """What a file would bring: the changes, the pictures in the folder that it lacks, notes on what it has besides."""

    folder: Path
    title: str
    changes: list[Change] = field(default_factory=list)
    same: int = 0
    missing: list[str] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)

    def apply(self, job: Job | None = None) -> Outcome:
        """Write the captions as one act that can be undone.

        Raises:
            BusyError, StorageError, Cancelled: as `history.apply`.
        """
        return apply(self.folder, self.title, self.changes, job)


def export_metadata(
    folder: Path, target: Path, full_path: bool = True, recursive: bool = False, key: str = "tags"
) -> int:
    """Write the captions of a folder into the file; returns how many.

    A file that is there already keeps everything else that it has, in its own way of naming pictures. `full_path` names
    those that are new by their whole path, otherwise by their name without the ending.

    Raises:
        InputError: there is no such folder, or the file is there and is no such JSON.
        StorageError: the disk does not take it.
    """
    index = TagIndex.read(folder, recursive)
    entries = _entries(target) if target.exists() else {}
    rows = _rows(index)
    named = {row: name for name in entries if (row := _find(rows, name)) is not None}
    written = 0
    for row in range(len(index)):
        if not (index.exists[row] and index.usable[row]):
            continue
        picture = index.picture(row)
        name = named.get(row) or (str(picture.resolve()) if full_path else os.path.splitext(index.slashed(row))[0])  # noqa: PTH122
        entries.setdefault(name, {})[key] = join_tags(index.tags(row))
        written += 1
    write_json(target, entries)
    return written


def import_metadata(folder: Path, source: Path, recursive: bool = False) -> Import:
    """See what the file's tags, or its captions where it has no tags, would write beside the pictures of the folder.

    A caption keeps its encoding. A picture that the file does not name keeps what it has; of one that it names twice
    the first counts.

    Raises:
        InputError: there is no such folder or file, or the file is no such JSON.
    """
    index = TagIndex.read(folder, recursive)
    rows = _rows(index)
    result = Import(folder, f"import {source.name}")
    found = set()
    for name, entry in _entries(source).items():
        row = _find(rows, name)
        if row is None:
            result.notes.append(Note(source, f'There is no picture "{name}" in {folder}.'))
            continue
        if row in found:
            result.notes.append(Note(index.picture(row), f'It is named twice, now as "{name}"; the first counts.'))
            continue
        found.add(row)
        text = next((entry[key] for key in _KEYS if isinstance(entry.get(key), str) and entry[key].strip()), None)
        if text is None:
            result.missing.append(index.slashed(row))
            continue
        if not index.usable[row]:
            result.notes.append(Note(index.picture(row), "Its caption is shared or cannot be read; it was left."))
            continue
        caption = index.caption(row)
        tags = split_tags(text)
        if caption.exists and caption.tags == tags:
            result.same += 1
            continue
        result.changes.append(Change(index.caption_name(row), caption.raw, caption.bytes_with(tags)))
    result.missing += [index.slashed(row) for row in range(len(index)) if row not in found]
    return result


def _entries(path: Path) -> dict[str, dict[str, Any]]:
    content = read_json(path)
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        shown = json.dumps(content)[:60]
        raise InputError(f"{path} holds {shown}…, not an object for each picture.", "Give kohya's metadata file.")
    return content


def _rows(index: TagIndex) -> dict[str, int | None]:
    """Rows by every name that a file may use; None where two pictures could be meant."""
    rows: dict[str, int | None] = {}
    for row in range(len(index)):
        name = index.slashed(row)
        stem = name[: name.rfind(".")]
        for key in {name, stem, name[name.rfind("/") + 1 :], stem[stem.rfind("/") + 1 :]}:
            rows[key] = row if key not in rows else None
    return rows


def _find(rows: dict[str, int | None], name: str) -> int | None:
    """The row that a file's name means: the longest end of its path that is known."""
    parts = name.replace("\\", "/").split("/")
    for first in range(len(parts)):
        row = rows.get("/".join(parts[first:]))
        if row is not None:
            return row
    last = parts[-1]
    return rows.get(last[: last.rfind(".")]) if "." in last else None
