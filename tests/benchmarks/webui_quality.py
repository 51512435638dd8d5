"""How soon an embedding is good, ours against the WebUI's own trainer, both inside one WebUI process.

Run: `DSM_WEBUI=FOLDER python -m tests.benchmarks.webui_quality [--characters 10 20 30] [--rates 0.02 0.05 0.2]`. First
both train alike: same checkpoint, pictures, vectors, batch, rate and steps; what is printed is the share of a
character's attributes that come out right, as the demo world's tagger reads it. Then ours trains as it does best, and
what is printed is how long it takes until it is as good as the other is at the end with the best of its rates: from
the same word, and from the tags that were pruned.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from lib_dsm.demo import judge, world
from lib_dsm.demo.install import CHECKPOINT
from lib_dsm.demo.score import shares
from lib_dsm.demo.trial_run import generate
from lib_dsm.demo.trials import NAME, Trial
from lib_dsm.diffusion.protocol import DiffusionModel
from lib_dsm.host.studio import load_model
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.config import RunConfig
from tests.webui.running import WebUI, running

STEPS = 400
EVERY = 100
SHOWN_AT = (100, 200, 400)
BATCH = 4
VECTORS = 8
BEST: dict[str, Any] = {
    "timestep_sampling": "logit-normal", "learning_rate": "0.2:60, 0.05", "max_steps": 120, "save_every": 10,
}  # fmt: skip


@dataclass(frozen=True)
class Trained:
    """What a training gave: the seconds it took, and by step its vectors' file and when that was there."""

    seconds: float
    files: dict[int, Path]
    after: dict[int, float]


class Course:
    """A character's pictures, and how the two trainers are called on them."""

    def __init__(self, webui: WebUI, model: DiffusionModel, folder: Path, character: int) -> None:
        self.webui = webui
        self.model = model
        self.folder = folder
        self.character = character
        self.trial = Trial(character)
        self.dataset = folder / "pictures"
        self.trial.draw(self.dataset)

    def peer(self, rate: str) -> Trained:
        """Train by the WebUI's own trainer."""
        done = self.webui.inside(
            "train_peer", dataset=str(self.dataset), name=f"{NAME}{self.character}", init_text="solo",
            vectors=VECTORS, rate=rate, steps=STEPS, batch=BATCH, save_every=EVERY,
            logs=str(self.folder / f"peer-{rate}"),
        )  # fmt: skip
        # Its last step before each hundredth is what it calls the hundredth.
        files = {-(-int(step) // EVERY) * EVERY: Path(path) for step, path in done["files"].items()}
        return Trained(done["seconds"], files, {})

    def ours(self, title: str, **changes: Any) -> Trained:
        """Train by ours."""
        name = f"{NAME}-{title}-{self.character}".replace(".", "_")
        settings = {
            "version": 1, "kind": "embedding", "name": name, "dataset": str(self.dataset), "init_text": "solo",
            "vectors": VECTORS, "max_steps": STEPS, "batch_size": BATCH, "gradient_accumulation": 1, "width": 96,
            "height": 64, "size_step": 8, "save_every": EVERY, "preview_every": 0, "validate_every": 0,
            "output": str(self.folder / title), **changes,
        }  # fmt: skip
        done = self.webui.inside("train_ours", settings=settings)
        states = {
            int(state.name.removeprefix("step-")): state for state in (Path(done["folder"]) / "checkpoints").iterdir()
        }
        files = {step: state / f"{name}.safetensors" for step, state in sorted(states.items())}
        return Trained(
            done["seconds"], files, {step: file.stat().st_mtime - done["began"] for step, file in files.items()}
        )

    def pruned(self) -> RunConfig:
        """The settings of a trial that starts from the pruned tags."""
        return replace(self.trial, init="pruned").config(self.dataset)

    def right(self, file: Path) -> float:
        """The share of attributes, 0 to 1, that come out right with the vectors of a file."""
        pictures = generate(self.model, load_embedding(file).vectors, self.trial)
        person = world.character_of(self.character)
        return shares([judge.shown(picture, person) for picture in pictures])["constant"]


def alike(courses: list[Course], rates: list[str]) -> dict[str, tuple[float, float]]:
    """The other trainer with each of the rates, ours with the first; the other's seconds and share at the end."""
    ends = {}
    for rate in rates:
        runs = []
        for course in courses:
            runs.append(_told("WebUI", course, rate, course.peer(rate)))
            if rate == rates[0]:
                ours, _ = _told("DSM", course, rate, course.ours(f"rate-{rate}", learning_rate=rate))
                print(f"time of {STEPS} steps, DSM over WebUI: {ours / runs[-1][0]:.2f}", flush=True)
        seconds, ended = zip(*runs, strict=True)
        ends[rate] = statistics.mean(seconds), statistics.mean(ended)
    return ends


def _told(title: str, course: Course, rate: str, trained: Trained) -> tuple[float, float]:
    right = {step: course.right(trained.files[step]) for step in SHOWN_AT}
    told = ", ".join(f"{share:.0%} after {step}" for step, share in right.items())
    print(f"{title:6}character {course.character}, rate {rate}: {told}; {trained.seconds:.0f} s", flush=True)
    return trained.seconds, right[STEPS]


def until_as_good(courses: list[Course], wanted: float, words: bool) -> tuple[float, int] | None:
    """How many seconds and steps ours takes, trained as it does best, until its mean share is `wanted`; with `words`
    it starts from the tags that were pruned."""
    title = "words" if words else "best"
    trained = [
        course.ours(title, **BEST, **({"init_text": course.pruned().init_text} if words else {})) for course in courses
    ]
    for step in trained[0].files:
        share = statistics.mean(course.right(run.files[step]) for course, run in zip(courses, trained, strict=True))
        seconds = statistics.mean(run.after[step] for run in trained)
        print(f"DSM at its best, step {step}: {share:.0%} after {seconds:.1f} s", flush=True)
        if share >= wanted:
            return seconds, step
    return None


def main() -> None:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, nargs="+", default=[10, 20, 30])
    parser.add_argument("--rates", nargs="+", default=["0.02", "0.05", "0.2"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(CHECKPOINT)
    with tempfile.TemporaryDirectory(prefix="dsm-quality-") as name:
        folder = Path(name)
        with running(Path(os.environ["DSM_WEBUI"]), folder / "webui") as webui:
            courses = [Course(webui, model, folder / f"{number}", number) for number in options.characters]
            ends = alike(courses, options.rates)
            rate, (seconds, share) = max(ends.items(), key=lambda end: end[1][1])
            print(f"WebUI at its best, rate {rate}: {share:.0%} after {STEPS} steps, {seconds:.1f} s", flush=True)
            for start, words in (("the same word", False), ("the pruned tags", True)):
                found = until_as_good(courses, share, words)
                if found is None:
                    print(f"from {start}: never as good in {BEST['max_steps']} steps", flush=True)
                else:
                    ratio = found[0] / seconds
                    print(
                        f"from {start}: as good after {found[1]} steps, {found[0]:.1f} s: ratio {ratio:.2f}", flush=True
                    )


if __name__ == "__main__":
    main()
