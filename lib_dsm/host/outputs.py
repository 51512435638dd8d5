"""Files that a run puts outside its own folder. What it did not write itself is kept under another name."""

from __future__ import annotations

from pathlib import Path

from lib_dsm.files import move_aside, read_json, sha256, write_bytes, write_json


class Outputs:
    """Remembers, in `record`, the content of every file that was put somewhere."""

    def __init__(self, record: Path) -> None:
        self._record = record
        self._written: dict[str, str] = dict(read_json(record)) if record.is_file() else {}

    def put(self, target: Path, content: bytes) -> None:
        """Write `content` to `target`; a file there that is not ours is renamed first.

        Raises:
            StorageError: the disk does not take it.
        """
        self.keep_foreign(target)
        write_bytes(target, content)
        self._written[str(target)] = sha256(target)
        write_json(self._record, self._written)

    def keep_foreign(self, path: Path) -> Path | None:
        """Rename a file that is there and is not ours to `NAME.old-1`, `NAME.old-2`, …; gives its new place, if any."""
        return move_aside(path) if path.is_file() and not self.is_ours(path) else None

    def drop(self, path: Path) -> None:
        """Delete a file if it is ours."""
        if self.is_ours(path):
            path.unlink()

    def is_ours(self, path: Path) -> bool:
        """Whether the file is there with the content that was put into it."""
        return path.is_file() and self._written.get(str(path)) == sha256(path)
