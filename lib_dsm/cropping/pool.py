"""Working on many pictures at once without holding many at once."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Task = TypeVar("Task")
Result = TypeVar("Result")
_MOST_WORKERS = 8
_AHEAD = 2  # tasks in waiting for each worker


class PixelBudget:
    """Lets so many pixels be held at a time; one picture above that passes alone."""

    def __init__(self, pixels: int) -> None:
        self._all = self._free = pixels
        self._condition = threading.Condition()

    @contextmanager
    def holding(self, pixels: int) -> Iterator[None]:
        """Wait until so many are free, and hold them meanwhile."""
        taken = min(pixels, self._all)
        with self._condition:
            self._condition.wait_for(lambda: self._free >= taken)
            self._free -= taken
        try:
            yield
        finally:
            with self._condition:
                self._free += taken
                self._condition.notify_all()


def in_parallel(work: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[tuple[Task, Result]]:
    """Each task with its result, in order, on as many threads as there are processors.

    Tasks are taken only a little ahead. Pillow lets other threads work while it decodes, scales and encodes. When the
    caller stops early, or a task fails, those under way are completed and no others begun.
    """
    workers = min(_MOST_WORKERS, os.cpu_count() or 1)
    waiting: deque[tuple[Task, Future[Result]]] = deque()
    with ThreadPoolExecutor(workers, "dsm-crop") as pool:
        try:
            for task in tasks:
                waiting.append((task, pool.submit(work, task)))
                if len(waiting) >= _AHEAD * workers:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()
