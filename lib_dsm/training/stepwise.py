"""Numbers that settings write as text: those that change at given steps, as the WebUI writes them, and norms."""

from __future__ import annotations

import math
from dataclasses import dataclass

from lib_dsm.errors import InputError


@dataclass(frozen=True)
class Stepwise:
    """Values above 0 and the steps up to which they hold; the last may hold for ever (None)."""

    pieces: tuple[tuple[float, int | None], ...]

    def at(self, step: int) -> float | None:
        """The value for the step after `step` finished ones, or None when the last piece has ended."""
        for value, until in self.pieces:
            if until is None or step < until:
                return value
        return None

    @property
    def end(self) -> int | None:
        """The step at which the last piece ends, None if it never does."""
        return self.pieces[-1][1]


def parse_stepwise(text: str, what: str, short: str, remedy: str) -> Stepwise:
    """Read `value`, or `value:step, value:step, …, value`; a value holds until that many steps are finished.

    A step of -1 means for ever, as in the WebUI. `what` is the whole in the errors' sentences, as in "learning rate",
    `short` one value of it.

    Raises:
        InputError: something is no number, a value is not positive, or the steps do not rise.
    """
    pieces: list[tuple[float, int | None]] = []
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts:
        raise InputError(f"The {what} is empty.", remedy)
    for index, part in enumerate(parts):
        value_text, colon, step_text = part.partition(":")
        try:
            value = float(value_text)
            until = int(step_text) if colon else None
        except ValueError:
            raise InputError(f'The {what} has "{part}", which is no {short}:step.', remedy) from None
        if not math.isfinite(value) or value <= 0:
            raise InputError(f'The {what} has "{part}"; a {short} must be above 0.', remedy)
        if until == -1:
            until = None
        if until is None and index < len(parts) - 1:
            raise InputError(f'The {what} has "{part}" without a step before the last place.', remedy)
        before = pieces[-1][1] if pieces else 0
        if until is not None and before is not None and until <= before:
            raise InputError(f'The {what} has "{part}", whose step does not come after {before}.', remedy)
        pieces.append((value, until))
    return Stepwise(tuple(pieces))


def parse_bound(text: str) -> Stepwise:
    """The bound of clipping: a number above 0, or `bound:step` pairs as in the WebUI.

    Raises:
        InputError: it is neither.
    """
    remedy = 'Write a bound such as 1, or bound:step pairs such as "1:100, 0.1".'
    return parse_stepwise(text, "clipping bound", "bound", remedy)


def parse_norm(text: str) -> float:
    """Which norm clipping measures: a number above 0, or "inf".

    Raises:
        InputError: it is neither.
    """
    try:
        order = float(text)
    except ValueError:
        order = math.nan
    if not order > 0:
        raise InputError(f'The norm of gradient clipping is "{text}".', "Write 2, 1, inf or another number above 0.")
    return order
