"""Writing a LoRA file with the names and metadata that kohya's scripts use and the WebUI reads.

A module M has `M.lora_up.weight`, `M.lora_down.weight` and `M.alpha`; the loader adds alpha / rank · up @ down to its
weight, and alpha = rank here. Linear layers: up out×r, down r×in. Convolutions: down r×in×k×k, up out×r×1×1.
A norm has `M.w_norm` and `M.b_norm`, a whole difference `M.diff` and, with it alone, `M.diff_b` for the bias; these are
float32, because the loader computes in their type.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import exists, exists_already, file_name, is_folder
from lib_dsm.networks.embedding import Embedding
from lib_dsm.networks.safetensors_files import data_sha256, save_tensors

if TYPE_CHECKING:
    from PIL.Image import Image

PRECISIONS = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
WEIGHT_PARTS, BIAS_PARTS = ("diff", "w_norm"), ("diff_b", "b_norm")  # of whole differences and norms
CHANGES = frozenset({*WEIGHT_PARTS, *BIAS_PARTS})  # parts that are changes by themselves
_ADDED = 200  # bytes of the metadata that are added last
_COVER_SIZE = 512  # pixels of the longer side at most


@dataclass
class LoraFile:
    """What goes into one LoRA file; `save` writes it."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)

    def add_module(self, name: str, up: torch.Tensor, down: torch.Tensor, shape: tuple[int, ...]) -> None:
        """Add a module by its factors out×r and r×(in·k·k); `shape` is the shape of the weight it belongs to."""
        rank = down.shape[0]
        kernel = shape[2:]
        self.tensors[f"{name}.lora_up.weight"] = up.reshape(shape[0], rank, *(1 for _ in kernel)).contiguous()
        self.tensors[f"{name}.lora_down.weight"] = down.reshape(rank, *shape[1:]).contiguous()
        self.tensors[f"{name}.alpha"] = torch.tensor(float(rank))

    def add_norm(self, name: str, weight: torch.Tensor, bias: torch.Tensor) -> None:
        """Add the changes of a group or layer norm."""
        self.tensors[f"{name}.w_norm"] = weight.float().contiguous()
        self.tensors[f"{name}.b_norm"] = bias.float().contiguous()

    def add_difference(self, name: str, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        """Add a whole change of a weight, or of a bias alone."""
        # A number that is added to all of the weight stands for no change of it.
        self.tensors[f"{name}.diff"] = torch.zeros(1) if weight is None else weight.float().contiguous()
        if bias is not None:
            self.tensors[f"{name}.diff_b"] = bias.float().contiguous()

    def add_vectors(self, name: str, vectors: torch.Tensor, second: torch.Tensor | None = None) -> None:
        """Bundle vectors V×D under a name; for SDXL those of both text encoders.

        Raises:
            InputError: the name holds a dot, at which the loader would cut it.
        """
        if "." in name or not name.strip():
            raise InputError(
                f'The embedding\'s name "{name}" cannot be used inside a LoRA file.', "Give it a name without a dot."
            )
        first = vectors.detach().float().cpu().contiguous()
        if second is None:
            self.tensors[f"bundle_emb.{name}.string_to_param.*"] = first
        else:
            self.tensors[f"bundle_emb.{name}.clip_l"] = first
            self.tensors[f"bundle_emb.{name}.clip_g"] = second.detach().float().cpu().contiguous()

    def add_embedding(self, embedding: Embedding) -> None:
        """Bundle an embedding: while the LoRA is in the prompt, the embedding's name stands for its vectors.

        Raises:
            InputError: the name holds a dot, at which the loader would cut it.
        """
        self.add_vectors(embedding.name, embedding.vectors, embedding.second)

    def add_cover(self, picture: Image) -> None:
        """Put a picture into the metadata, which the WebUI shows on the file's card."""
        cover = picture.convert("RGB")
        cover.thumbnail((_COVER_SIZE, _COVER_SIZE))
        buffer = BytesIO()
        cover.save(buffer, "JPEG", quality=90)
        self.metadata["ssmd_cover_images"] = json.dumps([base64.b64encode(buffer.getvalue()).decode("ascii")])

    def size(self) -> int:
        """The bytes of the file that `save` writes, but for the name that it adds to the metadata."""
        position, entries = 0, {}
        for name, tensor in self.tensors.items():
            end = position + tensor.numel() * tensor.element_size()
            entries[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [position, end]}
            position = end
        header = json.dumps([entries, self.metadata], separators=(",", ":"), ensure_ascii=False).encode("utf-8")
        return len(header) + position + _ADDED

    def save(self, path: Path, replace: bool = False) -> None:
        """Write the file atomically, with its hash and its own name as the alias; equal content gives equal bytes.

        Raises:
            InputError: there is such a file, and it is not to be replaced.
            ModelError: a number is NaN or infinite, which would turn pictures black.
            StorageError: the file cannot be written.
        """
        for name, tensor in self.tensors.items():
            if not is_finite(tensor):
                raise ModelError(f"{name} of {path} would be NaN or infinity.", "Look at what it was made of.")
        hashes = {"ss_output_name": path.stem, "sshs_model_hash": data_sha256(self.tensors)}
        save_tensors(path, self.tensors, {**self.metadata, **hashes}, replace)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor of any type is without NaN and infinity."""
    # torch cannot ask this of numbers of 8 bits.
    return bool(torch.isfinite(tensor.float() if tensor.element_size() == 1 else tensor).all())


def base_metadata(base_model: str, family: str, clip_skip: int | None = None, base_hash: str = "") -> dict[str, str]:
    """The metadata that say for which model a file is; `family` is "SD1", "SD2" or "SDXL"."""
    result = {
        "ss_base_model_version": {"SD2": "sd_v2", "SDXL": "sdxl_base_v1-0"}.get(family, "sd_v1"),
        "ss_v2": str(family == "SD2"),
        "ss_network_module": "networks.lora",
    }
    if base_model:
        result["ss_sd_model_name"] = base_model
    if base_hash:
        result["ss_new_sd_model_hash"] = base_hash
    if clip_skip is not None:
        result["ss_clip_skip"] = str(clip_skip)
    return result


def check_output(out: Path, sources: Mapping[str, Path], overwrite: bool) -> None:
    """Refuse a path that a LoRA file must not be written to, before any work is done.

    Raises:
        InputError: no `.safetensors` name, a folder, a source, or a file that is there and is not to be replaced.
    """
    if out.suffix.lower() != ".safetensors":
        raise InputError(f"{out} is no name for a LoRA file.", "Let it end in .safetensors.")
    file_name(out.stem, "LoRA's name")
    if is_folder(out):
        raise InputError(f"{out} is a folder.", "Name a file for the LoRA.")
    for what, source in sources.items():
        if exists(out) and exists(source) and out.samefile(source):
            raise InputError(f"{out} is the {what} itself.", "Choose another name for the LoRA file.")
    if exists(out) and not overwrite:
        raise exists_already(out)
