"""Scores that were worked out once, kept on the disk: a new threshold, or the same picture elsewhere, costs no network.

One SQLite file. Scores are known by the content of the picture, by that of the tagger's files and by how pictures are
prepared for it, so that renaming and moving either loses nothing and a changed one is looked at again. What a process
that was killed had not finished writing is not there for the next one.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from lib_dsm.errors import InputError
from lib_dsm.files import move_aside, parse_json, sha256
from lib_dsm.tagging.scores import Scores

logger = logging.getLogger("dsm.tagging")
FILE = "scores.sqlite"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS models (id INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, facts TEXT NOT NULL DEFAULT '{}');
CREATE TABLE IF NOT EXISTS scores (model INTEGER NOT NULL, picture BLOB NOT NULL, content BLOB NOT NULL,
                                   PRIMARY KEY (model, picture));
CREATE TABLE IF NOT EXISTS files (path TEXT PRIMARY KEY, size INTEGER NOT NULL, time INTEGER NOT NULL,
                                  digest BLOB NOT NULL);
"""
_DIGEST_BYTES = 20
_FRESH_NS = 2 * 10**9  # a file so young may be changed once more without its time showing it
_WAIT_SECONDS = 5.0
_MANY = 500  # question marks in one query


class ScoreStore:
    """The kept scores in a folder; without one they are kept in memory only. May be used by several threads at once.

    Nothing of it is worth a failure: where the disk does not take it or the file is damaged, there is nothing kept.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lock = threading.RLock()
        self._models: dict[str, int] = {}
        self._path = folder / FILE if folder is not None else None
        self._base = _open(self._path)

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:
            self._base.close()

    def __enter__(self) -> ScoreStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def digest(self, path: Path) -> bytes:
        """A hash of the file's content; one whose size and time are as they were is not read again.

        Raises:
            OSError: it cannot be read.
        """
        facts = path.stat()
        seen = str(path.absolute())
        row = self._one("SELECT size, time, digest FROM files WHERE path = ?", (seen,))
        if row is not None and row[:2] == (facts.st_size, facts.st_mtime_ns) and isinstance(row[2], bytes):
            return row[2]
        found = _content_digest(path)
        if time.time_ns() - facts.st_mtime_ns > _FRESH_NS:
            self._write([("INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                          (seen, facts.st_size, facts.st_mtime_ns, found))])  # fmt: skip
        return found

    def get(self, model: str, picture: bytes) -> Scores | None:
        """The scores of a picture, by its digest, for a model, by its key; None where there are none."""
        return self.get_many(model, [picture]).get(picture)

    def get_many(self, model: str, pictures: Sequence[bytes]) -> dict[bytes, Scores]:
        """The scores of those pictures that have some."""
        number = self._model(model)
        found: dict[bytes, Scores] = {}
        for start in range(0, len(pictures), _MANY):
            part = pictures[start : start + _MANY]
            marks = ",".join("?" * len(part))
            query = f"SELECT picture, content FROM scores WHERE model = ? AND picture IN ({marks})"
            for picture, content in self._all(query, (number, *part)):
                if isinstance(picture, bytes) and isinstance(content, bytes):  # a damaged file may hold other kinds
                    with contextlib.suppress(InputError):
                        found[picture] = Scores.from_bytes(content)
        return found

    def put(self, model: str, items: Iterable[tuple[bytes, Scores]]) -> None:
        """Keep the scores of pictures."""
        number = self._model(model)
        self._write([("INSERT OR REPLACE INTO scores VALUES (?, ?, ?)", (number, picture, scores.to_bytes()))
                     for picture, scores in items])  # fmt: skip

    def facts(self, model: str) -> dict[str, Any]:
        """What was noted on a model's files, such as the side of its input; {} where nothing was."""
        row = self._one("SELECT facts FROM models WHERE key = ?", (model,))
        try:
            found = parse_json(row[0]) if row is not None else {}
        except (ValueError, TypeError):
            return {}
        return found if isinstance(found, dict) else {}

    def note(self, model: str, facts: dict[str, Any]) -> None:
        """Note facts on a model's files."""
        self._model(model)
        self._write([("UPDATE models SET facts = ? WHERE key = ?", (json.dumps(facts), model))])

    def _model(self, key: str) -> int:
        with self._lock:
            if key not in self._models:
                self._write([("INSERT OR IGNORE INTO models (key) VALUES (?)", (key,))])
                row = self._one("SELECT id FROM models WHERE key = ?", (key,))
                if row is None:
                    return -1
                self._models[key] = int(row[0])
            return self._models[key]

    def _one(self, query: str, values: Sequence[object]) -> Any:
        return next(iter(self._all(query, values)), None)

    def _all(self, query: str, values: Sequence[object]) -> list[Any]:
        with self._lock, self._forgiving():
            return self._base.execute(query, values).fetchall()
        return []

    def _write(self, acts: Sequence[tuple[str, Sequence[object]]]) -> None:
        with self._lock, self._forgiving(), self._base:
            for query, values in acts:
                self._base.execute(query, values)

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, UnicodeDecodeError) as error:
            logger.warning("Scores are not kept in %s: %s", self._path, error)
            damaged = isinstance(error, (sqlite3.DatabaseError, UnicodeDecodeError))
            damaged = damaged and not isinstance(error, sqlite3.OperationalError)
            if damaged and "closed" not in str(error):
                self._base.close()
                self._models.clear()
                self._base = _open(self._path)


def score_store(cache_dir: Path) -> ScoreStore:
    """The scores that are kept beside the taggers in `cache_dir`."""
    return ScoreStore(cache_dir / "scores")


def _open(path: Path | None) -> sqlite3.Connection:
    if path is not None:
        for _ in range(2):
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                return _connect(str(path))
            except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # it quotes damaged names in what it says
                logger.warning("The kept scores %s cannot be used: %s", path, error)
                if isinstance(error, sqlite3.OperationalError):
                    break
                with contextlib.suppress(OSError):
                    move_aside(path)
            except OSError as error:
                logger.warning("The kept scores %s cannot be used: %s", path, error)
                break
    return _connect(":memory:")


def _connect(name: str) -> sqlite3.Connection:
    base = sqlite3.connect(name, timeout=_WAIT_SECONDS, check_same_thread=False)
    try:
        base.execute("PRAGMA journal_mode = WAL")
        base.execute("PRAGMA synchronous = NORMAL")  # a power cut may lose the last scores, never the file
        base.executescript(_SCHEMA)
    except BaseException:
        base.close()
        raise
    return base


def _content_digest(path: Path) -> bytes:
    return bytes.fromhex(sha256(path))[:_DIGEST_BYTES]
