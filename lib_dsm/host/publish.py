"""What a run hands over: one step's files, beside its folder and where the host looks for embeddings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from lib_dsm.errors import DsmError, InputError
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.protocol import Host
from lib_dsm.jobs import Job

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_dsm.networks.embedding import Embedding
    from lib_dsm.training.run_folder import RunFolder

logger = logging.getLogger("dsm")
SUFFIXES = (".pt", ".safetensors", ".bin", ".png", ".webp", ".jxl", ".avif")  # of files the WebUI takes for embeddings
_CARRIER_SIDE = 512  # pixels, at most, of a training picture that carries an embedding


@dataclass(frozen=True)
class StepFiles:
    """What there is of one step of a run: the contents of its `.safetensors`, `.pt` and `.png`."""

    safetensors: bytes
    pt: bytes
    png: bytes

    def by_suffix(self) -> dict[str, bytes]:
        """In the order in which they are handed over."""
        return {".safetensors": self.safetensors, ".pt": self.pt, ".png": self.png}


def outputs_of(folder: RunFolder) -> Outputs:
    """What the run has put outside its own folder."""
    return Outputs(folder.path / "outputs.json")


def published_file(embeddings: Path, name: str) -> Path:
    """Where the host looks for the run's result."""
    return embeddings / f"{name}.safetensors"


def step_embedding(folder: RunFolder, name: str, step: int) -> Embedding:
    """What the run had learned at `step`: from its saved state, or else from one of its previews, which hold it too.

    Raises:
        InputError: there is neither; those steps that are there are named.
        ModelError: the file is damaged.
    """
    from lib_dsm.networks.embedding import load_embedding

    saved, previews = folder.state_file(step, f"{name}.safetensors"), folder.previews_of(step)
    if step in folder.saved_steps() and saved.is_file():
        return load_embedding(saved)
    if not previews:
        known = ", ".join(map(str, folder.saved_steps())) or "none"
        drawn = sorted({preview["step"] for preview in folder.previews()} - set(folder.saved_steps()))
        more = f" Steps with a preview alone: {', '.join(map(str, drawn))}." if drawn else ""
        raise InputError(
            f"{folder.path.name} has no saved step {step} and no preview of it.", f"Saved steps: {known}.{more}"
        )
    return load_embedding(previews[0])


def step_files(folder: RunFolder, name: str, step: int, pictures: Iterable[Path] = ()) -> StepFiles:
    """The files of `step`; without a preview of it the PNG's picture is another one (see `_carrier`).

    Raises:
        InputError, ModelError: as `step_embedding`.
        StorageError: the disk does not take it.
    """
    from lib_dsm.networks.embedding import png_bytes, save_pt, save_safetensors

    embedding = step_embedding(folder, name, step)
    previews = folder.previews_of(step)
    png = previews[0].read_bytes() if previews else png_bytes(embedding, _carrier(folder, step, pictures))
    saved = [folder.state_file(step, f"{name}{suffix}") for suffix in (".safetensors", ".pt")]
    if all(file.is_file() for file in saved):
        return StepFiles(saved[0].read_bytes(), saved[1].read_bytes(), png)
    with TemporaryDirectory() as temporary:
        made = [Path(temporary) / file.name for file in saved]
        save_safetensors(embedding, made[0])
        save_pt(embedding, made[1])
        return StepFiles(made[0].read_bytes(), made[1].read_bytes(), png)


def publish(folder: RunFolder, embeddings: Path, name: str, files: StepFiles) -> list[Path]:
    """Put a step's files beside the run's folder, and the one the host loads into `embeddings`; gives the former.

    Files of that name that are not the run's own are renamed first.

    Raises:
        StorageError: the disk does not take it; what was published before is where it was.
    """
    outputs, published = outputs_of(folder), published_file(embeddings, name)
    handed = []
    for suffix, content in files.by_suffix().items():
        handed.append(folder.path.parent / f"{name}{suffix}")
        outputs.put(handed[-1], content)
    with outputs.keeping_foreign(published.with_suffix(suffix) for suffix in SUFFIXES):
        outputs.put(published, files.safetensors)
    return handed


def announce(host: Host, job: Job | None, name: str) -> None:
    """Let the host take notice of a new embedding, and say so in the job. The files are safe whatever comes of it."""
    try:
        host.networks_changed()
    except Exception as error:  # only the host's list is old
        logger.warning("The host did not take notice of %s", name, exc_info=True)
        said = f"{host.name} did not take notice of the new embedding: {error}. Refresh its list."
    else:
        said = f"The embedding can be used at once as {name}."
    if job is not None:
        job.say(said)


def holds(published: Path, folder: RunFolder, name: str, step: int) -> bool:
    """Whether a published file is the run's `step`."""
    if not published.is_file():
        return False
    saved = folder.state_file(step, f"{name}.safetensors")
    if saved.is_file():
        return published.read_bytes() == saved.read_bytes()
    if not folder.previews_of(step):
        return False
    from lib_dsm.networks.embedding import load_embedding

    try:
        found, drawn = load_embedding(published), step_embedding(folder, name, step)
    except DsmError:
        return False
    return found.step == drawn.step and found.vectors.equal(drawn.vectors)


def published_step(published: Path, folder: RunFolder) -> int | None:
    """The step of the run that an embedding's file holds, None if it is of another run or not there."""
    from lib_dsm.networks.embedding import load_embedding

    try:
        step = load_embedding(published).step
    except DsmError:
        return None
    return step if step is not None and holds(published, folder, published.stem, step) else None


def _carrier(folder: RunFolder, step: int, pictures: Iterable[Path]) -> Image:
    """A picture to put an embedding into that has no preview of its own.

    It is that of the nearest step, or else the first of `pictures` that can be read, made small, or else a plain one.
    """
    from PIL import Image

    previews = sorted(folder.previews(), key=lambda preview: (abs(preview["step"] - step), preview["index"]))
    ways: list[tuple[Callable[[Path], Image.Image], Path]] = [
        *((_opened, Path(preview["path"])) for preview in previews),
        *((_reduced, path) for path in pictures),
    ]
    for read, path in ways:
        try:
            return read(path)
        except (OSError, ValueError, SyntaxError, DsmError):
            continue
    return Image.new("RGB", (_CARRIER_SIDE // 2, _CARRIER_SIDE // 2), "gray")


def _opened(path: Path) -> Image:
    from PIL import Image

    with Image.open(path) as picture:
        return picture.convert("RGB")


def _reduced(path: Path) -> Image:
    from lib_dsm.dataset.pictures import read_picture

    return read_picture(path, max_side=_CARRIER_SIDE).image
