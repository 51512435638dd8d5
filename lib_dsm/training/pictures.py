"""The pictures of a run, made ready for training: sizes, tags, latents; what cannot be used is reported by name."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_dsm.dataset.captions import read_caption, shared_captions
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.pictures import picture_size, read_picture
from lib_dsm.dataset.project import behind
from lib_dsm.errors import InputError, PictureError
from lib_dsm.files import sha256
from lib_dsm.training.buckets import Size, training_size
from lib_dsm.training.captions import name_tags
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import LatentCache, Posterior
from lib_dsm.training.masks import loss_weights


@dataclass(frozen=True)
class PlannedPicture:
    """What training will make of one picture."""

    path: Path
    source: Size
    size: Size
    tags: tuple[str, ...]
    has_caption: bool


@dataclass(frozen=True)
class Plan:
    """The usable pictures of a folder in a fixed order, and a sentence for each that is not."""

    pictures: tuple[PlannedPicture, ...]
    skipped: tuple[tuple[Path, str], ...]
    notes: tuple[str, ...] = ()
    guessed: tuple[tuple[Path, str], ...] = ()  # captions whose encoding had to be guessed, with a sentence each


@dataclass(frozen=True)
class TrainingPicture:
    """A picture with its posterior.

    `mirrored` is that of the picture with left and right exchanged, None where it is never shown so. `weights` say how
    much each latent cell's loss counts, h×w float32 with mean 1; None where all count the same.
    """

    path: Path
    size: Size
    tags: tuple[str, ...]
    content_hash: str
    posterior: Posterior
    mirrored: Posterior | None = None
    weights: torch.Tensor | None = None

    def posterior_of(self, mirrored: bool) -> Posterior:
        """The posterior of a showing."""
        if not mirrored:
            return self.posterior
        assert self.mirrored is not None  # pictures are loaded mirrored where they may be shown so
        return self.mirrored


@dataclass(frozen=True)
class TrainingSet:
    """All that is shown to the model, in a fixed order."""

    pictures: tuple[TrainingPicture, ...]

    @property
    def sizes(self) -> list[Size]:
        """The training size of each picture."""
        return [picture.size for picture in self.pictures]

    def fingerprint(self) -> str:
        """Identifies contents, sizes, captions and order, 16 hexadecimal digits."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            digest.update(f"{picture.content_hash}/{picture.size}/{picture.tags}\n".encode())
        return digest.hexdigest()[:16]


def cell_weights(pictures: Sequence[TrainingPicture], mirrored: Sequence[bool]) -> torch.Tensor | None:
    """How much each latent cell of a batch (all of one size) counts, B×1×h×w; None where all count the same."""
    if all(picture.weights is None for picture in pictures):
        return None
    weights = [
        torch.ones(picture.posterior.mean.shape[1:]) if picture.weights is None else picture.weights
        for picture in pictures
    ]
    return torch.stack([row.flip(-1) if flip else row for row, flip in zip(weights, mirrored, strict=True)])[:, None]


def plan_pictures(config: RunConfig) -> Plan:
    """Look at every picture's header and caption and decide its training size, without decoding any.

    Raises:
        InputError: the folder is missing, or holds no usable picture.
    """
    paths, others = list_pictures(Path(config.dataset))
    planned: list[PlannedPicture] = []
    skipped: list[tuple[Path, str]] = []
    guessed: list[tuple[Path, str]] = []
    notes = [f"{note.path.name}: {note.text}" for note in [*others, *shared_captions(paths)]]
    if outdated := behind(Path(config.dataset)):
        notes.append(outdated)
    for path in paths:
        try:
            source = picture_size(path)
        except PictureError as error:
            skipped.append((path, str(error)))
            continue
        size = training_size(
            source, (config.width, config.height), config.size_step, config.variable_aspect, config.enlarge
        )
        if size is None:
            wanted = (
                f"{config.size_step} pixels a side" if config.variable_aspect else f"{config.width}×{config.height}"
            )
            skipped.append(
                (
                    path,
                    f"{path.name} is {source[0]}×{source[1]}, smaller than {wanted}. Allow enlarging, or leave it out.",
                )
            )
            continue
        try:
            caption = read_caption(path)
        except InputError as error:
            skipped.append((path, str(error)))
            continue
        if caption.note:
            guessed.append((caption.path, caption.note))
        tags = caption.tags if caption.exists else name_tags(path.stem, config.filename_regex, config.filename_join)
        planned.append(PlannedPicture(path, source, size, tuple(tags), caption.exists))
    if not planned:
        reason = f" {skipped[0][1]}" if skipped else ""
        raise InputError(
            f"{config.dataset} holds no picture that can be trained on.{reason}",
            "Add pictures, or choose another folder.",
        )
    return Plan(tuple(planned), tuple(skipped), tuple(notes), tuple(guessed))


def load_pictures(
    plan: Sequence[PlannedPicture],
    cache: LatentCache,
    progress: Callable[[int, int], None],
    *,
    mirror: bool = False,
    alpha: bool = False,
) -> tuple[TrainingSet, list[tuple[Path, str]]]:
    """Read and encode each planned picture; also return those that turn out unusable, with a sentence each.

    `progress` gets done and total, and may raise to stop. `mirror` encodes each picture mirrored as well. With `alpha`
    transparency becomes weights, and the colours under it stay; else transparent pictures are laid over white.

    Raises:
        InputError: none can be used.
    """
    pictures: list[TrainingPicture] = []
    broken: list[tuple[Path, str]] = []
    for done, planned in enumerate(plan):
        progress(done, len(plan))
        try:
            pictures.append(_load(planned, cache, mirror, alpha))
        except PictureError as error:
            broken.append((planned.path, str(error)))
    progress(len(plan), len(plan))
    if not pictures:
        raise InputError(f"None of the {len(plan)} pictures can be used. {broken[0][1]}", "Replace them.")
    return TrainingSet(tuple(pictures)), broken


def _load(planned: PlannedPicture, cache: LatentCache, mirror: bool, alpha: bool) -> TrainingPicture:
    path, size = planned.path, planned.size
    try:
        content_hash = sha256(path)
    except OSError as error:
        raise PictureError(f"{path.name} cannot be read: {error.strerror or error}.", "Look for it again.") from error
    sides = (False, True) if mirror else (False,)
    weights = None
    # Without weights to be made of it a picture that is known need not be decoded again.
    found = [None if alpha else cache.find(content_hash, size, mirrored=side) for side in sides]
    if None in found:
        picture = read_picture(path, flatten=not alpha)
        variant = ""
        if alpha and picture.alpha is not None:
            weights, variant = loss_weights(picture.alpha, size), "under alpha"
            if weights is not None and not weights.any():
                raise PictureError(
                    f"{path.name} is transparent everywhere in the part that is trained on: there is nothing to learn.",
                    "Make some of it opaque, or leave it out.",
                )
        found = [cache.get(picture.image, content_hash, size, mirrored=side, variant=variant) for side in sides]
    posterior, *mirrored = found
    assert posterior is not None
    return TrainingPicture(
        path, size, planned.tags, content_hash, posterior, mirrored[0] if mirrored else None, weights
    )
