"""A hypernetwork and its files: `.pt` as the WebUI writes and reads it, and a safetensors twin of the same content.

- `.pt`: a pickled dict. For each context width, as an integer, a pair of state dicts, for keys and for values; and
  `step`, `name`, `layer_structure`, `activation_func`, `is_layer_norm`, `weight_initialization`, `sd_checkpoint` (first
  ten digits of the checkpoint's SHA-256), `sd_checkpoint_name`, `activate_output`, `use_dropout`, `dropout_structure`,
  `last_layer_dropout`, `optional_info`. Train_Gamma adds `skip_connection` and `upsample_linear`.
- `.safetensors`: tensors such as `768.k.linear.0.weight`; the metadata's `hypernetwork` is JSON with the `widths` in
  their order and the other keys as `facts`.

What is read is written again as it was, keys that are not known here included.
"""

from __future__ import annotations

import json
import re
import sys
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import parse_json
from lib_dsm.networks.hypernetwork_modules import HALVES, Pairs
from lib_dsm.networks.hypernetwork_structure import LINEAR_UPSAMPLING, Structure, old_dropout
from lib_dsm.networks.pickles import load_pickle, save_pickle
from lib_dsm.networks.safetensors_files import open_safetensors, save_tensors
from lib_dsm.networks.tensor_files import file_kind

TENSOR_NAME = re.compile(r"^(\d+)\.([kv])\.(.+)$")
_SHORT_HASH = 10  # digits
_METADATA = "hypernetwork"  # says that a safetensors file is one

HalfTensors = Mapping[str, torch.Tensor]
Weights = Mapping[int, tuple[HalfTensors, HalfTensors]]


@dataclass(frozen=True, eq=False)
class Hypernetwork:
    """What a file holds.

    Attributes:
        weights: by width, the tensors for keys and for values, on the CPU.
        facts: the file's other keys, as they are called and typed there.
    """

    weights: Weights
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Its own name, "" if the file has none; the WebUI takes it from the file's name where that is so."""
        name = self.facts.get("name")
        return name if isinstance(name, str) else ""

    @property
    def step(self) -> int | None:
        """Finished optimiser steps, None if unknown."""
        step = self.facts.get("step")
        return int(step) if isinstance(step, (int, float)) and not isinstance(step, bool) else None

    @property
    def checkpoint_name(self) -> str:
        """What it was trained on, "" if unknown."""
        return str(self.facts.get("sd_checkpoint_name") or "")

    @property
    def checkpoint_hash(self) -> str:
        """The first digits of that file's SHA-256, "" if unknown."""
        return str(self.facts.get("sd_checkpoint") or "")

    @property
    def structure(self) -> Structure:
        """How it is built; what a file does not say is as the WebUI takes it to be.

        Raises:
            InputError: nothing can be built like this.
        """
        facts = self.facts
        try:
            layers = tuple(map(float, facts.get("layer_structure") or (1, 2, 1)))
            rates = facts.get("dropout_structure")
            if rates is None:
                rates = old_dropout(layers, bool(facts.get("use_dropout")), bool(facts.get("last_layer_dropout")))
            dropout = tuple(map(float, rates))
        except (TypeError, ValueError, OverflowError):
            raise InputError(
                f'The hypernetwork "{self.name}" has the layer structure {facts.get("layer_structure")!r}.',
                "Get the file again.",
            ) from None
        return Structure(
            widths=tuple(self.weights),
            layers=layers,
            activation=str(facts.get("activation_func") or "linear").replace("hardswish", "swish"),
            activate_output=bool(facts.get("activate_output", True)),
            layer_norm=bool(facts.get("is_layer_norm", False)),
            dropout=dropout if any(dropout) else (),
            skip=bool(facts.get("skip_connection")),
            upsampling=LINEAR_UPSAMPLING if facts.get("upsample_linear") == LINEAR_UPSAMPLING else "",
        )

    def pairs(self) -> Pairs:
        """What computes with it, float32 on the CPU.

        Raises:
            ModelError: its tensors are not those of its structure.
        """
        try:
            pairs = Pairs.empty(self.structure)
            pairs.load(self.weights)
        except (InputError, ValueError) as error:
            problem = error.problem if isinstance(error, InputError) else f"{error}."
            raise ModelError(
                f'The hypernetwork "{self.name}" does not hold what it says: {problem}', "Get the file again."
            ) from error
        return pairs


def facts_of(
    structure: Structure,
    name: str,
    step: int,
    initialisation: str,
    checkpoint_name: str = "",
    checkpoint_hash: str = "",
    info: str = "",
) -> dict[str, Any]:
    """The keys of a file for a hypernetwork of ours, those of the WebUI in its order; see the module's text.

    `info` is `optional_info`, a text for whoever uses it. Train_Gamma's keys are there only where they say something.
    """
    dropout = structure.dropout or (0.0,) * len(structure.layers)
    facts: dict[str, Any] = {
        "step": step,
        "name": name,
        "layer_structure": [_whole(times) for times in structure.layers],
        "activation_func": structure.activation,
        "is_layer_norm": structure.layer_norm,
        "weight_initialization": initialisation,
        "sd_checkpoint": checkpoint_hash[:_SHORT_HASH] or None,
        "sd_checkpoint_name": checkpoint_name or None,
        "activate_output": structure.activate_output,
        "use_dropout": any(dropout),
        "dropout_structure": [_whole(rate) for rate in dropout],
        "last_layer_dropout": dropout[-2] != 0,
        "optional_info": info or None,
    }
    if structure.skip:
        facts.update(skip_connection=True, upsample_linear=structure.upsampling or None)
    return facts


def save_pt(hypernetwork: Hypernetwork, path: Path) -> None:
    """Write the WebUI's own layout, atomically; equal hypernetworks give equal bytes.

    Raises:
        ModelError: a tensor holds NaN or infinity.
        StorageError: the file cannot be written.
    """
    content: dict[Any, Any] = {
        width: tuple(OrderedDict((sys.intern(name), tensor) for name, tensor in half.items()) for half in pair)
        for width, pair in _checked(hypernetwork).items()
    }
    content.update((sys.intern(key), _plain(value)) for key, value in hypernetwork.facts.items())
    save_pickle(path, content)


def save_safetensors(hypernetwork: Hypernetwork, path: Path) -> None:
    """Write the twin, atomically; raises as `save_pt` does."""
    told = {"widths": list(hypernetwork.weights), "facts": dict(hypernetwork.facts)}
    save_tensors(path, named(_checked(hypernetwork)), {_METADATA: json.dumps(told, default=str)})


def load_hypernetwork(path: Path) -> Hypernetwork:
    """Read a hypernetwork from a `.pt` or our `.safetensors` file, told apart by content; nothing is executed.

    Raises:
        InputError: there is no such file.
        ModelError: it is something else, or damaged.
    """
    kind = file_kind(path)
    if kind == "a safetensors file":
        with open_safetensors(path) as file:
            if _METADATA not in file.metadata and not all(map(TENSOR_NAME.match, file.shapes)):
                raise _no_hypernetwork(path, f"a safetensors file with {len(file.shapes)} other tensors")
            widths, facts = _told(file.metadata, path)
            tensors = {name: file.read(name).clone() for name in sorted(file.shapes, key=_place)}
        weights = by_width(tensors, widths)
        return Hypernetwork({width: pair for width, pair in weights.items() if pair[0] or pair[1]}, facts)
    if kind not in ("a pickle", "a zip archive"):
        raise _no_hypernetwork(path, kind)
    content = load_pickle(path)
    if not isinstance(content, dict):
        raise _no_hypernetwork(path, f"a {type(content).__name__}")
    weights = {width: pair for width, pair in content.items() if is_width(width)}
    if not weights or not all(map(_is_pair, weights.values())):
        names = ", ".join(map(str, list(content)[:3]))
        raise _no_hypernetwork(path, f"a file with {len(content)} entries ({names}…)")
    pairs = {width: (dict(pair[0]), dict(pair[1])) for width, pair in weights.items()}
    return Hypernetwork(pairs, {key: value for key, value in content.items() if isinstance(key, str)})


def named(weights: Weights) -> dict[str, torch.Tensor]:
    """The tensors under one name each, such as `768.k.linear.0.weight`."""
    return {
        f"{width}.{half}.{name}": tensor
        for width, pair in weights.items()
        for half, tensors in zip(HALVES, pair, strict=True)
        for name, tensor in tensors.items()
    }


def by_width(tensors: Mapping[str, torch.Tensor], widths: tuple[int, ...]) -> Weights:
    """Tensors as `named` gives them, by width and half again; names that are none of these are passed over."""
    found: dict[int, tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]] = {width: ({}, {}) for width in widths}
    for full, tensor in tensors.items():
        match = TENSOR_NAME.match(full)
        if match is not None:
            found.setdefault(int(match[1]), ({}, {}))[HALVES.index(match[2])][match[3]] = tensor
    return found


def is_width(key: Any) -> bool:
    """Whether a key of a `.pt` is a context width."""
    return isinstance(key, int) and not isinstance(key, bool) and key > 0


def _told(metadata: Mapping[str, str], path: Path) -> tuple[tuple[int, ...], dict[str, Any]]:
    """The order of the widths and the other keys."""
    try:
        told = parse_json(metadata.get(_METADATA, "{}"))
        return tuple(int(width) for width in told.get("widths", ())), dict(told.get("facts", {}))
    except (ValueError, TypeError, AttributeError, OverflowError) as error:
        raise ModelError(f"The metadata of {path} are damaged: {error}.", "Get the file again.") from error


def _place(name: str) -> list[tuple[int, str]]:
    """Names in the order in which torch gives a module's tensors: by number, weights before biases."""
    return [(int(part), "") if part.isdecimal() else (-(part == "weight"), part) for part in name.split(".")]


def _is_pair(value: Any) -> bool:
    return (
        isinstance(value, (tuple, list))
        and len(value) == 2
        and all(isinstance(half, dict) and all(map(torch.is_tensor, half.values())) for half in value)
    )


def _checked(hypernetwork: Hypernetwork) -> Weights:
    """Copies of their own: torch.save writes the whole storage behind a view."""
    checked: dict[int, tuple[HalfTensors, HalfTensors]] = {}
    for width, pair in hypernetwork.weights.items():
        halves = []
        for half, tensors in zip(HALVES, pair, strict=True):
            bad = [name for name, tensor in tensors.items() if not bool(torch.isfinite(tensor).all())]
            if bad:
                raise ModelError(
                    f'The hypernetwork "{hypernetwork.name}" holds NaN or infinity in {width}.{half}.{bad[0]}.',
                    "Go back to an earlier saved copy and train on with a lower learning rate.",
                )
            halves.append({name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in tensors.items()})
        checked[width] = (halves[0], halves[1])
    return checked


def _plain(value: Any) -> Any:
    """Equal values as equal objects: which of them are one object changes a pickle's bytes."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, (list, tuple)):
        return type(value)(map(_plain, value))
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return value


def _whole(number: float) -> float | int:
    """Whole numbers as such, as a person writes them."""
    return int(number) if number == int(number) else number


def _no_hypernetwork(path: Path, what: str) -> ModelError:
    return ModelError(f"{path} is not a hypernetwork but {what}.", "Choose a .pt or .safetensors hypernetwork.")
