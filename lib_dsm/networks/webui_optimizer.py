"""The optimizer state that the AUTOMATIC1111 WebUI leaves beside a network it trained, `NAME.pt.optim`.

A pickled dict: `hash`, which tells what it belongs to, and `optimizer_state_dict`, that of torch's AdamW. The hash of
an embedding is a checksum of its vectors; that of a hypernetwork the first ten digits of its file's SHA-256, and
`optimizer_name` names the class of torch's optimizer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lib_dsm.errors import DsmError, ModelError
from lib_dsm.files import sha256
from lib_dsm.networks.pickles import load_pickle, save_pickle

MOMENTS = ("step", "exp_avg", "exp_avg_sq")
_HASH_DIGITS = 10
_GROUP_KEYS = (
    "lr", "betas", "eps", "weight_decay", "amsgrad", "foreach", "maximize", "capturable", "differentiable", "fused",
)  # fmt: skip


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


def read_hypernetwork_moments(path: Path, network: Path, shapes: Sequence[torch.Size]) -> list[dict[str, torch.Tensor]]:
    """AdamW's `MOMENTS` for each parameter of the hypernetwork in the file `network`; nothing is executed.

    `shapes` are those of the parameters in the WebUI's order: width by width, keys before values.

    Raises:
        InputError: there is no such file.
        ModelError: it is no such file, is damaged, belongs to another file or is another optimizer's.
    """
    content = load_pickle(path)
    if not isinstance(content, dict) or "optimizer_state_dict" not in content:
        raise ModelError(
            f"{path} holds no optimizer state.", "Choose the file the WebUI saved beside the hypernetwork."
        )
    known = sha256(network)[:_HASH_DIGITS]
    if content.get("hash") != known:
        raise ModelError(
            f"{path} belongs to another file than {network.name} (its hash is {content.get('hash')}, that is {known}).",
            "It is left aside; the optimizer begins anew.",
        )
    if content.get("optimizer_name", "AdamW") != "AdamW":
        raise ModelError(f"{path} is the state of {content['optimizer_name']}.", "The optimizer begins anew.")
    found: list[dict[str, torch.Tensor]] = []
    try:
        state = content["optimizer_state_dict"]["state"]
        for index, shape in enumerate(shapes):
            own = {name: torch.as_tensor(state[index][name]).to("cpu", torch.float32, copy=True) for name in MOMENTS}
            if not _fit(own, torch.empty(shape, device="meta")):
                raise ValueError
            found.append(own)
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError):
        raise ModelError(
            f"The state in {path} is not AdamW's of this hypernetwork.", "The optimizer begins anew."
        ) from None
    return found


def save_hypernetwork_moments(
    path: Path, network: Path, moments: Sequence[Mapping[str, torch.Tensor]], rate: float
) -> None:
    """Write AdamW's `MOMENTS` of each parameter for the hypernetwork in the file `network`, as the WebUI would.

    `rate` is the learning rate that the WebUI's optimizer begins with before its own schedule sets it.

    Raises:
        StorageError: the disk does not take it.
    """
    state = {index: dict(own) for index, own in enumerate(moments)}
    fresh = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=rate).state_dict()["param_groups"][0]
    # What the WebUI's torch knows of; later versions have more.
    group = {key: fresh[key] for key in _GROUP_KEYS if key in fresh}
    content = {
        "optimizer_name": "AdamW",
        "hash": sha256(network)[:_HASH_DIGITS],
        "optimizer_state_dict": {"state": state, "param_groups": [{**group, "params": list(state)}]},
    }
    save_pickle(path, content)


def _fit(found: dict[str, Any], vectors: torch.Tensor) -> bool:
    shapes = {"step": (), "exp_avg": tuple(vectors.shape), "exp_avg_sq": tuple(vectors.shape)}
    return bool(found) and all(
        tuple(found[name].shape) == shape and bool(torch.isfinite(found[name]).all()) for name, shape in shapes.items()
    )
