"""From scores to captions: what each becomes, and the writing of it while the network goes on."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from lib_dsm.dataset.captions import Caption, read_caption_file
from lib_dsm.dataset.history import Recording
from lib_dsm.dataset.notes import Note
from lib_dsm.errors import Cancelled, DsmError
from lib_dsm.jobs import Job
from lib_dsm.tagging.naming import caption_file
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.scores import Scores
from lib_dsm.tagging.scoring import Scored
from lib_dsm.tagging.tags import Chooser, merge

_GROUPS_WAITING = 4
_TOGETHER = 16  # captions recorded with one flush; a stop waits for no more


@dataclass(frozen=True)
class CaptionChange:
    """What tagging makes of one caption: its tags before and after. `exists` says that there was a file before."""

    picture: Path
    before: list[str]
    after: list[str]
    exists: bool

    @property
    def added(self) -> list[str]:
        """The tags that come, in order."""
        return [tag for tag in self.after if tag not in self.before]

    @property
    def removed(self) -> list[str]:
        """The tags that go, in order."""
        return [tag for tag in self.before if tag not in self.after]


@dataclass
class TagReport:
    """What tagging a folder did. `failed` has a sentence for each picture that could not be tagged; `notes` those on
    pictures that could. `act` is the number in the folder's history, None where no caption was written. `changes` is
    filled by a dry run alone.
    """

    written: list[Path] = field(default_factory=list)
    skipped: list[Path] = field(default_factory=list)
    failed: list[tuple[Path, str]] = field(default_factory=list)
    notes: list[Note] = field(default_factory=list)
    act: int | None = None
    changes: list[CaptionChange] = field(default_factory=list)


class Captioner:
    """The captions that options make of scores."""

    def __init__(self, chooser: Chooser) -> None:
        self._chooser, self._options = chooser, chooser.options

    def change(self, picture: Path, scores: Scores) -> tuple[Caption, CaptionChange]:
        """A picture's caption as it is, and what becomes of it.

        Raises:
            InputError: the caption cannot be read.
        """
        caption = read_caption_file(caption_file(picture, self._options.file_name))
        how = "replace" if self._options.on_existing == "skip" else self._options.on_existing
        before = caption.tags
        return caption, CaptionChange(
            picture, before, merge(before, self._chooser.caption(scores), how), caption.exists
        )

    def skips(self, caption: Caption) -> bool:
        """Whether this caption is to stay as it is, since there is something in it."""
        return self._options.on_existing == "skip" and bool(caption.text.strip())


def has_caption(picture: Path, options: TagOptions) -> bool:
    """Whether there is a caption with something in it; one that cannot be read counts too, for it must not be lost."""
    try:
        return bool(read_caption_file(caption_file(picture, options.file_name)).text.strip())
    except DsmError:
        return True


class CaptionWriter:
    """Makes captions of scored pictures in a thread of its own, in the order given; without an act, only in the report.

    Within its context groups are handed over; at its end all are done. What goes wrong in the thread comes out of the
    next call. A cancelled job's groups that were not begun are dropped.
    """

    def __init__(self, captioner: Captioner, act: Recording | None, report: TagReport, job: Job, start: int) -> None:
        self._captioner, self._act, self._report, self._job = captioner, act, report, job
        self._done = start
        self._thread = ThreadPoolExecutor(1, "dsm-write")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> CaptionWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True)
        if error is None or isinstance(error, Cancelled):
            with contextlib.suppress(Cancelled) if error is not None else contextlib.nullcontext():
                while self._waiting:
                    self._waiting.popleft().result()

    def take(self, group: Sequence[Scored]) -> None:
        """Have a group written; waits while several others are not written yet."""
        self._waiting.append(self._thread.submit(self._write, list(group)))
        while self._waiting and (self._waiting[0].done() or len(self._waiting) > _GROUPS_WAITING):
            self._waiting.popleft().result()

    def _write(self, group: list[Scored]) -> None:
        for start in range(0, len(group), _TOGETHER):
            self._job.check()
            self._write_some(group[start : start + _TOGETHER])

    def _write_some(self, group: list[Scored]) -> None:
        made: list[tuple[Caption, CaptionChange]] = []
        for scored in group:
            try:
                if scored.scores is None:
                    self._report.failed.append((scored.picture, scored.problem))
                    continue
                caption, change = self._captioner.change(scored.picture, scored.scores)
            except DsmError as error:
                self._report.failed.append((scored.picture, str(error)))
                continue
            if self._captioner.skips(caption):  # it came after the run had begun
                self._report.skipped.append(scored.picture)
                continue
            made.append((caption, change))
            odd = scored.notes + ([caption.note] if caption.note else [])
            self._report.notes += [Note(scored.picture, note) for note in odd]
        if self._act is None:
            self._report.changes += [change for _, change in made]
        else:
            wanted = [
                (caption.path, caption.raw, caption.bytes_with(change.after, utf8=True)) for caption, change in made
            ]
            for (_, change), written in zip(made, self._act.write_all(wanted), strict=True):
                if written:
                    self._report.written.append(change.picture)
        self._done += len(group)
        self._job.progress(self._done, text=group[-1].picture.name)
