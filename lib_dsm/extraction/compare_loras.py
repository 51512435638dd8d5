"""How far two LoRA files are apart, whatever their ranks and layouts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.lora_content import Factors, LoraContent, inner, read_lora
from lib_dsm.extraction.lora_file import BIAS_PARTS, CHANGES, WEIGHT_PARTS

Parts = Mapping[str, torch.Tensor]
Change = Factors | Parts


@dataclass(frozen=True)
class Comparison:
    """Two LoRA files A and B: by module ‖A − B‖ / ‖A‖ and the cosine between the changes.

    Attributes:
        distance, cosine: over all modules; the distance is None where A changes nothing and B does.
        modules: by name, the two numbers.
        only_first, only_second: modules of one alone.
        not_compared: modules of both whose form (LoHa, LoKr, …) is not understood in one of them.
        embeddings: what is bundled, by name: "equal", "different", "only in the first" or "only in the second".
    """

    distance: float | None
    cosine: float
    modules: Mapping[str, tuple[float | None, float]]
    only_first: tuple[str, ...]
    only_second: tuple[str, ...]
    not_compared: tuple[str, ...] = ()
    embeddings: Mapping[str, str] = field(default_factory=dict)

    def text(self, first: str, second: str) -> str:
        """A few lines for a person; the arguments are what the files are called."""
        distance = f"{first} changes nothing" if self.distance is None else f"distance {self.distance:.3f}"
        lines = [f"{len(self.modules)} modules in both: {distance}, cosine {self.cosine:.3f}."]
        for names, file in ((self.only_first, first), (self.only_second, second)):
            lines += [f"{len(names)} modules only in {file}."] if names else []
        if self.not_compared:
            lines.append(f"Not compared, of another form: {', '.join(self.not_compared)}.")
        lines += [f"The embedding {name} is {said}." for name, said in self.embeddings.items()]
        return "\n".join(lines)


def compare(first: Path, second: Path) -> Comparison:
    """Compare what two LoRA files change: low ranks, whole differences, norms and biases.

    Raises:
        InputError, ModelError: as `read_lora`; or the files are for different models.
    """
    one, other = read_lora(first), read_lora(second)
    mine, others = _changes(one), _changes(other)
    everything = [{*content.modules, *content.other} for content in (one, other)]
    modules: dict[str, tuple[float | None, float]] = {}
    products = 0.0
    for name in (name for name in mine if name in others):
        product = _product(mine[name], others[name], name, second)
        square, size = _square(mine[name]), _square(others[name])
        modules[name] = (_distance(square, size, product), _cosine(square, size, product))
        products += product
    left = sorted((everything[0] & everything[1]) - modules.keys())
    # What is not understood in one of them stands aside in both.
    whole, whole_other = (
        sum(_square(change) for name, change in changes.items() if name not in left) for changes in (mine, others)
    )
    return Comparison(
        _distance(whole, whole_other, products),
        _cosine(whole, whole_other, products),
        modules,
        tuple(name for name in _names(one) if name not in everything[1]),
        tuple(name for name in _names(other) if name not in everything[0]),
        tuple(left),
        _embeddings(one, other),
    )


def _names(content: LoraContent) -> Iterable[str]:
    return (*content.modules, *content.other)


def _changes(content: LoraContent) -> dict[str, Change]:
    """By module, a low rank or the whole change of the weight and the bias; no other form."""
    return {**content.modules, **{name: parts for name, parts in content.other.items() if not parts.keys() - CHANGES}}


def _whole(change: Change) -> dict[str, torch.Tensor]:
    if isinstance(change, Factors):
        return {"weight": (change.up.double() @ change.down.double()).reshape(change.shape)}
    found = {
        "weight": next((change[part].double() for part in WEIGHT_PARTS if part in change), None),
        "bias": next((change[part].double() for part in BIAS_PARTS if part in change), None),
    }
    # A weight's difference of a single zero stands for none.
    return {key: tensor for key, tensor in found.items() if tensor is not None and bool(tensor.any())}


def _product(one: Change, other: Change, name: str, second: Path) -> float:
    """⟨one, other⟩."""
    if isinstance(one, Factors) and isinstance(other, Factors):
        if one.shape != other.shape:
            raise _another_shape(name, second)
        return inner(one, other)
    first, last = _whole(one), _whole(other)
    total = 0.0
    for key in first.keys() & last.keys():
        if first[key].shape != last[key].shape:
            raise _another_shape(name, second)
        total += float((first[key] * last[key]).sum())
    return total


def _square(change: Change) -> float:
    if isinstance(change, Factors):
        return max(0.0, change.square())
    return sum(float(tensor.square().sum()) for tensor in _whole(change).values())


def _another_shape(name: str, second: Path) -> ModelError:
    return ModelError(f"{name} has another shape in {second}.", "Compare LoRAs for one model.")


def _distance(square: float, other: float, product: float) -> float | None:
    apart = math.sqrt(max(0.0, square + other - 2 * product))
    return apart / math.sqrt(square) if square else (None if apart else 0.0)


def _cosine(square: float, other: float, product: float) -> float:
    return product / math.sqrt(square * other) if square and other else 0.0


def _embeddings(one: LoraContent, other: LoraContent) -> dict[str, str]:
    found = {}
    for name in {**one.embeddings, **other.embeddings}:
        first, second = one.embeddings.get(name), other.embeddings.get(name)
        if first is None or second is None:
            found[name] = "only in the first" if second is None else "only in the second"
        else:
            same = first.keys() == second.keys() and all(
                first[key].shape == second[key].shape and bool((first[key].float() == second[key].float()).all())
                for key in first
            )
            found[name] = "equal" if same else "different"
    return found
