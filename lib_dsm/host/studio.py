"""The studio: a host of our own, where there is no WebUI. It works on a folder and loads checkpoints by itself."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError, ModelError
from lib_dsm.files import is_file, sha256
from lib_dsm.guards.set_aside import SetAside
from lib_dsm.host.infotext import KEY, infotext
from lib_dsm.host.protocol import Checkpoint, Folders, ModelStatus
from lib_dsm.host.turn import Turns
from lib_dsm.host.vocabulary import CLIP, cut
from lib_dsm.jobs import Job, Jobs
from lib_dsm.training.config import PreviewRequest, RunConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.diffusers import DiffusersModel
    from lib_dsm.host.lora_pictures import Compared, Variant
    from lib_dsm.networks.safetensors_files import TensorFile

    Reading = Callable[[TensorFile], Callable[[str], torch.Tensor]]

MODELS = Path(__file__).resolve().parent.parent / "demo" / "models"
MICRO = MODELS / "micro.safetensors"
SAMPLERS = ("Euler a", "Euler", "DDIM", "DPM++ 2M")
_SUFFIXES = (".safetensors", ".ckpt")


@dataclass
class StudioSession:
    """`TrainingSession` (see protocol.py) on a model that the studio loaded for it."""

    model: DiffusersModel
    checkpoint: Checkpoint
    checkpoint_hash: str
    set_aside: SetAside = field(default_factory=SetAside)  # it loads nothing else
    embeddings: frozenset[str] = frozenset()  # its prompts know only the one that is trained

    def preview(
        self,
        request: PreviewRequest,
        replacements: Mapping[str, torch.Tensor],
        clip_skip: int,
        check: Callable[[], None] = lambda: None,
    ) -> Image:
        """See protocol.py; it can be given up between any two sampling steps."""
        from lib_dsm.diffusion.sampling import generate

        image = generate(self.model, request, replacements, clip_skip, check)
        image.info[KEY] = infotext(request, clip_skip, self.checkpoint.name, self.checkpoint_hash)
        return image

    def progress(self, done: int, total: int, text: str = "") -> None:
        """The studio shows the job itself."""

    def moved(self) -> str:
        """The studio lends a model of its own that nobody else can reach."""
        return ""

    def stop_requested(self) -> bool:
        """The studio has no interrupt but the job's own."""
        return False


class StudioHost:
    """`Host` (see protocol.py) over one folder. Constructing it loads nothing."""

    name = "studio"

    def __init__(self, folder: Path) -> None:
        root = folder.resolve()
        self.folders = Folders(
            embeddings=root / "embeddings",
            hypernetworks=root / "hypernetworks",
            lora=root / "lora",
            checkpoints=root / "checkpoints",
            logs=root / "runs",
            taggers=root / "taggers",
            templates=root / "templates",
            data=root / "data",
            projects=root / "projects",
        )
        self.jobs = Jobs()
        self._turns = Turns()

    def checkpoints(self) -> Sequence[Checkpoint]:
        """See protocol.py; the demo world's own checkpoint comes last."""
        folder = self.folders.checkpoints
        found = (
            sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES) if folder.is_dir() else []
        )
        own = [Checkpoint(path.relative_to(folder).as_posix(), path) for path in found]
        return [*own, Checkpoint(MICRO.name, MICRO)] if MICRO.is_file() else own

    def default_clip_skip(self) -> int:
        """See protocol.py."""
        return 1

    def samplers(self) -> Sequence[str]:
        """See protocol.py."""
        return SAMPLERS

    def schedulers(self) -> Sequence[str]:
        """See protocol.py; each sampler has one schedule here."""
        return ()

    def status(self) -> ModelStatus:
        """See protocol.py; the studio loads a model only for a training."""
        return ModelStatus("none loaded", "none", "the checkpoint's own", 1)

    def tokens(self, text: str, checkpoint: str) -> list[str]:
        """See protocol.py."""
        path = next((known.path for known in self.checkpoints() if known.name == checkpoint), MICRO)
        return cut(text, tokenizer_folder(path))

    @contextmanager
    def training_session(self, config: RunConfig, brief: bool = False) -> Iterator[StudioSession]:
        """See protocol.py."""
        checkpoint = self._find(config.checkpoint)
        with self._turns.taken(brief):
            try:
                yield StudioSession(load_model(checkpoint.path), checkpoint, sha256(checkpoint.path))
            finally:
                gc.collect()

    def showing(self, job: Job) -> AbstractContextManager[None]:
        """See protocol.py; the studio shows jobs only in its page."""
        return nullcontext()

    def made_picture(self, path: Path) -> bool:
        """See protocol.py; what the studio draws lies in its runs."""
        return False

    def variants(self, what: Compared) -> list[Variant]:
        """See protocol.py; the files themselves are loaded."""
        from lib_dsm.host import lora_pictures

        return lora_pictures.variants(what)

    def applies_hypernetworks(self) -> bool:
        """See protocol.py; what the studio shows of them are a run's previews."""
        return True

    def reads_bundled_embeddings(self) -> bool:
        """See protocol.py; its files are used in other programs."""
        return True

    def networks_changed(self) -> None:
        """Nothing to do: the studio looks into its folders each time."""

    def _find(self, name: str) -> Checkpoint:
        for checkpoint in self.checkpoints():
            if checkpoint.name == name or checkpoint.path.stem == name:
                return checkpoint
        path = Path(name)
        if is_file(path):
            return Checkpoint(path.name, path.resolve())
        known = ", ".join(checkpoint.name for checkpoint in self.checkpoints()) or "none"
        raise InputError(f'There is no checkpoint "{name}".', f"Give a file's path, or one of: {known}.")


def load_model(path: Path, reading: Reading | None = None, described: Path | None = None) -> DiffusersModel:
    """Load a Stable Diffusion 1 or 2 checkpoint (`.safetensors` or `.ckpt`, nothing in it is executed) for training.

    A yaml of the same name beside it gives other sizes than the usual ones, and what an SD2 model predicts; with
    `described` it is the yaml beside that checkpoint, of the same sizes. On an NVIDIA GPU the U-Net runs in half
    precision. `reading` makes of the open file what its tensors are read with, to have some of them changed.

    Raises:
        ModelError: the file is no checkpoint, or one of another kind; that is found out before it is loaded.
    """
    import torch

    from lib_dsm.diffusion.diffusers import DiffusersModel
    from lib_dsm.diffusion.families import demand_supported
    from lib_dsm.diffusion.sizes import sizes_of
    from lib_dsm.networks.tensor_files import open_tensors

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float16 if device.type == "cuda" else torch.float32
    with open_tensors(path) as file:
        demand_supported(file.shapes, path.name)
        sizes = sizes_of(described or path, file.shapes)
        tensors = _Tensors(file, file.read if reading is None else reading(file))
        try:
            return DiffusersModel.from_state(tensors, sizes, tokenizer_folder(path), device, dtype)
        except ValueError as error:
            raise ModelError(
                f"{path.name} is not a Stable Diffusion checkpoint of the sizes its yaml says: {error}.",
                "Put the yaml that came with it beside it, or remove the yaml if the checkpoint needs none.",
            ) from error


class _Tensors(Mapping[str, "torch.Tensor"]):
    """A file's tensors as a mapping that reads each when asked for it, so that not all of them are in memory."""

    def __init__(self, file: TensorFile, read: Callable[[str], torch.Tensor]) -> None:
        self._file = file
        self._read = read

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._file.shapes:
            raise KeyError(name)
        return self._read(name)

    def __contains__(self, name: object) -> bool:
        return name in self._file.shapes

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.shapes)

    def __len__(self) -> int:
        return len(self._file.shapes)


def tokenizer_folder(checkpoint: Path) -> Path:
    """The folder with CLIP's vocabulary: beside the checkpoint, or the one the demo world ships, which is the same."""
    beside = checkpoint.parent / "clip"
    return beside if (beside / "vocab.json").is_file() else CLIP
