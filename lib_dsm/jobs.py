"""A job is what every long act is: title, done / total, rate, time left, log lines, a picture, and a way to cancel it.

The work reports into the job; the faces read `snapshot()`. Neither knows the other.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib_dsm.errors import Cancelled, DsmError, InputError

logger = logging.getLogger("dsm")
_LOG_LINES = 400
_FINISHED_KEPT = 50


class Job:
    """One long act, reported by its worker thread and watched by any number of others.

    `state` is "running", "done", "failed" or "cancelled". `done` and `total` count whatever `unit` names; `total` 0
    means not yet known.
    """

    def __init__(self, title: str, unit: str = "", watcher: Callable[[Job], None] | None = None) -> None:
        self.id = uuid.uuid4().hex[:12]
        self.title = title
        self.unit = unit
        self.state = "running"
        self.done = 0
        self.total = 0
        self.text = ""
        self.picture: Path | None = None
        self.error = ""
        self.result: Any = None
        self.data: dict[str, Any] = {}
        self._watcher = watcher
        self._lines: deque[str] = deque(maxlen=_LOG_LINES)
        self._lock = threading.Lock()
        self._cancel = threading.Event()
        self._wishes: set[str] = set()
        self._finished = threading.Event()
        self._began = self._counted_from = time.monotonic()
        self._ended: float | None = None
        self._first_done = 0

    def begin(self, done: int, total: int, text: str = "") -> None:
        """Say that the counting begins here: what was done before, or took time before, is not in the rate."""
        with self._lock:
            self._first_done = done
            self._counted_from = time.monotonic()
        self.progress(done, total, text)

    def progress(self, done: int, total: int | None = None, text: str | None = None) -> None:
        """Say how far the work is; `text` is one short line about the present item."""
        with self._lock:
            self.done = done
            if total is not None:
                self.total = total
            if text is not None:
                self.text = text
        self._tell()

    def say(self, line: str) -> None:
        """Add a line to the job's log."""
        with self._lock:
            self._lines.append(line)
        logger.info("%s: %s", self.title, line)
        self._tell()

    def show(self, picture: Path) -> None:
        """Name the newest picture."""
        with self._lock:
            self.picture = picture
        self._tell()

    def cancel(self) -> None:
        """Ask the work to stop at its next safe point."""
        self._cancel.set()

    def ask(self, wish: str) -> None:
        """Leave a wish for the work, such as "save" or "preview", to be fulfilled at its next safe point."""
        with self._lock:
            self._wishes.add(wish)

    def asked(self, wish: str) -> bool:
        """Whether somebody left this wish since it was last looked at."""
        with self._lock:
            found = wish in self._wishes
            self._wishes.discard(wish)
            return found

    @property
    def cancel_requested(self) -> bool:
        """Whether somebody asked the work to stop."""
        return self._cancel.is_set()

    def check(self) -> None:
        """A safe point of the work.

        Raises:
            Cancelled: somebody asked the work to stop.
        """
        if self._cancel.is_set():
            raise Cancelled()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for the end; whether it came within `timeout` seconds."""
        return self._finished.wait(timeout)

    def run(self, work: Callable[[Job], Any]) -> Any:
        """Do `work` in this thread, note how it ended, and pass its result or its error on."""
        try:
            self.result = work(self)
        except Cancelled as stop:
            self._end("cancelled", str(stop))
            raise
        except DsmError as error:
            self._end("failed", str(error))
            raise
        except Exception as error:
            logger.exception("%s failed unexpectedly", self.title)
            self._end("failed", f"An unexpected error stopped the work: {type(error).__name__}: {error}")
            raise
        self._end("cancelled" if self.data.get("stopped") else "done", "")
        return self.result

    def snapshot(self) -> dict[str, Any]:
        """All a face shows, as plain data; seconds for times, `rate` in units a second."""
        with self._lock:
            now = self._ended or time.monotonic()
            elapsed, counting = now - self._began, now - self._counted_from
            counted = self.done - self._first_done
            rate = counted / counting if counting > 0 and counted > 0 else 0.0
            left = (self.total - self.done) / rate if rate and self.total and self.state == "running" else None
            return {
                "id": self.id,
                "title": self.title,
                "state": self.state,
                "done": self.done,
                "total": self.total,
                "unit": self.unit,
                "text": self.text,
                "elapsed": elapsed,
                "rate": rate,
                "left": left,
                "lines": list(self._lines),
                "picture": str(self.picture) if self.picture else None,
                "error": self.error,
                "cancelling": self._cancel.is_set() and self.state == "running",
                "data": dict(self.data),
            }

    def _end(self, state: str, error: str) -> None:
        with self._lock:
            self.state = state
            self.error = error
            self._ended = time.monotonic()
        self._finished.set()
        self._tell()

    def _tell(self) -> None:
        if self._watcher is not None:
            self._watcher(self)


class Jobs:
    """The jobs of one process: started, listed, found, cancelled."""

    def __init__(self) -> None:
        self._jobs: dict[str, Job] = {}
        self._lock = threading.Lock()

    def start(self, title: str, work: Callable[[Job], Any], unit: str = "") -> Job:
        """Do `work` in a thread of its own and return its job at once."""
        job = Job(title, unit)
        self.add(job)

        def body() -> None:
            # Noted in the job, where the faces read it.
            with contextlib.suppress(Exception):
                job.run(work)

        threading.Thread(target=body, name=f"dsm-{job.id}", daemon=True).start()
        return job

    def add(self, job: Job) -> None:
        """List a job that runs, or ran, elsewhere."""
        with self._lock:
            finished = [key for key, other in self._jobs.items() if other.state != "running"]
            for key in finished[:-_FINISHED_KEPT]:
                del self._jobs[key]
            self._jobs[job.id] = job

    def get(self, job_id: str) -> Job:
        """The job of that id.

        Raises:
            InputError: there is none.
        """
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None:
            raise InputError(f'There is no job "{job_id}".', "It may have ended before a restart; look at the list.")
        return job

    def all(self) -> list[Job]:
        """Every job that is known, the oldest first."""
        with self._lock:
            return list(self._jobs.values())
