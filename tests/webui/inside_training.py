"""Inside the WebUI's process: training there, by its own trainers and by ours."""

from __future__ import annotations

import ctypes
import gc
import itertools
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from dsm_checks import WORD, begin_session, snapshot
from modules import sd_hijack, shared
from modules.hypernetworks import hypernetwork
from safetensors.torch import save_file

from lib_dsm.host.webui import WebUIHost
from lib_dsm.training.config import PreviewRequest, RunConfig


def train(checkpoint: str | None = None, steps: int = 3, fail: bool = False, vectors: str = "") -> dict[str, Any]:
    """Some optimiser steps on two vectors, a preview among them; what was seen inside. `fail` ends it by an error."""
    seen: dict[str, Any] = {}
    try:
        with begin_session(checkpoint) as session:
            seen["begin"] = snapshot()
            seen["vae_replaced"] = session.set_aside.vae
            parameter = torch.nn.Parameter(torch.full((2, session.model.hidden_size), 0.01))
            optimizer = torch.optim.AdamW([parameter], lr=0.01)
            generator = torch.Generator().manual_seed(0)
            for step in range(steps):
                conditioning = session.model.encode_prompts([f"solo, {WORD}"], {WORD: parameter}, 2)
                noise = torch.randn(1, 4, 8, 8, generator=generator)
                predicted = session.model.predict(noise, torch.tensor([100 * step]), conditioning)
                (predicted - noise).square().mean().backward()
                optimizer.step()
                optimizer.zero_grad()
            seen["moved"] = float((parameter.detach() - 0.01).abs().min())
            before = _random_states()
            session.preview(PreviewRequest(prompt=WORD, width=64, height=64, steps=3), {WORD: parameter.detach()}, 2)
            seen["random states kept"] = _same_states(before, _random_states())
            seen["end"] = snapshot()
            if vectors:
                save_file({WORD: parameter.detach()}, vectors)
            if fail:
                raise KeyError("on purpose")
    except KeyError:
        seen["failed"] = True
    return seen


def train_peer(
    dataset: str,
    name: str,
    init_text: str,
    vectors: int,
    rate: str,
    steps: int,
    batch: int,
    save_every: int,
    logs: str,
    width: int = 96,
    height: int = 64,
) -> dict[str, Any]:
    """The WebUI's own trainer on pictures of their own sizes; the vectors' files by step, and the seconds it took."""
    from modules.textual_inversion import textual_inversion as peer

    template = Path(logs) / "dsm.txt"
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_text("[filewords], [name]", encoding="utf-8")
    peer.textual_inversion_templates[template.name] = peer.TextualInversionTemplate(template.name, str(template))
    Path(shared.cmd_opts.embeddings_dir).mkdir(exist_ok=True)
    peer.create_embedding(name, vectors, True, init_text)
    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    shared.state.begin("train-embedding")
    began = time.monotonic()
    try:
        peer.train_embedding(
            "task", name, rate, batch, 1, dataset, logs, width, height, True, steps, "disabled", "0.1", True, 0.0,
            "deterministic", False, 0, save_every, template.name, False, False, "", "", 20, "Euler a", 7.0, 1, 64, 64,
        )  # fmt: skip
    finally:
        shared.state.end()
    seconds = time.monotonic() - began
    # What it calls step N + 1 are N steps.
    saved = {str(int(path.stem.rsplit("-", 1)[1]) - 1): str(path) for path in Path(logs).rglob(f"{name}-*.pt")}
    return {"seconds": seconds, "files": saved | {str(steps): str(Path(shared.cmd_opts.embeddings_dir, f"{name}.pt"))}}


def train_peers_hypernetwork(
    dataset: str, name: str, widths: list[int], layers: str, activation: str, rate: str, steps: int, batch: int,
    logs: str, width: int, height: int,
) -> dict[str, Any]:  # fmt: skip
    """The WebUI's own hypernetwork trainer, called as its tab calls it; where the file is, and the seconds it took."""
    from modules.textual_inversion import textual_inversion as peer

    template = Path(logs) / "hyper.txt"
    template.parent.mkdir(parents=True, exist_ok=True)
    template.write_text("[filewords]", encoding="utf-8")
    peer.textual_inversion_templates[template.name] = peer.TextualInversionTemplate(template.name, str(template))
    Path(shared.cmd_opts.hypernetwork_dir).mkdir(parents=True, exist_ok=True)
    hypernetwork.create_hypernetwork(name, [str(size) for size in widths], True, layers, activation, "Normal")
    shared.state.begin("train-hypernetwork")
    shared.loaded_hypernetworks = []
    sd_hijack.undo_optimizations()
    began = time.monotonic()
    try:
        _, file = hypernetwork.train_hypernetwork(
            "task", name, rate, batch, 1, dataset, logs, width, height, False, steps, "disabled", "0.1", True, 0.0,
            "deterministic", False, 0, 1000, template.name, False, "", "", 20, "Euler a", 7.0, 1, 64, 64,
        )  # fmt: skip
    finally:
        shared.loaded_hypernetworks = []
        sd_hijack.apply_optimizations()
        shared.state.end()
    return {"seconds": time.monotonic() - began, "file": str(file)}


def train_ours(settings: dict[str, Any]) -> dict[str, Any]:
    """Our trainer, as the tab calls it: when it began, the seconds it took, and where the run lies."""
    from lib_dsm import options
    from lib_dsm.host.run import train
    from lib_dsm.jobs import Job

    name = shared.sd_model.sd_checkpoint_info.name
    config = options.from_json(RunConfig, {**settings, "checkpoint": name}, "run settings")
    at, began = time.time(), time.monotonic()
    result = Job("training").run(lambda job: train(WebUIHost(), config, job))
    return {"began": at, "seconds": time.monotonic() - began, "folder": str(result.folder)}


def measured(what: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Call a function of here that trains: seconds of each step but the first, and what the steps took of the memory.

    `bytes` is the process' greatest resident size from the end of the first step on, above that before the call.
    """
    from torch.optim import optimizer

    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed before is given back, so that it is not counted for less
    resident, times, done = _resident("VmRSS"), [], Path("/proc/self/clear_refs")

    def stepped(*_: Any) -> None:
        times.append(time.monotonic())
        if len(times) == 1:
            done.write_text("5")  # the greatest size is counted from here

    handle = optimizer.register_optimizer_step_post_hook(stepped)
    try:
        FUNCTIONS[what](**arguments)
    finally:
        handle.remove()
    seconds = [later - earlier for earlier, later in itertools.pairwise(times)]
    return {"seconds": seconds, "bytes": _resident("VmHWM") - resident}


FUNCTIONS = {
    function.__name__: function
    for function in (
        train,
        train_peer,
        train_peers_hypernetwork,
        train_ours,
        measured,
    )
}


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")))


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def _same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return bool(torch.equal(one[0], other[0]) and (one[1] == other[1]).all() and one[2] == other[2])
