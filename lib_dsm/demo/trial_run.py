"""Carries out one trial: pictures, training by the product's own run, judged previews. Done again, it goes on."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.demo import judge, world
from lib_dsm.demo.install import CHECKPOINT, write_yaml
from lib_dsm.demo.score import shares
from lib_dsm.demo.trials import NAME, Trial
from lib_dsm.files import read_json, sha256, write_json
from lib_dsm.jobs import Job

if TYPE_CHECKING:
    import torch

    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.training.config import RunConfig

VERSION = 1
JUDGED = 10  # pictures of each trial, before and after
SHOWN = 6  # of them, those that are kept as files
FOREIGN_TURN = 45.0  # degrees by which the foreign autoencoder's latents are turned


@dataclass(frozen=True)
class Outcome:
    """The `shares` of attributes that came out right with the vectors as they began and as they were trained."""

    before: dict[str, float]
    after: dict[str, float]
    seconds: float


def read_outcome(folder: Path, trial: Trial) -> Outcome | None:
    """What is known of a trial that was carried out before with the same models and settings."""
    record = folder / trial.folder / "outcome.json"
    if not record.is_file():
        return None
    known = read_json(record)
    return Outcome(**known["outcome"]) if known.get("of") == _digest(trial) else None


def carry_out(trial: Trial, folder: Path, job: Job) -> Outcome:
    """Train and judge in `folder`; what was interrupted goes on.

    Raises:
        Cancelled: the job was cancelled; the training is saved.
        DsmError: the folder cannot be used.
    """
    import time

    from lib_dsm.host.run import run_folder, train
    from lib_dsm.host.studio import StudioHost

    known = read_outcome(folder, trial)
    if known is not None:
        return known
    began = time.monotonic()
    place = folder / trial.folder
    description = place / "trial.json"
    if description.is_file() and read_json(description) != _digest(trial):
        shutil.rmtree(place)  # what another version of the demo left
    write_json(description, _digest(trial))
    dataset = place / "pictures"
    if not dataset.is_dir():
        trial.draw(dataset)
    host = StudioHost(place / "studio")
    checkpoint = write_foreign(place / "foreign.safetensors") if trial.foreign_vae else CHECKPOINT
    config = trial.config(dataset, checkpoint)
    if trial.clip_skip_resumed != config.clip_skip:
        half = replace(config, max_steps=config.max_steps // 2)
        if not run_folder(host, half).exists() or run_folder(host, half).saved_steps()[-1] < half.max_steps:
            train(host, half, job, resume=run_folder(host, half).exists())
            job.check()
        config = replace(config, clip_skip=trial.clip_skip_resumed, override=("clip-skip-changed",))
    there = run_folder(host, config)
    if not there.exists() or there.saved_steps()[-1:] != [config.max_steps]:
        train(host, config, job, resume=there.exists())
        job.check()
    outcome = _judge(trial, host, config, place, job, time.monotonic() - began)
    write_json(place / "outcome.json", {"of": _digest(trial), "outcome": asdict(outcome)})
    return outcome


def _judge(trial: Trial, host: Any, config: RunConfig, place: Path, job: Job, seconds: float) -> Outcome:
    from lib_dsm.host.studio import load_model
    from lib_dsm.networks.embedding import load_embedding
    from lib_dsm.networks.textual_inversion import initial_vectors

    model = load_model(CHECKPOINT)
    trained = load_embedding(host.folders.embeddings / f"{NAME}.safetensors").vectors
    started = initial_vectors(model, config.init_text, config.vectors)
    person = world.character_of(trial.character)
    found = []
    for title, vectors in (("before", started), ("after", trained)):
        job.check()
        pictures = generate(model, vectors, trial)
        for number, picture in enumerate(pictures[:SHOWN], start=1):
            picture.save(place / f"{title}-{number}.png")
        found.append(shares(_own(judge.shown(picture, person)) for picture in pictures))
    return Outcome(found[0], found[1], seconds)


def _own(shown: dict[str, bool]) -> dict[str, bool]:
    """Only what makes the character who it is; the rest is another in every picture."""
    return {name: right for name, right in shown.items() if name in world.CONSTANT}


def generate(model: DiffusionModel, vectors: torch.Tensor, trial: Trial) -> Sequence[Any]:
    """The RGB pictures by which vectors K×D are judged, CLIP skip 1."""
    from lib_dsm.diffusion.sampling import decode, sample

    requests = [trial.request(number) for number in range(JUDGED)]
    first = requests[0]
    latents = sample(
        model,
        model.encode_prompts([first.prompt], {NAME: vectors.to(model.device)}, 1),
        model.encode_prompts([first.negative], {}, 1),
        width=first.width,
        height=first.height,
        steps=first.steps,
        cfg=first.cfg,
        sampler=first.sampler,
        seeds=[request.seed for request in requests],
    )
    return decode(model, latents)


def write_foreign(path: Path, degrees: float = FOREIGN_TURN) -> Path:
    """Write the micro checkpoint with a foreign autoencoder: one that returns pictures just as well, whose latents
    however are those of ours turned in the planes of its channels (0, 1) and (2, 3), so that the U-Net has never seen
    their like."""
    import math

    import torch
    from safetensors.torch import load_file, save

    from lib_dsm.files import write_bytes

    state = load_file(CHECKPOINT)
    turn = torch.eye(4)
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    for first in (0, 2):
        turn[first : first + 2, first : first + 2] = torch.tensor([[cos, -sin], [sin, cos]])
    whole = torch.eye(8)  # the mean's channels, then the log-variance's
    whole[:4, :4] = turn
    prefix = "first_stage_model."
    changed = {
        "quant_conv.weight": torch.einsum("ij,jkhw->ikhw", whole, state[f"{prefix}quant_conv.weight"].float()),
        "quant_conv.bias": whole @ state[f"{prefix}quant_conv.bias"].float(),
        "post_quant_conv.weight": torch.einsum("ijhw,kj->ikhw", state[f"{prefix}post_quant_conv.weight"].float(), turn),
    }
    state |= {f"{prefix}{name}": value.half().contiguous() for name, value in changed.items()}
    write_bytes(path, save(state, {"format": "pt"}))
    write_yaml(path)
    return path


def _digest(trial: Trial) -> dict[str, Any]:
    """All that decides what a trial comes to."""
    return {
        "version": VERSION,
        "checkpoint": sha256(CHECKPOINT),
        "judged": JUDGED,
        "trial": dataclasses.asdict(trial),
        "settings": repr(trial.config(Path("pictures"), Path("checkpoint"))),
    }
