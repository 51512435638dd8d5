"""Files that a run puts outside its own folder. What it did not write itself is kept under another name."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from lib_dsm.errors import InputError
from lib_dsm.files import is_file, moved_aside, read_json, sha256, write_bytes, write_json


class Outputs:
    """Remembers, in `record`, the content of every file that was put somewhere."""

    def __init__(self, record: Path) -> None:
        self._record = record
        written = read_json(record) if record.is_file() else {}
        if not isinstance(written, dict):
            raise InputError(f"{record} is no record of files.", "Delete it; the files it named count as not ours.")
        self._written: dict[str, str] = written

    def put(self, target: Path, content: bytes) -> None:
        """Write `content` to `target`; a file there that is not ours is renamed first.

        Raises:
            StorageError: the disk does not take it; what was there is there still.
        """
        with self.keeping_foreign([target]):
            write_bytes(target, content)
        self._written[str(target)] = sha256(target)
        write_json(self._record, self._written)

    def keeping_foreign(self, paths: Iterable[Path]) -> AbstractContextManager[list[Path]]:
        """Rename files that are there and are not ours, while new ones are put there; see `moved_aside`."""
        return moved_aside(path for path in paths if is_file(path) and not self.is_ours(path))

    def is_ours(self, path: Path) -> bool:
        """Whether the file is there with the content that was put into it."""
        known = self._written.get(str(path))
        return known is not None and is_file(path) and known == sha256(path)
