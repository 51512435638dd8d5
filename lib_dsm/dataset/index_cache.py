"""The tag index on the disk: `.dsm/tag-index.bin` of the folder, which may be deleted at any time.

One line of JSON, then the blocks that it names: lists of names as UTF-8 with a zero byte after each, arrays as they lie
in memory, and last a checksum of all of it. Whatever is not as expected counts as no cache.
"""

from __future__ import annotations

import contextlib
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from lib_dsm.dataset.locks import METADATA_FOLDER, demand_own
from lib_dsm.errors import StorageError
from lib_dsm.files import open_to_read, parse_json

_VERSION = 1
_NAMES = ("names", "captions", "vocabulary")
_ARRAYS = {"stamps": np.int64, "ids": np.int32, "starts": np.int64, "rows": np.int32, "begins": np.int64}


def save(folder: Path, recursive: bool, values: dict[str, Any]) -> None:
    """Keep the values; where that cannot be done, they will just have to be read again."""
    lengths = np.array([-1 if raw is None else len(raw) for raw in values["raw"]], np.int32)
    names = [_joined(values[name]) for name in _NAMES]
    sizes = [_joined(values["sizes"]), np.array(list(values["sizes"].values()), np.int64).tobytes()]
    arrays = [np.ascontiguousarray(values[name], kind).tobytes() for name, kind in _ARRAYS.items()]
    blocks = [*names, *sizes, *arrays, lengths.tobytes(), b"".join(raw for raw in values["raw"] if raw is not None)]
    header = {"version": _VERSION, "rows": len(values["names"]), "blocks": [len(block) for block in blocks]}
    path = _path(folder, recursive)
    temporary = path.with_name(f".dsm-{os.getpid()}-index.part")
    try:
        demand_own(folder)
    except (OSError, StorageError):
        return
    try:
        path.parent.mkdir(exist_ok=True)
        temporary.unlink(missing_ok=True)
        with temporary.open("xb") as file:
            checksum = 0
            for block in (json.dumps(header).encode() + b"\n", *blocks):
                file.write(block)
                checksum = zlib.crc32(block, checksum)
            file.write(checksum.to_bytes(4, "little"))
        temporary.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load(folder: Path, recursive: bool) -> dict[str, Any] | None:
    """What was kept, None where there is nothing that can be used."""
    try:
        demand_own(folder)
        with open_to_read(_path(folder, recursive)) as file:
            content = file.read()
        if zlib.crc32(memoryview(content)[:-4]) != int.from_bytes(content[-4:], "little"):
            return None
        head = content.index(b"\n") + 1
        header = parse_json(content[:head])
        if header["version"] != _VERSION:
            return None
        blocks, at = [], head
        for length in header["blocks"]:
            blocks.append(memoryview(content)[at : at + length])
            at += length
        rows = int(header["rows"])
        values: dict[str, Any] = {name: _split(block) for name, block in zip(_NAMES, blocks, strict=False)}
        seen = np.frombuffer(blocks[4], np.int64).reshape(-1, 4).tolist()
        values["sizes"] = dict(zip(_split(blocks[3]), map(tuple, seen), strict=True))
        for (name, kind), block in zip(_ARRAYS.items(), blocks[5:], strict=False):
            values[name] = np.frombuffer(block, kind)
        values["stamps"] = values["stamps"].reshape(-1, 3)
        lengths = np.frombuffer(blocks[-2], np.int32).tolist()
        raw, texts, at = [], bytes(blocks[-1]), 0
        for length in lengths:
            raw.append(None if length < 0 else texts[at : at + length])
            at += max(0, length)
        values["raw"] = raw
        counted = [len(values["names"]), len(values["captions"]), len(raw), len(values["starts"]) - 1]
        return values if counted == [rows] * 4 else None
    except (OSError, StorageError, ValueError, KeyError, IndexError, TypeError, OverflowError):
        return None


def _path(folder: Path, recursive: bool) -> Path:
    return folder / METADATA_FOLDER / ("tag-index-all.bin" if recursive else "tag-index.bin")


def _joined(names: Any) -> bytes:
    return "".join(f"{name}\0" for name in names).encode("utf-8")


def _split(block: memoryview) -> list[str]:
    return bytes(block).decode("utf-8").split("\0")[:-1]
