"""Finding faces or heads with a detector that the user has as an ONNX file; nothing is ever downloaded here.

Two layouts are known by their inputs and outputs:

- YuNet, as the OpenCV Zoo publishes it (Wu, Peng and Yu, "YuNet: A Tiny Millisecond-level Face Detector", 2023): BGR of
  0 to 255, and for each stride 8, 16 and 32 the outputs cls_, obj_ and bbox_, one row a cell.
- YOLOv8 as Ultralytics exports it, which the well-known detectors of anime heads and faces are: RGB of 0 to 1, and one
  output of 1 × (4 + classes) × cells with centre, width and height in pixels of the input.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.errors import ModelError
from lib_dsm.files import is_file

Array = NDArray[np.float32]
Found = tuple[float, float, float, float]
"""Left, top, right, bottom as shares of the picture's width and height, 0 to 1."""

SIDE = 640  # pixels of the longer side at which pictures are looked at, unless the file demands another
_STRIDES = (8, 16, 32)
_GREY = 114  # what YOLO's pictures are padded with
_SURE = {"yunet": 0.75, "yolo": 0.4}  # scores from which on something counts: things that are no faces reach 0.63
_SAME = 0.45  # overlap, as a share of the union, from which on two boxes are of one thing
_ERRORS_ONLY = 3
_MOST_SIDE = 4096  # pixels that a file may demand
_MOST_FOUND = 300  # the surest of what is found; more are in no picture


@dataclass(frozen=True)
class _Layout:
    kind: str
    input: str
    side: tuple[int, int] | None  # height, width that the file demands


class Detector:
    """A detector that is loaded; `kind` is "yunet" or "yolo"."""

    def __init__(self, path: Path) -> None:
        """Load an ONNX file on the CPU.

        Raises:
            ModelError: onnxruntime is missing, or the file is no detector of a known layout.
        """
        self.path = path
        self._session = _open(path)
        self._layout = _layout_of(path, self._session)
        self.kind = self._layout.kind

    def find(self, image: Image.Image) -> list[Found]:
        """What it finds in an RGB picture, the surest first.

        Raises:
            ModelError: the model fails on it.
        """
        height, width = self._layout.side or _fitting(image.size)
        scale = min(width / image.width, height / image.height)
        small = image.resize((max(1, round(image.width * scale)), max(1, round(image.height * scale))))
        canvas = Image.new("RGB", (width, height), (_GREY,) * 3 if self.kind == "yolo" else (0, 0, 0))
        canvas.paste(small)
        pixels = np.asarray(canvas, dtype=np.float32).transpose(2, 0, 1)[None]
        pixels = pixels / np.float32(255) if self.kind == "yolo" else pixels[:, ::-1]
        names = [output.name for output in self._session.get_outputs()]
        try:
            values = self._session.run(None, {self._layout.input: np.ascontiguousarray(pixels)})
            outputs = dict(zip(names, values, strict=True))
            read = _read_yolo if self.kind == "yolo" else _read_yunet
            boxes, scores = read(outputs, (height, width))
        except Exception as error:  # onnxruntime raises its own kinds, and odd shapes any of numpy's
            raise ModelError(
                f"The detector {self.path.name} fails on a picture of {width}×{height} pixels ({error}).",
                "Use another file, or go on without a detector.",
            ) from error
        shown = np.array([small.width, small.height] * 2, dtype=np.float32)
        kept = _distinct(boxes, scores, _SURE[self.kind])
        shares = np.clip(boxes[kept] / shown, 0.0, 1.0).tolist()
        return [
            (left, top, right, bottom) for left, top, right, bottom in shares if right - left > 0 and bottom - top > 0
        ]


def detector_of(path: Path) -> Detector:
    """The detector in a file; the one used last stays loaded until its file changes.

    Raises:
        ModelError: as `Detector`.
    """
    return _loaded(path, path.stat().st_mtime_ns if is_file(path) else 0)


@lru_cache(maxsize=1)
def _loaded(path: Path, _changed: int) -> Detector:
    return Detector(path)


def _open(path: Path) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ModelError("Detectors need onnxruntime.", "Install it, or go on without a detector.") from error
    if not is_file(path):
        raise ModelError(f"There is no detector {path}.", "Name an ONNX file, or go on without a detector.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    options.intra_op_num_threads = 2  # pictures are small, and others work meanwhile
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # of onnxruntime's own kinds
        raise ModelError(f"{path} is no ONNX model that onnxruntime can load ({error}).", "Fetch it again.") from error


def _layout_of(path: Path, session: Any) -> _Layout:
    source, outputs = next(iter(session.get_inputs()), None), session.get_outputs()
    names = {output.name for output in outputs}
    shape = [size if isinstance(size, int) and size > 0 else None for size in source.shape] if source else []
    side = (shape[2], shape[3]) if len(shape) == 4 and shape[2] and shape[3] else None
    takes_pictures = len(shape) == 4 and shape[1] in (3, None) and max(side or (1,)) <= _MOST_SIDE
    if source and takes_pictures and "float" in source.type and "float16" not in source.type:
        if all(f"{part}_{stride}" in names for part in ("cls", "obj", "bbox") for stride in _STRIDES):
            return _Layout("yunet", source.name, side)
        if len(outputs) == 1 and len(outputs[0].shape) == 3:
            return _Layout("yolo", source.name, side)
    raise ModelError(
        f"{path.name} is no detector of a known layout.", "Use YuNet, or a YOLOv8 detector exported to ONNX."
    )


def _fitting(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width, multiples of the largest stride, for a picture of that size."""
    scale = SIDE / max(size)
    width, height = (max(1, -(-round(side * scale) // _STRIDES[-1])) * _STRIDES[-1] for side in size)
    return height, width


def _read_yolo(outputs: dict[str, Any], _: tuple[int, int]) -> tuple[Array, Array]:
    table = np.asarray(next(iter(outputs.values())), dtype=np.float32)[0]
    if table.shape[0] > table.shape[1]:
        table = table.T  # cells last
    x, y, width, height = table[:4]
    boxes = np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1)
    return boxes, table[4:].max(axis=0)


def _read_yunet(outputs: dict[str, Any], side: tuple[int, int]) -> tuple[Array, Array]:
    boxes, scores = [], []
    for stride in _STRIDES:
        rows, columns = side[0] // stride, side[1] // stride
        sure = [np.asarray(outputs[f"{part}_{stride}"], dtype=np.float32).reshape(-1) for part in ("cls", "obj")]
        box = np.asarray(outputs[f"bbox_{stride}"], dtype=np.float32).reshape(-1, 4)
        row, column = np.divmod(np.arange(rows * columns, dtype=np.float32), np.float32(columns))
        x, y = (column + box[:, 0]) * stride, (row + box[:, 1]) * stride
        width, height = np.exp(box[:, 2]) * stride, np.exp(box[:, 3]) * stride
        boxes.append(np.stack([x - width / 2, y - height / 2, x + width / 2, y + height / 2], axis=1))
        scores.append(np.sqrt(np.clip(sure[0], 0, 1) * np.clip(sure[1], 0, 1)))
    return np.concatenate(boxes), np.concatenate(scores)


def _distinct(boxes: Array, scores: Array, least: float) -> list[int]:
    """The boxes that are sure enough, the surest of each group that overlaps, in order."""
    order = [int(index) for index in np.argsort(-scores, kind="stable") if scores[index] >= least]
    kept: list[int] = []
    for index in order:
        if len(kept) == _MOST_FOUND:
            break
        if all(_overlap(boxes[index], boxes[other]) < _SAME for other in kept):
            kept.append(index)
    return kept


def _overlap(one: Array, other: Array) -> float:
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    if width <= 0 or height <= 0:
        return 0.0
    both = float(width * height)
    areas = [float((box[2] - box[0]) * (box[3] - box[1])) for box in (one, other)]
    return both / (sum(areas) - both)
