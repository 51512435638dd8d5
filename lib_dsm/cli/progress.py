"""A job in the terminal: a bar on stderr, its log lines above, Ctrl-C as cancel."""

from __future__ import annotations

import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, TextIO

from lib_dsm.jobs import Job

_REDRAW = 0.1  # seconds
_BAR = 24  # characters


def run_job(title: str, unit: str, work: Callable[[Job], Any]) -> Any:
    """Do `work` here with its progress shown; Ctrl-C cancels it.

    Raises:
        Cancelled, DsmError: as the work does.
    """
    with Terminal() as terminal:
        return terminal.new_job(title, unit).run(work)


class Terminal:
    """Shows jobs on stderr, one after the other, for as long as its context lasts.

    Ctrl-C cancels the present one at its next safe point, a second Ctrl-C stops at once.
    """

    def __init__(self) -> None:
        self._bar = _Bar(sys.stderr)
        self._job: Job | None = None
        self._before: Any = None

    def __enter__(self) -> Terminal:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._cancel)
        return self

    def __exit__(self, *_: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
        self._finish()

    def new_job(self, title: str, unit: str) -> Job:
        """A job that is shown from now on, below the one before."""
        self._finish()
        self._job = Job(title, unit, watcher=self._bar.show)
        return self._job

    def _finish(self) -> None:
        if self._job is not None:
            self._bar.end(self._job)
            self._job = None

    def _cancel(self, *_: object) -> None:
        if self._job is None or self._job.cancel_requested:
            raise KeyboardInterrupt
        self._job.cancel()
        self._bar.line("Stopping at the next safe point; press Ctrl-C again to stop at once.")


class _Bar:
    """One line that is drawn over again; where stderr is no terminal, only the log lines."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._live = stream.isatty()
        self._drawn = 0.0
        self._lines: list[str] = []
        self._width = 0

    def show(self, job: Job) -> None:
        """Draw how far the job is, and the log lines that are new."""
        snapshot = job.snapshot()
        fresh = _new_lines(self._lines, snapshot["lines"])
        self._lines = snapshot["lines"]
        for text in fresh:
            self.line(text)
        now = time.monotonic()
        if self._live and (now - self._drawn >= _REDRAW or fresh):
            self._drawn = now
            self._draw(describe(snapshot))

    def line(self, text: str) -> None:
        """A line that stays."""
        self._clear()
        print(text, file=self._stream, flush=True)

    def end(self, job: Job) -> None:
        """The last state of the bar stays."""
        if self._live:
            self._draw(describe(job.snapshot()))
            print(file=self._stream, flush=True)
        self._lines, self._width = [], 0

    def _draw(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write("\r" + text.ljust(self._width))
        self._stream.flush()
        self._width = len(text)

    def _clear(self) -> None:
        if self._live and self._width:
            self._stream.write("\r" + " " * self._width + "\r")
            self._width = 0


def describe(snapshot: dict[str, Any]) -> str:
    """A job's state in one line: title, bar, count, time left, the present item."""
    done, total = snapshot["done"], snapshot["total"]
    parts = [snapshot["title"]]
    if total:
        filled = min(_BAR, _BAR * done // total)
        parts.append("█" * filled + "░" * (_BAR - filled))
        parts.append(f"{done}/{total} {snapshot['unit']}".strip())
    if snapshot["left"] is not None:
        parts.append(f"{_clock(snapshot['left'])} left")
    parts.append(snapshot["text"])
    return "  ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _new_lines(before: list[str], now: list[str]) -> list[str]:
    # The log keeps only its last lines, so that the old ones may have moved up.
    for overlap in range(min(len(before), len(now)), -1, -1):
        if before[len(before) - overlap :] == now[:overlap]:
            return now[overlap:]
    return now
