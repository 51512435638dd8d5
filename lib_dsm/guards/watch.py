"""The guards that look on while training runs."""

from __future__ import annotations

import math

from lib_dsm.errors import GuardError


def watch_loss(loss: float, gradient_norm: float, step: int) -> None:
    """Stop at a loss or a gradient that is no number, before it reaches the network.

    Raises:
        GuardError: with the likely cause.
    """
    if math.isfinite(loss) and math.isfinite(gradient_norm):
        return
    what = "loss" if not math.isfinite(loss) else "gradient"
    raise GuardError(
        f"The {what} after step {step} is not a number; training stopped and the state of step {step} is kept.",
        "Lower the learning rate; if it happens at once, the checkpoint or its VAE needs full precision (--no-half).",
    )


def watch_gradient(gradient_norm: float) -> None:
    """Stop if the first step has no gradient: the network would never move.

    Raises:
        GuardError: the gradient is zero.
    """
    if gradient_norm > 0:
        return
    raise GuardError(
        "The first step has no gradient, so nothing would be learned.",
        "Check that the template has [name]; if it does, an extension or attention optimisation cuts the gradient.",
    )
