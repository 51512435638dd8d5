"""Curves and previews for TensorBoard, where it is installed; it is no requirement of ours."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.errors import StorageError
from lib_dsm.training.curves import BAND, BANDS, GRADIENT, LOSS, MEAN_NORM, MOVEMENT, RATE, SECONDS, STEP
from lib_dsm.training.verdict import Validation

if TYPE_CHECKING:
    from PIL.Image import Image

logger = logging.getLogger("dsm")
_TAGS = {
    "train/loss": LOSS,
    **{f"train/loss of band {band}": BAND + band for band in range(BANDS)},
    "train/learning rate": RATE,
    "train/gradient norm": GRADIENT,
    "train/seconds a step": SECONDS,
    "vectors/mean length": MEAN_NORM,
    "vectors/movement": MOVEMENT,
}


class TensorBoard:
    """Writes into a folder that `tensorboard --logdir` reads. A disk that is full costs these files alone."""

    def __init__(self, writer: Any) -> None:
        self._writer = writer

    def step(self, row: Sequence[float]) -> None:
        """The numbers of a row of `losses.csv`."""
        for tag, index in _TAGS.items():
            if math.isfinite(row[index]):
                self._write("add_scalar", tag, row[index], int(row[STEP]))

    def validation(self, made: Validation) -> None:
        """The losses of a validation."""
        self._write("add_scalar", "validation/loss", made.mean, made.step)
        for band, loss in enumerate(made.bands):
            self._write("add_scalar", f"validation/loss of band {band}", loss, made.step)

    def preview(self, step: int, index: int, image: Image) -> None:
        """The preview of the request `index` (from 0)."""
        import numpy as np

        pixels = np.asarray(image.convert("RGB"))
        self._write("add_image", f"preview/{index + 1}", pixels, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is still held back."""
        self._write("close")

    def _write(self, method: str, *values: Any, **named: Any) -> None:
        if self._writer is None:
            return
        try:
            getattr(self._writer, method)(*values, **named)
        except Exception:  # no curve is worth a training
            logger.warning("TensorBoard's files could not be written; the run goes on without", exc_info=True)
            self._writer = None


def open_tensorboard(folder: Path, begun: int) -> TensorBoard | None:
    """A writer into `folder` that goes on after step `begun`; None where TensorBoard is not installed.

    Raises:
        StorageError: the folder cannot be written.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except Exception:  # not installed, or of a version that does not go with this torch
        return None
    try:
        writer = SummaryWriter(str(folder), purge_step=begun + 1 if begun else None)  # type: ignore[no-untyped-call]
    except Exception as error:  # whatever it says of a folder: it is not ours to know
        logger.warning("TensorBoard's files could not be opened", exc_info=True)
        reason = getattr(error, "strerror", None) or error
        raise StorageError(
            f"Nothing is written for TensorBoard: {folder} could not be opened: {reason}.",
            "Free some space or make the folder writable.",
        ) from error
    return TensorBoard(writer)
