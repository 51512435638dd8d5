"""Is it cooked? What a series of validations says, in one of four words, and why.

Every validation measures the loss on the same noise, so two of them are compared draw by draw (a paired comparison):
the difference between draws, many times that between networks, cancels, and what is left has a standard error. Two more
things are chance and not learning, and are allowed for: a network at a constant rate wobbles around where it is (all
draws together, which pairs cannot show), and the best of many validations is too good by luck. All functions are pure.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

State = Literal["improving", "flat", "overtrained", "broken"]

SIGNIFICANT = 2.0  # standard errors
PATIENCE = 3  # validations: what is said of a course looks at so many, or at twice so many
EXPLODED = 2.0  # times the first validation's loss
WOBBLE_OVER = 20  # validations at most that the wobble is estimated from
FAR = 20.0  # times the length that 95 % of the model's own words stay below


_BENDS = 5  # second differences that the wobble is estimated from at least: the first fall is steep and bent
_NORMAL_MEDIAN = 1.4826  # standard deviation of normal numbers by the median of their sizes


@dataclass(frozen=True)
class Vocabulary:
    """Lengths of the vectors of the model's own words: 5, 50 and 95 % lie below."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Validation:
    """The losses of one validation, and what was known of the training then.

    Attributes:
        step: finished optimiser steps.
        losses: units × bands; a unit is one picture under one noise at one timestep of each band.
        training: mean training loss since the validation before, each band of timesteps weighing the same; NaN if
            unknown. It is drawn anew at every step, so it is much less certain than `losses`.
        training_error: its standard error.
        mean_norm: mean length of the vectors.
        seconds: what the validation took.
    """

    step: int
    losses: tuple[tuple[float, ...], ...]
    training: float = math.nan
    training_error: float = math.nan
    mean_norm: float = math.nan
    seconds: float = 0.0

    @property
    def mean(self) -> float:
        """The mean loss over all draws."""
        return statistics.fmean(map(statistics.fmean, self.losses))

    @property
    def bands(self) -> list[float]:
        """The mean loss of each band of timesteps."""
        return [statistics.fmean(column) for column in zip(*self.losses, strict=True)]


@dataclass(frozen=True)
class Change:
    """A paired difference: its mean, its standard error, and one by the other."""

    mean: float
    error: float

    @property
    def z(self) -> float:
        """In standard errors; 0 where nothing moved, NaN where it cannot be told."""
        if self.mean == 0 or math.isnan(self.mean):
            return self.mean
        return self.mean / self.error if self.error > 0 else math.copysign(math.inf, self.mean)


@dataclass(frozen=True)
class Verdict:
    """What is said of the run at `step`; `number` is the one that decided, `best` the step with the lowest loss."""

    state: State
    reason: str
    number: float
    advice: str
    step: int
    best: int


def change(before: Validation, after: Validation) -> Change:
    """The paired difference from one validation to another of the same draws.

    Units are what the standard error counts: timesteps are fixed strata, so each unit is averaged over them first.
    Where a loss is no number the change is none either: mean and error are NaN.
    """
    pairs = zip(before.losses, after.losses, strict=True)
    differences = [statistics.fmean(new) - statistics.fmean(old) for old, new in pairs]
    if not all(map(math.isfinite, differences)):
        return Change(math.nan, math.nan)
    count = len(differences)
    error = statistics.stdev(differences) / math.sqrt(count) if count > 1 else math.inf
    return Change(statistics.fmean(differences), error)


def wobble(series: Sequence[Validation]) -> float:
    """How far the mean loss of late validations strays from a smooth course, as a standard deviation.

    From second differences, which a steady rise or fall does not enter: their variance is six times that of
    independent deviations. Their median serves, so that one leap does not hide what follows. 0 while it is too early.
    """
    means = [made.mean for made in series[-WOBBLE_OVER:] if math.isfinite(made.mean)]
    bends = [abs(after - 2 * here + before) for before, here, after in zip(means, means[1:], means[2:], strict=False)]
    return _NORMAL_MEDIAN * statistics.median(bends) / math.sqrt(6) if len(bends) >= _BENDS else 0.0


def best_of(series: Sequence[Validation]) -> Validation:
    """The validation with the lowest mean loss, the earliest of equals; one that is no number is never the best."""
    return min(series, key=lambda item: item.mean if math.isfinite(item.mean) else math.inf)


def judge(series: Sequence[Validation], vocabulary: Vocabulary | None = None) -> Verdict | None:
    """The verdict after the last of `series` (rising steps, equal draws); None as long as it is too early for one.

    - broken: a value is no number; the loss is `EXPLODED` times that of the beginning; or it was significantly above
      the beginning `PATIENCE` times in a row without ever having been below.
    - overtrained: significantly above the best so far, `PATIENCE` times in a row; or the vectors are `FAR` longer than
      the model's words without the loss getting better for it. The best of n values is expected √(2 ln n) deviations
      below their mean, which the bound allows for.
    - improving: significantly below the validation before, or the one `PATIENCE` intervals ago, or the mean of the last
      `PATIENCE` below the mean of as many before.
    - flat: none of these.
    """
    if not series:
        return None
    first, last, best = series[0], series[-1], best_of(series)
    return (
        _broken(first, last, best)
        or _past_best(series, best)
        or _improving(series, best)
        or _too_long(last, best, vocabulary)
        or _flat(series, best)
    )


def _broken(first: Validation, last: Validation, best: Validation) -> Verdict | None:
    lower = "Go back to the best step and lower the learning rate."
    if not math.isfinite(last.mean) or math.isinf(last.mean_norm):
        return Verdict(
            "broken", f"The loss at step {last.step} is not a number.", math.nan, lower, last.step, best.step
        )
    if last.mean > EXPLODED * first.mean:
        times = last.mean / first.mean
        reason = f"The loss at step {last.step} is {times:.1f} times that of step {first.step}."
        return Verdict("broken", reason, times, lower, last.step, best.step)
    return None


def _too_long(last: Validation, best: Validation, vocabulary: Vocabulary | None) -> Verdict | None:
    if vocabulary is None or not vocabulary.high > 0 or not last.mean_norm > FAR * vocabulary.high:
        return None
    times = last.mean_norm / vocabulary.high
    reason = (
        f"The vectors are {last.mean_norm:.3g} long on average, {times:.0f} times what 95 % of the model's words stay "
        f"below ({vocabulary.high:.3g}); such vectors drown the other words of a prompt."
    )
    return Verdict("overtrained", reason, times, "Use an earlier step.", last.step, best.step)


def _past_best(series: Sequence[Validation], best: Validation) -> Verdict | None:
    first, last, late = series[0], series[-1], series[-PATIENCE:]
    if best in late or (best is not first and len(series) < _BENDS + 2):
        return None
    above = _change(best, series[-1], series)
    # A difference to the best has √2 deviations, of which the luck of the best is one of the two.
    bound = SIGNIFICANT + math.sqrt(math.log(len(series)))
    if not all(_change(best, made, series).z >= bound for made in late):  # one that is no number proves nothing
        return None
    numbers = f"above that of step {best.step} by {_told(above, best)}, for {PATIENCE} validations in a row"
    if best is first:
        reason = f"The loss at step {last.step} is {numbers}: the training has only made it worse."
        return Verdict("broken", reason, above.z, "Start anew with a lower learning rate.", last.step, best.step)
    reason = f"The loss at step {last.step} is {numbers}{_training(best, last)}."
    return Verdict("overtrained", reason, above.z, f"Use step {best.step}, the best.", last.step, best.step)


def _improving(series: Sequence[Validation], best: Validation) -> Verdict | None:
    last = series[-1]
    for before in (series[-2:-1], series[-1 - PATIENCE : -PATIENCE]):
        found = _change(before[0], last, series) if before else None
        if found is not None and found.z < -SIGNIFICANT:
            reason = f"The loss fell from step {before[0].step} to {last.step} by {_told(found, before[0])}."
            return Verdict("improving", reason, found.z, "Train on.", last.step, best.step)
    if len(series) >= 2 * PATIENCE:
        before, found = _halves(series)
        if found.z < -SIGNIFICANT:
            reason = (
                f"The mean loss of {_late(series)} is {_told(found, before[0])} below that of the {PATIENCE} before."
            )
            return Verdict("improving", reason, found.z, "Train on.", last.step, best.step)
    return None


def _flat(series: Sequence[Validation], best: Validation) -> Verdict | None:
    if len(series) < 2 * PATIENCE:
        return None
    before, found = _halves(series)
    if math.isnan(found.mean):
        return None
    reason = (
        f"The mean loss of {_late(series)} is not below that of the {PATIENCE} before by more than chance "
        f"({'+' if found.mean > 0 else '-'}{_told(found, before[0])})."
    )
    advice = f"Lower the learning rate, or stop; step {best.step} is the best so far."
    return Verdict("flat", reason, found.z, advice, series[-1].step, best.step)


def _halves(series: Sequence[Validation]) -> tuple[Sequence[Validation], Change]:
    """The `PATIENCE` validations before the last ones, and the change from the mean of these to that of the last."""
    before, late = series[-2 * PATIENCE : -PATIENCE], series[-PATIENCE:]
    found = change(_averaged(before), _averaged(late))
    return before, Change(found.mean, math.hypot(found.error, math.sqrt(2 / PATIENCE) * wobble(series)))


def _averaged(several: Sequence[Validation]) -> Validation:
    """The mean of several validations, draw by draw."""
    units = zip(*(made.losses for made in several), strict=True)
    return Validation(several[-1].step, tuple(tuple(map(statistics.fmean, zip(*unit, strict=True))) for unit in units))


def _late(series: Sequence[Validation]) -> str:
    return f"the last {PATIENCE} validations, step {series[-PATIENCE].step} to {series[-1].step},"


def _change(before: Validation, after: Validation, series: Sequence[Validation]) -> Change:
    """The paired difference, as uncertain as the wobble of both ends makes it."""
    found = change(before, after)
    return Change(found.mean, math.hypot(found.error, math.sqrt(2) * wobble(series)))


def _training(best: Validation, last: Validation) -> str:
    """What the training loss did meanwhile, which tells learning by heart from a rate that is too high."""
    error = math.hypot(best.training_error, last.training_error)
    if not math.isfinite(error) or error == 0:
        return ""
    z = (last.training - best.training) / error
    if z > SIGNIFICANT:
        return "; the training loss rose as well, so the learning rate is too high"
    if z < -SIGNIFICANT:
        return "; the training loss fell meanwhile, so it learns its pictures by heart"
    return "; the training loss did not rise"


def _told(found: Change, base: Validation) -> str:
    share = f"{100 * abs(found.mean) / base.mean:.1f} %" if base.mean else f"{abs(found.mean):.3g}"
    return f"{share}, {abs(found.z):.1f} standard errors"
