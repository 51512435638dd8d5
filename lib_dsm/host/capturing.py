"""Contexts of a host's model on a folder's captions, for hypernetworks that must be fitted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.dataset.captions import caption_texts
from lib_dsm.errors import InputError
from lib_dsm.host.protocol import Host
from lib_dsm.jobs import Job
from lib_dsm.training.config import HYPERNETWORK, RunConfig

if TYPE_CHECKING:
    import torch

_MOST = 48  # captions
_SMALLEST = 64  # pixels of a side


def captured_contexts(
    host: Host, file: Path, base: str, captions: Path | None, job: Job, clip_skip: int = 1
) -> Mapping[str, Sequence[torch.Tensor]] | None:
    """What the base's attention layers are given on the captions; None for a linear hypernetwork, which needs none.

    The host lends its model as for a training, and puts everything back. `base` is a checkpoint's name or path.

    Raises:
        InputError: the folder has fewer than two captions, or there is no such checkpoint.
        ModelError: the checkpoint or the hypernetwork cannot be loaded.
        BusyError: a training holds the model.
    """
    from lib_dsm.extraction.capture import attention_names, capture
    from lib_dsm.extraction.key_map import canonical
    from lib_dsm.networks.hypernetwork import load_hypernetwork
    from lib_dsm.networks.tensor_files import open_tensors

    hypernetwork = load_hypernetwork(file)
    if hypernetwork.structure.linear or captions is None:
        return None
    texts = sorted(caption_texts(captions))
    if len(texts) < 2:
        raise InputError(f"{captions} has {len(texts)} captions.", "Name a folder with the captions of the training.")
    texts = texts[:: max(1, len(texts) // _MOST)][:_MOST]
    widths = tuple(hypernetwork.weights)
    config = RunConfig(
        name="capture", checkpoint=base, dataset=str(captions), kind=HYPERNETWORK,
        width=_SMALLEST, height=_SMALLEST, clip_skip=clip_skip,
    )  # fmt: skip
    job.progress(0, len(texts), "loading the checkpoint")
    with host.training_session(config, brief=True) as session:
        found = capture(session.model, widths, texts, clip_skip, job=job)
        with open_tensors(session.checkpoint.path) as tensors:
            names = attention_names(map(canonical, tensors.shapes), session.model.middle_last)
    return dict(zip(names, found, strict=True))
