"""How a hypernetwork is built: everything that its files and the form say of it, without a tensor.

A hypernetwork (as NovelAI and AUTOMATIC1111's WebUI have it) is a pair of small networks for each width of the contexts
that a U-Net's attention reads: keys are computed from c + m·f_k(c) instead of c, values from c + m·f_v(c). The same
pair serves all layers of that width.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lib_dsm.errors import InputError

# The WebUI's list: its own seven names, of which "swish" is the hard one, then torch's that work on B×N×W.
ACTIVATIONS = (
    "linear", "relu", "leakyrelu", "elu", "swish", "tanh", "sigmoid",
    "celu", "gelu", "hardshrink", "hardsigmoid", "hardtanh", "logsigmoid", "logsoftmax", "mish", "prelu", "relu6",
    "rrelu", "selu", "silu", "softmax", "softmin", "softplus", "softshrink", "softsign", "tanhshrink",
)  # fmt: skip
ACROSS_PICTURES = ("softmax", "softmin", "logsoftmax")
"""These, in the WebUI as here, normalise over the pictures of a batch, so pictures act on each other."""
INITIALISATIONS = ("Normal", "XavierUniform", "XavierNormal", "KaimingUniform", "KaimingNormal")
LINEAR_UPSAMPLING = "Linear"
OLD_DROPOUT = 0.3  # of files that only say that there is dropout
_MOST_TIMES = 32.0
_MOST_LAYERS = 16


@dataclass(frozen=True)
class Structure:
    """What decides the tensors of a hypernetwork, and what is computed with them.

    Attributes:
        widths: of the contexts it acts on, in the order of its file.
        layers: the width of each layer's input and of the last one's output, in times the context's; begins and ends
            with 1.
        activation: after each layer but the last, one of `ACTIVATIONS`.
        activate_output: whether after the last one too.
        layer_norm: whether each layer's (activated) output is normalised.
        dropout: the share of each layer's outputs that is left out in training, as long as `layers` and beginning
            with 0; entry i belongs to the layer that ends in `layers[i]`.
        skip: Train_Gamma's skip connections: each layer's output is added to its input, which is stretched to the same
            width by repeating entries, or by a matrix with `upsampling` "Linear". Each layer is activated.
        upsampling: "" or "Linear".

    Raises:
        InputError: nothing can be built like this.
    """

    widths: tuple[int, ...]
    layers: tuple[float, ...] = (1.0, 2.0, 1.0)
    activation: str = "linear"
    activate_output: bool = False
    layer_norm: bool = False
    dropout: tuple[float, ...] = ()
    skip: bool = False
    upsampling: str = ""

    def __post_init__(self) -> None:
        if not self.widths or any(width < 1 for width in self.widths) or len(set(self.widths)) < len(self.widths):
            raise InputError(
                f"The widths of the hypernetwork are {_listed(self.widths) or 'none'}.",
                "Name each context width once, such as 320, 640, 768, 1280.",
            )
        demand_layers(self.layers)
        if self.activation not in ACTIVATIONS:
            raise InputError(
                f'The activation function "{self.activation}" is not known.',
                f"Choose one of: {', '.join(ACTIVATIONS)}.",
            )
        demand_dropout(self.dropout, self.layers)
        if narrow := [width for width in self.widths if min(map(int, self.sizes(width))) < 1]:
            raise InputError(
                f"The layer structure {_listed(self.layers)} leaves a layer of width {narrow[0]} without a number.",
                "Use a larger share.",
            )

    def sizes(self, width: int) -> tuple[int, ...]:
        """Numbers that go into each layer of a context's width, and come out of the last."""
        return tuple(int(width * times) for times in self.layers)

    def rate(self, layer: int) -> float:
        """The dropout after a layer, counted from 0."""
        return self.dropout[layer + 1] if self.dropout else 0.0

    def activated(self, layer: int) -> bool:
        """Whether a layer, counted from 0, has an activation function."""
        return self.activation != "linear" and (self.skip or self.activate_output or layer < len(self.layers) - 2)

    @property
    def draws(self) -> bool:
        """Whether random numbers are drawn in training, for each layer of the U-Net others."""
        return any(self.dropout) or self.activation == "rrelu"

    @property
    def linear(self) -> bool:
        """Whether keys and values are an affine function of the context, so that it could be a LoRA as well."""
        return self.activation == "linear" and not self.layer_norm


def demand_layers(layers: Sequence[float]) -> None:
    """Raises InputError where no network has such layers."""
    if len(layers) < 2 or layers[0] != 1 or layers[-1] != 1:
        raise InputError(
            f"The layer structure is {_listed(layers) or 'empty'}.", "It begins and ends with 1, such as 1, 2, 1."
        )
    if any(not 0 < times <= _MOST_TIMES for times in layers) or len(layers) > _MOST_LAYERS + 1:
        raise InputError(
            f"The layer structure is {_listed(layers)}.",
            f"Use at most {_MOST_LAYERS} layers of more than 0 and at most {_MOST_TIMES:g} times the width.",
        )


def demand_dropout(dropout: Sequence[float], layers: Sequence[float]) -> None:
    """Raises InputError where a dropout structure does not belong to such layers."""
    if not dropout:
        return
    if len(dropout) != len(layers):
        raise InputError(
            f"The dropout structure has {len(dropout)} numbers, the layer structure {len(layers)}.",
            f"Write as many, such as {_listed([0.0, *[0.1] * (len(layers) - 2), 0.0])}; or none for no dropout.",
        )
    if dropout[0] != 0 or any(not 0 <= rate < 1 for rate in dropout):
        raise InputError(
            f"The dropout structure is {_listed(dropout)}.", "It begins with 0, and each number is at least 0, below 1."
        )


def old_dropout(layers: Sequence[float], used: bool, last_layer: bool) -> tuple[float, ...]:
    """What the WebUI makes of a file that has no dropout structure but says whether there is dropout."""
    if not used:
        return ()
    middle = [OLD_DROPOUT] * max(len(layers) - 3, 0)
    return (0.0, *middle, OLD_DROPOUT if last_layer else 0.0, 0.0)[: len(layers)]


def parameter_count(structure: Structure, width: int) -> int:
    """The numbers that are learned for one context width, both halves together."""
    return 2 * sum(int(part["parameters"]) for part in parts(structure, width))


def total_parameters(structure: Structure) -> int:
    """The numbers that are learned for all context widths together."""
    return sum(parameter_count(structure, width) for width in structure.widths)


def parts(structure: Structure, width: int) -> list[dict[str, Any]]:
    """What a half for one width is made of, in order: `kind`, `inputs`, `outputs`, `parameters`, `rate` of dropout.

    Kinds are "linear", "activation", "norm", "dropout", "stretch" (a skip connection's way to another width).
    """
    sizes = structure.sizes(width)
    found: list[dict[str, Any]] = []

    def add(kind: str, inputs: int, outputs: int, parameters: int = 0, **more: Any) -> None:
        found.append({"kind": kind, "inputs": inputs, "outputs": outputs, "parameters": parameters, **more})

    for layer, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
        add("linear", inputs, outputs, inputs * outputs + outputs, layer=layer)
        after: list[tuple[str, int, dict[str, Any]]] = []
        if structure.activated(layer):
            own = 1 if structure.activation == "prelu" else 0
            after.append(("activation", own, {"name": structure.activation}))
        if structure.layer_norm:
            after.append(("norm", 2 * outputs, {}))
        if structure.rate(layer) > 0:
            after.append(("dropout", 0, {"rate": structure.rate(layer)}))
        if structure.skip:  # the other order: normalised, left out, activated
            after = [*after[1:], after[0]] if structure.activated(layer) else after
        for kind, parameters, more in after:
            add(kind, outputs, outputs, parameters, layer=layer, **more)
        if structure.skip:
            matrix = inputs * outputs if structure.upsampling == LINEAR_UPSAMPLING else 0
            add("stretch", inputs, outputs, matrix, layer=layer)
    return found


def described(structure: Structure, layers_of: Mapping[int, int] | None = None) -> dict[str, Any]:
    """Plain data for the pages: `widths` (each with `width`, `parameters`, `sizes`, `parts` and how many attention
    `layers` of the model it serves, None if unknown) and `parameters` of all together.
    """
    found = [
        {
            "width": width,
            "sizes": list(structure.sizes(width)),
            "parameters": parameter_count(structure, width),
            "parts": parts(structure, width),
            "layers": layers_of.get(width, 0) if layers_of is not None else None,
        }
        for width in structure.widths
    ]
    return {
        "widths": found,
        "parameters": total_parameters(structure),
        "linear": structure.linear,
        "skip": structure.skip,
    }


def recorded(structure: Structure) -> dict[str, Any]:
    """The structure as a run's record has it, under the names of the settings."""
    return {
        "widths": list(structure.widths),
        "layer_structure": list(structure.layers),
        "activation": structure.activation,
        "activate_output": structure.activate_output,
        "layer_norm": structure.layer_norm,
        "dropout_structure": list(structure.dropout),
        "skip_connection": structure.skip,
        "upsample_linear": bool(structure.upsampling),
    }


def _listed(numbers: Sequence[float]) -> str:
    return ", ".join(f"{number:g}" for number in numbers)
