"""Embeddings as runs handle them; see kinds.py."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.host.infotext import KEY
from lib_dsm.host.protocol import Folders, Host, TrainingSession
from lib_dsm.host.starting import starting_point
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.networks.embedding import Embedding
    from lib_dsm.networks.textual_inversion import Start, TextualInversion


class EmbeddingKind:
    """`Kind` of embeddings."""

    word = "embedding"
    suffixes: tuple[str, ...] = (".pt", ".safetensors", ".bin", ".png", ".webp", ".jxl", ".avif")
    published = ".safetensors"
    handed: tuple[str, ...] = (".safetensors", ".pt")
    saved = handed
    in_previews = True

    def folder(self, folders: Folders) -> Path:
        """See kinds.py."""
        return folders.embeddings

    def given_start(self, host: Host, config: RunConfig, model: DiffusionModel, saved: Path | None) -> Start | None:
        """See kinds.py."""
        return starting_point(host, config, model, saved is not None) if config.init_embedding else None

    def new_start(self, config: RunConfig, model: DiffusionModel) -> Start:
        """See kinds.py."""
        from lib_dsm.networks.textual_inversion import Start, initial_vectors

        return Start(initial_vectors(model, config.init_text, config.vectors, config.init_mode))

    def moments(self, start: Start) -> Sequence[Mapping[str, torch.Tensor]]:
        """See kinds.py."""
        return () if start.moments is None else (start.moments,)

    def trainable(self, config: RunConfig, start: Start, device: torch.device) -> TextualInversion:
        """See kinds.py."""
        from lib_dsm.networks.textual_inversion import TextualInversion

        return TextualInversion(config.name, start.vectors, device)

    def untrained(self, config: RunConfig, session: TrainingSession, start: Start) -> Embedding:
        """See kinds.py."""
        return _embedding(config, session, start.vectors, start.step)

    def network(self, config: RunConfig, session: TrainingSession, trainable: TextualInversion, step: int) -> Embedding:
        """See kinds.py."""
        return _embedding(config, session, trainable.state()["vectors"], step)

    def load(self, path: Path) -> Embedding:
        """See kinds.py."""
        from lib_dsm.networks.embedding import load_embedding

        return load_embedding(path)

    def save(self, network: Embedding, path: Path) -> None:
        """See kinds.py."""
        from lib_dsm.networks.embedding import save_pt, save_safetensors

        (save_pt if path.suffix == ".pt" else save_safetensors)(network, path)

    def extras(
        self, config: RunConfig, network: Path, state: Callable[[], Mapping[str, torch.Tensor]]
    ) -> dict[str, bytes]:
        """See kinds.py."""
        return {}

    def picture(self, network: Embedding, image: Image, parameters: str = "") -> bytes:
        """See kinds.py; it is the embedding itself as well."""
        from lib_dsm.networks.embedding import png_bytes

        return png_bytes(network, image, {KEY: parameters} if parameters else {})

    def renamed(self, network: Embedding, name: str) -> Embedding:
        """See kinds.py."""
        return dataclasses.replace(network, name=name)

    def same(self, one: Embedding, other: Embedding) -> bool:
        """See kinds.py."""
        return one.step == other.step and one.vectors.equal(other.vectors)

    def state(self, network: Embedding) -> dict[str, torch.Tensor]:
        """See kinds.py."""
        return {"vectors": network.vectors}

    def numbers(self, config: RunConfig, model: DiffusionModel, start: Start | None) -> int:
        """See kinds.py."""
        return config.vectors * model.hidden_size

    def usage(self, name: str, strength: float = 1.0) -> str:
        """See kinds.py."""
        return name

    def created(self, network: Embedding, file: str) -> str:
        """See kinds.py."""
        return f"{file} holds {len(network.vectors)} untrained vectors."


def _embedding(config: RunConfig, session: TrainingSession, vectors: torch.Tensor, step: int) -> Embedding:
    from lib_dsm.networks.embedding import Embedding

    return Embedding(
        name=config.name,
        vectors=vectors,
        step=step,
        checkpoint_name=Path(session.checkpoint.name).stem,
        checkpoint_hash=session.checkpoint_hash,
        clip_skip=config.clip_skip,
    )
