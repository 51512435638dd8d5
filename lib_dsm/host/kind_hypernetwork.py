"""Hypernetworks as runs handle them; see kinds.py."""

from __future__ import annotations

import dataclasses
import io
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.host.infotext import KEY
from lib_dsm.host.protocol import Folders, Host, TrainingSession
from lib_dsm.host.starting import find_hypernetwork
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.networks.hypernetwork import Hypernetwork, Weights
    from lib_dsm.networks.hypernetwork_structure import Structure
    from lib_dsm.networks.hypernetwork_training import HypernetworkStart, HypernetworkTraining


class HypernetworkKind:
    """`Kind` of hypernetworks."""

    word = "hypernetwork"
    suffixes: tuple[str, ...] = (".pt",)
    published = ".pt"
    handed: tuple[str, ...] = (".pt", ".safetensors")
    saved: tuple[str, ...] = (".pt",)  # the twin of ninety megabytes is made when it is handed over
    in_previews = False

    def folder(self, folders: Folders) -> Path:
        """See kinds.py."""
        return folders.hypernetworks

    def given_start(
        self, host: Host, config: RunConfig, model: DiffusionModel, saved: Path | None
    ) -> HypernetworkStart | None:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork_training import start_from

        if not config.init_hypernetwork:
            return None
        if saved is not None and saved.is_file():
            return start_from(saved, go_on=False)
        return start_from(find_hypernetwork(host, config.init_hypernetwork), config.init_continue)

    def new_start(self, config: RunConfig, model: DiffusionModel) -> HypernetworkStart:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork_training import drawn_start

        structure = config.structure(tuple(model.context_widths()))
        return drawn_start(structure, config.weight_init, config.weight_init_deviation, config.weight_init_seed)

    def moments(self, start: HypernetworkStart) -> Sequence[Mapping[str, torch.Tensor]]:
        """See kinds.py."""
        return start.moments

    def trainable(self, config: RunConfig, start: HypernetworkStart, device: torch.device) -> HypernetworkTraining:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork_training import HypernetworkTraining

        return HypernetworkTraining(config.name, start.structure, start.weights, device)

    def untrained(self, config: RunConfig, session: TrainingSession, start: HypernetworkStart) -> Hypernetwork:
        """See kinds.py."""
        return _hypernetwork(config, session, start.structure, start.weights, start.step)

    def network(
        self, config: RunConfig, session: TrainingSession, trainable: HypernetworkTraining, step: int
    ) -> Hypernetwork:
        """See kinds.py."""
        return _hypernetwork(config, session, trainable.structure, trainable.weights(), step)

    def load(self, path: Path) -> Hypernetwork:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork import load_hypernetwork

        return load_hypernetwork(path)

    def save(self, network: Hypernetwork, path: Path) -> None:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork import save_pt, save_safetensors

        (save_pt if path.suffix == ".pt" else save_safetensors)(network, path)

    def extras(
        self, config: RunConfig, network: Path, state: Callable[[], Mapping[str, torch.Tensor]]
    ) -> dict[str, bytes]:
        """See kinds.py; the optimizer's state for the WebUI's trainer, where the settings want it."""
        from lib_dsm.networks.webui_optimizer import MOMENTS, save_hypernetwork_moments

        if not config.save_optimizer or config.optimizer != "adamw" or network.suffix != ".pt":
            return {}
        moments: list[dict[str, torch.Tensor]] = []
        known = state()
        while all(f"optimizer.{len(moments)}.{name}" in known for name in MOMENTS):
            moments.append({name: known[f"optimizer.{len(moments)}.{name}"] for name in MOMENTS})
        if not moments:
            return {}
        with tempfile.TemporaryDirectory() as folder:
            made = Path(folder) / "state"
            save_hypernetwork_moments(made, network, moments, _first_rate(config))
            return {".pt.optim": made.read_bytes()}

    def picture(self, network: Hypernetwork, image: Image, parameters: str = "") -> bytes:
        """See kinds.py; a hypernetwork is too large for a picture to hold."""
        from PIL.PngImagePlugin import PngInfo

        buffer, chunks = io.BytesIO(), PngInfo()
        if parameters:
            chunks.add_text(KEY, parameters)
        image.save(buffer, "PNG", pnginfo=chunks)
        return buffer.getvalue()

    def renamed(self, network: Hypernetwork, name: str) -> Hypernetwork:
        """See kinds.py."""
        return dataclasses.replace(network, facts={**network.facts, "name": name})

    def same(self, one: Hypernetwork, other: Hypernetwork) -> bool:
        """See kinds.py."""
        state, others = self.state(one), self.state(other)
        return (
            one.step == other.step
            and state.keys() == others.keys()
            and all(tensor.equal(others[name]) for name, tensor in state.items())
        )

    def state(self, network: Hypernetwork) -> dict[str, torch.Tensor]:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork import named

        return named(network.weights)

    def numbers(self, config: RunConfig, model: DiffusionModel, start: HypernetworkStart | None) -> int:
        """See kinds.py."""
        from lib_dsm.networks.hypernetwork_structure import total_parameters

        structure = start.structure if start is not None else config.structure(tuple(model.context_widths()))
        return total_parameters(structure)

    def usage(self, name: str, strength: float = 1.0) -> str:
        """See kinds.py."""
        return f"<hypernet:{name}:{strength:g}>"

    def created(self, network: Hypernetwork, file: str) -> str:
        """See kinds.py."""
        count = sum(tensor.numel() for tensor in self.state(network).values())
        return f"{file} holds an untrained hypernetwork of {count:,} numbers."


def _first_rate(config: RunConfig) -> float:
    from lib_dsm.training.schedule import parse_learning_rate

    return parse_learning_rate(config.learning_rate).pieces[0][0]


def _hypernetwork(
    config: RunConfig, session: TrainingSession, structure: Structure, weights: Weights, step: int
) -> Hypernetwork:
    from lib_dsm.networks.hypernetwork import Hypernetwork, facts_of

    facts = facts_of(
        structure,
        config.name,
        step,
        config.weight_init,
        Path(session.checkpoint.name).stem,
        session.checkpoint_hash,
        f"Trained by DSM with CLIP skip {config.clip_skip}." if step else "",
    )
    return Hypernetwork(weights, facts)
