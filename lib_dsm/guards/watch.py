"""The guards that look on while training runs."""

from __future__ import annotations

import math

from lib_dsm.errors import GuardError
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.config import EMBEDDING
from lib_dsm.training.verdict import SIGNIFICANT, Validation, Verdict, Vocabulary

MOVED_BY = 50  # steps after which a vector must have moved
HARDLY = 0.001  # of the length of one of the model's words
LEAP = 1.0  # of that length, in one step


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


def watch_gradient(gradient_norm: float, kind: str = EMBEDDING) -> None:
    """Stop if the first step has no gradient: the network, of that kind, would never move.

    Raises:
        GuardError: the gradient is zero.
    """
    if gradient_norm > 0:
        return
    cause = "the template has [name]" if kind == EMBEDDING else "its widths are those of the checkpoint's layers"
    raise GuardError(
        "The first step has no gradient, so nothing would be learned.",
        f"Check that {cause}; if so, an extension or attention optimisation cuts the gradient.",
    )


def watch_first_movement(movement: float) -> None:
    """Stop if the first step left the vectors where they were although they had a gradient.

    Raises:
        GuardError: they did not move at all.
    """
    if movement > 0:
        return
    raise GuardError(
        "The first step has a gradient, but it moved no vector.",
        "Raise the learning rate; if it is an ordinary one, the gradient is too small to be counted.",
    )


def watch_latents(name: str, finite: bool) -> None:
    """Stop before training where the autoencoder made of a picture what is no number.

    Raises:
        GuardError: `finite` is false; the picture is named.
    """
    if not finite:
        raise GuardError(
            f"The autoencoder's latent of {name} holds values that are no number.",
            "The checkpoint's VAE is damaged; choose another checkpoint.",
        )


def watch_model(moved: str) -> None:
    """Stop where the host's model is no longer the one that is trained on; `moved` says so, "" if it is.

    Raises:
        GuardError: with that sentence.
    """
    if moved:
        raise GuardError(
            f"{moved} Training stopped, and what it had learned before is kept.",
            "Load the run's own checkpoint and resume the run.",
        )


def leaping(movement: float, words: Vocabulary | None, rate: float) -> Finding | None:
    """`movement` of the first step: further than one of the model's words is long, the vectors only jump about."""
    if words is None or not words.median > 0 or movement <= LEAP * words.median:
        return None
    return Finding(
        "lr-too-high",
        Severity.WARN,
        f"One step at the learning rate {rate:g} moves a vector by {movement:.3g}, {movement / words.median:.1f} times "
        f"the length of one of the model's words ({words.median:.3g}).",
        "Lower the rate to a tenth.",
    )


def hardly_moving(step: int, movement: float, words: Vocabulary | None, rate: float) -> Finding | None:
    """After `MOVED_BY` steps the vectors are still where they began."""
    if step != MOVED_BY or words is None or movement >= HARDLY * words.median:
        return None
    return Finding(
        "vector-not-moving",
        Severity.WARN,
        f"After {step} steps at the rate {rate:g} the vectors moved by {movement:.2g}, hardly anything against the "
        f"length of one of the model's words ({words.median:.3g}).",
        "Raise the learning rate tenfold.",
    )


def rising(before: Validation, after: Validation) -> Finding | None:
    """The training loss of one interval is above that of the one before: overshoot."""
    error = math.hypot(before.training_error, after.training_error)
    rise = after.training - before.training
    # The training loss is drawn anew each time and looked at often, so chance gets more room than in a verdict.
    if not rise > 2 * SIGNIFICANT * error:
        return None
    return Finding(
        "lr-too-high",
        Severity.WARN,
        f"The training loss rose from {before.training:.4f} (up to step {before.step}) to {after.training:.4f} (up to "
        f"step {after.step}), {rise / error:.1f} standard errors.",
        "Lower the learning rate, and go on from a step before the rise.",
    )


def plateau(verdict: Verdict, rate: float) -> Finding | None:
    """No progress at this rate any more."""
    if verdict.state != "flat":
        return None
    return Finding(
        "plateau",
        Severity.INFO,
        f"{verdict.reason} The learning rate is {rate:g}.",
        f"A tenth of it may bring out more; step {verdict.best} is the best so far.",
    )


def worse(verdict: Verdict) -> Finding | None:
    """The run is past its best, or broken."""
    if verdict.state not in ("overtrained", "broken"):
        return None
    return Finding(verdict.state, Severity.WARN, verdict.reason, verdict.advice)
