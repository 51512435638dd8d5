"""A hypernetwork's computation: the halves for keys and values, with the names that its files have for the tensors."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from lib_dsm.networks.hypernetwork_structure import LINEAR_UPSAMPLING, Structure
from lib_dsm.seeds import generator, uniform

KEYS, VALUES = HALVES = ("k", "v")
_FACTORIES: Mapping[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "leakyrelu": nn.LeakyReLU, "elu": nn.ELU, "swish": nn.Hardswish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "celu": nn.CELU, "gelu": nn.GELU, "hardshrink": nn.Hardshrink,
    "hardsigmoid": nn.Hardsigmoid, "hardtanh": nn.Hardtanh, "logsigmoid": nn.LogSigmoid, "logsoftmax": nn.LogSoftmax,
    "mish": nn.Mish, "prelu": nn.PReLU, "relu6": nn.ReLU6, "selu": nn.SELU, "silu": nn.SiLU, "softmax": nn.Softmax,
    "softmin": nn.Softmin, "softplus": nn.Softplus, "softshrink": nn.Softshrink, "softsign": nn.Softsign,
    "tanhshrink": nn.Tanhshrink,
}  # fmt: skip
_OLD_NAMES = {"linear1": "linear.0", "linear2": "linear.1"}  # of the first hypernetworks' tensors


@dataclass(frozen=True)
class Drawing:
    """What decides the random numbers of a training pass: the run's seed and the places of the batch's pictures.

    Each picture has numbers of its own, so a batch may go through the model in parts; and a layer that is computed
    again in the backward pass draws the same ones again.
    """

    seed: int
    places: tuple[int, ...]

    def uniform(self, like: torch.Tensor, where: tuple[int, ...]) -> torch.Tensor:
        """Numbers in [0, 1) for `like` B×…, one picture's independent of the others; `where` tells layers apart."""
        shape = tuple(like.shape[1:])
        drawn = [uniform(self.seed, "dropout", (place, *where), shape, like.device) for place in self.places]
        return torch.stack(drawn)


class Drawn(nn.Module, ABC):
    """A part that draws random numbers in training; the numbers are given to it, B×N×W in [0, 1)."""

    @abstractmethod
    def forward(self, values: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        """`drawn` is None where nothing is trained."""


class Dropout(Drawn):
    """Leaves out a share of the numbers and lengthens the others (Srivastava et al., "Dropout", 2014)."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, values: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        """See `Drawn`."""
        if drawn is None:
            return values
        return values * (drawn >= self.rate).to(values.dtype) / (1.0 - self.rate)


class RandomLeaky(Drawn):
    """torch's `RReLU`: negative numbers are multiplied by a slope that is drawn in training, and else its mean."""

    lower, upper = 1.0 / 8, 1.0 / 3

    def forward(self, values: torch.Tensor, drawn: torch.Tensor | None) -> torch.Tensor:
        """See `Drawn`."""
        if drawn is None:
            return F.leaky_relu(values, (self.lower + self.upper) / 2)
        slope = self.lower + (self.upper - self.lower) * drawn.to(values.dtype)
        return torch.where(values < 0, values * slope, values)


class Half(nn.Module):
    """What is added to a context before keys (or values) are computed from it.

    The modules lie in `linear` in the order and under the numbers that the WebUI gives them, so the names of the
    tensors are those of its files: `linear.0.weight`, ….
    """

    def __init__(self, structure: Structure, width: int, half: str) -> None:
        super().__init__()
        self.skip = structure.skip
        self._where = (width, HALVES.index(half))
        sizes = structure.sizes(width)
        pairs = list(itertools.pairwise(sizes))
        blocks: list[nn.Module] = []
        for layer, (inputs, outputs) in enumerate(pairs):
            parts = _layer(structure, layer, inputs, outputs)
            blocks += [SkipLayer(parts, inputs, outputs, structure.upsampling)] if structure.skip else parts
        self.linear = nn.Sequential(*blocks)

    def forward(
        self, context: torch.Tensor, strength: float = 1.0, drawing: Drawing | None = None, layer: int = 0
    ) -> torch.Tensor:
        """The context B×N×W that keys (or values) are computed from; `layer` tells the U-Net's attentions apart.

        With `drawing` it is the pass of a training, where dropout is on and the strength is 1.
        """
        changed = self._through(context, drawing, layer)
        if self.skip:
            changed = changed - context
        return context + changed * (1.0 if drawing is not None else strength)

    def _through(self, values: torch.Tensor, drawing: Drawing | None, layer: int) -> torch.Tensor:
        for index, module in enumerate(self.linear):
            if isinstance(module, SkipLayer):
                values = module(values, drawing, (*self._where, layer, index))
            else:
                values = _through(module, values, drawing, (*self._where, layer, index))
        return values


class SkipLayer(nn.Module):
    """A layer of Train_Gamma's hypernetworks with a skip connection: its input, stretched to its width, is added."""

    def __init__(self, parts: list[nn.Module], inputs: int, outputs: int, upsampling: str) -> None:
        super().__init__()
        self.upsample_layer = nn.Linear(inputs, outputs, bias=False) if upsampling == LINEAR_UPSAMPLING else None
        self.linear = nn.Sequential(*parts)
        self.outputs = outputs

    def forward(self, values: torch.Tensor, drawing: Drawing | None, where: tuple[int, ...]) -> torch.Tensor:
        """Values B×N×inputs to B×N×outputs."""
        if self.upsample_layer is None:
            stretched = F.interpolate(values, size=self.outputs, mode="nearest-exact")
        else:
            stretched = self.upsample_layer(values)
        for index, module in enumerate(self.linear):
            values = _through(module, values, drawing, (*where, index))
        return stretched + values


class Pairs(nn.Module):
    """All of a hypernetwork: for each width the halves for keys and values. Made by `empty`."""

    def __init__(self, structure: Structure) -> None:
        super().__init__()
        self.structure = structure
        self.halves: dict[int, tuple[Half, Half]] = {}
        for width in structure.widths:
            pair = (Half(structure, width, KEYS), Half(structure, width, VALUES))
            self.halves[width] = pair
            for half, module in zip(HALVES, pair, strict=True):
                self.add_module(f"{width}_{half}", module)

    @classmethod
    def empty(cls, structure: Structure) -> Pairs:
        """Whatever numbers lie in memory, so that making one draws from no random state; `load` or `initialise` it."""
        with torch.device("meta"):
            pairs = cls(structure)
        return pairs.to_empty(device="cpu")

    def tensors(self) -> dict[int, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]]:
        """Detached copies on the CPU by width, for keys and values, under the names of the WebUI's files."""
        return {
            width: (_copies(pair[0].state_dict()), _copies(pair[1].state_dict())) for width, pair in self.halves.items()
        }

    def load(self, tensors: Mapping[int, tuple[Mapping[str, torch.Tensor], Mapping[str, torch.Tensor]]]) -> None:
        """Take tensors such as `tensors` gives; those of the first hypernetworks have other names.

        Raises:
            ValueError: some are missing, too many or of another shape; the message names one.
        """
        for width, pair in self.halves.items():
            for half, module, given in zip(HALVES, pair, tensors.get(width, ({}, {})), strict=True):
                own, found = module.state_dict(), {_new_name(name): tensor for name, tensor in given.items()}
                for name in sorted(own.keys() | found.keys()):
                    if name not in own or name not in found or own[name].shape != found[name].shape:
                        has = tuple(found[name].shape) if name in found else "missing"
                        wants = tuple(own[name].shape) if name in own else "none"
                        raise ValueError(f"{width}.{half}.{name} is {has} and should be {wants}")
                with torch.no_grad():
                    for name, tensor in own.items():
                        tensor.copy_(found[name])


def initialise(pairs: Pairs, how: str, deviation: float, seed: int) -> None:
    """Draw the first numbers as the WebUI does, but each tensor's by the seed, its width, half and place alone.

    `how` is one of `INITIALISATIONS`; `deviation` is that of "Normal" (0.01 in the WebUI). Biases are 0. A layer norm's
    weights are normal whatever `how` says, as in the WebUI. See Glorot and Bengio (2010) and He et al. (2015).
    """
    for width, pair in pairs.halves.items():
        for half, whole in enumerate(pair):
            for number, part in enumerate(
                part for part in whole.modules() if isinstance(part, (nn.Linear, nn.LayerNorm))
            ):
                drawn = generator(seed, "hypernetwork", width, half, number)
                shape = tuple(part.weight.shape)
                values = drawn.standard_normal(shape) * deviation
                if how != "Normal" and isinstance(part, nn.Linear):
                    spread = _spread(how, part.in_features, part.out_features)
                    if how.endswith("Uniform"):
                        values = drawn.uniform(-math.sqrt(3.0) * spread, math.sqrt(3.0) * spread, shape)
                    else:
                        values = drawn.standard_normal(shape) * spread
                with torch.no_grad():
                    part.weight.copy_(torch.from_numpy(values))
                    if part.bias is not None:
                        part.bias.zero_()
    for module in pairs.modules():
        if isinstance(module, nn.PReLU):
            nn.init.constant_(module.weight, module.init)


def _spread(how: str, inputs: int, outputs: int) -> float:
    """The standard deviation of a layer's weights. Kaiming's gain is √2, that of ReLU, as the WebUI has it."""
    return math.sqrt(2.0 / (inputs + outputs)) if how.startswith("Xavier") else math.sqrt(2.0 / inputs)


def _layer(structure: Structure, layer: int, inputs: int, outputs: int) -> list[nn.Module]:
    linear, rate = nn.Linear(inputs, outputs), structure.rate(layer)
    norm = [nn.LayerNorm(outputs)] if structure.layer_norm else []
    dropout = [Dropout(rate)] if rate > 0 else []
    activation = [_activation(structure.activation)] if structure.activated(layer) else []
    if structure.skip:
        return [linear, *norm, *dropout, *activation]
    return [linear, *activation, *norm, *dropout]


def _activation(name: str) -> nn.Module:
    return RandomLeaky() if name == "rrelu" else _FACTORIES[name]()


def _through(module: nn.Module, values: torch.Tensor, drawing: Drawing | None, where: tuple[int, ...]) -> torch.Tensor:
    if isinstance(module, Drawn):
        changed: torch.Tensor = module(values, drawing.uniform(values, where) if drawing is not None else None)
    else:
        changed = module(values)
    return changed


def _new_name(name: str) -> str:
    first, dot, rest = name.partition(".")
    return f"{_OLD_NAMES.get(first, first)}{dot}{rest}"


def _copies(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()}
