"""Running a tagger with onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lib_dsm.errors import ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.labels import Labels, read_labels
from lib_dsm.tagging.registry import LABELS_FILE, MODEL_FILE

_USUAL_SIDE = 448
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ERRORS_ONLY = 3  # onnxruntime's severities: 0 verbose … 3 error, 4 fatal


class Tagger:
    """A tagger that is loaded.

    `side` is that of its square input; `batch` the number of pictures it demands at a time, None where it takes any;
    `device` is "CUDA" or "CPU".
    """

    def __init__(self, folder: Path, job: Job | None = None) -> None:
        """Load the tagger of a folder, on the GPU where that really works.

        Raises:
            ModelError: onnxruntime is missing, or the files are no tagger of the WD1.4 layout.
        """
        self.labels: Labels = read_labels(folder / LABELS_FILE)
        path = folder / MODEL_FILE
        self._session, self.device = _open(path, job)
        source, target = self._session.get_inputs()[0], self._session.get_outputs()[0]
        shape = [size if isinstance(size, int) and size > 0 else None for size in source.shape]
        if len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2] or "float" not in source.type:
            raise ModelError(
                f"{path} takes {source.type} {source.shape}, not pictures as N × side × side × 3.",
                "Use a tagger of the WD1.4 family.",
            )
        self.batch = shape[0]
        self.side = shape[1] or _USUAL_SIDE
        self._input, self._output = source.name, target.name
        outputs = target.shape[-1]
        if isinstance(outputs, int):
            self._check_outputs(outputs)

    def scores(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        """The scores of prepared pictures, N × tags, 0 to 1. A batch that does not fit into memory is halved.

        Raises:
            ModelError: the tagger fails, or its scores and its list of tags do not match.
        """
        size = self.batch or len(pictures)
        parts = [self._run(pictures[start : start + size]) for start in range(0, len(pictures), size)]
        scores = np.concatenate(parts)
        self._check_outputs(scores.shape[1])
        return scores

    def _run(self, pictures: NDArray[np.float32]) -> NDArray[np.float32]:
        count = len(pictures)
        if self.batch is not None and count < self.batch:
            pictures = np.concatenate([pictures, np.repeat(pictures[-1:], self.batch - count, axis=0)])
        try:
            result: NDArray[np.float32] = self._session.run([self._output], {self._input: pictures})[0]
            return result[:count]
        except Exception as error:  # onnxruntime's errors share no base class of their own
            out_of_memory = any(word in str(error).lower() for word in ("alloc", "memory"))
            if out_of_memory and self.batch is None and count > 1:
                return np.concatenate([self._run(pictures[: count // 2]), self._run(pictures[count // 2 :])])
            remedy = "Close what uses the GPU or choose a smaller model." if out_of_memory else "Fetch it again."
            raise ModelError(f"The tagger failed: {_first_line(error)}.", remedy) from error

    def _check_outputs(self, count: int) -> None:
        if count != len(self.labels.names):
            raise ModelError(
                f"The tagger gives {count} scores, but {LABELS_FILE} lists {len(self.labels.names)} tags.",
                f"Fetch {MODEL_FILE} and {LABELS_FILE} of the same model.",
            )


def _open(path: Path, job: Job | None) -> tuple[Any, str]:
    """A session and the name of the device it runs on."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("Tagging needs onnxruntime, which is not installed.", "Install it and try again.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if _CUDA in onnxruntime.get_available_providers():
        try:
            session = onnxruntime.InferenceSession(str(path), options, providers=[_CUDA, _CPU])
            if _CUDA in session.get_providers():
                return session, "CUDA"
            cause = "its libraries do not fit the installed CUDA"
        except Exception as error:
            cause = _first_line(error)
        if job is not None:
            job.say(f"The GPU cannot be used for tagging ({cause}); the CPU is used instead.")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[_CPU]), "CPU"
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a tagger ({_first_line(error)}).", "Fetch the file again."
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
