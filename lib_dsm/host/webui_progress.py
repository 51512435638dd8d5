"""A job that needs no model, shown in the WebUI's own progress while nothing is generated; Interrupt cancels it."""

from __future__ import annotations

import contextlib
import html
import logging
import threading
import time
from collections.abc import Iterator

from lib_dsm.jobs import Job

logger = logging.getLogger("dsm")
_LOOK = 0.3  # seconds between two looks
_TRIES = 20
_STATE = "DSM"  # with which the names of our jobs in the WebUI's state begin


def task_id(job: Job) -> str:
    """The id under which the WebUI's own progress bar may ask for the job."""
    return f"task(dsm-{job.id})"


@contextlib.contextmanager
def showing(job: Job) -> Iterator[None]:
    """For as long as the context lasts.

    The WebUI has one state for whatever runs. A generation takes it over when it begins and has it until it ends, for
    it must neither wait for us nor show our numbers; after it the job is shown again.
    """
    ended = threading.Event()
    shown = _Shown(job)

    def watch() -> None:
        while not ended.wait(_LOOK):
            try:
                shown.look()
            except Exception:  # the work must not suffer from what only shows it
                logger.exception("The WebUI's progress cannot show %s", job.title)
                return

    watcher = threading.Thread(target=watch, name=f"dsm-show-{job.id}", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        shown.end()


class _Shown:
    """Whether the WebUI's state is ours at present, and what is to be done about it."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._name = f"{_STATE} {job.title}"
        self._ours = False

    def look(self) -> None:
        """Take the state while it is free, write into it, and pass its Interrupt on."""
        from modules import shared

        if not self._ours and not shared.state.job:
            with _free() as free:
                if free and not shared.state.job:
                    self._begin()
        if not self._mine():
            self._ours = False
            return
        if shared.state.interrupted or shared.state.stopping_generation:
            self._job.cancel()
            shared.state.interrupted = shared.state.stopping_generation = False
        shared.state.job_count = self._job.total
        shared.state.job_no = self._job.done
        shared.state.textinfo = html.escape(self._job.text)

    def end(self) -> None:
        """Give the state back if it is ours."""
        from modules import progress, shared

        for _ in range(_TRIES):
            with _free() as free:
                if free and self._mine():
                    shared.state.end()
            if not self._mine():
                break
            time.sleep(_LOOK)  # somebody has the queue and may be about to take the state
        progress.finish_task(task_id(self._job))

    def _begin(self) -> None:
        from modules import progress, shared

        shared.state.begin(job=self._name)
        if progress.current_task is None:
            progress.start_task(task_id(self._job))
        self._ours = True

    def _mine(self) -> bool:
        from modules import shared

        return self._ours and bool(shared.state.job == self._name)


@contextlib.contextmanager
def _free() -> Iterator[bool]:
    """Whether nothing is generated, and nothing begins for as long as the context lasts."""
    from modules import call_queue

    had = call_queue.queue_lock.acquire(blocking=False)
    try:
        yield bool(had)
    finally:
        if had:
            call_queue.queue_lock.release()
