"""Guards on learning rates, the optimiser and what is drawn. One rule, one function."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

from lib_dsm import options
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.config import TIMESTEPS, RunConfig
from lib_dsm.training.schedule import parse_learning_rate, schedule_of

FEW_TIMESTEPS = 0.1  # of all
_MOST_STEPS = options.specs(RunConfig)["max_steps"].maximum or 0


def schedule_ends_early(facts: RunFacts) -> Iterator[Finding]:
    """As in the WebUI, training ends where the learning-rate schedule does."""
    rate = parse_learning_rate(facts.config.learning_rate)
    end = rate.end
    if end is not None and end < facts.config.max_steps:
        yield Finding(
            "schedule-ends-early",
            Severity.WARN,
            f"The learning rate ends at step {end}, so training stops there and not at {facts.config.max_steps}.",
            "Add a last rate without a step to go on.",
            {"learning_rate": f"{facts.config.learning_rate.strip().rstrip(',')}, {rate.pieces[-1][0]:g}"},
        )


def warmup_too_long(facts: RunFacts) -> Iterator[Finding]:
    """The rate never gets where it should."""
    last = schedule_of(facts.config).last
    if facts.config.warmup_steps >= last:
        yield Finding(
            "warmup-too-long",
            Severity.WARN,
            f"The warm-up takes {facts.config.warmup_steps} steps and the run ends at {last}: the rate never reaches "
            "what is written.",
            "A twentieth of the run is usual.",
            {"warmup_steps": last // 20},
        )


def cosine_with_steps(facts: RunFacts) -> Iterator[Finding]:
    """A cosine bends a rate that has steps of its own."""
    schedule = schedule_of(facts.config)
    steps = [until for _, until in schedule.rate.pieces if until is not None and until < schedule.last]
    if schedule.kind != "steps" and steps:
        yield Finding(
            "cosine-jumps",
            Severity.WARN,
            f'The rate "{facts.config.learning_rate}" changes by itself at step {steps[0]}, and a cosine runs over it.',
            "Write a single rate, the highest, for a cosine.",
            {"learning_rate": f"{max(rate for rate, _ in schedule.rate.pieces):g}"},
        )


def cycle_cut_off(facts: RunFacts) -> Iterator[Finding]:
    """The run ends in the middle of a cycle, at a high rate."""
    schedule = schedule_of(facts.config)
    if schedule.kind != "cosine restarts" or schedule.last <= schedule.warmup:
        return
    cycle = schedule.cycle(schedule.last - 1)
    missing = cycle.begin + cycle.length - schedule.last
    if missing > 0:
        more = schedule.last + missing
        enough = schedule_of(dataclasses.replace(facts.config, max_steps=more)).last == more <= _MOST_STEPS
        yield Finding(
            "cycle-cut",
            Severity.INFO,
            f"The last cycle of the rate has {cycle.length} steps and the run ends {missing} before its end.",
            f"{more} steps would finish it, {cycle.begin} end with the cycle before."
            if cycle.begin > schedule.warmup
            else f"{more} steps would finish it.",
            {"max_steps": more} if enough else {},
        )


def adam_out_of_order(facts: RunFacts) -> Iterator[Finding]:
    """Adam's convergence asks for beta1² < √beta2 (Kingma and Ba, 2015, theorem 4.1)."""
    beta1, beta2 = facts.config.adam_beta1, facts.config.adam_beta2
    if beta1 > 0 and beta1**2 >= math.sqrt(beta2):
        yield Finding(
            "adam-betas",
            Severity.WARN,
            f"With beta 1 at {beta1:g} and beta 2 at {beta2:g} AdamW does not converge.",
            "Beta 2 must be the larger; 0.9 and 0.999 are usual.",
            {"adam_beta1": 0.9, "adam_beta2": 0.999},
        )


def decay_without_effect(facts: RunFacts) -> Iterator[Finding]:
    """Where lengths are fixed, weight decay changes nothing."""
    if facts.config.norm_control == "fixed" and facts.config.weight_decay > 0:
        yield Finding(
            "decay-fixed",
            Severity.INFO,
            f"The weight decay of {facts.config.weight_decay:g} has no effect: the vectors' lengths are fixed.",
            "Set it to 0, or turn the length control off.",
            {"weight_decay": 0.0},
        )


def few_timesteps(facts: RunFacts) -> Iterator[Finding]:
    """A narrow range of noise teaches a part of what generation needs."""
    config = facts.config
    share = (config.timestep_max - config.timestep_min + 1) / TIMESTEPS
    if config.timestep_sampling == "range" and share < FEW_TIMESTEPS:
        yield Finding(
            "few-timesteps",
            Severity.WARN,
            f"Only the timesteps {config.timestep_min} to {config.timestep_max} are trained, {share:.1%} of all.",
            "Shapes are learned at high timesteps and details at low ones; use a wider range.",
            {"timestep_min": 0, "timestep_max": TIMESTEPS - 1},
        )
