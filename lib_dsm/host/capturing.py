"""Contexts of a host's model on a folder's captions, for hypernetworks that must be fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError
from lib_dsm.jobs import Job

if TYPE_CHECKING:
    import torch

_MOST = 48  # captions


def captured_contexts(
    file: Path, base: Path, captions: Path | None, job: Job
) -> Mapping[str, Sequence[torch.Tensor]] | None:
    """What the base's attention layers are given on the captions; None for a linear hypernetwork, which needs none.

    The checkpoint is loaded by itself, so that nothing of a host's own model is touched.

    Raises:
        InputError: the folder has fewer than two captions.
        ModelError: the checkpoint or the hypernetwork cannot be loaded.
    """
    from lib_dsm.extraction.capture import attention_names, capture
    from lib_dsm.extraction.key_map import canonical
    from lib_dsm.host.studio import load_model
    from lib_dsm.networks.hypernetwork import load_hypernetwork
    from lib_dsm.networks.tensor_files import open_tensors

    hypernetwork = load_hypernetwork(file)
    if hypernetwork.structure.linear or captions is None:
        return None
    texts = sorted({path.read_text(encoding="utf-8", errors="replace").strip() for path in captions.glob("*.txt")})
    texts = [text for text in texts if text]
    if len(texts) < 2:
        raise InputError(f"{captions} has {len(texts)} captions.", "Name a folder with the captions of the training.")
    texts = texts[:: max(1, len(texts) // _MOST)][:_MOST]
    widths = tuple(hypernetwork.weights)
    found = capture(load_model(base), widths, texts, 1, job=job)
    with open_tensors(base) as tensors:
        names = attention_names(map(canonical, tensors.shapes), middle_last=True)
    return dict(zip(names, found, strict=True))
