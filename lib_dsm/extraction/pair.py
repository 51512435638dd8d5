"""Two checkpoints side by side: whether they can be compared, which weights of each count, and what changed.

A file's averaged weights (EMA) lie under `model_ema.` with the dots taken out of the names, as Stability AI's training
code writes them. They are the better model, so those of the fine-tuned file are taken where it has them all; but not
where they are the base's own ones, which a trainer that knows nothing of them has left behind: those of the base file,
or, as most base files were cut down to them, its plain weights. The base is taken as programs load it, without
averages, since that is what a LoRA is added to.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from lib_dsm.diffusion.ldm_layout import UNET_PREFIX, VAE_PREFIX
from lib_dsm.errors import ModelError
from lib_dsm.extraction.key_map import Family, Layer, canonical, family_of, layers_of, text_prefixes
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.networks.safetensors_files import TensorFile
from lib_dsm.networks.tensor_files import open_tensors

_EMA_PREFIX = "model_ema."
_REFINER = "conditioner.embedders.0.model."
_REFINER_WIDTH = 1280
_SAME_KIND = "Compare two checkpoints of the same kind."
_LORA = re.compile(  # names of tensors that only files of LoRAs and their relatives have
    r"^(lora|lycoris|oft)_|^(unet|text_encoder):\d+:(up|down)$|\.alpha$|\.(hada|lokr)_[wt]\d|"
    r"[._](lora|lora_linear_layer)[._](up|down|mid|[AB])\b|\.lora_magnitude_vector"
)
_HALVES = {torch.float16, torch.bfloat16}
TOKENS = "token_embedding.weight"
# Of no effect on a picture: position numbers are counted anew, the scale is that of CLIP's own training.
_PASSED_OVER = ("position_ids", "logit_scale")


@dataclass(frozen=True)
class Checkpoint:
    """One of the two files with its keys as current files have them; `averaged` reads the U-Net's averages instead."""

    file: TensorFile
    family: Family
    averaged: bool = False

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.file.path

    @cached_property
    def keys(self) -> Mapping[str, str]:
        """Canonical key → the file's own, of the weights that decide what the model draws, and the VAE's."""
        wanted = (UNET_PREFIX, VAE_PREFIX, *text_prefixes(self.family))
        names = {canonical(key): key for key in self.file.shapes}
        return {name: key for name, key in names.items() if name.startswith(wanted) and not name.endswith(_PASSED_OVER)}

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """By canonical key."""
        return {name: tuple(self.file.shapes[key]) for name, key in self.keys.items()}

    def average_of(self, name: str) -> str:
        """The file's key of an averaged tensor."""
        return _EMA_PREFIX + name[len("model.") :].replace(".", "")

    def has_averages(self) -> bool:
        """Whether there is an average of every weight of the U-Net."""
        return all(self.average_of(name) in self.file.shapes for name in self.keys if name.startswith(UNET_PREFIX))

    def read(self, name: str) -> torch.Tensor:
        """The tensor of a canonical key."""
        averaged = self.averaged and name.startswith(UNET_PREFIX)
        return self.file.read(self.average_of(name) if averaged else self.keys[name])


@dataclass(frozen=True)
class Pair:
    """The base and the fine-tuned checkpoint, found to be of one kind; `note` says which weights were taken."""

    base: Checkpoint
    tuned: Checkpoint
    note: str

    @cached_property
    def layers(self) -> list[Layer]:
        """What the WebUI's loader could change of them."""
        return layers_of(self.base.shapes, self.base.family)

    def remaining(self) -> list[str]:
        """The keys that belong to no layer, those of the VAE only where both files have them."""
        used = {key for layer in self.layers for key in (layer.weight, layer.bias)}
        return [
            key
            for key, shape in self.base.shapes.items()
            if key not in used and (not key.startswith(VAE_PREFIX) or self.tuned.shapes.get(key) == shape)
        ]

    def change(self, key: str, rows: tuple[int, int] | None = None) -> torch.Tensor | None:
        """Tuned − base in float32, or None where nothing changed; `rows` names the first row and their number.

        Of vocabularies of different length the rows that both have.

        Raises:
            ModelError: one of them holds NaN or infinity.
        """
        old, new = self.base.read(key), self.tuned.read(key)
        if key.endswith(TOKENS):
            common = min(len(old), len(new))
            old, new = old[:common], new[:common]
        if rows is not None:
            old, new = old[rows[0] : rows[0] + rows[1]], new[rows[0] : rows[0] + rows[1]]
        if not old.is_floating_point() or not new.is_floating_point():
            return None if torch.equal(old, new) else new.float() - old.float()
        # A copy at half precision differs from its original everywhere, by rounding: that is no change.
        if _rounded_alike(old, new):
            return None
        change = new.float() - old.float()
        if not bool(torch.isfinite(change).all()):
            broken = self.base if not bool(torch.isfinite(old.float()).all()) else self.tuned
            raise ModelError(f"{key} holds NaN or infinity in {broken.path}.", "That checkpoint is broken.")
        return change


@contextmanager
def open_pair(base: Path, tuned: Path, options: ExtractionOptions) -> Iterator[Pair]:
    """Open two checkpoints and see that they can be compared.

    Raises:
        InputError: a file is missing.
        ModelError: one is no checkpoint, or they are not of one kind; the sentence says what differs.
    """
    with open_tensors(base, streamed=True) as first, open_tensors(tuned, streamed=True) as second:
        before, after = Checkpoint(first, _family(first)), Checkpoint(second, _family(second))
        _demand_same_kind(before, after)
        yield _with_averages(before, after, options.averages)


def _family(file: TensorFile) -> Family:
    shapes = file.shapes
    if any(map(_LORA.search, shapes)):
        raise ModelError(f"{file.path} is a LoRA already, not a checkpoint.", "Choose the whole checkpoints.")
    if not any(key.startswith(UNET_PREFIX) for key in shapes):
        raise ModelError(f"{file.path} is no Stable Diffusion checkpoint in the ldm layout.", "Choose another.")
    refiner = shapes.get(f"{_REFINER}ln_final.weight", (0,))[0] == _REFINER_WIDTH
    family = None if refiner else family_of(map(canonical, shapes))
    if family is None:
        what = "is SDXL's refiner" if refiner else "has no text encoder of Stable Diffusion 1, 2 or XL"
        raise ModelError(f"{file.path} {what}.", "Extraction works on whole checkpoints of these families.")
    return family


def _demand_same_kind(before: Checkpoint, after: Checkpoint) -> None:
    if before.family != after.family:
        raise ModelError(
            f"{before.path} is of the family {before.family} and {after.path} of {after.family}.", _SAME_KIND
        )
    for one, other in ((before, after), (after, before)):
        for key in one.shapes:
            if key not in other.shapes and not key.startswith(VAE_PREFIX):
                raise ModelError(f"{other.path} lacks {key}, which {one.path} has.", _SAME_KIND)
    for key, old in before.shapes.items():
        new = after.shapes.get(key, old)
        if key.endswith(TOKENS) and old[1:] == new[1:]:
            continue  # a word was added to one of them
        if old != new and not key.startswith(VAE_PREFIX):
            raise ModelError(f"{key} is {_size(old)} in {before.path} and {_size(new)} in {after.path}.", _SAME_KIND)


def _with_averages(before: Checkpoint, after: Checkpoint, choice: str) -> Pair:
    if choice == "never" or not after.has_averages():
        return Pair(before, after, "")
    if _are_the_bases_own(before, after):
        return Pair(before, after, f"The EMA weights in {after.path.name} are the base's own and were passed over.")
    averaged = Checkpoint(after.file, after.family, averaged=True)
    return Pair(before, averaged, f"The EMA weights of {after.path.name} were taken.")


def _are_the_bases_own(before: Checkpoint, after: Checkpoint) -> bool:
    """Whether the averages of `after` are those of `before`, or its plain weights, but for rounding."""
    # All are looked at: a training may have moved the averages of a few layers alone.
    names = [name for name in after.keys if name.startswith(UNET_PREFIX)]
    reads = [before.read] + ([lambda name: before.file.read(before.average_of(name))] if before.has_averages() else [])
    return any(
        all(_rounded_alike(read(name), after.file.read(after.average_of(name))) for name in names) for read in reads
    )


def _rounded_alike(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Whether two tensors are one, stored at the same or another precision."""
    if not old.is_floating_point() or not new.is_floating_point():
        return torch.equal(old, new)
    if {old.dtype, new.dtype} == _HALVES:
        return _within_rounding(old, new)
    coarse = max(old.dtype, new.dtype, key=lambda dtype: torch.finfo(dtype).eps)
    return torch.equal(old.to(coarse), new.to(coarse))


def _within_rounding(old: torch.Tensor, new: torch.Tensor) -> bool:
    """Whether two precisions of which neither holds the other can have come from the same numbers."""
    one, other = old.float(), new.float()
    _, exponents = torch.frexp(torch.maximum(one.abs(), other.abs()))
    below = torch.ldexp(torch.ones_like(one), exponents - 1)  # the power of two at or below the number
    allowed = torch.zeros_like(one)
    for dtype in (old.dtype, new.dtype):
        kind = torch.finfo(dtype)
        allowed += kind.eps / 2 * below.clamp(min=kind.tiny)
    return bool(((one - other).abs() <= allowed).all())


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
