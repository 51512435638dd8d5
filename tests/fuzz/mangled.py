"""What every fuzzing test shares: strategies that spoil a good file, and the one property that all readers have.

The usual run tries the same examples each time; `DSM_FUZZ=50 pytest tests/fuzz` tries fifty times as many, at random.
"""

from __future__ import annotations

import os
import resource
import struct
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from lib_dsm.errors import DsmError

PNG_START = b"\x89PNG\r\n\x1a\n"
TIMES = max(0, int(os.environ.get("DSM_FUZZ", "0")))
MOST_MEMORY = 400 << 20
"""Bytes by which the process may grow over a whole file of tests: nothing that a file announces may be allocated."""

_EDGES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1, 2**64 - 1)


def examples(count: int) -> settings:
    """Settings for about `count` examples, always the same; other ones, `DSM_FUZZ` times as many, where it is set."""
    unchecked = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=count * max(1, TIMES), derandomize=not TIMES, deadline=None, suppress_health_check=unchecked
    )


def refused_or_fine(read: Callable[[], Any]) -> Any:
    """What `read` gives, or None where it refuses with an error of ours that is a sentence; anything else fails."""
    try:
        return read()
    except DsmError as error:
        assert error.problem.strip(), f"{type(error).__name__} says nothing"
        assert str(error).rstrip()[-1] in ".!?)…", f"no sentence: {error}"
        str(error).encode("utf-8")  # a face must be able to show it
        return None


def spoiled(contents: list[bytes]) -> st.SearchStrategy[bytes]:
    """One of these good files with one to five places flipped, cut, doubled, moved or overwritten by edge numbers."""
    which, edits = st.integers(0, len(contents) - 1), st.lists(_EDITS, min_size=1, max_size=5)
    return st.tuples(which, edits).map(lambda drawn: _spoil(contents[drawn[0]], drawn[1]))


_PLACE = st.floats(0, 1, exclude_max=True, width=32)
_SHORT = st.integers(1, 64)
_EDITS = st.one_of(
    st.tuples(st.just("flip"), _PLACE, st.integers(1, 255)),
    st.tuples(st.just("head"), st.integers(0, 255), st.integers(1, 255)),
    st.tuples(st.just("cut"), _PLACE, st.none()),
    st.tuples(st.just("drop"), _PLACE, _SHORT),
    st.tuples(st.just("double"), _PLACE, _SHORT),
    st.tuples(st.just("zero"), _PLACE, _SHORT),
    st.tuples(st.just("insert"), _PLACE, st.binary(min_size=1, max_size=16)),
    st.tuples(
        st.just("number"),
        st.one_of(_PLACE, st.integers(0, 64)),
        st.tuples(st.sampled_from(_EDGES), st.sampled_from((2, 4, 8)), st.sampled_from(("little", "big"))),
    ),
    st.tuples(st.just("twice"), st.just(0), st.none()),
)


def _spoil(content: bytes, edits: list[tuple[str, Any, Any]]) -> bytes:
    result = bytearray(content)
    for kind, place, value in edits:
        at = place if isinstance(place, int) else int(place * len(result))
        if kind == "twice":
            result += bytes(result)
        elif at >= len(result):
            continue
        elif kind in ("flip", "head"):
            result[at] ^= value
        elif kind == "cut":
            del result[at:]
        elif kind == "drop":
            del result[at : at + value]
        elif kind == "double":
            result[at:at] = result[at : at + value]
        elif kind == "zero":
            result[at : at + value] = bytes(len(result[at : at + value]))
        elif kind == "insert":
            result[at:at] = value
        else:
            number, width, order = value
            result[at : at + width] = (number % 2 ** (8 * width)).to_bytes(width, order)
    return bytes(result)


def odd_json() -> st.SearchStrategy[Any]:
    """Any JSON value, with what programs stumble over: huge numbers, NaN, halves of characters, odd keys."""
    scalars = st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), odd_text(),
        st.sampled_from([10**400, -1, 0, 1, 1e308, -0.0, "1e999", "../x", "\0", "\ud800"]),
    )  # fmt: skip
    return st.recursive(
        scalars,
        lambda inner: st.one_of(
            st.lists(inner, max_size=4), st.dictionaries(odd_text(12), inner, max_size=4), st.lists(inner, max_size=2)
        ),
        max_leaves=12,
    )


def odd_text(length: int = 40) -> st.SearchStrategy[str]:
    """Text of any characters, halves of surrogate pairs and control characters included."""
    return st.text(st.characters(), max_size=length)


def changed_json(value: Any) -> st.SearchStrategy[Any]:
    """A JSON value like `value` in which one to three places hold something else, or are missing, or are added."""
    return st.lists(
        st.tuples(st.lists(st.integers(0, 40), max_size=6), _CHANGES, odd_json()), max_size=3, min_size=1
    ).map(lambda changes: _changed(value, changes))


_CHANGES = st.sampled_from(("replace", "replace", "remove", "add", "nest"))


def _changed(value: Any, changes: list[tuple[list[int], str, Any]]) -> Any:
    for path, how, new in changes:
        value = _change(value, path, how, new)
    return value


def _change(value: Any, path: list[int], how: str, new: Any) -> Any:
    if not isinstance(value, (dict, list)) or not value or not path:
        if how == "nest":
            for _ in range(30):
                new = [new]
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[path[0] % len(keys)]
    copy: Any = dict(value) if isinstance(value, dict) else list(value)
    if len(path) > 1:
        copy[key] = _change(value[key], path[1:], how, new)
    elif how == "remove":
        del copy[key]
    elif how == "add" and isinstance(copy, dict):
        copy[str(new)[:20]] = new
    else:
        copy[key] = _change(None, [], how, new)
    return copy


def deep(opening: str, closing: str, depth: int = 100_000) -> str:
    """JSON that is nested deeper than any reader recurses."""
    return opening * depth + closing * depth


def png_chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG with the right checksum; `PNG_START` comes before the first."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@contextmanager
def little_memory() -> Iterator[None]:
    """Fail if the process has grown by more than `MOST_MEMORY` at its peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown < MOST_MEMORY, f"the process grew by {grown >> 20} MB"
