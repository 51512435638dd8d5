"""The learning rate as a pure function of the step.

What is written, as the WebUI writes it, is the peak; a warm-up and the cosines of SGDR (Loshchilov and Hutter,
"SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, eq. 5) shape it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib_dsm.errors import InputError
from lib_dsm.training.config import RunConfig

_REMEDY = 'Write a rate such as 0.005, or rate:step pairs such as "0.0005:5000, 0.0001:10000".'


@dataclass(frozen=True)
class LearningRate:
    """Rates and the steps up to which they hold; the last may hold for ever (None)."""

    pieces: tuple[tuple[float, int | None], ...]

    def at(self, step: int) -> float | None:
        """The rate for the step after `step` finished ones, or None when the schedule has ended."""
        for rate, until in self.pieces:
            if until is None or step < until:
                return rate
        return None

    @property
    def end(self) -> int | None:
        """The step at which the schedule ends, None if it never does."""
        return self.pieces[-1][1]


@dataclass(frozen=True)
class Cycle:
    """One cosine of a schedule: it holds from step `begin` for `length` steps and starts at `peak` times the rate."""

    begin: int
    length: int
    peak: float = 1.0


@dataclass(frozen=True)
class Schedule:
    """The rate of a run. `at` and `end` are as `LearningRate`'s; `last` is the step the run ends at.

    A warm-up of W steps rises as (step + 1) / (W + 1), so that no step stands still; cosines begin after it.
    """

    rate: LearningRate
    kind: str  # see config.SCHEDULES
    last: int
    warmup: int = 0
    floor: float = 0.0  # share of the rate at which a cosine ends
    cycle_length: int = 1
    cycle_multiplier: int = 1
    cycle_decay: float = 1.0

    def at(self, step: int) -> float | None:
        """The rate for the step after `step` finished ones, or None when the schedule has ended."""
        rate = self.rate.at(step)
        return None if rate is None else rate * self._shape(step)

    @property
    def end(self) -> int | None:
        """The step at which the schedule ends, None if it never does."""
        return self.rate.end

    def cycle(self, step: int) -> Cycle:
        """The cosine that `step`, a step after the warm-up, lies in."""
        if self.kind == "cosine":
            return Cycle(self.warmup, max(self.last - self.warmup, 1))
        begin, length, multiplier = 0, self.cycle_length, self.cycle_multiplier
        number, after = 0, step - self.warmup
        if multiplier == 1:
            number = after // length
            begin = number * length
        else:
            while after >= begin + length:
                begin, length, number = begin + length, length * multiplier, number + 1
        return Cycle(self.warmup + begin, length, self.cycle_decay**number)

    def _shape(self, step: int) -> float:
        if step < self.warmup:
            return (step + 1) / (self.warmup + 1)
        if self.kind == "steps":
            return 1.0
        cycle = self.cycle(step)
        done = min((step - cycle.begin) / cycle.length, 1.0)
        peak = max(cycle.peak, self.floor)
        return self.floor + (peak - self.floor) * 0.5 * (1.0 + math.cos(math.pi * done))


def schedule_of(config: RunConfig) -> Schedule:
    """The rate of a run with these settings.

    Raises:
        InputError: the learning rate is not written as one.
    """
    rate = parse_learning_rate(config.learning_rate)
    return Schedule(
        rate=rate,
        kind=config.schedule,
        last=min(config.max_steps, rate.end or config.max_steps),
        warmup=config.warmup_steps,
        floor=config.rate_floor,
        cycle_length=config.cycle_length,
        cycle_multiplier=config.cycle_multiplier,
        cycle_decay=config.cycle_decay,
    )


def parse_learning_rate(text: str) -> LearningRate:
    """Read `rate`, or `rate:step, rate:step, …, rate`; a rate holds until that many steps are finished.

    A step of -1 means for ever, as in the WebUI.

    Raises:
        InputError: something is no number, a rate is not positive, or the steps do not rise.
    """
    pieces: list[tuple[float, int | None]] = []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError("The learning rate is empty.", _REMEDY)
    for index, part in enumerate(parts):
        rate_text, colon, step_text = part.partition(":")
        try:
            rate = float(rate_text)
            until = int(step_text) if colon else None
        except ValueError:
            raise InputError(f'The learning rate has "{part}", which is no rate:step.', _REMEDY) from None
        if not math.isfinite(rate) or rate <= 0:
            raise InputError(f'The learning rate has "{part}"; a rate must be above 0.', _REMEDY)
        if until == -1:
            until = None
        if until is None and index < len(parts) - 1:
            raise InputError(f'The learning rate has "{part}" without a step before the last place.', _REMEDY)
        before = pieces[-1][1] if pieces else 0
        if until is not None and before is not None and until <= before:
            raise InputError(f'The learning rate has "{part}", whose step does not come after {before}.', _REMEDY)
        pieces.append((rate, until))
    return LearningRate(tuple(pieces))
