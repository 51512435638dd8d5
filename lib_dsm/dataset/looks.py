"""What pictures look like at a glance, so that nearly equal ones are found: where brightness rises and falls.

A picture's look is made of a 16 × 16 version of it: for each pair of neighbours whether the second is clearly brighter
or clearly darker, as in Krawetz's difference hash ("Kind of Like That", 2013), and its colours at 4 × 4 places. Plain
ground says nothing, so that two figures on white are not alike because of the white.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.dataset.pictures import picture_size, read_picture
from lib_dsm.errors import DsmError, InputError, PictureError
from lib_dsm.files import read_json, write_json

ALIKE = 0.8
"""The share of the edges of two pictures that agree, from which on they count as nearly equal."""
MOST_PAIRS = 100
"""Of alike pictures so many pairs are named; a folder of copies has millions."""

_SIDE, _COLOURS = 16, 4
_CLEAR = 3.0  # levels of brightness between neighbours that are a difference
_PLAIN = 12  # with fewer edges than this only colours tell
_NEAR, _FAR = 12.0, 32.0  # levels by which the colours of alike pictures differ at most, on average and anywhere
_READ_AT = 128  # pixels of the longer side; formats that can are decoded not much larger
_PARTS = ("JPEG", "MPO")  # formats that can be decoded at less than full size
_MOST_PIXELS = 24_000_000  # of others
_BITS = 4 * _SIDE * (_SIDE - 1)
_VERSION = 1
_AT_ONCE = 512


def look(image: Image.Image) -> bytes:
    """The look of an RGB picture."""
    small = image.convert("L").resize((_SIDE, _SIDE), Image.Resampling.BOX, reducing_gap=3.0)
    grey = np.asarray(small, dtype=np.float32)
    right, down = np.diff(grey, axis=1), np.diff(grey, axis=0)
    edges = np.concatenate([part.ravel() for part in (right > _CLEAR, right < -_CLEAR, down > _CLEAR, down < -_CLEAR)])
    colours = image.convert("RGB").resize((_COLOURS, _COLOURS), Image.Resampling.BOX, reducing_gap=3.0)
    return np.packbits(edges).tobytes() + colours.tobytes()


def looks(paths: Sequence[Path], cache: Path, seconds: float) -> dict[Path, bytes]:
    """The looks of those pictures that can be had: from the file `cache`, or made in at most about so many seconds.

    Pictures that cannot be read are left out, and so are very large ones of formats that must be decoded whole.
    """
    known = _read_cache(cache)
    end = time.monotonic() + seconds
    found: dict[Path, bytes] = {}
    fresh = False
    for path in paths:
        try:
            key = _key(path)
            if key not in known:
                if time.monotonic() > end or not _is_cheap(path):
                    continue
                known[key] = look(read_picture(path, max_side=_READ_AT).image)
                fresh = True
        except (PictureError, OSError):
            continue
        found[path] = known[key]
    if fresh:
        _write_cache(cache, known)
    return found


@dataclass(frozen=True)
class Alike:
    """What looks nearly equal: how many pictures, in how many pairs, and the most alike of these.

    `pairs` are at most `MOST_PAIRS`, each with the share of its edges that agree, the most alike first.
    """

    pictures: int
    count: int
    pairs: tuple[tuple[Path, Path, float], ...]


def alike(known: Mapping[Path, bytes]) -> Alike:
    """The pictures that look nearly equal to another one."""
    paths = list(known)
    if len(paths) < 2:
        return Alike(0, 0, ())
    rows: list[NDArray[np.intp]] = []
    columns: list[NDArray[np.intp]] = []
    agreeing: list[NDArray[np.float32]] = []
    for row, others, shares in _close(known):
        rows.append(np.full(len(others), row))
        columns.append(others)
        agreeing.append(shares)
    if not rows:
        return Alike(0, 0, ())
    first, second, share = np.concatenate(rows), np.concatenate(columns), np.concatenate(agreeing)
    best = np.argsort(-share, kind="stable")[:MOST_PAIRS]
    pairs = tuple((paths[first[index]], paths[second[index]], float(share[index])) for index in best)
    paired = np.zeros(len(paths), dtype=np.bool_)
    paired[first] = paired[second] = True
    return Alike(int(paired.sum()), len(share), pairs)


def paired(known: Mapping[Path, bytes]) -> list[Path]:
    """All pictures that look nearly equal to another one, in order."""
    found = np.zeros(len(known), dtype=np.bool_)
    for row, others, _ in _close(known):
        found[row] = True
        found[others] = True
    return [path for path, near in zip(known, found, strict=True) if near]


def copies(known: Mapping[Path, bytes]) -> dict[Path, tuple[Path, float]]:
    """The pictures that look nearly equal to one that comes before them and is no such copy itself: the most alike one
    of these, and the share of the edges of the two that agree."""
    paths = list(known)
    kept = np.full(len(paths), -1)  # for each picture the one that it is a copy of
    agreeing = np.zeros(len(paths), dtype=np.float32)
    for row, others, shares in _close(known):
        if kept[row] >= 0:
            continue
        nearer = shares > agreeing[others]
        kept[others[nearer]] = row
        agreeing[others[nearer]] = shares[nearer]
    return {paths[index]: (paths[kept[index]], float(agreeing[index])) for index in np.flatnonzero(kept >= 0)}


def _close(known: Mapping[Path, bytes]) -> Iterator[tuple[int, NDArray[np.intp], NDArray[np.float32]]]:
    """For each picture that has some: those after it that look nearly equal, and how much; by their numbers."""
    if not known:
        return
    raw = np.frombuffer(b"".join(known.values()), dtype=np.uint8).reshape(len(known), -1)
    edges = np.unpackbits(raw[:, : _BITS // 8], axis=1).astype(np.float32)
    colours = np.ascontiguousarray(raw[:, _BITS // 8 :].T.astype(np.int16))
    count = edges.sum(axis=1)
    for start in range(0, len(known), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        both = edges[part] @ edges[start:].T  # those before were compared already
        either = count[part, None] + count[None, start:] - both
        shares: NDArray[np.float32] = np.where(either < _PLAIN, np.float32(1.0), both / np.maximum(either, 1.0))
        close = np.triu(shares >= ALIKE, k=1)
        for row in np.flatnonzero(close.any(axis=1)):
            others = np.flatnonzero(close[row])
            others = others[_same_colours(colours[:, start + row], colours[:, start + others])]
            if len(others):
                yield int(start + row), start + others, shares[row, others]


def _same_colours(one: NDArray[np.int16], others: NDArray[np.int16]) -> NDArray[np.bool_]:
    """Which of the others, colours × pictures, have about the colours of one."""
    difference = np.abs(others - one[:, None])
    # Colours are of eight bits, so the sum of their few differences fits as well.
    near: NDArray[np.bool_] = difference.sum(axis=0, dtype=np.int16) <= _NEAR * len(one)
    far: NDArray[np.bool_] = difference.max(axis=0) > _FAR
    return near & ~far


def _is_cheap(path: Path) -> bool:
    width, height = picture_size(path)
    if width * height <= _MOST_PIXELS:
        return True
    with Image.open(path) as image:
        return image.format in _PARTS


def _key(path: Path) -> str:
    """Identifies a file as it is now without reading it."""
    state = path.stat()
    return hashlib.sha256(f"{path.resolve()}/{state.st_size}/{state.st_mtime_ns}".encode()).hexdigest()[:24]


def _read_cache(cache: Path) -> dict[str, bytes]:
    try:
        content = read_json(cache)
        if content["version"] != _VERSION:
            return {}
        known = {key: bytes.fromhex(text) for key, text in content["looks"].items()}
    except (InputError, KeyError, TypeError, ValueError, AttributeError):
        return {}  # none yet, or damaged: they are made anew
    size = _BITS // 8 + 3 * _COLOURS**2
    return {key: value for key, value in known.items() if len(value) == size}


def _write_cache(cache: Path, known: Mapping[str, bytes]) -> None:
    try:
        write_json(cache, {"version": _VERSION, "looks": {key: value.hex() for key, value in known.items()}})
    except DsmError:
        return  # the next time takes as long again
