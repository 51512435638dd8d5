"""A LoRA from two checkpoints: what fine-tuning changed, layer by layer, at a rank that can be stored.

Both files are read one tensor at a time, so memory holds one layer and the factors. The U-Net and the text encoder
are both looked at, whatever the size of the change. The error in the report is that of the numbers in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_dsm.diffusion.ldm_layout import UNET_PREFIX, VAE_PREFIX
from lib_dsm.errors import ModelError
from lib_dsm.extraction.key_map import lora_modules
from lib_dsm.extraction.lora_file import PRECISIONS, LoraFile, base_metadata, check_output
from lib_dsm.extraction.low_rank import factors, residual_norm
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.jobs import Job
from lib_dsm.networks.safetensors_files import TensorFile
from lib_dsm.networks.tensor_files import open_tensors

_TEXT_PREFIX = "cond_stage_model.transformer."
_NAMED_IN_TEXT = 8
_SAME_KIND = "Compare two checkpoints of the same kind."


@dataclass(frozen=True)
class CarriedModule:
    """A changed layer in the LoRA; `error` is ‖Δ − up·down‖ / ‖Δ‖, Frobenius, of the factors as stored."""

    name: str
    key: str
    rank: int
    error: float


@dataclass(frozen=True)
class LeftOut:
    """A changed tensor that the LoRA does not carry, and why."""

    key: str
    reason: str


@dataclass(frozen=True)
class ExtractionReport:
    """What became of every change.

    `error` is the relative Frobenius error over all changed layers in the file; `total_error` counts what was left out
    of the U-Net and the text encoder as lost too.
    """

    path: Path
    modules: tuple[CarriedModule, ...]
    left_out: tuple[LeftOut, ...]
    unchanged: int
    error: float
    total_error: float

    def text(self) -> str:
        """A few sentences for a person."""
        worst = max(self.modules, key=lambda module: module.error)
        lines = [
            f"{self.path} holds {len(self.modules)} layers with a relative error of {self.error:.1%} "
            f"(worst: {worst.name}, {worst.error:.1%}); with what was left out, {self.total_error:.1%}.",
        ]
        for reason in dict.fromkeys(item.reason for item in self.left_out):
            keys = [item.key for item in self.left_out if item.reason == reason]
            more = f" and {len(keys) - _NAMED_IN_TEXT} more" if len(keys) > _NAMED_IN_TEXT else ""
            lines.append(f"Left out, {reason}: {', '.join(keys[:_NAMED_IN_TEXT])}{more}.")
        return "\n".join(lines)


def extract_checkpoint(
    base: Path, tuned: Path, out: Path, options: ExtractionOptions, job: Job | None = None
) -> ExtractionReport:
    """Write to `out` the LoRA that turns `base` into `tuned` as nearly as the ranks allow.

    Both are SD1 checkpoints in the ldm layout, `.safetensors` or `.ckpt`. Every linear layer and convolution of the
    U-Net and the text encoder is compared; equal ones are skipped. Biases, norms, token vectors and the VAE have no
    place in the file and are listed.

    Raises:
        InputError: a file is missing, or `out` cannot be used.
        ModelError: the checkpoints are not of one layout, hold NaN, or are equal.
        Cancelled: the job was; nothing is written.
    """
    check_output(out, {"base checkpoint": base, "tuned checkpoint": tuned}, options.overwrite)
    lora = LoraFile()
    carried: list[CarriedModule] = []
    left_out: list[LeftOut] = []
    unchanged = 0
    kept_square = lost_square = left_square = 0.0  # ‖Δ‖² in the file, ‖residual‖² of it, ‖Δ‖² not in the file
    with open_tensors(base) as before, open_tensors(tuned) as after:
        _check_layouts(before, after)
        modules = lora_modules(before.shapes)
        for key, delta in _deltas(before, after, job):
            if delta is None:
                unchanged += 1
                continue
            shape = before.shapes[key]
            rank = options.conv_rank if math.prod(shape[2:]) > 1 else options.rank
            name = modules.get(key)
            square = float(torch.linalg.norm(delta)) ** 2
            if name is None or rank == 0:
                left_out.append(LeftOut(key, _why_left_out(key, name is not None)))
                left_square += 0.0 if key.startswith(VAE_PREFIX) else square
                continue
            up, down = (part.to(PRECISIONS[options.precision]) for part in factors(delta.flatten(1), rank))
            residual = residual_norm(delta.flatten(1), up, down)
            if not math.isfinite(residual):
                raise ModelError(f"The change of {key} is too large for fp16.", "Extract with fp32.")
            lora.add_module(name, up, down, shape)
            carried.append(CarriedModule(name, key, down.shape[0], residual / math.sqrt(square)))
            kept_square += square
            lost_square += residual**2
    if not carried:
        raise _nothing_to_carry(base, tuned, left_out)
    report = ExtractionReport(
        out,
        tuple(carried),
        tuple(left_out),
        unchanged,
        math.sqrt(lost_square / kept_square),
        math.sqrt((lost_square + left_square) / (kept_square + left_square)),
    )
    lora.metadata.update(_metadata(base, tuned, options, report))
    lora.save(out)
    if job is not None:
        job.say(report.text())
    return report


def _check_layouts(before: TensorFile, after: TensorFile) -> None:
    for file in (before, after):
        if not any(key.startswith(UNET_PREFIX) for key in file.shapes):
            raise ModelError(f"{file.path} is no Stable Diffusion checkpoint in the ldm layout.", "Choose another.")
        if not any(key.startswith(_TEXT_PREFIX) for key in file.shapes):
            raise ModelError(
                f"{file.path} has no text encoder of Stable Diffusion 1.",
                "Extraction works on whole SD1 checkpoints; SD2 and SDXL are not supported.",
            )
    for one, other in ((before, after), (after, before)):
        for key in _compared(one):
            if key not in other.shapes:
                raise ModelError(f"{other.path} lacks {key}, which {one.path} has.", _SAME_KIND)
    for key in _compared(before):
        old, new = before.shapes[key], after.shapes[key]
        if old != new:
            raise ModelError(f"{key} is {_size(old)} in {before.path} and {_size(new)} in {after.path}.", _SAME_KIND)


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _compared(file: TensorFile) -> list[str]:
    """The weights that decide what a checkpoint draws; a VAE may be missing, averages and schedules do not matter."""
    return [
        key
        for key in file.shapes
        # Some merges hold the position numbers as floats, some not at all.
        if key.startswith((UNET_PREFIX, _TEXT_PREFIX)) and not key.endswith("position_ids")
    ]


def _deltas(before: TensorFile, after: TensorFile, job: Job | None) -> Iterator[tuple[str, torch.Tensor | None]]:
    """Each compared tensor with tuned − base in float32, or None where nothing changed."""
    keys = _compared(before)
    keys += [
        key for key, shape in before.shapes.items() if key.startswith(VAE_PREFIX) and after.shapes.get(key) == shape
    ]
    for index, key in enumerate(keys):
        if job is not None:
            job.check()
            job.progress(index, len(keys), key)
        old, new = before.read(key), after.read(key)
        # A copy at half precision differs from its original everywhere, by rounding: that is no change.
        coarse = max(old.dtype, new.dtype, key=lambda dtype: torch.finfo(dtype).eps)
        if torch.equal(old.to(coarse), new.to(coarse)):
            yield key, None
            continue
        delta = new.float() - old.float()
        if not torch.isfinite(delta).all():
            raise ModelError(f"{key} holds NaN or infinity in one of the checkpoints.", "That checkpoint is broken.")
        yield key, delta
    if job is not None:
        job.progress(len(keys), len(keys))


def _why_left_out(key: str, is_module: bool) -> str:
    if key.startswith(VAE_PREFIX):
        return "a LoRA has no VAE"
    if is_module:
        return "convolutions at rank 0"
    if key.endswith("embedding.weight"):
        return "vectors of tokens and positions"
    return "biases and norms"


def _nothing_to_carry(base: Path, tuned: Path, left_out: list[LeftOut]) -> ModelError:
    if not left_out:
        return ModelError(f"{tuned} and {base} are equal: there is nothing to extract.", "Choose the fine-tuned file.")
    reasons = ", ".join(dict.fromkeys(item.reason for item in left_out))
    return ModelError(
        f"{tuned} differs from {base} only in what was left out ({reasons}).",
        "Raise conv_rank if it is 0, or use the checkpoint itself.",
    )


def _metadata(base: Path, tuned: Path, options: ExtractionOptions, report: ExtractionReport) -> dict[str, str]:
    result = base_metadata(base.name, "SD1")
    result["ss_network_dim"] = result["ss_network_alpha"] = str(options.rank)
    if options.conv_rank:
        rank = str(options.conv_rank)
        result["ss_network_args"] = json.dumps({"conv_dim": rank, "conv_alpha": rank})
    result["dsm_extracted_from"] = tuned.name
    result["dsm_relative_error"] = f"{report.error:.4f}"
    result["dsm_total_error"] = f"{report.total_error:.4f}"
    result["dsm_layer_errors"] = json.dumps({module.name: round(module.error, 4) for module in report.modules})
    return result
