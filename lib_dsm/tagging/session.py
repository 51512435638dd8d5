"""Running a tagger with onnxruntime."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.errors import ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.labels import Labels, read_labels
from lib_dsm.tagging.layouts import PIXAI, WD, Layout, files_in, layout_of
from lib_dsm.tagging.preprocess import arrange, to_input
from lib_dsm.tagging.registry import LABELS_FILE, MODEL_FILE

_CPU = "CPUExecutionProvider"
_GPUS = {
    "CUDAExecutionProvider": "CUDA",
    "ROCMExecutionProvider": "ROCm",
    "MIGraphXExecutionProvider": "ROCm",
    "DmlExecutionProvider": "DirectML",
    "CoreMLExecutionProvider": "CoreML",
}
_ERRORS_ONLY = 3  # onnxruntime's severities: 0 verbose … 3 error, 4 fatal
_BATCH_ON_CPU = 4  # more at a time is no faster there
_BATCH_ON_GPU = 32
_MOST_SIDE, _MOST_BATCH = 2048, 1024  # of what a file may demand; known taggers take 512 pixels at most
_BYTES_PER_PIXEL = 4 * 3 * 160  # what a network of the usual sizes keeps of a picture while it runs, measured roughly


class Tagger:
    """A tagger that is loaded.

    `side` is that of its square input; `batch` the number of pictures it demands at a time, None where it takes any;
    `device` is "CPU" or the name of the GPU's interface, such as "CUDA".
    """

    def __init__(self, folder: Path, job: Job | None = None, layout: Layout | None = None) -> None:
        """Load the tagger of a folder, on the GPU where that really works; its layout is found out if not given.

        Raises:
            ModelError: onnxruntime is missing, or the files are no tagger of a known layout.
        """
        found = layout or layout_of(folder) or WD
        path, labels = files_in(folder, found) or (folder / MODEL_FILE, folder / LABELS_FILE)
        self.labels: Labels = read_labels(labels)
        self._labels_name, self._model_name = labels.name, path.name
        self._largest: int | None = None  # batch that fitted into memory, once one did not
        self._session, self.device = _open(path, job)
        source = next(iter(self._session.get_inputs()), None)
        if source is None:
            raise ModelError(f"{path} takes no pictures at all.", "Use a tagger of a known family.")
        shape = [size if isinstance(size, int) and size > 0 else None for size in source.shape]
        self.layout = _layout_by_shape(found, shape, given=layout is not None)
        if not _takes_pictures(shape, self.layout.channels_first) or "float" not in source.type:
            wanted = "N × 3 × side × side" if self.layout.channels_first else "N × side × side × 3"
            raise ModelError(
                f"{path} takes {source.type} {source.shape}, not pictures as {wanted}.",
                "Use a tagger of a known family.",
            )
        sides = shape[2:] if self.layout.channels_first else shape[1:3]
        self._half = "float16" in source.type
        self.batch = shape[0]
        self.side = sides[0] or self.layout.side
        self._input = source.name
        self._output, self._logits = self._choose_output()
        self._try()

    def prepare(self, image: Image.Image) -> NDArray[np.uint8]:
        """An RGB picture as `scores` takes it, side × side × 3."""
        return arrange(image, self.side, self.layout)

    def scores(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        """The scores of prepared pictures, N × tags, 0 to 1. A batch that does not fit into memory is halved.

        Raises:
            ModelError: the tagger fails, or its scores and its list of tags do not match.
        """
        values = to_input(pictures, self.layout) if pictures.dtype == np.uint8 else pictures
        if self._half:
            values = values.astype(np.float16)
        parts: list[NDArray[np.float32]] = []
        start = 0
        while start < len(values):
            size = self.batch or min(len(values), self._largest or len(values))
            parts.append(self._run(values[start : start + size]))
            start += size
        scores = np.concatenate(parts).astype(np.float32, copy=False)
        self._check_outputs(scores.shape[1])
        return sigmoid(scores) if self._logits else scores

    def good_batch(self, wanted: int = 0) -> int:
        """How many pictures to give at a time: what the network demands, else `wanted`, else by the memory there is."""
        if self.batch:
            return self.batch
        if wanted:
            return wanted
        if self.device == "CPU":
            return _BATCH_ON_CPU
        free = _free_gpu_bytes()
        if free is None:
            return _BATCH_ON_GPU // 4
        return max(1, min(_BATCH_ON_GPU, free // 2 // (_BYTES_PER_PIXEL * self.side**2)))

    def _run(self, pictures: NDArray[Any]) -> NDArray[np.float32]:
        count = len(pictures)
        if self.batch is not None and count < self.batch:
            pictures = np.concatenate([pictures, np.repeat(pictures[-1:], self.batch - count, axis=0)])
        try:
            result: NDArray[np.float32] = self._session.run([self._output], {self._input: pictures})[0]
            if result.ndim != 2 or len(result) < count:
                raise ValueError(f"it gives {result.shape} for {count} pictures")
            return result[:count]
        except Exception as error:  # onnxruntime's errors share no base class of their own
            out_of_memory = any(word in str(error).lower() for word in ("alloc", "memory"))
            if out_of_memory and self.batch is None and count > 1:
                self._largest = max(1, count // 2)
                return np.concatenate([self._run(pictures[: count // 2]), self._run(pictures[count // 2 :])])
            remedy = "Close what uses the GPU or choose a smaller model." if out_of_memory else "Fetch it again."
            raise ModelError(f"The tagger failed: {_first_line(error)}.", remedy) from error

    def _choose_output(self) -> tuple[str, bool]:
        """The output with the scores, and whether they are logits: the family's, the first with as many as tags."""
        outputs = self._session.get_outputs()
        width = len(self.labels.names)
        widths = [output.shape[-1] if output.shape else 1 for output in outputs]
        fitting = [output for output, found in zip(outputs, widths, strict=True)
                   if found == width or not isinstance(found, int)]  # fmt: skip
        if not fitting:
            self._check_outputs(widths[0] if widths else 0)
        preferred = [output for name in self.layout.outputs for output in fitting if output.name == name]
        chosen = (preferred or fitting)[0]
        named_logits = not preferred and chosen.name == "logits" and self.layout is PIXAI
        return chosen.name, self.layout.logits or named_logits

    def _try(self) -> None:
        """Look at a white picture: a tagger that is none, or a GPU that only seemed to work, shows at once."""
        self.scores(np.full((1, self.side, self.side, 3), 255, np.uint8))

    def _check_outputs(self, count: int) -> None:
        if count != len(self.labels.names):
            raise ModelError(
                f"The tagger gives {count} scores, but {self._labels_name} lists {len(self.labels.names)} tags.",
                f"Fetch {self._model_name} and {self._labels_name} of the same model.",
            )


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """1 / (1 + exp(-x)), without overflow."""
    small = np.exp(-np.abs(logits))
    return np.where(logits >= 0, 1 / (1 + small), small / (1 + small)).astype(np.float32)


def _takes_pictures(shape: list[int | None], channels_first: bool) -> bool:
    """Whether an input is of square pictures in three colours, of a size and number that can be meant."""
    if len(shape) != 4:
        return False
    channels, sides = (shape[1], shape[2:]) if channels_first else (shape[3], shape[1:3])
    fits = (sides[0] or 1) <= _MOST_SIDE and (shape[0] or 1) <= _MOST_BATCH
    return channels in (3, None) and sides[0] == sides[1] and fits


def _layout_by_shape(layout: Layout, shape: list[int | None], given: bool) -> Layout:
    """PixAI's files have the names of WD1.4's; the shape of the input tells them apart."""
    if not given and layout is WD and len(shape) == 4 and shape[1] == 3 and shape[3] != 3:
        return PIXAI
    return layout


def _open(path: Path, job: Job | None) -> tuple[Any, str]:
    """A session and the name of the device it runs on."""
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("Tagging needs onnxruntime, which is not installed.", "Install it and try again.") from error
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    # Its threads would otherwise keep the cores busy while they wait for work, which the reading of pictures needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    gpu = next((name for name in onnxruntime.get_available_providers() if name in _GPUS), None)
    if gpu is not None:
        try:
            if gpu == "CUDAExecutionProvider" and hasattr(onnxruntime, "preload_dlls"):
                with contextlib.redirect_stdout(None):  # it prints what it does not find
                    onnxruntime.preload_dlls()
            session = onnxruntime.InferenceSession(str(path), options, providers=[gpu, _CPU])
            if gpu in session.get_providers():
                _demand_works(session)
                _say(job, f"The tagger runs on the GPU ({_GPUS[gpu]}).")
                return session, _GPUS[gpu]
            cause = "its libraries do not fit the installed driver"
        except Exception as error:
            cause = _first_line(error)
        _say(job, f"The GPU cannot be used for tagging ({cause}); the CPU is used instead.")
    else:
        _say(job, "The tagger runs on the CPU: the installed onnxruntime knows no GPU.")
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[_CPU]), "CPU"
    except Exception as error:
        raise ModelError(
            f"{path} cannot be loaded as a tagger ({_first_line(error)}).", "Fetch the file again."
        ) from error


def _demand_works(session: Any) -> None:
    """Run the network once; a GPU whose kernels are missing says so only then."""
    source = session.get_inputs()[0]
    shape = [size if isinstance(size, int) and size > 0 else 0 for size in source.shape]
    shape[0] = shape[0] or 1
    if all(shape):
        kind = np.float16 if "float16" in source.type else np.float32
        session.run(None, {source.name: np.zeros(shape, kind)})


def _free_gpu_bytes() -> int | None:
    """The free memory of the GPU where torch is loaded anyway and knows it."""
    import sys

    torch = sys.modules.get("torch")
    try:
        return int(torch.cuda.mem_get_info()[0]) if torch is not None and torch.cuda.is_available() else None
    except Exception:  # a driver in trouble; the batch is then a cautious one
        return None


def _say(job: Job | None, line: str) -> None:
    if job is not None:
        job.say(line)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".") or type(error).__name__
