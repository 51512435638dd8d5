"""The taggers of one run: found, fetched, and loaded only where a picture is to be looked at."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path

from lib_dsm.errors import InputError, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.download import cached_folder, model_folder
from lib_dsm.tagging.ensemble import Ensemble
from lib_dsm.tagging.labels import Labels, read_labels
from lib_dsm.tagging.layouts import Layout, files_in, layout_named, layout_of
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.registry import TaggerModel, find_model, known_by_folder
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.session import Tagger
from lib_dsm.tagging.store import ScoreStore

_Key = tuple[Path, str]


class Shelf:
    """Loaded taggers, shared by the runs of now and kept for the next. May be used by several threads at once."""

    def __init__(self) -> None:
        self._taggers: dict[_Key, Tagger] = {}
        self._loans: list[Loan] = []
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def loan(self, keep: bool) -> Iterator[Loan]:
        """What one run uses; unless it is to be kept, what no other run uses is let go of afterwards."""
        loan = Loan(self)
        with self._lock:
            self._loans.append(loan)
        try:
            yield loan
        finally:
            with self._lock:
                self._loans.remove(loan)
                for key in () if keep else loan.keys - self._in_use():
                    self._taggers.pop(key, None)

    def tagger(self, folder: Path, layout: Layout | None, job: Job | None) -> Tagger:
        """The tagger of a folder, loaded unless it is there.

        Raises:
            ModelError: as `Tagger`.
        """
        key = _key(folder, layout)
        with self._lock:
            if key not in self._taggers:
                self._taggers[key] = Tagger(folder, job, layout)
            return self._taggers[key]

    def clear(self) -> int:
        """Let go of all that no run uses; how many they were."""
        with self._lock:
            idle = self._taggers.keys() - self._in_use()
            for key in idle:
                del self._taggers[key]
        return len(idle)

    def __len__(self) -> int:
        return len(self._taggers)

    def _in_use(self) -> set[_Key]:
        return set().union(*(loan.keys for loan in self._loans))


class Loan:
    """What one run uses of a shelf, loaded or not yet."""

    def __init__(self, shelf: Shelf) -> None:
        self.shelf = shelf
        self.keys: frozenset[_Key] = frozenset()

    def claim(self, folder: Path, layout: Layout | None) -> None:
        """Have the tagger of a folder stay where it is loaded, now or later, as long as the run lasts."""
        self.keys |= {_key(folder, layout)}


def _key(folder: Path, layout: Layout | None) -> _Key:
    return folder.resolve(), layout.name if layout is not None else ""


class Member:
    """One tagger of a run.

    `known` is its row of the registry, None for a folder named after none; `content` stands for what is in its files.
    """

    def __init__(
        self, name: str, cache_dir: Path, store: ScoreStore, loan: Loan, job: Job | None, at_hand: bool
    ) -> None:
        found = find_model(name)
        self.name = name
        self.known = found if isinstance(found, TaggerModel) else known_by_folder(found)
        self._given = found.family if isinstance(found, TaggerModel) else None
        self._shelf, self._store, self._job = loan.shelf, store, job
        self._at_hand = at_hand
        here = found if isinstance(found, Path) else cached_folder(found, cache_dir)
        if at_hand and here is None:
            raise ModelError(f"The tagger {name} is not here yet.", "It is fetched when it is first used.")
        self.folder = here if here is not None else model_folder(found, cache_dir, job)
        layout = self._given or layout_of(self.folder)
        files = files_in(self.folder, layout) if layout is not None else None
        if layout is None or files is None:
            raise ModelError(f"{self.folder} holds no tagger any more.", "Fetch it again.")
        loan.claim(self.folder, self._given)
        self._layout, self._files = layout, files
        try:
            self.content = f"{store.digest(files[0]).hex()}/{store.digest(files[1]).hex()}/{layout.name}"
        except OSError as error:
            raise ModelError(
                f"{error.filename} cannot be read: {error.strerror or error}.", "Fetch it again."
            ) from error

    @cached_property
    def labels(self) -> Labels:
        """Its tags."""
        return read_labels(self._files[1])

    @cached_property
    def key(self) -> str:
        """What its scores are kept under: the content of its files and how pictures are prepared for it."""
        facts = self._store.facts(self.content)
        if not {"side", "layout"} <= facts.keys():
            if self._at_hand:
                raise ModelError(f"The tagger {self.name} has not looked at any picture yet.", "Let it, once.")
            tagger = self.tagger()
            facts = {"side": tagger.side, "layout": tagger.layout.name}
            self._store.note(self.content, facts)
        return f"{self.content}/{layout_named(str(facts['layout'])).fingerprint(int(facts['side']))}"

    def tagger(self) -> Tagger:
        """It, loaded.

        Raises:
            ModelError: it cannot be.
        """
        return self._shelf.tagger(self.folder, self._given, self._job)


class Members:
    """All taggers of a run, and how their scores become one; `labels` are the tags that any of them knows."""

    def __init__(
        self,
        options: TagOptions,
        cache_dir: Path,
        store: ScoreStore,
        loan: Loan | None = None,
        job: Job | None = None,
        at_hand: bool = False,
    ) -> None:
        """Find and fetch them; none is loaded yet. With `at_hand` nothing is fetched or loaded, now or later.

        Raises:
            InputError: there is no such tagger, or the same one twice.
            ModelError: one cannot be downloaded, or is not at hand where it must be.
            Cancelled: the job was stopped.
        """
        names = [options.model, *(name for name in options.also if name.strip())]
        loan = loan if loan is not None else Loan(Shelf())
        self.all = [Member(name, cache_dir, store, loan, job, at_hand) for name in names]
        folders = [member.folder.resolve() for member in self.all]
        if len(set(folders)) < len(folders):
            raise InputError(f"The tagger {names[-1]} was named twice.", "Name different ones, or one alone.")
        self._ensemble = Ensemble([member.labels for member in self.all], options.combine)
        self.labels = self._ensemble.labels

    @property
    def keys(self) -> list[str]:
        """What the scores of each are kept under."""
        return [member.key for member in self.all]

    @property
    def balanced(self) -> tuple[float | None, float | None]:
        """The balanced thresholds for general tags and characters, of several taggers their mean; None if unknown."""
        known = [member.known for member in self.all if member.known is not None]
        return (
            _mean([model.threshold for model in known if model.threshold is not None]),
            _mean([model.character_threshold for model in known if model.character_threshold is not None]),
        )

    def combined(self, scores: Sequence[Scores]) -> Scores:
        """One picture's scores of each tagger as one, in the places of `labels`."""
        return self._ensemble.combined(scores)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
