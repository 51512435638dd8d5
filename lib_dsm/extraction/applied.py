"""A checkpoint with a LoRA added to its weights: what a loader makes of the two, tensor by tensor.

Nothing is built and nothing is kept: a tensor is changed when it is read, so that a model can be loaded from it as from
the checkpoint itself. The forms are those that this program writes: low rank, whole differences, norms, and GLoRA where
it stands for a linear hypernetwork.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cached_property

import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.key_map import Layer, canonical, family_of, layers_of
from lib_dsm.extraction.lora_content import LoraContent
from lib_dsm.extraction.lora_file import BIAS_PARTS, CHANGES, WEIGHT_PARTS
from lib_dsm.networks.safetensors_files import TensorFile

_GLORA = frozenset({"a1.weight", "a2.weight", "b1.weight", "b2.weight", "alpha"})


class Applied:
    """The tensors of the open checkpoint `file` with `strength` times the change of `lora`.

    Attributes:
        unmatched: modules of the LoRA that the checkpoint has no layer for.
    """

    def __init__(self, file: TensorFile, lora: LoraContent, strength: float = 1.0) -> None:
        """Match the names.

        Raises:
            ModelError: a module has a form that is not known here, or another shape than the checkpoint's layer.
        """
        self._file = file
        self._lora = lora
        self._strength = strength
        shapes = {canonical(key): tuple(shape) for key, shape in file.shapes.items()}
        layers = layers_of(shapes, family_of(shapes) or "SD1")
        names = {layer.name for layer in layers}
        self.unmatched = tuple(name for name in (*lora.modules, *lora.other) if name not in names)
        if self.unmatched and len(self.unmatched) == len(lora.modules) + len(lora.other):
            raise ModelError(
                f"None of the LoRA's {len(self.unmatched)} modules, such as {self.unmatched[0]}, is in "
                f"{file.path.name}.",
                "Use it with a checkpoint of its own family.",
            )
        self._weights: dict[str, list[Layer]] = {}
        self._biases: dict[str, Layer] = {}
        for layer in layers:
            if layer.name in lora.modules or layer.name in lora.other:
                self._demand(layer)
                self._weights.setdefault(layer.weight, []).append(layer)
                if layer.bias:
                    self._biases[layer.bias] = layer

    @cached_property
    def replacements(self) -> Mapping[str, torch.Tensor]:
        """By name the vectors V×D of embeddings for SD1 and SD2 that the file bundles, to encode prompts with."""
        found = {name: parts.get("string_to_param.*") for name, parts in self._lora.embeddings.items()}
        return {name: vectors.float() for name, vectors in found.items() if vectors is not None}

    def read(self, key: str) -> torch.Tensor:
        """The tensor of a key of the file, changed where the LoRA changes it, in the file's own type."""
        tensor = self._file.read(key)
        name = canonical(key)
        if name not in self._weights and name not in self._biases:
            return tensor
        whole = tensor.float().clone()
        for layer in self._weights.get(name, ()):
            rows = slice(layer.rows or 0, (layer.rows or 0) + layer.shape[0])
            self._change(layer, whole[rows])
        if name in self._biases:
            for part in BIAS_PARTS:
                change = self._lora.other.get(self._biases[name].name, {}).get(part)
                if change is not None:
                    whole += self._strength * change.float()
        return whole.to(tensor.dtype)

    def _change(self, layer: Layer, weight: torch.Tensor) -> None:
        """Add the change to a weight, or to the part of it that a loader fills."""
        factors = self._lora.modules.get(layer.name)
        if factors is not None:
            weight += self._strength * (factors.up @ factors.down).reshape(weight.shape)
            return
        parts = self._lora.other[layer.name]
        if "a1.weight" in parts:
            flat = weight.flatten(1)
            change = flat @ parts["a2.weight"].float() @ parts["a1.weight"].float()
            change = change + parts["b2.weight"].float() @ parts["b1.weight"].float()
            weight += self._strength * change.reshape(weight.shape)
        for part in WEIGHT_PARTS:
            whole = parts.get(part)
            if whole is None:
                continue
            if whole.dim() == 4 and weight.shape[1] > whole.shape[1]:  # an inpainting model's first convolution
                weight = weight[:, : whole.shape[1]]
            weight += self._strength * whole.float()

    def _demand(self, layer: Layer) -> None:
        factors, parts = self._lora.modules.get(layer.name), self._lora.other.get(layer.name)
        if parts is not None and parts.keys() - CHANGES and parts.keys() - _GLORA:
            forms = ", ".join(sorted(parts))
            raise ModelError(f"{layer.name} has a form ({forms}) that is not drawn here.", "Use it in the WebUI.")
        if factors is not None and factors.flat != _rows_and_columns(layer):
            raise self._misfit(layer, factors.shape)
        for part, tensor in (parts or {}).items():
            shape, wanted = tuple(tensor.shape), layer.shape
            if part in BIAS_PARTS:
                wanted = layer.shape[:1]
            elif part in WEIGHT_PARTS and len(shape) == len(wanted) == 4 and layer.is_end:
                wanted = (wanted[0], min(shape[1], wanted[1]), *wanted[2:])  # an inpainting model has more channels
            elif part not in WEIGHT_PARTS:
                continue
            if shape != wanted and tensor.numel() != 1:
                raise self._misfit(layer, shape)
        if parts is not None and "a1.weight" in parts:
            self._demand_glora(layer, parts)

    def _demand_glora(self, layer: Layer, parts: Mapping[str, torch.Tensor]) -> None:
        rows, columns = _rows_and_columns(layer)
        missing = _GLORA - {"alpha"} - parts.keys()
        if missing:
            raise ModelError(f"{layer.name} lacks {', '.join(sorted(missing))}.", "Get the file again.")
        a1, a2, b1, b2 = (tuple(parts[f"{part}.weight"].shape) for part in ("a1", "a2", "b1", "b2"))
        flat = all(len(shape) == 2 for shape in (a1, a2, b1, b2))
        if not flat or a2[0] != columns or a1 != (a2[1], columns) or b2[1] != b1[0]:
            raise self._misfit(layer, (*a2[:1], *a1[1:]))
        # A single number in place of b2 @ b1 is added to all.
        if (b2[0], b1[1]) not in ((rows, columns), (1, 1)):
            raise self._misfit(layer, (*b2[:1], *b1[1:]))

    def _misfit(self, layer: Layer, shape: tuple[int, ...]) -> ModelError:
        return ModelError(
            f"{layer.name} is {'×'.join(map(str, shape))} in the LoRA and "
            f"{'×'.join(map(str, layer.shape))} in {self._file.path.name}.",
            "Use it with a checkpoint of its own family.",
        )


def _rows_and_columns(layer: Layer) -> tuple[int, int]:
    return layer.shape[0], math.prod(layer.shape[1:])
