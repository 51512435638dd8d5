"""Where a run starts: words, or a network that the host knows or a file holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError
from lib_dsm.files import is_file
from lib_dsm.host.protocol import Host
from lib_dsm.training.config import RunConfig

if TYPE_CHECKING:
    from lib_dsm.diffusion.protocol import DiffusionModel
    from lib_dsm.networks.textual_inversion import Start

HYPERNETWORK_SUFFIXES = (".pt", ".safetensors")
# Of equal names the WebUI's own form comes first: it alone may have its optimizer beside it.
SUFFIXES = (".pt", ".safetensors", ".bin", ".png")


def find_embedding(host: Host, name: str) -> Path:
    """The file of an embedding: `name` is its path, or its name in the host's folder, with or without the suffix.

    Raises:
        InputError: there is none.
    """
    return _find(name, "embedding", _known(host.folders.embeddings, SUFFIXES))


def find_hypernetwork(host: Host, name: str) -> Path:
    """The file of a hypernetwork; as `find_embedding`.

    Raises:
        InputError: there is none.
    """
    return _find(name, "hypernetwork", _known(host.folders.hypernetworks, HYPERNETWORK_SUFFIXES))


def embedding_choices(host: Host) -> list[str]:
    """The names of the host's embeddings that `find_embedding` knows."""
    return _names(_known(host.folders.embeddings, SUFFIXES))


def hypernetwork_choices(host: Host) -> list[str]:
    """The names of the host's hypernetworks that `find_hypernetwork` knows."""
    return _names(_known(host.folders.hypernetworks, HYPERNETWORK_SUFFIXES))


def _find(name: str, word: str, known: Sequence[Path]) -> Path:
    given = Path(name)
    if is_file(given):
        return given
    for path in known:
        if name in (path.name, path.stem):
            return path
    names = ", ".join(_names(known)) or "none"
    raise InputError(f'There is no {word} "{name}" to start from.', f"Give a file, or one of: {names}.")


def _names(known: Sequence[Path]) -> list[str]:
    return sorted({path.stem for path in known}, key=lambda name: (name.lower(), name))


def _known(folder: Path, suffixes: Sequence[str]) -> list[Path]:
    files = sorted(path for path in folder.rglob("*") if path.is_file()) if folder.is_dir() else []
    # The WebUI keeps the picture that it shows for an embedding beside it.
    files = [path for path in files if not path.name.startswith(".") and not path.stem.lower().endswith(".preview")]
    return [path for suffix in suffixes for path in files if path.suffix.lower() == suffix]


def starting_point(host: Host, config: RunConfig, model: DiffusionModel, saved: bool) -> Start:
    """What a run starts from whose settings name an embedding.

    Where it goes on from a `saved` state, that has all an embedding gave, and the file may be gone.

    Raises:
        InputError: the embedding is missing or has another number of vectors.
        ModelError: the embedding is none, or does not fit the model.
    """
    import torch

    from lib_dsm.networks.textual_inversion import Start, start_from

    if saved:
        return Start(torch.zeros(config.vectors, model.hidden_size))
    return start_from(model, find_embedding(host, config.init_embedding), config.vectors, config.init_continue)
