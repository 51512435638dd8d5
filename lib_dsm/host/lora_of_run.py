"""One click after training: a finished run as a LoRA file in the host's folder, with all its card can show."""

from __future__ import annotations

import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import file_name
from lib_dsm.host.capturing import captured_contexts
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
        InputError: the run has saved nothing yet, or its checkpoint is gone.
        ModelError: a file is damaged, or a hypernetwork's fit is bad.
        StorageError: the disk does not take the file.
        Cancelled: the job was; nothing is written.
    """
    from lib_dsm.extraction.about import write_sidecar

    config, folder = settings_of_run(run), RunFolder(run)
    steps = folder.saved_steps()
    if not steps:
        raise InputError(f"{run.name} has no saved step yet.", "Train it until the first one is saved.")
    saved = _saved(folder, steps[-1], config.name)
    out = _free(host.folders.lora, file_name(name or f"{config.name}-lora", "LoRA's name"))
    about = _about(config, folder, steps[-1])
    if config.kind == HYPERNETWORK:
        from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
        from lib_dsm.extraction.options import HypernetworkOptions

        base = _checkpoint(host, config)
        captured = captured_contexts(saved, base, Path(config.dataset), job)
        report = extract_hypernetwork(saved, base, out, HypernetworkOptions(force=force), captured, job, about)
        said, activation, family = report.text(), "", "SD1"
    else:
        from lib_dsm.extraction.embedding_lora import bundle_embedding
        from lib_dsm.networks.embedding import load_embedding

        record = folder.read_record().get("checkpoint", {})
        embedding = replace(load_embedding(saved), name=config.name)
        family = bundle_embedding(embedding, out, about, str(record.get("sha256", "")))
        said, activation = f"{out} is ready. In a prompt: <lora:{out.stem}:1> {config.name}", config.name
    write_sidecar(out, family, activation)
    host.networks_changed()
    job.data["summary"] = said
    job.say(said)
    return out


def _saved(folder: RunFolder, step: int, name: str) -> Path:
    """The network as it was saved; of a hypernetwork there is only the `.pt`."""
    files = [folder.state_file(step, f"{name}{suffix}") for suffix in (".safetensors", ".pt")]
    return next((file for file in files if file.is_file()), files[0])


def _checkpoint(host: Host, config: RunConfig) -> Path:
    named = Path(config.checkpoint)
    if named.is_file():
        return named
    for checkpoint in host.checkpoints():
        if checkpoint.name == config.checkpoint:
            return checkpoint.path
    raise InputError(f'The checkpoint "{config.checkpoint}" of the run is gone.', "Put it back.")


def _free(folder: Path, name: str) -> Path:
    found, number = folder / f"{name}.safetensors", 1
    while found.exists():
        number += 1
        found = folder / f"{name}-{number}.safetensors"
    return found


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
