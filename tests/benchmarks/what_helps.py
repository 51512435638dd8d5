"""Which settings make an embedding good in fewer steps, tried one at a time in the demo world.

Run: `python -m tests.benchmarks.what_helps [--steps 60] [--out DIR] [NAME …]`. Each setting trains the same held-out
characters with the same pictures, seeds and steps; what is printed is the share of their attributes that come out
right, and its ratio to that of the plain settings.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path
from typing import Any

from lib_dsm.cli.progress import run_job
from lib_dsm.demo.prove import carry_out_all
from lib_dsm.demo.trials import CHARACTERS, Trial

PLAIN = "plain"
PRUNED = "init with the pruned tags"
RATE = "0.02"
TRIED_ON = CHARACTERS[:3]
MIDDLE = {"timestep_sampling": "logit-normal"}
TRIED: dict[str, dict[str, Any]] = {
    PLAIN: {},
    "rate ÷ 4": {"learning_rate": "0.005"},
    "rate × 2.5": {"learning_rate": "0.05"},
    "rate × 5": {"learning_rate": "0.1"},
    "rate × 10": {"learning_rate": "0.2"},
    "cosine, rate × 2.5": {"schedule": "cosine", "learning_rate": "0.05"},
    "cosine, rate × 5": {"schedule": "cosine", "learning_rate": "0.1"},
    "cosine, rate × 10": {"schedule": "cosine", "learning_rate": "0.2"},
    "cosine restarts of 30": {"schedule": "cosine restarts", "cycle_length": 30},
    "min-SNR 5": {"loss_weighting": "min-snr"},
    "soft min-SNR": {"loss_weighting": "soft-min-snr"},
    "debiased": {"loss_weighting": "debiased"},
    "p2": {"loss_weighting": "p2"},
    "timesteps spread over a step": {"timestep_sampling": "stratified"},
    "timesteps from the middle": MIDDLE,
    "from the middle, rate × 2.5": {**MIDDLE, "learning_rate": "0.05"},
    "from the middle, rate × 5": {**MIDDLE, "learning_rate": "0.1"},
    "from the middle, rate × 10": {**MIDDLE, "learning_rate": "0.2"},
    "timesteps with more noise": {**MIDDLE, "logit_mean": 1.0},
    "timesteps over 300": {"timestep_sampling": "range", "timestep_min": 300},
    "norms decay": {"norm_control": "decay"},
    "norms fixed": {"norm_control": "fixed"},
    "norms fixed to the median": {"norm_control": "fixed", "norm_target": "median"},
    PRUNED: {},
    "init with *": {"init_text": "*"},
    "4 vectors": {"vectors": 4},
    "16 vectors": {"vectors": 16},
    "batches of mixed sizes": {"batch_by_size": False},
    "batch 2": {"batch_size": 2},
    "batch 8": {"batch_size": 8},
    "latents drawn each time": {"latent_sampling": "random"},
    "tag dropout 0.1": {"tag_dropout": 0.1},
    "AdamW beta2 0.99": {"adam_beta2": 0.99},
}


def trials(name: str, steps: int) -> list[Trial]:
    """One embedding for each character, with the settings of that name."""
    settings = {"max_steps": steps, "learning_rate": RATE, "validate_every": 0, **TRIED[name]}
    init = "pruned" if name == PRUNED else "solo"
    return [Trial(character, name=f"{name}-{steps}", init=init, settings=settings) for character in TRIED_ON]


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(TRIED)}; all of them")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path, help="folder of the trials; those that are there are not done again")
    options = parser.parse_args()
    if unknown := set(options.names) - set(TRIED):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    names = [name for name in TRIED if not options.names or name in options.names or name == PLAIN]
    folder = options.out or Path(tempfile.mkdtemp(prefix="dsm-what-helps-"))
    every = [trial for name in names for trial in trials(name, options.steps)]
    outcomes = run_job("Trying", "steps", lambda job: carry_out_all(every, folder, job, os.cpu_count() or 1))
    scores: dict[str, list[float]] = {}
    for trial, outcome in zip(every, outcomes, strict=True):
        scores.setdefault(trial.name, []).append(outcome.after["constant"])
    plain = statistics.mean(scores[f"{PLAIN}-{options.steps}"])
    print(f"{options.steps} steps, {len(TRIED_ON)} characters")
    for name in names:
        right = statistics.mean(scores[f"{name}-{options.steps}"])
        print(f"{name:30}{right:6.0%}   ratio {right / plain:.2f}", flush=True)


if __name__ == "__main__":
    main()
