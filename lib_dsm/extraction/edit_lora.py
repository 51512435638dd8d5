"""Changing LoRA files without the checkpoint: resizing, merging, scaling, pruning, converting.

All of it is exact but for what a rank or a precision takes away, and that is measured: a resize is the truncated SVD of
the product, found from the QR of both factors (the product itself is never formed); a merge puts factors side by side.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lib_dsm.errors import InputError, ModelError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.lora_content import Factors, LoraContent, read_lora
from lib_dsm.extraction.lora_file import CHANGES, PRECISIONS, base_metadata, check_output
from lib_dsm.extraction.low_rank import balanced, factored_svd, squared_norm
from lib_dsm.extraction.options import EditOptions
from lib_dsm.extraction.ranks import Spectrum, by_energy, by_size, module_bytes
from lib_dsm.extraction.simo import is_simo
from lib_dsm.jobs import Job
from lib_dsm.networks.inspect import told_family

_DIFFERENCE, _NORM = frozenset({"diff", "diff_b"}), frozenset({"w_norm", "b_norm"})
# Metadata of the file that was: its hash, and how its network was made.
_OUTDATED = frozenset(
    {"sshs_legacy_hash", "ss_network_args", "ss_network_dim", "ss_network_alpha", "lora_adapter_metadata"}
)
_METADATA = 800  # bytes that the metadata grow by, apart from those that saving adds
_NAMED = 8  # tensors of other kinds
_ATTENTION = ("_q_proj", "_k_proj", "_v_proj", "_out_proj")


@dataclass(frozen=True)
class EditReport:
    """What was written.

    `error` is the relative Frobenius error of what the rank and the precision took from the low ranks, `errors` that by
    module; `pruned` names the modules that were left out as dead, `dropped` those that the size had no room for, `kept`
    those of another form than a low rank that stayed as they were, `unknown` tensors of the sources that are no part of
    a LoRA and were left out. `family` is that of the models it is for.
    """

    path: Path
    modules: int
    error: float
    errors: Mapping[str, float]
    pruned: tuple[str, ...]
    kept: tuple[str, ...]
    embeddings: tuple[str, ...]
    bytes: int
    dropped: tuple[str, ...] = ()
    family: str = "SD1"
    unknown: tuple[str, ...] = ()

    def notes(self) -> list[str]:
        """What is not in the file, a sentence each."""
        found = []
        if self.pruned:
            found.append(f"Dead and left out: {len(self.pruned)} modules.")
        if self.dropped:
            found.append(f"Left out, the size has no room for them: {len(self.dropped)} modules.")
        if self.unknown:
            more = f" and {len(self.unknown) - _NAMED} more" if len(self.unknown) > _NAMED else ""
            found.append(f"Left out, no part of a LoRA: {', '.join(self.unknown[:_NAMED])}{more}.")
        return found

    def text(self) -> str:
        """A sentence or two for a person."""
        error = f", with a relative error of {self.error:.2%}" if self.errors else ""
        lines = [f"{self.path} ({self.bytes / 1e6:.1f} MB) holds {self.modules} modules{error}."]
        if self.embeddings:
            lines.append(f"Bundled embeddings: {', '.join(self.embeddings)}.")
        lines += self.notes()
        if self.kept:
            lines.append(f"Of another form, kept as they were: {len(self.kept)} modules.")
        return "\n".join(lines)


def edit_lora(
    sources: Sequence[tuple[Path, float]],
    out: Path,
    options: EditOptions,
    job: Job | None = None,
    text_encoder: Path | None = None,
    about: About | None = None,
) -> EditReport:
    """Read LoRA files of any layout, add them up with their weights, resize and prune the sum, and write it.

    With one source of weight 1 and the defaults this converts the layout alone. `text_encoder` belongs to the first;
    `about` is more for the file's card.

    Raises:
        InputError: a file is missing, `out` cannot be used, a weight is no number, options exclude each other, or the
            size is too small.
        ModelError: a file is no LoRA, or two cannot be added; a sentence says why.
        StorageError: the disk does not take the file.
        Cancelled: the job was; nothing is written.
    """
    if not sources:
        raise InputError("No LoRA is given.", "Name at least one file.")
    _check_weights(sources)
    _check_options(options)
    if text_encoder is not None and not is_simo(sources[0][0]):
        raise InputError(
            f"{sources[0][0]} is no file of the old DreamBooth extension, so {text_encoder} does not belong to it.",
            "Leave the text encoder's file out.",
        )
    inputs = {f"source {path.name}": path for path, _ in sources}
    check_output(out, inputs, options.overwrite)
    if about is not None:
        _ = about.loaded  # before any work
    contents = [read_lora(path, text_encoder if not index else None) for index, (path, _) in enumerate(sources)]
    names = [path.name for path, _ in sources]
    weights = [weight * options.scale for _, weight in sources]
    merged = merge(contents, weights, names)
    pruned = prune(merged, options.prune)
    errors = resize(merged, options, job, _room(merged, options, about))
    dropped = tuple(name for name in errors[0] if name not in merged.modules)
    if not merged.modules and not merged.other and not merged.embeddings:
        raise ModelError("Nothing is left of the LoRA.", "Prune less, or use weights that do not cancel.")
    _tell(merged, contents, options, sources, errors)
    lora = merged.file(options.precision)
    if about is not None:
        about.add_to(lora)
    if options.size and lora.size() > options.size * 1e6:
        raise _too_small(options)
    lora.save(out, options.overwrite)
    return EditReport(
        out, len(merged.modules) + len(merged.other), errors[1], errors[0], pruned, tuple(merged.other),
        _embeddings(merged, about), out.stat().st_size, dropped, told_family(lora.tensors, lora.metadata) or "SD1",
        tuple(dict.fromkeys(key for content in contents for key in content.unknown)),
    )  # fmt: skip


def _check_weights(sources: Sequence[tuple[Path, float]]) -> None:
    for path, weight in sources:
        if not math.isfinite(weight):
            raise InputError(f"The weight of {path} is {weight}.", "Write a number, such as 0.7.")


def _check_options(options: EditOptions) -> None:
    ways = {"rank": options.rank or options.conv_rank, "energy": options.energy, "size": options.size}
    given = [name for name, value in ways.items() if value]
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are given, and one of them decides.", "Set all but one to 0.")


def _embeddings(content: LoraContent, about: About | None) -> tuple[str, ...]:
    more = [embedding.name for embedding in about.loaded] if about is not None else []
    return tuple(dict.fromkeys([*content.embeddings, *more]))


def merge(contents: Sequence[LoraContent], weights: Sequence[float], names: Sequence[str]) -> LoraContent:
    """The weighted sum, exactly: the factors of a module stand side by side, so its rank is the sum of the ranks.

    Where another file has a whole difference for a module, the sum is a whole difference.

    Raises:
        ModelError: modules differ in shape, have forms that cannot be added, or two embeddings share a name.
    """
    families = {content.family() for content in contents} - {"unknown"}
    if len(families) > 1:
        raise ModelError(f"These LoRAs are for {' and '.join(sorted(families))}.", "Merge those for one family.")
    result = LoraContent(metadata=dict(contents[0].metadata))
    for content, weight, source in zip(contents, weights, names, strict=True):
        for name, factors in content.modules.items():
            if name in result.other:
                scaled = Factors(weight * factors.up, factors.down, factors.tail)
                _add_other(result, name, _whole(scaled), 1.0, source)
                continue
            known = result.modules.get(name)
            if known is not None and known.shape != factors.shape:
                raise ModelError(f"{name} has another shape in {source}.", "Merge LoRAs for one model.")
            up, down = weight * factors.up, factors.down
            if known is not None:
                up, down = torch.cat([known.up, up], 1), torch.cat([known.down, down])
            result.modules[name] = Factors(up, down, factors.tail)
        for name, parts in content.other.items():
            _add_other(result, name, parts, weight, source)
        for name, parts in content.embeddings.items():
            if name in result.embeddings and any(
                not torch.equal(parts[key], tensor) for key, tensor in result.embeddings[name].items() if key in parts
            ):
                raise ModelError(f'The embedding "{name}" is another one in {source}.', "Rename one of them.")
            result.embeddings[name] = dict(parts)
    return result


def _add_other(result: LoraContent, name: str, parts: Mapping[str, torch.Tensor], weight: float, source: str) -> None:
    known = result.other.get(name)
    if known is None and weight == 1.0 and name not in result.modules:
        result.other[name] = dict(parts)
        return
    factors = result.modules.get(name)
    if factors is not None:
        known = _whole(factors)
    forms = parts.keys() | (known or {}).keys()
    if forms - _DIFFERENCE and forms - _NORM:
        raise ModelError(
            f"{name} in {source} has a form ({', '.join(sorted(parts))}) that cannot be scaled or added.",
            "Merge LoRAs of low rank.",
        )
    total = dict(known or {})
    for part, tensor in parts.items():
        before = total.get(part)
        if before is not None and before.shape != tensor.shape and 1 not in (before.numel(), tensor.numel()):
            raise ModelError(f"{name} has another shape in {source}.", "Merge LoRAs for one model.")
        total[part] = weight * tensor.float() + (before.float() if before is not None else 0.0)
    result.modules.pop(name, None)
    result.other[name] = total


def _whole(factors: Factors) -> dict[str, torch.Tensor]:
    """A low rank as a whole difference."""
    return {"diff": (factors.up @ factors.down).reshape(factors.shape)}


def prune(content: LoraContent, threshold: float) -> tuple[str, ...]:
    """Take dead modules out: those whose change is at most `threshold` times the greatest one. Gives their names.

    A text encoder's four projections are one: OpenCLIP's are applied together or not at all. Forms that are no sum of
    changes, such as LoHa, stay.
    """
    norms = {name: math.sqrt(max(0.0, factors.square())) for name, factors in content.modules.items()}
    for name, parts in content.other.items():
        size = math.sqrt(sum(squared_norm(tensor) for tensor in parts.values()))
        norms[name] = math.inf if parts.keys() - CHANGES else size
    least = threshold * max((norm for norm in norms.values() if norm < math.inf), default=0.0)
    alive = {_attention(name) for name, norm in norms.items() if norm > least}
    dead = tuple(name for name in norms if _attention(name) not in alive)
    for name in dead:
        content.modules.pop(name, None)
        content.other.pop(name, None)
    return dead


def _attention(name: str) -> str:
    if name.startswith("lora_te"):
        for end in _ATTENTION:
            if name.endswith(end):
                return name.removesuffix(end)
    return name


def resize(
    content: LoraContent, options: EditOptions, job: Job | None = None, room: float = math.inf
) -> tuple[dict[str, float], float]:
    """Cut every module to the rank that the options give, the best of that rank. Gives the errors by module and in all.

    The errors are those of the numbers as stored. Modules of which nothing is cut keep their numbers. Without rank,
    energy and size only what no change needs goes: a merge's rank may exceed that of its sum. `room` is what the
    modules may take, bytes, where the options have a size.
    """
    decompositions: dict[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
    for index, (name, factors) in enumerate(content.modules.items()):
        if job is not None:
            job.check()
            job.progress(index, len(content.modules), name)
        decompositions[name] = factored_svd(factors.up, factors.down)
    ranks = _ranks(content, decompositions, options, room)
    kind = PRECISIONS[options.precision]
    squares: dict[str, float] = {}
    lost: dict[str, float] = {}
    for name, (left, values, right) in decompositions.items():
        factors, rank = content.modules[name], ranks[name]
        squares[name] = lost[name] = max(0.0, factors.square())
        if not rank:
            del content.modules[name]
            continue
        cut = _levelled(factors) if rank == factors.rank else (
            Factors(*balanced(left, values, right, rank), factors.tail)
        )  # fmt: skip
        content.modules[name] = cut
        stored = Factors(cut.up.to(kind).float(), cut.down.to(kind).float(), cut.tail)
        lost[name] = _apart(factors, stored)
    if job is not None:
        job.progress(len(decompositions), len(decompositions))
    errors = {name: math.sqrt(lost[name] / squares[name]) if squares[name] else 0.0 for name in lost}
    whole = sum(squares.values())
    return errors, math.sqrt(sum(lost.values()) / whole) if whole else 0.0


def _levelled(factors: Factors) -> Factors:
    """The same factors with numbers of one size in both, by a power of two, which rounds nothing."""
    up, down = float(factors.up.abs().max()), float(factors.down.abs().max())
    if not up or not down:
        return factors
    shift = round(math.log2(down / up) / 2)
    return Factors(factors.up * 2.0**shift, factors.down * 2.0**-shift, factors.tail)


def _apart(one: Factors, other: Factors) -> float:
    """‖one − other‖²."""
    difference = Factors(torch.cat([one.up, -other.up], 1), torch.cat([one.down, other.down]), one.tail)
    return max(0.0, difference.square())


def _ranks(
    content: LoraContent,
    decompositions: Mapping[str, tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
    options: EditOptions,
    room: float,
) -> dict[str, int]:
    values = {name: parts[1].tolist() for name, parts in decompositions.items()}
    if options.size:
        spectra = {
            name: Spectrum(tuple(found), sum(value**2 for value in found), sum(content.modules[name].flat),
                           _attention(name) if _attention(name) != name else "")
            for name, found in values.items()
        }  # fmt: skip
        width = PRECISIONS[options.precision].itemsize
        ranks = by_size(spectra, room, width)
        if sum(module_bytes(name, spectra[name].numbers, rank, width) for name, rank in ranks.items()) > room:
            raise _too_small(options)
        return ranks
    ranks = {}
    for name, found in values.items():
        square = sum(value**2 for value in found)
        if options.energy:
            ranks[name] = by_energy(found, square, options.energy)
        elif most := (options.conv_rank if content.modules[name].is_convolution else 0) or options.rank:
            ranks[name] = min(len(found), most)
        else:
            # What is rounding by the factors' own precision is no rank.
            noise = 1e-7 * max(found, default=0.0)
            ranks[name] = sum(value > noise for value in found)
        ranks[name] = max(1, ranks[name])
    return ranks


def _room(content: LoraContent, options: EditOptions, about: About | None) -> float:
    """What the low ranks may take of the file, bytes; infinite without a size."""
    if not options.size:
        return math.inf
    rest = LoraContent({}, content.other, content.embeddings, content.metadata).file(options.precision)
    if about is not None:
        about.add_to(rest)
    room = options.size * 1e6 - rest.size() - _METADATA
    if room < 0:
        raise _too_small(options)
    return room


def _too_small(options: EditOptions) -> InputError:
    return InputError(f"{options.size:g} MB are too few.", "Allow a larger file, or leave words or modules out.")


def _tell(
    content: LoraContent,
    contents: Sequence[LoraContent],
    options: EditOptions,
    sources: Sequence[tuple[Path, float]],
    errors: tuple[Mapping[str, float], float],
) -> None:
    family = next((found for item in contents if (found := item.family()) != "unknown"), "SD1")
    known = {key: value for key, value in content.metadata.items() if key not in _OUTDATED}
    # What the file says of its model stays as it says it: there are more versions than families.
    known = {**base_metadata("", family), **known}
    told = {"ss_network_module": "networks.lora"}
    ranks = [factors.rank for factors in content.modules.values()]
    if ranks:
        told["ss_network_dim"] = told["ss_network_alpha"] = str(max(ranks))
    told["dsm_made_from"] = json.dumps([[path.name, weight * options.scale] for path, weight in sources])
    told["dsm_relative_error"] = f"{errors[1]:.4f}"
    content.metadata = {**known, **told}
