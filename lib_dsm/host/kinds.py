"""What differs between the kinds of networks that a run can train: where they begin, their files and their use.

Everything else of a run is the same for all. `kind_of(config)` gives the one that the settings ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from lib_dsm.host.protocol import Folders, Host, TrainingSession
from lib_dsm.training.config import HYPERNETWORK, RunConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.networks.hypernetwork_training import HypernetworkStart
    from lib_dsm.networks.textual_inversion import Start
    from lib_dsm.networks.trainable import Trainable


class Network(Protocol):
    """What a file of a network holds."""

    @property
    def name(self) -> str: ...
    @property
    def step(self) -> int | None: ...


class Kind(Protocol):
    """One kind of network. `Any` stands for the kind's own class of network, as `load` gives it.

    Attributes:
        word: what a person calls it.
        suffixes: of files in the host's folder that are taken for one.
        published: the suffix of the file that is put there.
        handed: the suffixes of the files beside a run's folder that hold the network alone.
        saved: those of them that every saved state has as well.
        in_previews: whether pictures hold the network: a preview that of its step, and one that is handed over.
    """

    word: str
    suffixes: tuple[str, ...]
    published: str
    handed: tuple[str, ...]
    saved: tuple[str, ...]
    in_previews: bool

    def folder(self, folders: Folders) -> Path:
        """Where the host looks for such networks."""
        ...

    def given_start(
        self, host: Host, config: RunConfig, model: DiffusionModel, saved: Path | None
    ) -> Start | HypernetworkStart | None:
        """What the run starts from if that is a network that is there already, else None.

        `saved` is the network's file in the state that the run goes on from: it has all the other gave, which may be
        gone.

        Raises:
            InputError: there is none of that name, or it does not fit the settings.
            ModelError: the file is something else, or does not fit the model.
        """
        ...

    def new_start(self, config: RunConfig, model: DiffusionModel) -> Start | HypernetworkStart:
        """What the run starts from otherwise.

        Raises:
            InputError: the settings do not fit the model.
        """
        ...

    def moments(self, start: Any) -> Sequence[Mapping[str, torch.Tensor]]:
        """AdamW's state that a start brings along, for each parameter; empty if it brings none."""
        ...

    def trainable(self, config: RunConfig, start: Any, device: torch.device) -> Trainable:
        """The network to train, as it starts."""
        ...

    def untrained(self, config: RunConfig, session: TrainingSession, start: Any) -> Any:
        """The network that a training would begin with."""
        ...

    def network(self, config: RunConfig, session: TrainingSession, trainable: Any, step: int) -> Any:
        """The network as it is after `step`."""
        ...

    def load(self, path: Path) -> Any:
        """The network in a file, which may be a preview where these hold one.

        Raises:
            InputError: there is no such file.
            ModelError: it is something else, or damaged.
        """
        ...

    def save(self, network: Any, path: Path) -> None:
        """Write the network in the format of the path's suffix, one of `handed`.

        Raises:
            ModelError: it holds NaN or infinity.
            StorageError: the disk does not take it.
        """
        ...

    def extras(
        self, config: RunConfig, network: Path, state: Callable[[], Mapping[str, torch.Tensor]]
    ) -> dict[str, bytes]:
        """Further files, by suffix, to the written file `network`; `state` reads the run's saved state of that step."""
        ...

    def picture(self, network: Any, image: Image, parameters: str = "") -> bytes:
        """The PNG of a preview, with what it was made with as the WebUI writes it (infotext.py)."""
        ...

    def renamed(self, network: Any, name: str) -> Any:
        """The same under another name."""
        ...

    def same(self, one: Any, other: Any) -> bool:
        """Whether two networks are the same step of the same run."""
        ...

    def state(self, network: Any) -> dict[str, torch.Tensor]:
        """The tensors as `Trainable.state` gives them."""
        ...

    def numbers(self, config: RunConfig, model: DiffusionModel, start: Any) -> int:
        """How many numbers are trained."""
        ...

    def usage(self, name: str, strength: float = 1.0) -> str:
        """How it is used, as it stands in a sentence; a strength that the kind has not is left out."""
        ...

    def created(self, network: Any, file: str) -> str:
        """A sentence that the network was written, untrained, to a file of that name."""
        ...


def kind_of(config: RunConfig) -> Kind:
    """The kind that the settings ask for."""
    if config.kind == HYPERNETWORK:
        from lib_dsm.host.kind_hypernetwork import HypernetworkKind

        return HypernetworkKind()
    from lib_dsm.host.kind_embedding import EmbeddingKind

    return EmbeddingKind()
