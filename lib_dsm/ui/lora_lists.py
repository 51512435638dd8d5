"""The files that the tab LoRA offers, and where it writes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path

from lib_dsm.api.service import Service
from lib_dsm.api.train_routes import runs
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import exists, file_name

AUTOMATIC = "Automatic: the one it was trained on"
_EMBEDDINGS = (".safetensors", ".pt", ".png")
_NETWORKS = (".safetensors", ".pt", ".ckpt", ".bin")


def embeddings(service: Service) -> dict[str, Path]:
    """The host's embeddings, the newest first, and the states that the runs saved, by what the list shows."""
    found = _newest(service.host.folders.embeddings, _EMBEDDINGS)
    for run in runs(service):
        for path in sorted(run.glob(f"checkpoints/*/{run.name}.safetensors"), reverse=True):
            found[f"{run.name}, {path.parent.name}"] = path
    return found


def embedding_paths(service: Service, names: Iterable[str] | None) -> tuple[Path, ...]:
    """The files of embeddings of the list.

    Raises:
        InputError: one is gone.
    """
    known = embeddings(service) if names else {}
    for name in names or ():
        if name not in known:
            raise InputError(f'There is no embedding "{name}" any more.', "Press ↻ and choose again.")
    return tuple(known[name] for name in names or ())


def hypernetworks(service: Service) -> dict[str, Path]:
    """The host's hypernetworks, the newest first."""
    return _newest(service.host.folders.hypernetworks, (".pt",))


def loras(service: Service) -> dict[str, Path]:
    """The host's LoRA files, the newest first."""
    return _newest(service.host.folders.lora, (".safetensors", ".pt"))


def checkpoints(service: Service) -> list[str]:
    """The names of the host's checkpoints."""
    return [checkpoint.name for checkpoint in service.host.checkpoints()]


def every_file(service: Service) -> list[str]:
    """Paths of all networks and checkpoints."""
    folders = service.host.folders
    found = [
        str(path)
        for folder in (folders.lora, folders.embeddings, folders.hypernetworks)
        for path in sorted(_files(folder, _NETWORKS if folder != folders.embeddings else (*_NETWORKS, ".png")))
    ]
    return found + [str(checkpoint.path) for checkpoint in service.host.checkpoints()]


def checkpoint_paths(service: Service, *names: str | None) -> list[Path]:
    """The paths of checkpoints by name.

    Raises:
        InputError: one is not chosen, or is gone.
    """
    paths = {checkpoint.name: checkpoint.path for checkpoint in service.host.checkpoints()}
    if not all(names):
        raise InputError("One of the checkpoints is not chosen.", "Choose the base and what was made of it.")
    for name in names:
        if name not in paths:
            raise InputError(f'There is no checkpoint "{name}" any more.', "Press ↻ and choose again.")
    return [paths[name] for name in names if name]


def base_of(service: Service, hypernetwork: Path, chosen: str | None) -> Path:
    """The checkpoint of a hypernetwork: the one chosen, or else the one that its file names.

    Raises:
        InputError: it names none that is there.
        ModelError: it is no hypernetwork.
    """
    from lib_dsm.networks.hypernetwork import load_hypernetwork

    if chosen and chosen != AUTOMATIC:
        return checkpoint_paths(service, chosen)[0]
    named = load_hypernetwork(hypernetwork).checkpoint_name
    for checkpoint in service.host.checkpoints():
        if named and Path(named).stem in (checkpoint.path.stem, Path(checkpoint.name).stem):
            return checkpoint.path
    said = f'names the checkpoint "{named}", which is not there' if named else "does not name its checkpoint"
    raise InputError(f"{hypernetwork.name} {said}.", "Choose the checkpoint it was trained on.")


def readable(service: Service, text: str) -> Path:
    """A file that the page may look into: one of the lists, or one in a folder of the host or an opened one.

    Raises:
        ForbiddenError, MissingError: it lies elsewhere, or is gone.
    """
    return Path(text) if text in every_file(service) else service.path(text)


def weighted(service: Service, line: str) -> tuple[Path, float]:
    """A LoRA file and its weight, such as "mine=0.7"; a name is one of the host's folder.

    Raises:
        ForbiddenError, MissingError: the file lies in no folder that the page may read, or is gone.
        InputError: the weight is no finite number.
    """
    text, sign, weight = line.rpartition("=")
    try:
        name, factor = (text.strip(), float(weight)) if sign else (line, 1.0)
    except ValueError:
        name, factor = line, 1.0
    if not math.isfinite(factor):
        raise InputError(f'"{weight}" is no weight.', "Write for example mine=0.7.")
    path = Path(name)
    if not path.is_absolute():
        path = service.host.folders.lora / name
    if not path.suffix or not exists(path):
        path = path if path.suffix in _NETWORKS else path.with_name(f"{path.name}.safetensors")
    return readable(service, str(path)), factor


def target(service: Service, name: str) -> Path:
    """Where a LoRA of that name is written.

    Raises:
        InputError: it can be no file's name.
    """
    return service.host.folders.lora / f"{file_name(name, 'LoRA name')}.safetensors"


def captions(service: Service, project: str) -> Path | None:
    """The folder with the captions of the open project, None where there is none.

    Raises:
        ForbiddenError: it leads out of the opened folders, or something in it does.
    """
    from lib_dsm.dataset.project import Project

    try:
        opened = Project(service.folder(project.strip())) if project.strip() else None
    except DsmError:
        return None
    return service.work_folder(opened.training_folder()) if opened and opened.training_folder().is_dir() else None


def _newest(folder: Path, suffixes: tuple[str, ...]) -> dict[str, Path]:
    ordered = sorted(_files(folder, suffixes), key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.relative_to(folder).as_posix(): path for path in ordered}


def _files(folder: Path, suffixes: tuple[str, ...]) -> Iterator[Path]:
    for path in folder.rglob("*") if folder.is_dir() else ():
        if path.suffix.lower() in suffixes and not path.name.startswith("."):
            yield path
