"""How soon an embedding is good, ours against the WebUI's own trainer, both inside one WebUI process.

Run: `DSM_WEBUI=FOLDER python -m tests.benchmarks.webui_quality [--characters 10 20] [--rates 0.005]`. Same checkpoint,
pictures, vectors, batch, rate and steps; the share of a character's attributes that come out right after 100, 200 and
400 steps, as the demo world's tagger reads it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

import torch

from lib_dsm.demo import judge, world
from lib_dsm.demo.install import CHECKPOINT
from lib_dsm.demo.score import shares
from lib_dsm.demo.trial_run import generate
from lib_dsm.demo.trials import NAME, Trial
from lib_dsm.host.studio import load_model
from lib_dsm.networks.embedding import load_embedding
from tests.webui.running import WebUI, running

STEPS = 400
EVERY = 100
BATCH = 4
VECTORS = 8
SHOWN_AT = (100, 200, 400)


def peer(webui: WebUI, dataset: Path, character: int, rate: str, logs: Path) -> tuple[float, dict[int, Path]]:
    """Train by the WebUI's own trainer; seconds, and the vectors' files by step."""
    done = webui.inside(
        "train_peer", dataset=str(dataset), name=f"{NAME}{character}", init_text="solo", vectors=VECTORS, rate=rate,
        steps=STEPS, batch=BATCH, save_every=EVERY, logs=str(logs),
    )  # fmt: skip
    # Its last step before each hundredth is what it calls the hundredth.
    return done["seconds"], {-(-int(step) // EVERY) * EVERY: Path(path) for step, path in done["files"].items()}


def ours(webui: WebUI, dataset: Path, character: int, rate: str, logs: Path) -> tuple[float, dict[int, Path]]:
    """Train by ours with the same settings."""
    name = f"{NAME}-ours-{character}"
    settings = {
        "version": 1, "kind": "embedding", "name": name, "dataset": str(dataset), "init_text": "solo",
        "vectors": VECTORS, "learning_rate": rate, "max_steps": STEPS, "batch_size": BATCH, "gradient_accumulation": 1,
        "width": 96, "height": 64, "size_step": 8, "save_every": EVERY, "preview_every": 0, "output": str(logs),
    }  # fmt: skip
    done = webui.inside("train_ours", settings=settings)
    states = Path(done["folder"]) / "checkpoints"
    return done["seconds"], {
        int(state.name.removeprefix("step-")): state / f"{name}.safetensors" for state in states.iterdir()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, nargs="+", default=[10, 20])
    parser.add_argument("--rates", nargs="+", default=["0.005"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(CHECKPOINT)
    with tempfile.TemporaryDirectory(prefix="dsm-quality-") as name:
        folder = Path(name)
        with running(Path(os.environ["DSM_WEBUI"]), folder / "webui") as webui:
            for rate in options.rates:
                for number in options.characters:
                    trial = Trial(number)
                    dataset = folder / f"pictures-{number}"
                    if not dataset.is_dir():
                        trial.draw(dataset)
                    seconds = {}
                    for title, train in (("WebUI", peer), ("DSM", ours)):
                        seconds[title], files = train(webui, dataset, number, rate, folder / f"{title}-{rate}-{number}")
                        right = {}
                        for step in SHOWN_AT:
                            vectors = load_embedding(files[step]).vectors
                            pictures = generate(model, vectors, trial)
                            person = world.character_of(number)
                            right[step] = shares([judge.shown(picture, person) for picture in pictures])["constant"]
                        told = ", ".join(f"{share:.0%} after {step}" for step, share in right.items())
                        print(f"{title:6} character {number}, rate {rate}: {told}; {seconds[title]:.0f} s", flush=True)
                    print(f"time of {STEPS} steps, DSM over WebUI: {seconds['DSM'] / seconds['WebUI']:.2f}", flush=True)


if __name__ == "__main__":
    main()
