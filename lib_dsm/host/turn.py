"""Whose turn it is with a host's model."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from lib_dsm.errors import BusyError


class Turns:
    """Lends one thing to one thread at a time.

    A check or the writing of an untrained embedding is brief, so whoever comes then waits; a training may take hours,
    so whoever comes then is refused. A thread that has the turn must not ask for another.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._taken = self._brief = False

    @contextmanager
    def taken(self, brief: bool) -> Iterator[None]:
        """Have the turn for as long as the context lasts; `brief` says that others may wait for its end.

        Raises:
            BusyError: a training has it, or got it while this one waited.
        """
        with self._changed:
            while self._taken:
                if not self._brief:
                    raise BusyError("Another training is running.", "Wait for it to end, or stop it.")
                self._changed.wait()
            self._taken, self._brief = True, brief
        try:
            yield
        finally:
            with self._changed:
                self._taken = False
                self._changed.notify_all()
