"""The tag indexes of the folders that are looked at, kept between questions and looked after in between."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError

_KEPT = 6  # folders
_REST = 8.0  # an index is trusted for so many times what looking after it took
_LEAST = 0.5  # seconds


@dataclass
class _Entry:
    index: TagIndex | None = None
    revision: int = 0
    looked: float = -1e9
    took: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


class IndexStore:
    """Indexes by folder; may be asked by several threads at once."""

    def __init__(self, may_read: Callable[[str], bool] | None = None) -> None:
        """`may_read` decides on captions by their path; some may be links that lead elsewhere."""
        self._may_read = may_read
        self._entries: OrderedDict[tuple[Path, bool], _Entry] = OrderedDict()
        self._lock = threading.Lock()
        self._foreign: dict[Path, dict[str, float]] = {}
        self._changing: list[Path] = []

    def get(self, folder: Path, recursive: bool = False, now: bool = False) -> tuple[TagIndex, int]:
        """The index of a folder, and a number that grows whenever it is another one.

        The files are asked for their times, unless that was done so lately that it would take up the machine's time;
        `now` asks them in any case.

        Raises:
            InputError: there is no such folder.
        """
        with self._lock:
            entry = self._entries.setdefault((folder, recursive), _Entry())
            self._entries.move_to_end((folder, recursive))
            while len(self._entries) > _KEPT:
                self._entries.popitem(last=False)
        with entry.lock:
            began = time.monotonic()
            if now or entry.index is None or began - entry.looked > max(_LEAST, _REST * entry.took):
                index = TagIndex.read(folder, recursive, entry.index, self._may_read)
                if entry.index is None or index.changed or index.names != entry.index.names:
                    entry.revision += 1
                    if entry.index is not None:
                        self._note_foreign(folder, index.changed)
                entry.index = index
                entry.looked = time.monotonic()
                entry.took = entry.looked - began
            return entry.index, entry.revision

    @contextlib.contextmanager
    def changing(self, folder: Path) -> Iterator[None]:
        """Captions in `folder`, or in folders inside, are changed by us meanwhile: nothing there is somebody else's."""
        with self._lock:
            self._changing.append(folder)
        try:
            yield
        finally:
            with self._lock:
                keys = [key for key in self._entries if key[0].is_relative_to(folder) or folder.is_relative_to(key[0])]
            try:
                for key in keys:
                    with contextlib.suppress(InputError):  # a folder that is gone has nothing to be told of
                        self.get(*key, now=True)
            finally:
                with self._lock:
                    self._changing.remove(folder)

    def foreign(self, folder: Path, since: float) -> list[str]:
        """The captions that somebody else changed after this moment, by their names; moments are `time.time()`s."""
        with self._lock:
            return sorted(name for name, when in self._foreign.get(folder, {}).items() if when > since)

    def _note_foreign(self, folder: Path, names: list[str]) -> None:
        with self._lock:
            kept = self._foreign.setdefault(folder, {})
            others = [name for name in names if not any(map((folder / name).is_relative_to, self._changing))]
            kept.update(dict.fromkeys(others, time.time()))
