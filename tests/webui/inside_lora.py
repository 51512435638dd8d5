"""Inside the WebUI's process: LoRA files, read there and made there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from dsm_checks import snapshot
from modules import shared
from safetensors.torch import load_file, save_file

from lib_dsm.host.webui import WebUIHost


def lora(path: str, inputs: str, out: str) -> dict[str, Any]:
    """Let the WebUI's own loader read a LoRA file, and write what the U-Net makes of inputs without and with it."""
    import logging

    import networks  # of the WebUI's own extension Lora

    said: list[str] = []
    root, handler = logging.getLogger(), logging.Handler(logging.DEBUG)
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    given, made, name = load_file(inputs), {}, Path(path).stem
    try:
        networks.list_available_networks()
        on_disk = networks.available_networks[name]
        network = networks.load_network(name, on_disk)
        for which, names in (("without", []), ("with", [name]), ("after", [])):
            networks.load_networks(names, [1.0] * len(names), [1.0] * len(names), [None] * len(names))
            with torch.no_grad():
                unet = shared.sd_model.model.diffusion_model
                made[which] = unet(given["noisy"], given["timesteps"], context=given["conditioning"]).contiguous()
    finally:
        networks.load_networks([])
        root.removeHandler(handler)
        root.setLevel(level)
    save_file(made, out)
    return {
        "modules": sorted(network.modules),
        "kinds": sorted({type(module).__name__ for module in network.modules.values()}),
        "embeddings": sorted(network.bundle_embeddings),
        "complaints": [
            line for line in said if "match keys" in line or "couldn't find" in line or f"Network {name}" in line
        ],
        "metadata": on_disk.metadata,
    }


def fitted(path: str, captions: str, name: str) -> dict[str, Any]:
    """Make a LoRA of a hypernetwork with the model that the WebUI lends, as the LoRA tab does."""
    from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
    from lib_dsm.extraction.options import HypernetworkOptions
    from lib_dsm.host.capturing import captured_contexts
    from lib_dsm.jobs import Job

    host, job, file = WebUIHost(), Job("fitted"), Path(path)
    info = shared.sd_model.sd_checkpoint_info
    before = snapshot()
    captured = captured_contexts(host, file, info.name, Path(captions), job)
    after = snapshot()
    out = host.folders.lora / f"{name}.safetensors"
    options = HypernetworkOptions(precision="fp32", overwrite=True, force=True)
    report = extract_hypernetwork(file, Path(info.filename), out, options, captured, job)
    return {"file": str(out), "fit": report.fit, "fits": dict(report.fits), "changed": before != after}


def drawable(base: str, lora: str) -> str:
    """Why a LoRA cannot be drawn beside its base, "" if it can."""
    from lib_dsm.errors import DsmError
    from lib_dsm.host.lora_pictures import Compared

    try:
        WebUIHost().variants(Compared(Path(base), Path(lora)))
    except DsmError as error:
        return str(error)
    return ""


def networks_changed() -> None:
    """Tell the host that files among its networks changed."""
    WebUIHost().networks_changed()


FUNCTIONS = {
    function.__name__: function
    for function in (
        lora,
        fitted,
        drawable,
        networks_changed,
    )
}
