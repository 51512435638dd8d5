"""What became of every change: the report of an extraction, for a person and for the file's metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path

_NAMED_IN_TEXT = 8
LOW_RANK, WHOLE, NORM, BIAS = "low rank", "whole", "norm", "bias"


@dataclass(frozen=True)
class CarriedModule:
    """A changed layer in the LoRA; `error` is ‖Δ − Δ'‖ / ‖Δ‖, Frobenius, of the numbers as stored.

    `kind` is "low rank" or, at `rank` 0, "whole", "norm" or "bias". `norm` is ‖Δ‖, `values` the singular values of Δ
    that were found, the largest first.
    """

    name: str
    key: str
    rank: int
    error: float
    norm: float = 0.0
    kind: str = LOW_RANK
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class LeftOut:
    """A changed tensor that the LoRA does not carry, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class ExtractionReport:
    """What became of every change.

    `error` is the relative Frobenius error over all changed layers in the file; `total_error` counts what was left out
    of the U-Net and the text encoders as lost too. `words` are those of the vocabulary that are bundled, `bytes` is the
    size of the tensors, `family` that of the checkpoints.
    """

    path: Path
    modules: tuple[CarriedModule, ...]
    left_out: tuple[LeftOut, ...]
    unchanged: int
    error: float
    total_error: float
    words: tuple[str, ...] = ()
    note: str = ""
    bytes: int = 0
    family: str = "SD1"

    def text(self) -> str:
        """A few sentences for a person."""
        size = f" ({self.bytes / 1e6:.1f} MB)" if self.bytes else ""
        lines = [f"{self.path}{size} holds {len(self.modules)} layers with a relative error of {self.error:.1%}"]
        if self.modules:
            worst = max(self.modules, key=lambda module: module.error)
            lines[0] += f" (worst: {worst.name}, {worst.error:.1%})"
        lines[0] += f"; with what was left out, {self.total_error:.1%}."
        if self.words:
            lines.append(f"Changed words bundled as embeddings: {', '.join(self.words)}.")
        for reason in dict.fromkeys(item.reason for item in self.left_out):
            keys = [item.key for item in self.left_out if item.reason == reason]
            more = f" and {len(keys) - _NAMED_IN_TEXT} more" if len(keys) > _NAMED_IN_TEXT else ""
            lines.append(f"Left out, {reason}: {', '.join(keys[:_NAMED_IN_TEXT])}{more}.")
        return "\n".join([*lines, self.note] if self.note else lines)


@dataclass
class Tally:
    """The report in the making."""

    modules: list[CarriedModule] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    unchanged: int = 0
    kept_square: float = 0.0  # ‖Δ‖² of what is in the file
    lost_square: float = 0.0  # ‖residual‖² of it
    left_square: float = 0.0  # ‖Δ‖² of what is not in the file

    def carry(
        self, name: str, key: str, rank: int, square: float, residual: float, kind: str, values: tuple[float, ...] = ()
    ) -> None:
        """Note a layer that is in the file; `residual` is the norm of what it does not hold."""
        error = residual / math.sqrt(square) if square else 0.0
        self.modules.append(CarriedModule(name, key, rank, error, math.sqrt(square), kind, values))
        self.kept_square += square
        self.lost_square += residual**2

    def leave(self, key: str, reason: str, square: float = 0.0) -> None:
        """Note a change that is not in the file; `square` is ‖Δ‖² if it is one of the U-Net or a text encoder."""
        self.left_out.append(LeftOut(key, reason))
        self.left_square += square

    def report(self, path: Path, note: str, size: int, family: str) -> ExtractionReport:
        """The report."""
        whole = self.kept_square + self.left_square
        return ExtractionReport(
            path,
            tuple(self.modules),
            tuple(self.left_out),
            self.unchanged,
            math.sqrt(self.lost_square / self.kept_square) if self.kept_square else 0.0,
            math.sqrt((self.lost_square + self.left_square) / whole) if whole else 0.0,
            tuple(self.words),
            note,
            size,
            family,
        )
