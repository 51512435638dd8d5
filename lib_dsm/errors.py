"""The errors a person gets to read.

Every error raised on purpose is a `DsmError`: one sentence with the value at fault and, where there is one, a sentence
with the remedy. Faces show `str(error)` and never a trace.
"""

from __future__ import annotations


class DsmError(Exception):
    """Something the person can understand and act on.

    `problem` is one sentence that names the value at fault; `remedy` one sentence that says what to do, or "".
    """

    def __init__(self, problem: str, remedy: str = "") -> None:
        self.problem = _shown(problem)
        self.remedy = _shown(remedy)
        super().__init__(f"{self.problem} {self.remedy}".strip())


def _shown(text: str) -> str:
    """Text that every face can print: names may hold halves of characters, which nothing can encode."""
    return text.encode("utf-8", "replace").decode("utf-8")


class InputError(DsmError):
    """What was given cannot be used: a folder, a file, a name, a value."""


class PictureError(InputError):
    """A file that should be a picture and cannot be read as one."""


class ModelError(DsmError):
    """A checkpoint, a tagger or a network file that cannot be used."""


class StorageError(DsmError):
    """The disk did not take what had to be written."""


class GuardError(DsmError):
    """A guard forbids to start or to go on."""


class BusyError(DsmError):
    """Another window or job holds what this one needs."""


class Cancelled(DsmError):  # noqa: N818 - not an error, an answer
    """The person stopped the work."""

    def __init__(self, problem: str = "Stopped on request.", remedy: str = "") -> None:
        super().__init__(problem, remedy)
