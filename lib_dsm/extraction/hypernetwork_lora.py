"""A hypernetwork as a LoRA.

A hypernetwork computes keys from c + m·f(c) instead of c, and values likewise with another f. Where f is affine,
f(c) = A c + b, this is a change of the weights, exactly: ΔW = m·W·A. The keys' bias adds the same number to all of a
query's scores, which softmax takes away again; the values' bias passes through attention as it is, whose rows sum to 1,
and so is a change m·W_out·W_v·b of the output's bias.

Any other f is fitted: by the affine map of a given rank that is best on contexts captured while the model draws the
project's captions, and measured on captions kept apart.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_dsm.diffusion.ldm_layout import UNET_PREFIX
from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.key_map import Layer, canonical, family_of, layers_of
from lib_dsm.extraction.lora_file import PRECISIONS, LoraFile, base_metadata, check_output
from lib_dsm.extraction.low_rank import factors
from lib_dsm.extraction.options import HypernetworkOptions
from lib_dsm.extraction.ranks import WHOLE_WIDTH
from lib_dsm.extraction.regression import fit_groups
from lib_dsm.files import sha256
from lib_dsm.jobs import Job
from lib_dsm.networks.hypernetwork import load_hypernetwork, named
from lib_dsm.networks.hypernetwork_modules import Half, Pairs
from lib_dsm.networks.safetensors_files import TensorFile
from lib_dsm.networks.tensor_files import open_tensors

_PROJECTION = re.compile(r"(.+\.attn[12])\.to_([kv])\.weight$")
_DEFAULT_RANK = 32

Captured = Mapping[str, Sequence[torch.Tensor]]
"""By attention layer, such as `model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2`, what it computed
keys and values from: one N×W tensor for each prompt."""


class BadFitError(ModelError):
    """A LoRA would hold too little of the hypernetwork's effect; it can be made all the same."""


@dataclass(frozen=True)
class HypernetworkReport:
    """What was written.

    Attributes:
        path: the file.
        exact: whether the LoRA does what the hypernetwork does, rounding and what a rank takes away aside.
        fits: by module name, R² on captions kept apart, negative where the fit is worse than a constant; of a linear
            one the share of the squared change of the weights (and of the bias, if that is left out) in the file.
        fit: of all modules together, each counted as the square of what the hypernetwork adds to its outputs, or of a
            linear one of the change.
        lost: what has no place in the file, in words.
        family: of the checkpoint, "SD1", "SD2" or "SDXL".
    """

    path: Path
    exact: bool
    fits: Mapping[str, float]
    fit: float
    lost: tuple[str, ...]
    family: str = "SD1"

    def text(self) -> str:
        """A few sentences for a person."""
        worst = min(self.fits, key=lambda name: self.fits[name], default="")
        how = "is the hypernetwork itself" if self.exact and self.fit > 1 - 1e-6 else (
            f"holds {_share(self.fit)} of the hypernetwork's effect (worst: {worst}, {_share(self.fits[worst])})"
        )  # fmt: skip
        return "\n".join([f"{self.path} {how}.", *self.lost])


def extract_hypernetwork(
    path: Path,
    base: Path,
    out: Path,
    options: HypernetworkOptions,
    captured: Captured | None = None,
    job: Job | None = None,
    about: About | None = None,
) -> HypernetworkReport:
    """Write to `out` the LoRA that does on the checkpoint `base` what the hypernetwork does.

    `captured` is needed for all but linear ones; see capture.py.

    Raises:
        InputError: a file is missing, `out` cannot be used, or nothing was captured for one that is not linear.
        ModelError: a file is something else or holds NaN or infinity, or the widths are not the checkpoint's.
        BadFitError: the fit is worse than the options want.
        StorageError: the disk does not take the file.
        Cancelled: the job was; nothing is written.
    """
    check_output(out, {"hypernetwork": path, "base checkpoint": base}, options.overwrite)
    hypernetwork = load_hypernetwork(path)
    for name, tensor in named(hypernetwork.weights).items():
        _demand_finite(tensor, name, path)
    pairs, linear = hypernetwork.pairs(), hypernetwork.structure.linear
    if not linear and options.independent:
        raise ModelError(f"{path} is not linear, so it is no LoRA for every checkpoint.", "Fit it to the base.")
    if not linear and not captured:
        raise InputError(
            f"{path} has the activation {hypernetwork.structure.activation}, so it must be fitted.",
            "Give a folder of captions to fit it on.",
        )
    with open_tensors(base, streamed=True) as file:
        work = _Work(file, pairs, options)
        layers = work.layers()
        if not layers:
            widths = ", ".join(map(str, hypernetwork.weights))
            raise ModelError(f"{base} has no attention of the hypernetwork's widths {widths}.", "Choose its own base.")
        for index, (attention, half, layer) in enumerate(layers):
            if job is not None:
                job.check()
                job.progress(index, len(layers), layer.weight)
            if linear:
                work.add_exactly(attention, half, layer)
            else:
                work.add_fitted(attention, half, layer, (captured or {}).get(attention, ()))
        work.add_biases()
        family = work.family
    if not work.lora.tensors and work.lost:
        raise ModelError(f"{path} has nothing that could be in a LoRA for every checkpoint.", "Fit it to the base.")
    if not work.lora.tensors:
        raise ModelError(f"{path} changes nothing at the strength {options.strength:g}.", "Choose another of either.")
    if job is not None:
        job.progress(len(layers), len(layers))
    whole = sum(work.effects.values())
    fitted = sum(work.fits[name] * work.effects[name] for name in work.fits) / whole if whole else 1.0
    if fitted < options.least_fit and options.least_fit > 0 and not options.force:
        measured = "squared change" if linear else "effect (R² on captions kept apart)"
        raise BadFitError(
            f"The LoRA would hold {_share(fitted, 0)} of the hypernetwork's {measured}, less than "
            f"{options.least_fit:.0%}.",
            "Raise the rank, go on using the hypernetwork, or force it.",
        )
    report = HypernetworkReport(out, linear and not work.lost, work.fits, fitted, tuple(work.lost), family)
    work.lora.metadata.update(base_metadata(base.name, family, base_hash=sha256(base)))
    work.lora.metadata.update(
        dsm_extracted_from=path.name,
        dsm_fit=f"{fitted:.4f}",
        dsm_layer_fits=json.dumps({name: round(value, 4) for name, value in work.fits.items()}),
    )
    downs = [tensor for name, tensor in work.lora.tensors.items() if name.endswith(".lora_down.weight")]
    if downs:
        work.lora.metadata["ss_network_dim"] = str(max(len(down) for down in downs))
    if about is not None:
        about.add_to(work.lora)
    work.lora.save(out, options.overwrite)
    return report


class _Work:
    """The file in the making."""

    def __init__(self, file: TensorFile, pairs: Pairs, options: HypernetworkOptions) -> None:
        self.file = file
        self.pairs = pairs
        self.options = options
        self.lora = LoraFile()
        self.fits: dict[str, float] = {}
        self.effects: dict[str, float] = {}  # squared, of the modules in `fits`
        self.lost: list[str] = []
        self.biases: dict[str, torch.Tensor] = {}  # by attention, what its values get added
        self.keys = {canonical(key): key for key in file.shapes}
        self.shapes = {name: tuple(file.shapes[key]) for name, key in self.keys.items()}
        self.family = family_of(self.shapes) or "SD1"
        self.names = {layer.weight: layer for layer in layers_of(self.shapes, self.family)}
        self._affine: dict[tuple[int, int], tuple[torch.Tensor, torch.Tensor]] = {}

    def layers(self) -> list[tuple[str, int, Layer]]:
        """Attention, half (0 keys, 1 values) and layer of every projection that the hypernetwork acts on."""
        found = []
        for key, layer in self.names.items():
            match = _PROJECTION.match(key)
            if match and key.startswith(UNET_PREFIX) and layer.shape[1] in self.pairs.halves:
                found.append((match[1], "kv".index(match[2]), layer))
        return found

    def read(self, name: str) -> torch.Tensor:
        """A weight of the base, float64.

        Raises:
            ModelError: it holds NaN or infinity.
        """
        weight = self.file.read(self.keys[name]).double()
        _demand_finite(weight, name, self.file.path)
        return weight

    def add_exactly(self, attention: str, half: int, layer: Layer) -> None:
        """The change that an affine half makes."""
        width = layer.shape[1]
        matrix, offset = self._affine_map(width, half)
        matrix, offset = self.options.strength * matrix, self.options.strength * offset
        weight = self.read(layer.weight)
        change = weight @ matrix
        whole = float(change.square().sum())
        if self.options.independent:
            bias = float((weight @ offset).square().sum()) if half else 0.0
            if whole:
                self._add_independent(layer.name, matrix)
            if whole or bias:
                self._count(layer, whole + bias, bias)
            if bias and not self.lost:
                self.lost.append("The bias of the values depends on the checkpoint and is not in the file.")
            return
        if half and bool(offset.any()):
            self.biases[attention] = weight @ offset
        if not whole:
            return  # a module of rank 0 makes the loader divide by 0
        rank = self.options.rank or int(torch.linalg.matrix_rank(matrix))
        width_of_number = PRECISIONS[self.options.precision].itemsize
        if not self.options.rank and rank * sum(change.shape) * width_of_number >= change.numel() * WHOLE_WIDTH:
            self.lora.add_difference(layer.name, change.float(), None)
            self._count(layer, whole, 0.0)
            return
        up, down = factors(change.float(), rank)
        rest = float((change - up.double() @ down.double()).square().sum())
        self._count(layer, whole, rest)
        self._add(layer, up, down)

    def add_fitted(self, attention: str, half: int, layer: Layer, contexts: Sequence[torch.Tensor]) -> None:
        """The best change for what the layer was given."""
        if len(contexts) < 2:
            raise InputError(
                f"{attention} was captured for {len(contexts)} prompts.", "Give at least two captions to fit on."
            )
        module, weight = self.pairs.halves[layer.shape[1]][half], self.read(layer.weight).float()
        inputs = [rows.float() for rows in contexts]
        outputs = [self.options.strength * self._added(module, rows) @ weight.T for rows in inputs]
        if not any(bool(rows.any()) for rows in outputs):
            return
        found = fit_groups(inputs, outputs, self.options.rank or _DEFAULT_RANK)
        self.fits[layer.name] = found.r2
        self.effects[layer.name] = sum(float(rows.square().sum()) for rows in outputs)
        if half:
            self.biases[attention] = found.offset.double()
        root = found.down.norm(dim=1).clamp(min=1e-20).sqrt()
        self._add(layer, found.up * root, found.down / root[:, None])

    def add_biases(self) -> None:
        """What the values get added, as a change of the attentions' outputs."""
        for attention, offset in self.biases.items():
            layer = self.names[f"{attention}.to_out.0.weight"]
            self.lora.add_difference(layer.name, None, (self.read(layer.weight) @ offset).float())

    def _count(self, layer: Layer, whole: float, rest: float) -> None:
        """Note the squared change of a layer and what the file does not hold of it."""
        self.effects[layer.name] = whole
        self.fits[layer.name] = 1.0 - rest / whole

    def _add(self, layer: Layer, up: torch.Tensor, down: torch.Tensor) -> None:
        up, down = (part.to(PRECISIONS[self.options.precision]) for part in (up, down))
        if not math.isfinite(float(up.float().sum() + down.float().sum())):
            raise ModelError(f"The change of {layer.name} is too large for {self.options.precision}.", "Use fp32.")
        self.lora.add_module(layer.name, up, down, layer.shape)

    def _add_independent(self, name: str, matrix: torch.Tensor) -> None:
        """GLoRA: the loader computes W @ a2 @ a1, whatever W is."""
        rank = int(torch.linalg.matrix_rank(matrix))
        kind = torch.float32  # the loader takes W in this type
        if 2 * rank < len(matrix):
            second, first = factors(matrix.float(), rank)
        else:
            second, first = matrix.float(), torch.eye(len(matrix))
        parts = {"a1.weight": first, "a2.weight": second, "b1.weight": torch.zeros(1, 1),
                 "b2.weight": torch.zeros(1, 1), "alpha": torch.tensor(1.0)}  # fmt: skip
        self.lora.tensors.update({f"{name}.{part}": tensor.to(kind).contiguous() for part, tensor in parts.items()})

    def _affine_map(self, width: int, half: int) -> tuple[torch.Tensor, torch.Tensor]:
        if (width, half) not in self._affine:
            module = self.pairs.halves[width][half].double()
            points = torch.cat([torch.zeros(1, width), torch.eye(width)]).double()
            values = self._added(module, points)
            self._affine[width, half] = ((values[1:] - values[0]).T, values[0])
        return self._affine[width, half]

    @staticmethod
    @torch.no_grad()
    def _added(module: Half, rows: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = module(rows[None])[0] - rows
        return result


def _share(fit: float, digits: int = 1) -> str:
    """A fit in words: a negative one is no share."""
    return f"{fit:.{digits}%}" if fit > 0 else "nothing"


def _demand_finite(tensor: torch.Tensor, name: str, path: Path) -> None:
    if not bool(torch.isfinite(tensor).all()):
        raise ModelError(f"{name} holds NaN or infinity in {path}.", "That file is broken.")
