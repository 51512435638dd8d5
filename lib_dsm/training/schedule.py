"""The learning rate as a pure function of the step.

What is written, as the WebUI writes it, is the peak; a warm-up and the cosines of SGDR (Loshchilov and Hutter,
"SGDR: Stochastic Gradient Descent with Warm Restarts", 2017, eq. 5) shape it.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property

from lib_dsm.training.config import RunConfig
from lib_dsm.training.stepwise import Stepwise, parse_stepwise

_REMEDY = 'Write a rate such as 0.005, or rate:step pairs such as "0.0005:5000, 0.0001:10000".'


@dataclass(frozen=True)
class Cycle:
    """One cosine of a schedule: it holds from step `begin` for `length` steps and starts at `peak` times the rate.

    The first `warmup` of its steps rise from the floor to there.
    """

    begin: int
    length: int
    peak: float = 1.0
    warmup: int = 0


@dataclass(frozen=True)
class Schedule:
    """The rate of a run. `at` and `end` are as `Stepwise`'s; `last` is the step the run ends at.

    A warm-up of W steps rises as (step + 1) / (W + 1), so that no step stands still; cosines begin after it. With
    `warm_each` every cycle begins with a warm-up of its own, which is a part of its length and which `cycle_multiplier`
    does not stretch. Cycle n, from 0, has cycle_length × cycle_multiplierⁿ steps, rounded.
    """

    rate: Stepwise
    kind: str  # see config.SCHEDULES
    last: int
    warmup: int = 0
    floor: float = 0.0  # share of the rate at which a cosine ends
    cycle_length: int = 1
    cycle_multiplier: float = 1.0
    cycle_decay: float = 1.0
    warm_each: bool = False  # with restarts, where `warmup` is shorter than a cycle

    def at(self, step: int) -> float | None:
        """The rate for the step after `step` finished ones, or None when the schedule has ended."""
        rate = self.rate.at(step)
        return None if rate is None else rate * self._shape(step)

    @property
    def end(self) -> int | None:
        """The step at which the schedule ends, None if it never does."""
        return self.rate.end

    def cycle(self, step: int) -> Cycle:
        """The cosine that `step`, a step after the warm-up and up to `last`, lies in."""
        if self.kind == "cosine":
            return Cycle(self.warmup, max(self.last - self.warmup, 1))
        first = 0 if self.warm_each else self.warmup
        if self.cycle_multiplier == 1:
            number = (step - first) // self.cycle_length
            begin, length = number * self.cycle_length, self.cycle_length
        else:
            number = bisect_right(self._begins, step - first) - 1
            begin, length = self._begins[number], self._length(number)
        warmup = self.warmup if self.warm_each else 0
        return Cycle(first + begin, length, self.cycle_decay**number, warmup)

    def ends_cycle(self, step: int) -> bool:
        """Whether a cycle of restarts ends with `step` finished steps."""
        if self.kind != "cosine restarts" or step <= (0 if self.warm_each else self.warmup):
            return False
        cycle = self.cycle(step - 1)
        return step == cycle.begin + cycle.length

    @cached_property
    def _begins(self) -> list[int]:
        """Where the cycles begin, counted from the first, up to the end of the run."""
        begins = [0]
        while begins[-1] <= self.last:
            begins.append(begins[-1] + self._length(len(begins) - 1))
        return begins

    def _length(self, number: int) -> int:
        fixed = self.warmup if self.warm_each else 0
        return fixed + max(round((self.cycle_length - fixed) * self.cycle_multiplier**number), 1)

    def _shape(self, step: int) -> float:
        if step < self.warmup and not self.warm_each:
            return (step + 1) / (self.warmup + 1)
        if self.kind == "steps":
            return 1.0
        cycle = self.cycle(step)
        peak = max(cycle.peak, self.floor)
        inside = step - cycle.begin
        if inside < cycle.warmup:
            return self.floor + (peak - self.floor) * (inside + 1) / (cycle.warmup + 1)
        done = min((inside - cycle.warmup) / (cycle.length - cycle.warmup), 1.0)
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
        warm_each=config.schedule == "cosine restarts" and config.warmup_repeat == "each cycle",
    )


def parse_learning_rate(text: str) -> Stepwise:
    """Read `rate`, or `rate:step, rate:step, …, rate`; a rate holds until that many steps are finished.

    A step of -1 means for ever, as in the WebUI.

    Raises:
        InputError: something is no number, a rate is not positive, or the steps do not rise.
    """
    return parse_stepwise(text, "learning rate", "rate", _REMEDY)
