"""What the commands on files of networks do. Each returns its result as data and as text."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm.cli.flags import read_flags
from lib_dsm.cli.main import Result
from lib_dsm.cli.progress import run_job
from lib_dsm.errors import InputError
from lib_dsm.files import exists

if TYPE_CHECKING:
    from lib_dsm.extraction.hypernetwork_lora import HypernetworkReport
    from lib_dsm.jobs import Job


def extract_checkpoint(arguments: argparse.Namespace) -> Result:
    """The difference of two checkpoints as a LoRA, or what it would be."""
    from lib_dsm.extraction.about import About, write_sidecar
    from lib_dsm.extraction.checkpoint import extract_checkpoint as extract
    from lib_dsm.extraction.options import ExtractionOptions
    from lib_dsm.extraction.survey import survey

    chosen = read_flags(arguments, ExtractionOptions)
    base, tuned = arguments.base, arguments.tuned
    if arguments.survey:
        found = run_job("Looking", "layers", lambda job: survey(base, tuned, chosen, job))
        outlooks = [*found.outlooks(chosen), found.outlook(chosen)]
        return Result(
            {"outlooks": [dataclasses.asdict(item) for item in outlooks]},
            "\n".join(f"{item.label:>22}: {item.bytes / 1e6:8.1f} MB, error {item.error:.1%}" for item in outlooks),
        )
    if arguments.out is None:
        raise InputError("No file to write is named.", "Add --out NAME.safetensors, or --survey to look only.")
    about = About(embeddings=tuple(arguments.embedding), made="extracted from two checkpoints")
    _ = about.loaded  # what is missing is said before any work
    report = run_job("Extracting", "layers", lambda job: extract(base, tuned, arguments.out, chosen, job, about=about))
    write_sidecar(arguments.out, report.family, "")
    data = {
        "file": str(report.path),
        "layers": len(report.modules),
        "error": report.error,
        "total_error": report.total_error,
        "left_out": [{"key": item.key, "reason": item.reason} for item in report.left_out],
    }
    data["embeddings"] = [embedding.name for embedding in about.loaded]
    return _with_pictures(arguments, data, about.told(report.text()), tuned=tuned, averages=chosen.averages)


def extract_hypernetwork(arguments: argparse.Namespace) -> Result:
    """A hypernetwork as a LoRA; one that is not linear is fitted on captions."""
    from lib_dsm.extraction.about import About, write_sidecar
    from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork as extract
    from lib_dsm.extraction.lora_file import check_output
    from lib_dsm.extraction.options import HypernetworkOptions
    from lib_dsm.host.capturing import captured_contexts
    from lib_dsm.host.lora_options import CaptureOptions
    from lib_dsm.host.studio import StudioHost

    chosen = read_flags(arguments, HypernetworkOptions)
    about = About(embeddings=tuple(arguments.embedding), made="made from a hypernetwork")
    _ = about.loaded  # what is missing is said before any work

    clip_skip = read_flags(arguments, CaptureOptions).clip_skip
    # Before contexts are captured, which takes minutes.
    check_output(arguments.out, {"hypernetwork": arguments.file, "base checkpoint": arguments.base}, chosen.overwrite)

    def work(job: Job) -> HypernetworkReport:
        host = StudioHost(arguments.out.parent)
        captured = captured_contexts(host, arguments.file, str(arguments.base), arguments.captions, job, clip_skip)
        return extract(arguments.file, arguments.base, arguments.out, chosen, captured, job, about)

    report = run_job("Extracting", "layers", work)
    write_sidecar(arguments.out, report.family, "")
    data = {"file": str(report.path), "exact": report.exact, "fit": report.fit, "fits": report.fits,
            "lost": report.lost}  # fmt: skip
    data["embeddings"] = [embedding.name for embedding in about.loaded]
    return _with_pictures(
        arguments, data, about.told(report.text()), hypernetwork=arguments.file, strength=chosen.strength
    )


def _with_pictures(arguments: argparse.Namespace, data: dict[str, Any], text: str, **original: Any) -> Result:
    """The result of an extraction, with pictures side by side where they are asked for."""
    from lib_dsm.extraction.options import PictureOptions
    from lib_dsm.host.lora_pictures import Compared, compare_pictures, prompts_from, text_of, variants

    chosen = read_flags(arguments, PictureOptions)
    if not chosen.previews:
        return Result(data, text)
    prompts = arguments.prompt or prompts_from(arguments.captions, chosen.previews)
    what = Compared(arguments.base, arguments.out, **original)
    drawn = run_job("Drawing", "pictures", lambda job: compare_pictures(variants(what), what, chosen, prompts, job))
    return Result({**data, "pictures": drawn}, f"{text}\n{text_of(drawn)}")


def edit_lora(arguments: argparse.Namespace) -> Result:
    """LoRA files of any tool, one or the sum of several, as the WebUI loads them."""
    from lib_dsm.extraction.about import About, write_sidecar
    from lib_dsm.extraction.edit_lora import edit_lora as edit
    from lib_dsm.extraction.options import EditOptions

    chosen = read_flags(arguments, EditOptions)
    sources = [_weighted(path) for path in arguments.file]
    about = About(embeddings=tuple(arguments.embedding))
    report = run_job(
        "Writing", "modules", lambda job: edit(sources, arguments.out, chosen, job, arguments.text_encoder, about)
    )
    write_sidecar(arguments.out, report.family, "")
    data = {
        "file": str(report.path),
        "modules": report.modules,
        "error": report.error,
        "pruned": report.pruned,
        "dropped": report.dropped,
        "kept": report.kept,
        "embeddings": report.embeddings,
    }
    return Result(data, report.text())


def _weighted(path: Path) -> tuple[Path, float]:
    name, sign, weight = str(path).rpartition("=")
    if not sign or exists(path):
        return path, 1.0
    try:
        return Path(name), float(weight)
    except ValueError:
        raise InputError(f'"{weight}" is no weight.', "Write for example mine.safetensors=0.7.") from None


def extract_embedding(arguments: argparse.Namespace) -> Result:
    """An embedding bundled in a LoRA file."""
    from lib_dsm.extraction.embedding_lora import embedding_to_lora

    made = embedding_to_lora(arguments.file, arguments.out, name=arguments.name, overwrite=arguments.overwrite)
    return Result(
        {"file": str(made.path), "name": made.name, "vectors": made.vectors, "prompt": made.prompt},
        f"{made.path} holds {made.name}. In a prompt: {made.prompt}",
    )


def inspect(arguments: argparse.Namespace) -> Result:
    """What a file is, or how far two LoRAs are apart."""
    from lib_dsm.networks.inspect import describe, describe_text

    if arguments.compare:
        from lib_dsm.extraction.compare_loras import compare

        apart = compare(arguments.file, arguments.compare)
        return Result(dataclasses.asdict(apart), apart.text(str(arguments.file), str(arguments.compare)))
    found = describe(arguments.file)
    return Result(found, describe_text(found))
