"""Inside the WebUI's process: where the parts of a model are, and when they are moved."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from dsm_checks import WORD, begin_session
from modules import call_queue, devices, lowvram, sd_models, shared

from lib_dsm.training.config import PreviewRequest


def memory() -> dict[str, Any]:
    """How the WebUI keeps its model: what its flags and settings have led to, apart from the weights' values."""
    model = shared.sd_model
    names = {id(module): name for name, module in model.named_modules()}
    present = lowvram.module_in_gpu
    return {
        "offloaded": model.lowvram,
        "on the card": names.get(id(present), "") if present is not None else None,
        "hooks": {name: len(module._forward_pre_hooks) for name, module in model.named_modules()},
        "autoencoder": sorted(set(vars(model.first_stage_model)) & {"encode", "decode"}),
        "types": {name: str(parameter.dtype) for name, parameter in model.named_parameters()},
        "devices": sorted({str(parameter.device) for parameter in model.parameters()}),
        "fp8": devices.fp8,
        "loaded": [loaded.sd_checkpoint_info.name for loaded in sd_models.model_data.loaded_sd_models],
        "merged": getattr(model, "applied_token_merged_ratio", 0),
    }


def read_again() -> None:
    """Read the weights from the file, which the WebUI leaves in 16 bits after it had them in 8."""
    with call_queue.queue_lock:
        sd_models.reload_model_weights(forced_reload=True)


def parts_moved() -> dict[str, list[str]]:
    """Which parts the WebUI's hooks move in a picture before, in a training step, in a preview and after the session.

    Known by name; the autoencoder is encoded with in the step as well.
    """
    request = PreviewRequest(prompt="solo", width=64, height=64, steps=1, seed=1)
    moved: dict[str, list[str]] = {}
    with begin_session() as session:
        with _watched(moved, "step"):
            session.model.encode_images(torch.zeros(1, 3, 64, 64))
            vectors = torch.zeros(2, session.model.hidden_size, requires_grad=True)
            conditioning = session.model.encode_prompts([WORD], {WORD: vectors}, 1)
            session.model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), conditioning).sum().backward()
        with _watched(moved, "preview"):
            session.preview(request, {}, 1)
        with _watched(moved, "step after it"):
            session.model.predict(torch.zeros(1, 4, 8, 8), torch.tensor([5]), conditioning.detach())
    with _watched(moved, "afterwards"), torch.no_grad():
        shared.sd_model.cond_stage_model(["solo"])
        shared.sd_model.decode_first_stage(torch.zeros(1, 4, 8, 8, device=devices.device))
    return moved


FUNCTIONS = {function.__name__: function for function in (memory, read_again, parts_moved)}


@contextmanager
def _watched(moved: dict[str, list[str]], name: str) -> Iterator[None]:
    """Note which parts of the model are moved to another device, in `moved` under `name`."""
    names = {id(module): path for path, module in shared.sd_model.named_modules()}
    to, seen = torch.nn.Module.to, []

    def watch(module: torch.nn.Module, *arguments: Any, **named: Any) -> Any:
        if arguments == (devices.device,) or arguments == (devices.cpu,):
            seen.append(names.get(id(module), type(module).__name__))
        return to(module, *arguments, **named)

    torch.nn.Module.to = watch
    try:
        yield
    finally:
        torch.nn.Module.to = to
    moved[name] = sorted(set(seen))
