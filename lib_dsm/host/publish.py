"""What a run hands over: one step's files, beside its folder and where the host looks for such networks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from lib_dsm.errors import DsmError, InputError
from lib_dsm.host.kinds import Kind, kind_of
from lib_dsm.host.outputs import Outputs
from lib_dsm.host.protocol import Folders, Host
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    from PIL.Image import Image

    from lib_dsm.training.run_folder import RunFolder

logger = logging.getLogger("dsm")
_CARRIER_SIDE = 512  # pixels, at most, of a training picture that carries an embedding


@dataclass(frozen=True)
class StepFiles:
    """What there is of one step of a run: the contents of its files by suffix, in the order they are handed over.

    `published` is the suffix of the one that the host loads; those in `beside` belong next to it there.
    """

    contents: dict[str, bytes]
    published: str
    beside: tuple[str, ...] = ()

    @property
    def main(self) -> bytes:
        """The content of the file that the host loads."""
        return self.contents[self.published]


def outputs_of(folder: RunFolder) -> Outputs:
    """What the run has put outside its own folder."""
    return Outputs(folder.path / "outputs.json")


def published_file(folders: Folders, config: RunConfig) -> Path:
    """Where the host looks for the run's result."""
    kind = kind_of(config)
    return kind.folder(folders) / f"{config.name}{kind.published}"


def step_network(folder: RunFolder, config: RunConfig, step: int) -> Any:
    """What the run had learned at `step`: from its saved state, or else from one of its previews, where these hold it.

    Raises:
        InputError: there is neither; those steps that are there are named.
        ModelError: the file is damaged.
    """
    kind = kind_of(config)
    saved = folder.state_file(step, f"{config.name}{kind.published}")
    previews = folder.previews_of(step) if kind.in_previews else []
    if step in folder.saved_steps() and saved.is_file():
        return kind.load(saved)
    if not previews:
        known = ", ".join(map(str, folder.saved_steps())) or "none"
        drawn = sorted({preview["step"] for preview in folder.previews()} - set(folder.saved_steps()))
        more = f" Steps with a preview alone: {', '.join(map(str, drawn))}." if drawn and kind.in_previews else ""
        no_preview = " and no preview of it" if kind.in_previews else ""
        raise InputError(f"{folder.path.name} has no saved step {step}{no_preview}.", f"Saved steps: {known}.{more}")
    return kind.load(previews[0])


def step_files(folder: RunFolder, config: RunConfig, step: int, pictures: Iterable[Path] = ()) -> StepFiles:
    """The files of `step`; without a preview of it the PNG's picture is another one (see `_carrier`).

    Raises:
        InputError, ModelError: as `step_network`.
        StorageError: the disk does not take it.
    """
    kind = kind_of(config)
    network = step_network(folder, config, step)
    contents: dict[str, bytes] = {}
    saved = {suffix: folder.state_file(step, f"{config.name}{suffix}") for suffix in kind.handed}
    with TemporaryDirectory() as temporary:
        for suffix, file in saved.items():
            if not file.is_file():
                file = Path(temporary) / file.name
                kind.save(network, file)
            contents[suffix] = file.read_bytes()
    extras = kind.extras(config, saved[kind.published], lambda: folder.state_of(step))
    if kind.in_previews:
        previews = folder.previews_of(step)
        png = previews[0].read_bytes() if previews else kind.picture(network, _carrier(folder, step, pictures))
        contents[".png"] = png
    return StepFiles({**contents, **extras}, kind.published, tuple(extras))


def publish(folder: RunFolder, folders: Folders, config: RunConfig, files: StepFiles) -> list[Path]:
    """Put a step's files beside the run's folder, and what the host loads into its own; gives the former.

    Files of that name that are not the run's own are renamed first.

    Raises:
        StorageError: the disk does not take it; what was published before is where it was.
    """
    kind, outputs, published = kind_of(config), outputs_of(folder), published_file(folders, config)
    handed = []
    for suffix, content in files.contents.items():
        handed.append(folder.path.parent / f"{config.name}{suffix}")
        outputs.put(handed[-1], content)
    with outputs.keeping_foreign(named_alike(published, kind)):
        outputs.put(published, files.main)
        for suffix in files.beside:
            outputs.put(published.with_name(f"{config.name}{suffix}"), files.contents[suffix])
    return handed


def named_alike(published: Path, kind: Kind) -> list[Path]:
    """The files that the host would take for a network of the same name."""
    return [published.with_name(f"{published.stem}{suffix}") for suffix in kind.suffixes]


def announce(host: Host, job: Job | None, config: RunConfig) -> None:
    """Let the host take notice of a new network, and say so in the job. The files are safe whatever comes of it."""
    kind = kind_of(config)
    try:
        host.networks_changed()
    except Exception as error:  # only the host's list is old
        logger.warning("The host did not take notice of %s", config.name, exc_info=True)
        said = f"{host.name} did not take notice of the new {kind.word}: {error}. Refresh its list."
    else:
        said = f"The {kind.word} can be used at once as {kind.usage(config.name)}."
    if job is not None:
        job.say(said)


def holds(published: Path, folder: RunFolder, config: RunConfig, step: int) -> bool:
    """Whether a published file is the run's `step`."""
    if not published.is_file():
        return False
    kind = kind_of(config)
    saved = folder.state_file(step, f"{config.name}{kind.published}")
    if saved.is_file():
        return published.read_bytes() == saved.read_bytes()
    if not kind.in_previews or not folder.previews_of(step):
        return False
    try:
        return kind.same(kind.load(published), step_network(folder, config, step))
    except DsmError:
        return False


def published_step(published: Path, folder: RunFolder, config: RunConfig) -> int | None:
    """The step of the run that a network's file holds, None if it is of another run or not there."""
    try:
        step: int | None = kind_of(config).load(published).step
    except DsmError:
        return None
    return step if step is not None and holds(published, folder, config, step) else None


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
