"""One click after training: a finished run as a LoRA file in the host's folder, with all its card can show."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import is_file
from lib_dsm.host.capturing import captured_contexts
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.lora_names import free_name
from lib_dsm.host.protocol import Host
from lib_dsm.jobs import Job
from lib_dsm.training.config import HYPERNETWORK, RunConfig
from lib_dsm.training.presets import settings_of_run
from lib_dsm.training.run_folder import RunFolder


def lora_of_run(host: Host, run: Path, job: Job, name: str = "", force: bool = False) -> Path:
    """Make the LoRA of the run in the folder `run` from its last saved state; gives the file.

    It is called `name`, else like the run with "-lora" behind. A file of that name that is there is not replaced: a
    number is put behind. A hypernetwork that is not linear is fitted on the run's captions; `force` takes a bad fit.

    Raises:
        InputError: the run has saved nothing yet, or the checkpoint of a hypernetwork's is gone.
        ModelError: a file is damaged.
        BadFitError: a hypernetwork's fit is bad; the job's data say so too (`forceable`).
        StorageError: the disk does not take the file.
        Cancelled: the job was; nothing is written.
    """
    from lib_dsm.extraction.about import write_sidecar

    config, folder = settings_of_run(run), RunFolder(run)
    steps = folder.saved_steps()
    if not steps:
        raise InputError(f"{run.name} has no saved step yet.", "Train it until the first one is saved.")
    # The file that every saved state of the kind has.
    saved = folder.state_file(steps[-1], f"{config.name}{kind_of(config).published}")
    out = free_name(host.jobs, host.folders.lora, name or f"{config.name}-lora", job)
    about = _about(config, folder, steps[-1])
    if config.kind == HYPERNETWORK:
        from lib_dsm.extraction.facts import of_fit
        from lib_dsm.extraction.hypernetwork_lora import BadFitError, extract_hypernetwork
        from lib_dsm.extraction.options import HypernetworkOptions

        base = _checkpoint(host, config)
        captions = Path(config.dataset)
        captured = captured_contexts(host, saved, config.checkpoint, captions, job, config.clip_skip)
        try:
            report = extract_hypernetwork(saved, base, out, HypernetworkOptions(force=force), captured, job, about)
        except BadFitError:
            job.data["forceable"] = True
            raise
        facts, said, activation, family = of_fit(report), report.text(), "", report.family
        source: dict[str, Any] = {"base": str(base), "hypernetwork": str(saved)}
    else:
        from lib_dsm.extraction.embedding_lora import bundle_embedding, facts_of_bundle
        from lib_dsm.networks.embedding import load_embedding

        record = folder.read_record().get("checkpoint", {})
        embedding = replace(load_embedding(saved), name=config.name)
        family = bundle_embedding(embedding, out, about, str(record.get("sha256", "")))
        facts, activation = facts_of_bundle(out, config.name, len(embedding.vectors)), config.name
        said = f"{out} holds {config.name}, {len(embedding.vectors)} vectors."
        # The embedding needs no checkpoint; without one its pictures cannot be drawn, which is all.
        base_path = _find_checkpoint(host, config)
        source = {"base": str(base_path), "word": config.name} if base_path is not None else {}
    write_sidecar(out, family, activation)
    host.networks_changed()
    prompt = f"<lora:{out.stem}:1> {activation}".strip()
    job.data["lora"] = {**facts, "prompt": prompt}
    if source:
        job.data["lora"]["source"] = {**source, "clip_skip": config.clip_skip, "captions": config.dataset}
    job.data["summary"] = f"{said}\nIn a prompt: {prompt}"
    job.say(job.data["summary"])
    return out


def _checkpoint(host: Host, config: RunConfig) -> Path:
    found = _find_checkpoint(host, config)
    if found is None:
        raise InputError(f'The checkpoint "{config.checkpoint}" of the run is gone.', "Put it back.")
    return found


def _find_checkpoint(host: Host, config: RunConfig) -> Path | None:
    named = Path(config.checkpoint)
    if is_file(named):
        return named
    return next((item.path for item in host.checkpoints() if item.name == config.checkpoint), None)


def _about(config: RunConfig, folder: RunFolder, step: int) -> Any:
    from lib_dsm.dataset.tag_index import TagIndex
    from lib_dsm.extraction.about import About

    tags: dict[str, dict[str, int]] = {}
    pictures: dict[str, int] = {}
    dataset = Path(config.dataset)
    try:
        index = TagIndex.read(dataset)
        tags, pictures = {dataset.name: dict(index.counts)}, {dataset.name: len(index)}
    except (DsmError, OSError):
        pass  # the pictures may be gone; the LoRA can be made all the same
    begun = str(folder.read_record().get("begun", ""))
    return About(
        clip_skip=config.clip_skip,
        tags=tags,
        pictures=pictures,
        started=_seconds(begun),
        finished=folder.state_folder(step).stat().st_mtime,
        made=f"DSM {config.kind}, step {step}",
        cover=_cover(folder),
    )


def _seconds(text: str) -> float | None:
    try:
        return datetime.datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None


def _cover(folder: RunFolder) -> Any:
    from PIL import Image

    for preview in sorted(folder.previews(), key=lambda item: (-item["step"], item["index"])):
        try:
            with Image.open(preview["path"]) as picture:
                return picture.convert("RGB")
        except (OSError, ValueError, SyntaxError):
            continue
    return None
