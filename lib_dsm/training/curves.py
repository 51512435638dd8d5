"""What a run measures at every step, as rows of `losses.csv` and as curves short enough for a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

BANDS = 4  # equal parts of the timesteps, from little noise to much
COLUMNS = (
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "vector_norm",
    "mean_norm",
    "movement",
    *(f"loss_band_{band}" for band in range(BANDS)),
    "seconds",
)
STEP, LOSS, RATE, GRADIENT, NORM, MEAN_NORM, MOVEMENT, BAND = range(8)
SECONDS = BAND + BANDS
UNKNOWN = math.nan

_SMOOTHING = 0.98  # weight of the past in the smoothed loss: a memory of 50 steps
_DIGITS = 6
_AVERAGED = (LOSS, GRADIENT, *range(BAND, BAND + BANDS), SECONDS)
_LAST = (STEP, RATE, NORM, MEAN_NORM, MOVEMENT)


def band_of(timestep: int, timesteps: int) -> int:
    """The band, 0 to 3, of a timestep in 0 … timesteps - 1."""
    return timestep * BANDS // timesteps


def band_edges(timesteps: int) -> list[int]:
    """Where the bands begin, and the end of the last one."""
    return [-(-band * timesteps // BANDS) for band in range(BANDS + 1)]


def band_means(losses: Sequence[float], timesteps: Sequence[int], count: int) -> tuple[float, ...]:
    """The mean loss of the draws in each band, `UNKNOWN` where none fell; timesteps lie in 0 … count - 1."""
    drawn: list[list[float]] = [[] for _ in range(BANDS)]
    for loss, timestep in zip(losses, timesteps, strict=True):
        drawn[band_of(timestep, count)].append(loss)
    return tuple(sum(values) / len(values) if values else UNKNOWN for values in drawn)


class Smoothed:
    """An exponential mean without the pull towards zero at its start (Kingma and Ba, "Adam", 2015, section 3)."""

    def __init__(self, weight: float = _SMOOTHING) -> None:
        self._weight = weight
        self._sum = self._norm = 0.0

    def add(self, value: float) -> float:
        """The mean with `value` in it."""
        self._sum = self._weight * self._sum + (1 - self._weight) * value
        self._norm = self._weight * self._norm + (1 - self._weight)
        return self._sum / self._norm


class BandMean:
    """The mean training loss of some steps, each band of timesteps weighing the same whatever was drawn how often.

    Timesteps decide most of a draw's loss, so a mean over bands (a stratified one) is far less noisy.
    """

    def __init__(self) -> None:
        self._counts = [0] * BANDS
        self._sums = [0.0] * BANDS
        self._squares = [0.0] * BANDS

    def add(self, row: Sequence[float]) -> None:
        """Take in a row of `losses.csv`."""
        for band, loss in enumerate(row[BAND : BAND + BANDS]):
            if math.isfinite(loss):
                self._counts[band] += 1
                self._sums[band] += loss
                self._squares[band] += loss * loss

    def result(self) -> tuple[float, float]:
        """The mean and its standard error, both `UNKNOWN` unless every band has two steps."""
        if min(self._counts) < 2:
            return UNKNOWN, UNKNOWN
        means, errors = [], []
        for count, total, squares in zip(self._counts, self._sums, self._squares, strict=True):
            means.append(total / count)
            errors.append(max(squares - total * total / count, 0.0) / (count - 1) / count)
        return sum(means) / BANDS, math.sqrt(sum(errors)) / BANDS


class Curves:
    """Rows of `losses.csv` thinned to at most `limit` points (an even number), as they come.

    Each point stands for equally many steps. Once there are `limit`, neighbours become one point, so that a step costs
    the same however long the run is; the points depend on the rows alone, not on when they came.
    """

    def __init__(self, limit: int = 500) -> None:
        self._limit = limit
        self._width = 1
        self._points: list[_Point] = []
        self._open = _Point()
        self._smoothed = Smoothed()

    def add(self, row: Sequence[float]) -> bool:
        """Take in a row (see `COLUMNS`); whether a point came to its end with it."""
        self._open.add(row, self._smoothed.add(row[LOSS]))
        if self._open.steps < self._width:
            return False
        self._points.append(self._open)
        self._open = _Point()
        if len(self._points) == self._limit:
            pairs = zip(self._points[::2], self._points[1::2], strict=True)
            self._points = [first.joined(second) for first, second in pairs]
            self._width *= 2
        return True

    def to_json(self) -> dict[str, Any]:
        """The curves as `host.run.train` describes them."""
        points = [point.values() for point in [*self._points, *([self._open] if self._open.steps else [])]]
        columns = {name: [values[name] for values in points] for name in _NAMES}
        columns["bands"] = [[values["bands"][band] for values in points] for band in range(BANDS)]
        return columns

    def losses(self) -> list[list[float]]:
        """[[step, loss], …]."""
        points = [*self._points, *([self._open] if self._open.steps else [])]
        return [[point.values()["step"], point.values()["loss"]] for point in points]


_NAMES = ("step", "smoothed", *(COLUMNS[index] for index in (LOSS, RATE, GRADIENT, NORM, MEAN_NORM, MOVEMENT, SECONDS)))


class _Point:
    """Some neighbouring steps."""

    def __init__(self) -> None:
        self.steps = 0
        self._last: list[float] = []
        self._smoothed = UNKNOWN
        self._sums = [0.0] * len(_AVERAGED)
        self._counts = [0] * len(_AVERAGED)
        self._values: dict[str, Any] | None = None

    def add(self, row: Sequence[float], smoothed: float) -> None:
        self.steps += 1
        self._last = [row[index] for index in _LAST]
        self._smoothed = smoothed
        for place, index in enumerate(_AVERAGED):
            if math.isfinite(row[index]):
                self._sums[place] += row[index]
                self._counts[place] += 1
        self._values = None

    def joined(self, after: _Point) -> _Point:
        both = _Point()
        both.steps = self.steps + after.steps
        both._last, both._smoothed = after._last, after._smoothed
        both._sums = [one + other for one, other in zip(self._sums, after._sums, strict=True)]
        both._counts = [one + other for one, other in zip(self._counts, after._counts, strict=True)]
        return both

    def values(self) -> dict[str, Any]:
        """What a page is told, remembered: rounding costs more than copying."""
        if self._values is None:
            found = {COLUMNS[index]: _short(value) for index, value in zip(_LAST, self._last, strict=True)}
            means = (total / count if count else UNKNOWN for total, count in zip(self._sums, self._counts, strict=True))
            found.update(zip((COLUMNS[index] for index in _AVERAGED), map(_short, means), strict=True))
            bands = [found.pop(COLUMNS[BAND + band]) for band in range(BANDS)]
            self._values = {**found, "step": int(self._last[0]), "smoothed": _short(self._smoothed), "bands": bands}
        return self._values


def _short(value: float) -> float | None:
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
