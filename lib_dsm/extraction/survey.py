"""What an extraction would give, before anything is written: the spectrum of every change, sizes against errors."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.key_map import Layer
from lib_dsm.extraction.lora_file import PRECISIONS
from lib_dsm.extraction.low_rank import squared_norm, truncated_svd
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.extraction.pair import Pair, open_pair
from lib_dsm.extraction.ranks import WHOLE_WIDTH, Spectrum, by_energy, by_size, module_bytes, significant
from lib_dsm.extraction.vocabulary import changed_vocabulary
from lib_dsm.jobs import Job

_OUTLOOK_RANKS = (4, 8, 16, 32, 64, 128)


@dataclass(frozen=True)
class Outlook:
    """What one choice would give: bytes of the file, and the relative error over all layers that can be carried.

    `rank` and `conv_rank` are 0 where they are not the same for all layers.
    """

    label: str
    bytes: int
    error: float
    rank: int = 0
    conv_rank: int = 0


@dataclass(frozen=True)
class Survey:
    """The changes of two checkpoints.

    Attributes:
        spectra: by module name, of the layers that a low rank carries.
        convolutions: the names among them that are convolutions larger than 1×1.
        whole: by module name the numbers of what is carried as it is: norms, biases, the first and last convolution.
        unchanged: module names of layers that are equal in both.
        words: by the name of a bundled embedding, the numbers of its vectors.
    """

    spectra: Mapping[str, Spectrum]
    convolutions: frozenset[str]
    whole: Mapping[str, int]
    unchanged: frozenset[str]
    words: Mapping[str, int] = field(default_factory=dict)

    def ranks(self, options: ExtractionOptions, more: int = 0) -> dict[str, int]:
        """The rank of each layer that the options give; `more` bytes of the size belong to something else.

        Raises:
            InputError: the size is too small for what is always carried.
        """
        carried = {
            name: spectrum
            for name, spectrum in self.spectra.items()
            if options.conv_rank or name not in self.convolutions
        }
        if options.size:
            width = PRECISIONS[options.precision].itemsize
            fixed = more + self.fixed_bytes()
            fixed += sum(item.bytes(name, 0, width) for name, item in self.spectra.items() if name not in carried)
            least = fixed + sum(item.bytes(name, int(bool(item.group)), width) for name, item in carried.items())
            if options.size * 1e6 < least:
                raise InputError(
                    f"{options.size:g} MB are too few: norms, biases, words, the ends and the card alone take "
                    f"{least / 1e6:.2f} MB.",
                    "Allow a larger file.",
                )
            return by_size(carried, options.size * 1e6 - fixed, width)
        if options.energy:
            return {name: by_energy(item.values, item.square, options.energy) for name, item in carried.items()}
        return {
            name: min(options.conv_rank if name in self.convolutions else options.rank, len(spectrum.values))
            for name, spectrum in carried.items()
        }

    def fixed_bytes(self) -> int:
        """What is always in the file, the metadata's share included."""
        names = [*self.spectra, *self.whole, *self.words]
        metadata = 4000 + sum(len(name) + 20 for name in names)
        as_they_are = (*self.whole.items(), *self.words.items())
        return metadata + sum(module_bytes(name, numbers, 1, WHOLE_WIDTH) for name, numbers in as_they_are)

    def outlook(self, options: ExtractionOptions) -> Outlook:
        """Size and error with these options, the rounding of the numbers aside."""
        ranks = self.ranks(options)
        width = PRECISIONS[options.precision].itemsize
        size = sum(item.bytes(name, ranks.get(name, 0), width) for name, item in self.spectra.items())
        lost = sum(spectrum.lost(ranks.get(name, 0)) for name, spectrum in self.spectra.items())
        whole = sum(spectrum.square for spectrum in self.spectra.values())
        label = f"{options.size:g} MB" if options.size else (
            f"{options.energy:.0%} of the energy" if options.energy else f"rank {options.rank}/{options.conv_rank}"
        )  # fmt: skip
        fixed = not options.size and not options.energy
        return Outlook(
            label, size + self.fixed_bytes(), math.sqrt(lost / whole) if whole else 0.0,
            options.rank if fixed else 0, options.conv_rank if fixed else 0,
        )  # fmt: skip

    def outlooks(self, options: ExtractionOptions) -> list[Outlook]:
        """Sizes and errors for a few ranks."""
        known = max((len(spectrum.values) for spectrum in self.spectra.values()), default=0)
        ranks = [rank for rank in _OUTLOOK_RANKS if rank <= max(known, _OUTLOOK_RANKS[0])]
        fixed = replace(options, energy=0.0, size=0.0)
        return [
            self.outlook(replace(fixed, rank=rank, conv_rank=min(rank, 64) if options.conv_rank else 0))
            for rank in ranks
        ]


def survey(base: Path, tuned: Path, options: ExtractionOptions, job: Job | None = None) -> Survey:
    """Go through two checkpoints and tell what changed.

    Raises:
        InputError, ModelError, Cancelled: as `extract_checkpoint`.
    """
    with open_pair(base, tuned, options) as pair:
        found = survey_pair(pair, options, job, 0, len(pair.layers))
        if job is not None:
            job.progress(len(pair.layers), len(pair.layers))
        return found


def survey_pair(pair: Pair, options: ExtractionOptions, job: Job | None, done: int, total: int) -> Survey:
    """As `survey`, of checkpoints that are open; counts on from `done` of `total` layers."""
    known = (
        options.max_rank if options.size or options.energy else max(options.max_rank, options.rank, options.conv_rank)
    )
    spectra: dict[str, Spectrum] = {}
    whole: dict[str, int] = {}
    unchanged: set[str] = set()
    for index, layer in enumerate(pair.layers):
        if job is not None:
            job.check()
            job.progress(done + index, total, f"looking at {layer.weight}")
        change = layer_change(pair, layer)
        bias = pair.change(layer.bias) if layer.bias else None
        if change is None and bias is None:
            unchanged.add(layer.name)
        elif change is None or layer.is_norm or layer.is_end:
            parts = [part.numel() for part in (change, bias) if part is not None]
            whole[layer.name] = 2 * layer.shape[0] if layer.is_norm else sum(parts)
        else:
            most = known if options.conv_rank or not layer.is_convolution else 0
            numbers = 0 if bias is None else bias.numel()
            spectra[layer.name] = replace(spectrum_of(change, most, layer.group), bias=numbers)
    if not spectra and not whole and not any(pair.change(key) is not None for key in pair.remaining()):
        raise equal(pair)
    groups = {spectrum.group for spectrum in spectra.values()} - {""}
    for layer in pair.layers:
        if layer.group in groups and layer.name in unchanged:
            spectra[layer.name] = Spectrum((), 0.0, sum(layer.shape), layer.group)
    convolutions = {layer.name for layer in pair.layers if layer.is_convolution}
    vocabulary = changed_vocabulary(pair, options.tokens)
    words = vocabulary.numbers() if vocabulary is not None else {}
    return Survey(spectra, frozenset(convolutions), whole, frozenset(unchanged), words)


def layer_change(pair: Pair, layer: Layer) -> torch.Tensor | None:
    """The change of a layer's weight; see `Pair.change`."""
    return pair.change(layer.weight, None if layer.rows is None else (layer.rows, layer.shape[0]))


def spectrum_of(change: torch.Tensor, most: int, group: str = "") -> Spectrum:
    """The spectrum of a layer's change, at most `most` values."""
    matrix = change.flatten(1)
    square = squared_norm(matrix)
    values = truncated_svd(matrix, most, square)[1].tolist() if most else []
    return Spectrum(tuple(values[: significant(values)]), square, sum(matrix.shape), group)


def equal(pair: Pair) -> ModelError:
    """That there is nothing to extract."""
    return ModelError(
        f"{pair.tuned.path} and {pair.base.path} are equal: there is nothing to extract.", "Choose the fine-tuned file."
    )
