"""The optimizer state that the AUTOMATIC1111 WebUI leaves beside an embedding it trained, `NAME.pt.optim`.

A pickled dict: `hash`, a checksum of the vectors it belongs to, and `optimizer_state_dict`, that of torch's AdamW.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lib_dsm.errors import DsmError, ModelError
from lib_dsm.networks.pickles import load_pickle

MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def checksum(vectors: torch.Tensor) -> str:
    """The WebUI's checksum of an embedding: four hexadecimal digits of its values in hundredths, cut to integers."""
    result = 0
    for value in (vectors.detach().cpu().float().reshape(-1) * 100).tolist():
        result = (result * 281 ^ int(value) * 997) & 0xFFFFFFFF
    return f"{result & 0xFFFF:04x}"


def read_moments(path: Path, vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    """AdamW's `MOMENTS` for `vectors` from the file `path`; nothing in it is executed.

    Raises:
        InputError: there is no such file.
        ModelError: it is no such file, is damaged, belongs to other vectors or is another optimizer's.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or "optimizer_state_dict" not in content:
        raise ModelError(f"{path} holds no optimizer state.", "Choose the file the WebUI saved beside the embedding.")
    if content.get("hash") != checksum(vectors):
        raise ModelError(
            f"{path} belongs to other vectors (its hash is {content.get('hash')}, theirs {checksum(vectors)}).",
            "It is left aside; the optimizer begins anew.",
        )
    try:
        state = content["optimizer_state_dict"]["state"][0]
        found = {name: torch.as_tensor(state[name]).to("cpu", torch.float32, copy=True) for name in MOMENTS}
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError):
        found = {}
    if not _fit(found, vectors):
        raise ModelError(f"The state in {path} is not AdamW's of these vectors.", "The optimizer begins anew.")
    return found


def moments_beside(path: Path, vectors: torch.Tensor) -> tuple[dict[str, torch.Tensor] | None, str]:
    """AdamW's moments of the embedding in `path`, if the file beside it has them; and a sentence on that."""
    beside = path.with_name(f"{path.name}.optim")
    if not beside.is_file():
        return None, f"There is no {beside.name}, so the optimizer begins anew."
    try:
        return read_moments(beside, vectors), f"The optimizer goes on from {beside.name}."
    except DsmError as error:
        return None, str(error)


def _fit(found: dict[str, Any], vectors: torch.Tensor) -> bool:
    shapes = {"step": (), "exp_avg": tuple(vectors.shape), "exp_avg_sq": tuple(vectors.shape)}
    return bool(found) and all(
        tuple(found[name].shape) == shape and bool(torch.isfinite(found[name]).all()) for name, shape in shapes.items()
    )
