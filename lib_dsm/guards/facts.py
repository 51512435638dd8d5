"""What the guards look at before a run starts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib_dsm.guards.set_aside import SetAside
from lib_dsm.networks.hypernetwork_training import HypernetworkStart
from lib_dsm.networks.textual_inversion import Start
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan


@dataclass(frozen=True)
class Storage:
    """A place that a run writes to; `problem` says why it cannot be written, "" if it can."""

    folder: Path
    needed: int = 0  # bytes, estimated
    free: int = 0
    problem: str = ""


@dataclass(frozen=True)
class RunFacts:
    """A run's settings and what is known of its pictures, its model and, when resumed, its past."""

    config: RunConfig
    plan: Plan
    token_counts: Mapping[str, int] = field(default_factory=dict)  # of the name, the init text and every caption
    foreign_networks: frozenset[str] = frozenset()  # names in the host's folder for this kind that are not this run's
    injected: frozenset[str] = frozenset()  # names of the embeddings that the host puts into every prompt, captions too
    record: Mapping[str, Any] | None = None  # run.json of the run that is resumed
    saved_step: int = 0
    published: bool = False  # whether that step's result was put where the host looks for it
    checkpoint_hash: str = ""
    vae_hash: str = ""
    fingerprint: str = ""
    start: Start | HypernetworkStart | None = None  # where it begins with a network that is there already
    context_widths: Mapping[int, int] = field(default_factory=dict)  # of the model, see diffusion/protocol.py
    missing_package: str = ""  # what the optimizer needs and is not installed
    weighted: int | None = None  # pictures whose transparency weighs the loss, None until they are read
    has_clip_skip: bool = True  # whether the model's text encoder knows it
    attention_upcast: bool = False  # whether the session computes attention in float32 for the model's sake
    set_aside: SetAside = field(default_factory=SetAside)  # what the session took off the host's model for the training
    applies_hypernetworks: bool = True  # whether the host's generation heeds them
    unsuitable: str = ""  # the entry of the list of unsuitable models that means this checkpoint
    unsuitable_note: str = ""  # a sentence where the person's own list cannot be read
    data_folder: Path | None = None  # where the host keeps what is ours
    looks: Mapping[Path, bytes] = field(default_factory=dict)  # see dataset.looks; of the pictures that were compared
    storage: tuple[Storage, ...] = ()  # the places that the run writes to
