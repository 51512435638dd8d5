"""A hypernetwork in training, and what a training begins with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lib_dsm.diffusion.contexts import ContextMap
from lib_dsm.diffusion.protocol import DiffusionModel, Replacements
from lib_dsm.errors import ModelError
from lib_dsm.networks.hypernetwork import Hypernetwork, Weights, by_width, load_hypernetwork, named
from lib_dsm.networks.hypernetwork_modules import Drawing, Half, Pairs, initialise
from lib_dsm.networks.hypernetwork_structure import Structure, recorded, total_parameters
from lib_dsm.networks.webui_optimizer import read_hypernetwork_moments, state_beside


@dataclass(frozen=True, eq=False)
class HypernetworkStart:
    """What a run starts from.

    Attributes:
        structure: how the network is built.
        weights: its tensors.
        step: steps that were made before, elsewhere.
        moments: AdamW's state after them, one for each parameter; empty to begin anew.
        source: the hypernetwork it was read from, None if it was drawn.
        stale: why an optimizer's state that lay beside it was not taken, "" if there was none or it was.
        note: a sentence on it for the person, "" if there is nothing to say.
    """

    structure: Structure
    weights: Weights
    step: int = 0
    moments: Sequence[Mapping[str, torch.Tensor]] = ()
    source: Hypernetwork | None = None
    stale: str = ""
    note: str = ""


def drawn_start(structure: Structure, initialisation: str, deviation: float, seed: int) -> HypernetworkStart:
    """A network that is not trained yet; see `initialise`."""
    pairs = Pairs.empty(structure)
    initialise(pairs, initialisation, deviation, seed)
    return HypernetworkStart(structure, pairs.tensors())


def start_from(path: Path, go_on: bool) -> HypernetworkStart:
    """Start from the hypernetwork in a file, built as it says itself.

    With `go_on` its step, and what the WebUI saved of its optimizer beside it, are taken over too.

    Raises:
        InputError: there is no such file.
        ModelError: it is no hypernetwork, is damaged, or nothing can be built as it says.
    """
    source = load_hypernetwork(path)
    pairs = source.pairs()
    structure, weights = pairs.structure, pairs.tensors()
    if not go_on:
        note = f"It starts as {path.name} is."
        return HypernetworkStart(structure, weights, source=source, note=note)
    step = max(source.step or 0, 0)
    known = f"after step {step}" if source.step is not None else "from step 0, as it does not tell its own"
    shapes = [parameter.shape for parameter in pairs.parameters()]
    moments, told, stale = state_beside(path, lambda beside: read_hypernetwork_moments(beside, path, shapes))
    note = f"The training of {path.name} goes on {known}. {told}"
    return HypernetworkStart(structure, weights, step, moments or (), source, stale, note)


class HypernetworkTraining:
    """`Trainable` (see trainable.py) of a hypernetwork."""

    def __init__(self, name: str, structure: Structure, weights: Weights, device: torch.device) -> None:
        self.name = name
        self.structure = structure
        self._pairs = Pairs.empty(structure)
        self._pairs.load(weights)
        self._pairs.to(device)
        self._parameters = list(self._pairs.parameters())
        self._drawing: Drawing | None = None

    def parameters(self) -> list[torch.nn.Parameter]:
        """See trainable.py; in the WebUI's order, width by width and keys before values."""
        return self._parameters

    @contextmanager
    def applied(self, model: DiffusionModel, strength: float = 1.0) -> Iterator[Replacements]:
        """See trainable.py; a hypernetwork leaves the prompts alone."""
        maps: dict[int, tuple[ContextMap, ContextMap]] = {
            width: (partial(self._through, keys, strength), partial(self._through, values, strength))
            for width, (keys, values) in self._pairs.halves.items()
        }
        with model.contexts_changed(maps, alike=not self.structure.draws):
            yield {}

    @contextmanager
    def training(self, seed: int, places: Sequence[int]) -> Iterator[None]:
        """See trainable.py."""
        self._drawing = Drawing(seed, tuple(places))
        try:
            yield
        finally:
            self._drawing = None

    def _through(self, half: Half, strength: float, context: torch.Tensor, number: int) -> torch.Tensor:
        changed: torch.Tensor = half(context, strength, self._drawing, number)
        return changed

    def weights(self) -> Weights:
        """Its tensors as files have them, detached copies on the CPU."""
        return self._pairs.tensors()

    def state(self) -> dict[str, torch.Tensor]:
        """See trainable.py."""
        return named(self._pairs.tensors())

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """See trainable.py."""
        try:
            self._pairs.load(by_width(state, self.structure.widths))
        except ValueError as error:
            raise ModelError(
                f"The saved state of {self.name} is that of another structure: {error}.",
                "Resume with the settings that it was started with, or start a new run.",
            ) from error

    def description(self) -> dict[str, Any]:
        """See trainable.py."""
        return {"kind": "hypernetwork", **recorded(self.structure), "parameters": total_parameters(self.structure)}
