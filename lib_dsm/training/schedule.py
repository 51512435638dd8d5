"""The learning rate as a pure function of the step, written as the WebUI writes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib_dsm.errors import InputError

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
