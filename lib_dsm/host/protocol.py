"""What a host is: the program whose model is trained, the WebUI or our own studio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from lib_dsm.jobs import Job, Jobs
from lib_dsm.training.config import PreviewRequest, RunConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.guards.set_aside import SetAside
    from lib_dsm.host.lora_pictures import Compared, Variant


@dataclass(frozen=True)
class Folders:
    """Where the host keeps what."""

    embeddings: Path
    hypernetworks: Path
    lora: Path
    checkpoints: Path
    logs: Path  # run folders go below it
    taggers: Path  # downloaded tagger models
    templates: Path  # text files with prompt templates
    data: Path  # our own: settings, caches
    projects: Path  # new projects that are given by their name alone


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint the host can train on; `name` is what the person chooses it by."""

    name: str
    path: Path


@dataclass(frozen=True)
class ModelStatus:
    """The loaded model as it is now and as a training run would use it."""

    checkpoint: str
    vae: str
    vae_in_training: str
    clip_skip: int
    note: str = ""


class TrainingSession(Protocol):
    """A model made safe for training, for as long as the context that gave it lasts."""

    @property
    def model(self) -> DiffusionModel:
        """The model to train on."""
        ...

    @property
    def checkpoint(self) -> Checkpoint:
        """The checkpoint it was loaded from."""
        ...

    @property
    def checkpoint_hash(self) -> str:
        """The SHA-256 of that file."""
        ...

    @property
    def set_aside(self) -> SetAside:
        """What the host's model had beside its own weights and the training goes without."""
        ...

    @property
    def embeddings(self) -> frozenset[str]:
        """The names that the host replaces by an embedding's vectors wherever they stand in a prompt."""
        ...

    def preview(
        self,
        request: PreviewRequest,
        replacements: Mapping[str, torch.Tensor],
        clip_skip: int,
        check: Callable[[], None] = lambda: None,
    ) -> Image:
        """Generate a picture with the host's own sampling; `request.prompt` has no placeholders left.

        Leaves every random state, and what is being trained, as it was. The picture's `info` has what it was made with
        (infotext.py). `check` is called where the picture can be
        given up, and may raise.

        Raises:
            Cancelled: the host's own way to interrupt was used, so the picture was not finished.
        """
        ...

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Show `done` of `total` steps in the host's own progress, where it has one."""
        ...

    def moved(self) -> str:
        """A sentence if the host's model is no longer the one that was lent, else ""; asked before every step."""
        ...

    def stop_requested(self) -> bool:
        """Whether the host's own way to interrupt was used; asking forgets it."""
        ...


class Host(Protocol):
    """What the faces and the training need of the program around them."""

    name: str
    jobs: Jobs

    @property
    def folders(self) -> Folders:
        """Where it keeps what."""
        ...

    def checkpoints(self) -> Sequence[Checkpoint]:
        """All checkpoints, by name."""
        ...

    def default_clip_skip(self) -> int:
        """The CLIP skip that generation uses now."""
        ...

    def samplers(self) -> Sequence[str]:
        """The names of the samplers that previews can be made with."""
        ...

    def schedulers(self) -> Sequence[str]:
        """The names of the schedule types that previews can ask for; the host's own choice, "", is not among them."""
        ...

    def status(self) -> ModelStatus:
        """What is loaded and what training would use."""
        ...

    def tokens(self, text: str, checkpoint: str) -> list[str]:
        """The pieces into which the tokenizer of that checkpoint cuts a text, as a person reads them.

        Loads no weights; an unknown checkpoint is taken for one with CLIP's own vocabulary.
        """
        ...

    def showing(self, job: Job) -> AbstractContextManager[None]:
        """Show a job that does not need the model in the host's own progress, and let its Interrupt cancel it, for as
        long as the context lasts; generating goes on meanwhile."""
        ...

    def training_session(self, config: RunConfig, brief: bool = False) -> AbstractContextManager[TrainingSession]:
        """The model of `config.checkpoint` fit for training: its own VAE, no stale networks, generation locked out.

        Everything is put back on every way out. Waits where one that is `brief`, a check or the like, holds the model.

        Raises:
            ModelError: the checkpoint cannot be loaded or trained on.
            BusyError: another training holds the model.
        """
        ...

    def variants(self, what: Compared) -> list[Variant]:
        """What is drawn side by side to judge a LoRA, each with what draws it.

        Raises:
            InputError: the host has not the files that it would take; a sentence says what to do.
        """
        ...

    def made_picture(self, path: Path) -> bool:
        """Whether the host itself made the picture of this file and shows it to the person, so that it may be read."""
        ...

    def applies_hypernetworks(self) -> bool:
        """Whether generation heeds a hypernetwork that the prompt names."""
        ...

    def reads_bundled_embeddings(self) -> bool:
        """Whether generation knows the embeddings that a LoRA's file holds beside its layers."""
        ...

    def networks_changed(self) -> None:
        """Files in the network folders changed: make them usable at once."""
        ...
