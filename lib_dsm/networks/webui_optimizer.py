"""The optimizer state that the AUTOMATIC1111 WebUI leaves beside a network it trained, `NAME.pt.optim`.

A pickled dict: `hash`, which tells what it belongs to, and `optimizer_state_dict`, that of torch's AdamW. The hash of
an embedding is a checksum of its vectors; that of a hypernetwork the first ten digits of its file's SHA-256, and
`optimizer_name` names the class of torch's optimizer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from lib_dsm.errors import DsmError, ModelError
from lib_dsm.files import is_file, sha256
from lib_dsm.networks.pickles import load_pickle, save_pickle

Found = TypeVar("Found")

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
    content = _content(path, "embedding")
    if content.get("hash") != checksum(vectors):
        raise ModelError(
            f"{path} belongs to other vectors (its hash is {content.get('hash')}, theirs {checksum(vectors)}).",
            "It is left aside; the optimizer begins anew.",
        )
    return _moments(content, [vectors.shape], path, "these vectors")[0]


def moments_beside(path: Path, vectors: torch.Tensor) -> tuple[dict[str, torch.Tensor] | None, str]:
    """AdamW's moments of the embedding in `path`, if the file beside it has them; and a sentence on that."""
    found, told, _ = state_beside(path, lambda beside: read_moments(beside, vectors))
    return found, told


def state_beside(path: Path, read: Callable[[Path], Found]) -> tuple[Found | None, str, str]:
    """What `read` finds in the file beside the network in `path`, None if nothing; a sentence on that; and why a file
    that is there was not taken, "" if it was."""
    beside = path.with_name(f"{path.name}.optim")
    if not is_file(beside):
        return None, f"There is no {beside.name}, so the optimizer begins anew.", ""
    try:
        return read(beside), f"The optimizer goes on from {beside.name}.", ""
    except DsmError as error:
        return None, str(error), str(error)


def read_hypernetwork_moments(path: Path, network: Path, shapes: Sequence[torch.Size]) -> list[dict[str, torch.Tensor]]:
    """AdamW's `MOMENTS` for each parameter of the hypernetwork in the file `network`; nothing is executed.

    `shapes` are those of the parameters in the WebUI's order: width by width, keys before values.

    Raises:
        InputError: there is no such file.
        ModelError: it is no such file, is damaged, belongs to another file or is another optimizer's.
    """
    content = _content(path, "hypernetwork")
    known = sha256(network)[:_HASH_DIGITS]
    if content.get("hash") != known:
        raise ModelError(
            f"{path} belongs to another file than {network.name} (its hash is {content.get('hash')}, that is {known}).",
            "It is left aside; the optimizer begins anew.",
        )
    if content.get("optimizer_name", "AdamW") != "AdamW":
        raise ModelError(f"{path} is the state of {content['optimizer_name']}.", "The optimizer begins anew.")
    return _moments(content, shapes, path, "this hypernetwork")


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


def _content(path: Path, network: str) -> dict[str, Any]:
    content = load_pickle(path)
    if not isinstance(content, dict) or "optimizer_state_dict" not in content:
        raise ModelError(f"{path} holds no optimizer state.", f"Choose the file the WebUI saved beside the {network}.")
    return content


def _moments(
    content: Mapping[str, Any], shapes: Sequence[torch.Size], path: Path, whose: str
) -> list[dict[str, torch.Tensor]]:
    found: list[dict[str, torch.Tensor]] = []
    try:
        state = content["optimizer_state_dict"]["state"]
        for index, shape in enumerate(shapes):
            own = {name: torch.as_tensor(state[index][name]).to("cpu", torch.float32, copy=True) for name in MOMENTS}
            if not _fit(own, shape):
                raise ValueError
            found.append(own)
    except (KeyError, TypeError, IndexError, ValueError, RuntimeError, OverflowError):
        raise ModelError(f"The state in {path} is not AdamW's of {whose}.", "The optimizer begins anew.") from None
    return found


def _fit(found: Mapping[str, torch.Tensor], shape: torch.Size) -> bool:
    shapes = {"step": (), "exp_avg": tuple(shape), "exp_avg_sq": tuple(shape)}
    return all(
        tuple(found[name].shape) == wanted and bool(torch.isfinite(found[name]).all())
        for name, wanted in shapes.items()
    )
