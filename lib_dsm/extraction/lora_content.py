"""What a LoRA file holds, whoever wrote it: factors by module, and what has another form as it is.

Read are kohya's names, which the WebUI loads, those of diffusers in all their spellings, and cloneofsimo's numbered
files (see simo.py). Names become kohya's; alpha is multiplied into the factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.diffusers_lora import diffusers_modules, is_diffusers
from lib_dsm.extraction.lora_file import PRECISIONS, LoraFile, is_finite
from lib_dsm.extraction.simo import is_simo, simo_embeddings, simo_modules
from lib_dsm.networks.inspect import FAMILIES, told_family
from lib_dsm.networks.tensor_files import open_tensors

_BUNDLED = "bundle_emb"
_UP, _DOWN, _MID = "lora_up.weight", "lora_down.weight", "lora_mid.weight"
_PEFT = {"lora_B.weight": _UP, "lora_A.weight": _DOWN}
_KNOWN_ADDITIONS = {_UP, _DOWN, _MID, "alpha", "scale"}


@dataclass(frozen=True, eq=False)
class Factors:
    """A module's change up @ down: `up` m×r, `down` r×n, float32; `tail` is the weight's shape behind the first."""

    up: torch.Tensor
    down: torch.Tensor
    tail: tuple[int, ...]

    @property
    def rank(self) -> int:
        """The inner size."""
        return self.down.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the weight that changes."""
        return (self.up.shape[0], *self.tail)

    @property
    def flat(self) -> tuple[int, int]:
        """Rows and columns of up @ down."""
        return self.up.shape[0], self.down.shape[1]

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution larger than 1×1."""
        return len(self.tail) == 3 and self.tail[1:] != (1, 1)

    def square(self) -> float:
        """‖up @ down‖², from the factors' inner products."""
        return inner(self, self)


@dataclass
class LoraContent:
    """A file's content.

    Attributes:
        modules: the low-rank ones.
        other: by module, the tensors of one that has another form (a whole difference, a norm, LoHa, …).
        embeddings: by name, the tensors of a bundled embedding.
        metadata: as it was.
        unknown: the names of tensors that are no part of a LoRA.
    """

    modules: dict[str, Factors] = field(default_factory=dict)
    other: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    embeddings: dict[str, dict[str, torch.Tensor]] = field(default_factory=dict)
    metadata: dict[str, str] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def file(self, precision: str) -> LoraFile:
        """What to write, with the factors in that precision.

        Raises:
            ModelError: a number is too large for it.
        """
        lora = LoraFile(metadata=dict(self.metadata))
        for name, factors in self.modules.items():
            up, down = (part.to(PRECISIONS[precision]) for part in (factors.up, factors.down))
            if not bool(torch.isfinite(up).all() and torch.isfinite(down).all()):
                raise ModelError(f"{name} has numbers that {precision} cannot hold.", "Choose bf16 or fp32.")
            lora.add_module(name, up, down, factors.shape)
        for name, parts in self.other.items():
            lora.tensors.update({f"{name}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        for name, parts in self.embeddings.items():
            lora.tensors.update({f"{_BUNDLED}.{name}.{part}": tensor.contiguous() for part, tensor in parts.items()})
        return lora

    def family(self) -> str:
        """ "SD1", "SD2", "SDXL" or "unknown"."""
        if told := told_family(self.modules, self.metadata):
            return told
        widths = {factors.tail[0] for name, factors in self.modules.items() if name.endswith("attn2_to_k")}
        return FAMILIES.get(min(widths), "unknown") if widths else "unknown"


def inner(one: Factors, other: Factors) -> float:
    """⟨one, other⟩, the sum of the products of the entries of both changes, without computing these."""
    left = one.up.double().T @ other.up.double()
    right = one.down.double() @ other.down.double().T
    return float((left * right).sum())


def read_lora(path: Path, text_encoder: Path | None = None) -> LoraContent:
    """Read a LoRA file of any of the layouts; `text_encoder` is the second file of the old DreamBooth extension.

    Raises:
        InputError: there is no such file.
        ModelError: it is no LoRA, or holds NaN or infinity.
    """
    if is_simo(path):
        content = LoraContent(dict(_factors(simo_modules(path, text_encoder))), embeddings=simo_embeddings(path))
    else:
        with open_tensors(path) as file:
            tensors = {name: file.read(name) for name in file.shapes}
            metadata = dict(file.metadata)
        if is_diffusers(tensors):
            content = LoraContent(dict(_factors(diffusers_modules(path, tensors, metadata))), metadata=metadata)
        else:
            content = _kohya(path, tensors, metadata)
    if not content.modules and not content.other and not content.embeddings:
        raise ModelError(f"{path} holds no LoRA.", "Choose a LoRA file, or look at it with inspect.")
    for name, tensor in _numbers(content):
        if not is_finite(tensor):
            raise ModelError(f"{name} in {path} holds NaN or infinity.", "That file is broken.")
    return content


def _numbers(content: LoraContent) -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors with what to call them."""
    for name, factors in content.modules.items():
        yield from ((name, factors.up), (name, factors.down))
    for group in (content.other, content.embeddings):
        for name, parts in group.items():
            yield from ((name, tensor) for tensor in parts.values())


def _factors(modules: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]) -> dict[str, Factors]:
    return {name: factors_of(up, down, scale) for name, (up, down, scale) in modules.items()}


def factors_of(up: torch.Tensor, down: torch.Tensor, scale: float = 1.0) -> Factors:
    """Factors as files hold them: up m×r(×1×1), down r×n or r×c×k×k."""
    return Factors(scale * up.float().flatten(1), down.float().flatten(1).clone(), tuple(down.shape[1:]))


def _kohya(path: Path, tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> LoraContent:
    content = LoraContent(metadata=metadata)
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        module, _, part = key.partition(".")
        if module == _BUNDLED:
            name, _, rest = part.partition(".")
            content.embeddings.setdefault(name, {})[rest] = tensor
        elif module.startswith(("lora_", "oft_")) or part in ("w_norm", "b_norm"):
            parts.setdefault(module, {})[_PEFT.get(part, part)] = tensor
        else:
            content.unknown.append(key)
    for module, found in parts.items():
        if _UP not in found or _DOWN not in found or found.keys() - _KNOWN_ADDITIONS:
            content.other[module] = found
            continue
        try:
            content.modules[module] = _low_rank(found)
        except (RuntimeError, ValueError, IndexError, ZeroDivisionError) as error:
            raise ModelError(f"The parts of {module} in {path} do not fit together.", "Get the file again.") from error
    return content


def _low_rank(found: Mapping[str, torch.Tensor]) -> Factors:
    """One module's factors; torch's own errors, or ValueError, where its parts cannot be multiplied."""
    up, down = found[_UP], found[_DOWN]
    rank = down.shape[0]
    scale = float(found["scale"]) if "scale" in found else float(found["alpha"]) / rank if "alpha" in found else 1.0
    if _MID in found:  # a convolution in the middle of two 1×1 ones is one convolution with the first
        down = torch.einsum("rskl,si->rikl", found[_MID].float(), down.float().flatten(1))
    factors = factors_of(up, down, scale)
    if not rank or factors.up.shape[1] != factors.down.shape[0]:
        raise ValueError(f"{tuple(up.shape)} by {tuple(down.shape)}")
    return factors
