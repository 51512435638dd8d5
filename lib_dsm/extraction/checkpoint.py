"""A LoRA from two checkpoints: what fine-tuning changed, layer by layer, at a rank that can be stored.

Both files are read one tensor at a time, so memory holds one layer and the factors. The U-Net and the text encoders
are looked at, whatever the size of the change. The error in the report is that of the numbers in the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import torch

from lib_dsm.diffusion.ldm_layout import VAE_PREFIX
from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.key_map import Layer
from lib_dsm.extraction.lora_file import PRECISIONS, LoraFile, base_metadata, check_output
from lib_dsm.extraction.low_rank import balanced, residual_norm, squared_norm, truncated_svd
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.extraction.pair import TOKENS, Pair, open_pair
from lib_dsm.extraction.ranks import WHOLE_WIDTH, by_energy, significant
from lib_dsm.extraction.report import BIAS, LOW_RANK, NORM, WHOLE, ExtractionReport, Tally
from lib_dsm.extraction.survey import equal, layer_change, survey_pair
from lib_dsm.extraction.vocabulary import changed_vocabulary, vocabulary_keys
from lib_dsm.files import sha256
from lib_dsm.jobs import Job

_ROUNDING = 1e-6  # of an energy, summed in single precision
_MODEL_CHANNELS = 4  # the loader fills an inpainting model's first convolution up from these


def extract_checkpoint(
    base: Path,
    tuned: Path,
    out: Path,
    options: ExtractionOptions,
    job: Job | None = None,
    about: About | None = None,
) -> ExtractionReport:
    """Write to `out` the LoRA that turns `base` into `tuned` as nearly as the ranks allow.

    Both are SD1, SD2 or SDXL checkpoints in the ldm layout, `.safetensors` or `.ckpt`. Every linear layer and
    convolution of the U-Net and the text encoders is compared, equal ones are skipped. Norms, biases of layers whose
    weight did not change, and the U-Net's first and last convolution are carried as they are, words of the vocabulary
    as embeddings. What the WebUI's loader has no form for is listed. `about` is more for the file's card.

    Raises:
        InputError: a file is missing, `out` cannot be used, or the size is too small.
        ModelError: the checkpoints are not of one layout, hold NaN, or are equal.
        StorageError: the disk does not take the file.
        Cancelled: the job was; nothing is written.
    """
    if options.energy and options.size:
        raise InputError("Both an energy and a size are given.", "Set one of them to 0.")
    check_output(out, {"base checkpoint": base, "tuned checkpoint": tuned}, options.overwrite)
    card = LoraFile()
    if about is not None:
        about.add_to(card)
    with open_pair(base, tuned, options) as pair:
        total = (2 if options.size else 1) * len(pair.layers)
        known = survey_pair(pair, options, job, 0, total) if options.size else None
        work = _Extraction(pair, options, known.ranks(options, card.size()) if known is not None else None)
        for index, layer in enumerate(pair.layers, total - len(pair.layers)):
            if job is not None:
                job.check()
                job.progress(index, total, layer.weight)
            if known is not None and layer.name in known.unchanged:
                work.tally.unchanged += 1
            else:
                work.add(layer)
        work.complete_groups()
        work.add_words()
        work.look_at_the_rest()
        if job is not None:
            job.progress(total, total)
        if not work.lora.tensors:
            raise _nothing_to_carry(pair, work.tally)
        lora, family = work.lora, pair.base.family
        note = " ".join(filter(None, (pair.note, work.note())))
    size = sum(tensor.numel() * tensor.element_size() for tensor in lora.tensors.values())
    report = work.tally.report(out, note, size, family)
    lora.metadata.update(_metadata(base, tuned, family, options, report))
    lora.metadata.update(card.metadata)
    lora.tensors.update(card.tensors)
    if options.size and lora.size() > options.size * 1e6:
        raise InputError(
            f"{options.size:g} MB are too few: the file would have {lora.size() / 1e6:.3f} MB.", "Allow a larger file."
        )
    lora.save(out, options.overwrite)
    return report


class _Extraction:
    """The file and the report in the making."""

    def __init__(self, pair: Pair, options: ExtractionOptions, ranks: Mapping[str, int] | None) -> None:
        self.pair = pair
        self.options = options
        self.ranks = ranks
        self.lora = LoraFile()
        self.tally = Tally()
        self.capped = 0  # layers whose energy the highest rank does not reach

    def add(self, layer: Layer) -> None:
        """Carry a layer's change in the form that fits it."""
        weight = layer_change(self.pair, layer)
        bias = self.pair.change(layer.bias) if layer.bias else None
        self.tally.unchanged += (weight is None) + (bool(layer.bias) and bias is None)
        if weight is None and bias is None:
            return
        if layer.is_norm:
            nothing = torch.zeros(layer.shape)
            self.lora.add_norm(layer.name, nothing if weight is None else weight, nothing if bias is None else bias)
            self._carry_exactly(layer, NORM, weight, bias)
        elif weight is None:
            self.lora.add_difference(layer.name, None, bias)
            self._carry_exactly(layer, BIAS, None, bias)
        elif layer.is_end:
            self._add_end(layer, weight, bias)
        else:
            self._add_low_rank(layer, weight, bias)

    def note(self) -> str:
        """That the highest rank was too low for the energy, or nothing."""
        if not self.capped:
            return ""
        layers = "1 layer" if self.capped == 1 else f"{self.capped} layers"
        return f"The highest rank of {self.options.max_rank} holds less than {self.options.energy:.1%} of {layers}."

    def complete_groups(self) -> None:
        """Fill up groups of which a part changed: the loader applies them whole or not at all."""
        carried = {module.name for module in self.tally.modules}
        groups = {layer.group for layer in self.pair.layers if layer.name in carried} - {""}
        for layer in self.pair.layers:
            if layer.group in groups and layer.name not in carried:
                up, down = torch.zeros(layer.shape[0], 1), torch.zeros(1, layer.shape[1])
                kind = PRECISIONS[self.options.precision]
                self.lora.add_module(layer.name, up.to(kind), down.to(kind), layer.shape)

    def add_words(self) -> None:
        """Bundle changed rows of the vocabulary, SDXL's two taken together."""
        keys = vocabulary_keys(self.pair)
        for key in keys:
            added = self.pair.tuned.shapes[key][0] - self.pair.base.shapes[key][0]
            if added > 0:
                self.tally.leave(key, f"{added} added vectors of tokens without a name")
        found = changed_vocabulary(self.pair, self.options.tokens)
        self.tally.unchanged += len(keys) - (len(found.changed) if found else 0)
        if found is None:
            return
        rows = found.rows
        tables = [self.pair.tuned.read(key) for key in keys]
        for word, row in rows.words.items():
            self.lora.add_vectors(word, *(table[row : row + 1] for table in tables))
            self.tally.words.append(word)
        self.tally.kept_square += rows.carried_square
        rest = rows.square - rows.carried_square
        if rows.changed > len(rows.words):
            more = f"{rows.changed - len(rows.words)} vectors of tokens"
            self.tally.leave(found.changed[0], more, max(rest, 0.0))

    def look_at_the_rest(self) -> None:
        """List what changed and has no form in the file."""
        for key in self.pair.remaining():
            if key.endswith(TOKENS):
                continue
            change = self.pair.change(key)
            if change is None:
                self.tally.unchanged += 1
            else:
                self.tally.leave(key, _why_left_out(key), 0.0 if key.startswith(VAE_PREFIX) else squared_norm(change))

    def _carry_exactly(self, layer: Layer, kind: str, weight: torch.Tensor | None, bias: torch.Tensor | None) -> None:
        if weight is not None:
            self.tally.carry(layer.name, layer.weight, 0, squared_norm(weight), 0.0, kind)
        if bias is not None:
            self.tally.carry(layer.name, layer.bias, 0, squared_norm(bias), 0.0, kind)

    def _add_end(self, layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        if weight.shape[1] > _MODEL_CHANNELS and layer.weight.endswith("input_blocks.0.0.weight"):
            other = squared_norm(weight[:, _MODEL_CHANNELS:])
            weight = weight[:, :_MODEL_CHANNELS]
            if other:
                self.tally.leave(layer.weight, "channels that the loader fills with zeros", other)
        self.lora.add_difference(layer.name, weight, bias)
        self._carry_exactly(layer, WHOLE, weight, bias)

    def _add_low_rank(self, layer: Layer, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        matrix, square = weight.flatten(1), squared_norm(weight)
        most = self._most(layer)
        if most == 0:
            reason = "convolutions at rank 0" if layer.is_convolution and not self.options.conv_rank else (
                "layers that the size has no room for"
            )  # fmt: skip
            self.tally.leave(layer.weight, reason, square)
            if bias is not None:
                self.lora.add_difference(layer.name, None, bias)
                self._carry_exactly(layer, BIAS, None, bias)
            return
        left, values, right = truncated_svd(matrix, most, square)
        rank = max(1, significant(values.tolist()))
        if self.options.energy:
            rank = min(rank, by_energy(values.tolist(), square, self.options.energy))
        kind = PRECISIONS[self.options.precision]
        if rank * sum(matrix.shape) * kind.itemsize >= matrix.numel() * WHOLE_WIDTH and self.ranks is None:
            self.lora.add_difference(layer.name, weight, bias)  # takes no more room and is exact
            self._carry_exactly(layer, WHOLE, weight, bias)
            return
        kept = float(values[:rank].double().square().sum())
        self.capped += rank == most and kept < (self.options.energy - _ROUNDING) * square
        up, down = (part.to(kind) for part in balanced(left, values, right, rank))
        residual = residual_norm(matrix, up, down)
        if not math.isfinite(residual):
            raise ModelError(f"The change of {layer.weight} is too large for fp16.", "Extract with fp32 or bf16.")
        self.lora.add_module(layer.name, up, down, layer.shape)
        self.tally.carry(layer.name, layer.weight, rank, square, residual, LOW_RANK, tuple(values.tolist()))
        if bias is not None:
            self.tally.leave(layer.bias, "biases of layers whose weight has a low rank", squared_norm(bias))

    def _most(self, layer: Layer) -> int:
        if self.ranks is not None:
            return self.ranks.get(layer.name, 0)
        if layer.is_convolution and not self.options.conv_rank:
            return 0
        if self.options.energy:
            return self.options.max_rank
        return self.options.conv_rank if layer.is_convolution else self.options.rank


def _why_left_out(key: str) -> str:
    if key.startswith(VAE_PREFIX):
        return "a LoRA has no VAE"
    if key.endswith("in_proj_bias"):
        return "biases of an OpenCLIP encoder's queries, keys and values"
    if "position" in key:
        return "vectors of positions"
    if key.endswith("text_projection"):
        return "the projection of the pooled text"
    return "the loader has no form for it"


def _nothing_to_carry(pair: Pair, tally: Tally) -> ModelError:
    if not tally.left_out:
        return equal(pair)
    reasons = ", ".join(dict.fromkeys(item.reason for item in tally.left_out))
    return ModelError(
        f"{pair.tuned.path} differs from {pair.base.path} only in what was left out ({reasons}).",
        "Raise conv_rank if it is 0, or use the checkpoint itself.",
    )


def _metadata(
    base: Path, tuned: Path, family: str, options: ExtractionOptions, report: ExtractionReport
) -> dict[str, str]:
    result = base_metadata(base.name, family, base_hash=sha256(base))
    ranks = [module.rank for module in report.modules if module.rank]
    fixed = not options.energy and not options.size
    result["ss_network_dim"] = result["ss_network_alpha"] = str(options.rank if fixed else max(ranks, default=0))
    if options.conv_rank and fixed:
        rank = str(options.conv_rank)
        result["ss_network_args"] = json.dumps({"conv_dim": rank, "conv_alpha": rank})
    result["dsm_extracted_from"] = tuned.name
    result["dsm_relative_error"] = f"{report.error:.4f}"
    result["dsm_total_error"] = f"{report.total_error:.4f}"
    errors = {module.name: round(module.error, 4) for module in report.modules if module.kind == LOW_RANK}
    result["dsm_layer_errors"] = json.dumps(errors)
    return result
