"""What the tests do inside the WebUI's process, each function reachable as POST /dsm-checks/<name>; see conftest.py.

It runs in the WebUI's Python with the WebUI's torch; tensors travel in safetensors files.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import gc
import hashlib
import itertools
import random
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fastapi import Body
from modules import call_queue, devices, script_callbacks, sd_hijack, sd_models, sd_unet, sd_vae, shared
from modules.hypernetworks import hypernetwork
from modules.textual_inversion.textual_inversion import Embedding
from safetensors.torch import load_file, save_file

from lib_dsm.diffusion.ldm import is_tiled
from lib_dsm.errors import Cancelled, DsmError
from lib_dsm.host.webui import WebUIHost
from lib_dsm.training.config import PreviewRequest, RunConfig

WORD = "zorgle"


def mount(app: Any) -> None:
    """Add the route."""

    @app.post("/dsm-checks/{name}")
    def check(name: str, arguments: dict = Body(default={})) -> dict:  # noqa: B008 - FastAPI's way
        try:
            return {"result": FUNCTIONS[name](**arguments)}
        except Exception:
            return {"error": traceback.format_exc()}


def modules() -> list[str]:
    """Names of all modules that are loaded."""
    return sorted(sys.modules)


def snapshot() -> dict[str, Any]:
    """All of the WebUI's state that a training could change."""
    model = shared.sd_model
    attention = sd_hijack.ldm.modules.attention.CrossAttention.forward
    return {
        "checkpoint": model.sd_checkpoint_info.name,
        "vae": sd_vae.loaded_vae_file,
        "weights": _weights_hash(model),
        "autoencoder": _weights_hash(model.first_stage_model),
        "trainable": sum(parameter.requires_grad for parameter in model.parameters()),
        "gradients": sum(parameter.grad is not None for parameter in model.parameters()),
        "attention": attention.__name__,
        "circular": sd_hijack.model_hijack.circular_enabled,
        "embeddings": sorted(sd_hijack.model_hijack.embedding_db.word_embeddings),
        "database": type(sd_hijack.model_hijack.embedding_db).__name__,
        "options": {key: value for key, value in shared.opts.data.items() if key != "sd_checkpoint_hash"},
        "job": shared.state.job,
        "locked": call_queue.queue_lock._lock.locked(),
    }


def encode(checkpoint: str, prompts: list[str], vectors: str, clip_skips: list[int], out: str) -> list[bool]:
    """Encode each prompt by our model and by the WebUI's encoder alone, with the embeddings of the file `vectors`.

    Writes ours, prompt by prompt for each CLIP skip; tells where the two are the same bits.
    """
    replacements = load_file(vectors)
    ours, same = [], []
    with _session(checkpoint) as session, torch.no_grad():
        for clip_skip in clip_skips:
            for prompt in prompts:
                ours.append(session.model.encode_prompts([prompt], replacements, clip_skip))
                assert ours[-1].shape[1] == 77 * session.model.chunk_counts([prompt], replacements)[0]
                same.append(bool(torch.equal(ours[-1], _encode_without_us(prompt, replacements, clip_skip))))
    save_file({f"{index:03d}": tensor.contiguous() for index, tensor in enumerate(ours)}, out)
    return same


def encode_together(checkpoint: str, prompts: list[str]) -> float:
    """The greatest difference between our encoding of a batch and the WebUI's of the same batch."""
    with _session(checkpoint) as session, torch.no_grad():
        ours = session.model.encode_prompts(prompts, {}, 1)
        return float((ours - shared.sd_model.cond_stage_model(prompts)).abs().max())


def run_model(checkpoint: str, inputs: str, out: str) -> None:
    """Write what the autoencoder and the U-Net make of pixels, noisy latents, timesteps and conditioning of a file."""
    given = load_file(inputs)
    with _session(checkpoint) as session, torch.no_grad():
        model = session.model
        mean, logvar = model.encode_images(given["pixels"])
        predicted = model.predict(given["noisy"], given["timesteps"], given["conditioning"])
        decoded = model.decode_latents(mean * model.latent_scale)
        made = {"mean": mean, "logvar": logvar, "predicted": predicted, "decoded": decoded}
    save_file({**{name: tensor.contiguous() for name, tensor in made.items()}, "alphas": model.alphas_cumprod}, out)


def apply_hypernetworks(checkpoint: str, files: dict[str, str], strengths: list[float], inputs: str, out: str) -> None:
    """Write what the U-Net gives under each hypernetwork and strength, by the WebUI's own means and by ours.

    Each file is also read and written again by the WebUI, beside itself, as NAME.again.pt.
    """
    from lib_dsm.networks.hypernetwork import load_hypernetwork
    from lib_dsm.networks.hypernetwork_training import HypernetworkTraining

    for name, file in files.items():
        place = Path(shared.cmd_opts.hypernetwork_dir, f"{name}.pt")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(Path(file).read_bytes())
    shared.reload_hypernetworks()
    given, made = load_file(inputs), {}
    tensors = [given[name] for name in ("noisy", "timesteps", "conditioning")]
    with _session(checkpoint) as session, torch.no_grad():
        made["without"] = session.model.predict(*tensors)
        for name, file in files.items():
            found = load_hypernetwork(Path(file))
            ours = HypernetworkTraining(name, found.structure, found.weights, session.model.device)
            for strength in strengths:
                hypernetwork.load_hypernetworks([name], [strength])
                assert [loaded.name for loaded in shared.loaded_hypernetworks] == [name]
                made[f"theirs {name} {strength}"] = session.model.predict(*tensors)
                hypernetwork.load_hypernetworks([])
                with ours.applied(session.model, strength):
                    made[f"ours {name} {strength}"] = session.model.predict(*tensors)
            theirs = hypernetwork.load_hypernetwork(name)
            theirs.save(str(Path(file).with_suffix(".again.pt")))
        made["after"] = session.model.predict(*tensors)
        unet = shared.sd_model.model.diffusion_model
        assert not any(module._forward_pre_hooks for module in unet.modules())
    save_file({name: tensor.contiguous() for name, tensor in made.items()}, out)


def hypernetwork_as_loaded(name: str) -> dict[str, Any]:
    """What the WebUI's own class makes of a hypernetwork in its list, as its trainer would begin with it."""
    found = hypernetwork.Hypernetwork()
    found.load(shared.hypernetworks[name])
    state = (found.optimizer_state_dict or {}).get("state", {})
    torch.optim.AdamW(found.weights(), lr=0.1).load_state_dict(found.optimizer_state_dict)
    return {
        "step": found.step,
        "optimizer": found.optimizer_name,
        "states": len(state),
        "parameters": len(found.weights()),
        "activation": found.activation_func,
        "dropout": found.dropout_structure,
    }


def train(checkpoint: str | None = None, steps: int = 3, fail: bool = False, vectors: str = "") -> dict[str, Any]:
    """Some optimiser steps on two vectors, a preview among them; what was seen inside. `fail` ends it by an error."""
    seen: dict[str, Any] = {}
    try:
        with _session(checkpoint) as session:
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


def preview(prompt: str, negative: str, sampler: str, clip_skip: int, vectors: str, out: str) -> None:
    """Write the preview's picture, drawn with the vectors of a file."""
    request = PreviewRequest(prompt=prompt, negative=negative, sampler=sampler, width=64, height=64, steps=4, seed=1)
    with _session() as session:
        session.preview(request, load_file(vectors), clip_skip).save(out)


def publish(vectors: str) -> None:
    """Put the vectors of a file into the WebUI's folder as an embedding and tell the host."""
    from lib_dsm.networks import embedding

    host = WebUIHost()
    trained = embedding.Embedding(WORD, load_file(vectors)[WORD])
    embedding.save_safetensors(trained, host.folders.embeddings / f"{WORD}.safetensors")
    host.networks_changed()


def wait_for_interrupt(seconds: float) -> dict[str, bool]:
    """Hold a session until the WebUI's Interrupt is pressed."""
    with _session() as session:
        first = session.stop_requested()
        end = time.monotonic() + seconds
        while not (stopped := session.stop_requested()) and time.monotonic() < end:
            session.progress(3, 10, "step <3>")
            time.sleep(0.05)
        return {"at once": first, "stopped": stopped, "again": session.stop_requested()}


def interrupted_preview() -> dict[str, Any]:
    """Previews that are interrupted at their second step, before they begin, and not at all: which are drawn."""
    request = PreviewRequest(prompt="solo", width=64, height=64, steps=10, seed=1)

    def interrupt(params: Any) -> None:
        if params.sampling_step == 1:
            shared.state.interrupt()

    with _session() as session:

        def given_up() -> bool:
            try:
                session.preview(request, {}, 1)
            except Cancelled:
                return True
            return False

        whole = session.preview(request, {}, 1).tobytes()
        script_callbacks.on_cfg_denoised(interrupt)
        try:
            early = given_up()
        finally:
            script_callbacks.remove_callbacks_for_function(interrupt)
        known = session.stop_requested()
        shared.state.interrupt()
        before = given_up()
        return {
            "given up in the middle": early,
            "known": known,
            "given up before it began": before,
            "known again": session.stop_requested(),
            "forgotten": not session.stop_requested(),
            "the same as ever afterwards": session.preview(request, {}, 1).tobytes() == whole,
        }


def checkpoint_chosen_meanwhile(title: str) -> dict[str, str]:
    """The person moves the checkpoint dropdown while a training runs: the checkpoint in a preview, and afterwards."""
    with _session() as session:
        choosing = threading.Thread(target=lambda: shared.opts.set("sd_model_checkpoint", title))
        choosing.start()
        while shared.opts.sd_model_checkpoint != title:
            time.sleep(0.01)
        session.preview(PreviewRequest(prompt="solo", width=64, height=64, steps=1), {}, 1)
        inside, chosen = shared.sd_model.sd_checkpoint_info.name, shared.opts.sd_model_checkpoint
    choosing.join()
    return {"inside": inside, "chosen": chosen, "after": shared.sd_model.sd_checkpoint_info.name}


def model_moved() -> dict[str, str]:
    """What the session says of the model it was lent: at first, after a preview, and once it is another."""
    with _session() as session:
        at_first = session.moved()
        session.preview(PreviewRequest(prompt="solo", width=64, height=64, steps=1), {}, 1)
        after_a_preview = session.moved()
        lent, sd_vae.loaded_vae_file = sd_models.model_data.sd_model, "other.safetensors"
        other_vae, sd_vae.loaded_vae_file = session.moved(), None
        sd_models.model_data.sd_model = None
        try:
            unloaded = session.moved()
        finally:
            sd_models.model_data.sd_model = lent
    return {"at first": at_first, "after a preview": after_a_preview, "VAE": other_vae, "unloaded": unloaded}


def embeddings_refreshed_meanwhile() -> bool:
    """Whether the vectors in training still count when the embeddings are reloaded while a prompt is being encoded."""
    with _session() as session, torch.no_grad():
        vectors = {WORD: torch.ones(2, session.model.hidden_size)}
        expected = session.model.encode_prompts([WORD], vectors, 1)
        with session.model.prompting(vectors, 1):
            sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
            return bool(torch.equal(shared.sd_model.cond_stage_model([WORD]), expected))


def refusals() -> dict[str, str]:
    """What the host says to what it cannot train on."""
    said = {}
    with _session():
        said["second session"] = _refusal(None)
    said["no such checkpoint"] = _refusal("nothing.safetensors")
    model = shared.sd_model
    for name, holder, attribute, value in (
        ("SDXL", model, "is_sdxl", True),
        ("inpainting", model.model, "conditioning_key", "hybrid"),
        ("--medvram", model, "lowvram", True),
    ):
        before = getattr(holder, attribute)
        setattr(holder, attribute, value)
        try:
            said[name] = _refusal(None)
        finally:
            setattr(holder, attribute, before)
    return said


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


def tokens(text: str) -> list[str]:
    """How the loaded model's tokenizer cuts a text."""
    return WebUIHost().tokens(text, shared.sd_model.sd_checkpoint_info.name)


def refusal(checkpoint: str) -> str:
    """What the host says to a training on this checkpoint."""
    return _refusal(checkpoint)


def computing() -> dict[str, Any]:
    """How the U-Net computes in a session, in its previews and afterwards; gradients with and without recomputation."""
    unet = shared.sd_model.model.diffusion_model

    def layout() -> bool:
        weight = unet.input_blocks[1][0].in_layers[2].weight
        return bool(weight.is_contiguous(memory_format=torch.channels_last))

    def look(params: Any) -> None:
        seen["channels last"].append(layout())

    seen: dict[str, Any] = {"channels last": [layout()]}
    with _session() as session:
        seen["channels last"].append(layout())
        gradients = []
        for recompute in (False, True):
            session.model.recompute = recompute
            vectors = torch.full((2, session.model.hidden_size), 0.01, requires_grad=True)
            conditioning = session.model.encode_prompts([f"solo, {WORD}"], {WORD: vectors}, 2)
            noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            session.model.predict(noise, torch.tensor([300]), conditioning).square().mean().backward()
            gradients.append(vectors.grad)
        script_callbacks.on_cfg_denoised(look)
        try:
            session.preview(PreviewRequest(prompt="solo", width=64, height=64, steps=1), {}, 1)
        finally:
            script_callbacks.remove_callbacks_for_function(look)
    seen["channels last"].append(layout())
    seen["same gradients"] = bool(torch.equal(*gradients)) and bool(gradients[0].abs().min() > 0)
    seen["forward put back"] = not any("forward" in vars(module) for module in unet.modules())
    return seen


def attention_in_half_precision() -> dict[str, Any]:
    """How attention is computed in a session on half precision and in its previews, and what it gives."""
    unet, kind = shared.sd_model.model.diffusion_model, sd_hijack.ldm.modules.attention.CrossAttention
    module = next(module for module in unet.modules() if isinstance(module, kind))
    hidden = torch.randn(2, 6, module.to_q.in_features, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Any] = {"before": kind.forward.__name__}
    unet.half()
    try:
        with _session() as session, torch.no_grad():
            seen["inside"] = kind.forward.__name__
            module.float()
            given = module(hidden)
            with session._as_generating():
                seen["previews"] = kind.forward.__name__
                seen["difference"] = float((module(hidden) - given).abs().max())
    finally:
        unet.float()
    return {**seen, "after": kind.forward.__name__}


def stale_networks() -> dict[str, bool]:
    """Whether the weights hold the last generation's LoRA, before a session and in it."""
    loaded = _weights_hash(shared.sd_model)
    with _session():
        inside = _weights_hash(shared.sd_model)
    on_disk = sd_models.read_state_dict(shared.sd_model.sd_checkpoint_info.filename)
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    weight = shared.sd_model.state_dict()[key]
    return {"changed": loaded != inside, "as on disk": bool(torch.equal(weight.cpu(), on_disk[key].to(weight.dtype)))}


def set_aside() -> dict[str, Any]:
    """What a session says that it set aside, and whether attention is cut into tiles in it and after it."""
    with _session() as session:
        said = dataclasses.asdict(session.set_aside)
        inside = is_tiled(shared.sd_model)
    return {**said, "tiled inside": inside, "tiled after": is_tiled(shared.sd_model)}


def other_engine_and_patch() -> dict[str, Any]:
    """As `set_aside`, where another engine stands for the U-Net and an extension's function for one of its parts."""

    class Option(sd_unet.SdUnetOption):
        label = "[TRT] test"

        def create_unet(self) -> sd_unet.SdUnet:
            return sd_unet.SdUnet()

    part = shared.sd_model.model.diffusion_model.middle_block
    forward = part.forward
    sd_unet.unet_options.append(Option())
    part.forward = functools.partial(lambda *inputs: forward(*inputs))
    try:
        sd_unet.apply_unet(Option.label)
        return set_aside()
    finally:
        del part.forward
        sd_unet.unet_options.pop()
        sd_unet.apply_unet("None")


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


FUNCTIONS = {
    function.__name__: function
    for function in (
        modules,
        lora,
        fitted,
        snapshot,
        encode,
        encode_together,
        run_model,
        apply_hypernetworks,
        hypernetwork_as_loaded,
        train,
        train_peer,
        train_peers_hypernetwork,
        train_ours,
        measured,
        tokens,
        preview,
        publish,
        wait_for_interrupt,
        interrupted_preview,
        checkpoint_chosen_meanwhile,
        model_moved,
        embeddings_refreshed_meanwhile,
        refusals,
        refusal,
        computing,
        attention_in_half_precision,
        stale_networks,
        set_aside,
        other_engine_and_patch,
    )
}


def _session(checkpoint: str | None = None) -> Any:
    name = checkpoint or shared.sd_model.sd_checkpoint_info.name
    return WebUIHost().training_session(RunConfig(name=WORD, checkpoint=name, dataset=str(Path.cwd())))


def _resident(field: str) -> int:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{field}:")))


def _refusal(checkpoint: str | None) -> str:
    try:
        with _session(checkpoint):
            return ""
    except DsmError as error:
        return f"{type(error).__name__}: {error}"


def _encode_without_us(prompt: str, replacements: dict[str, torch.Tensor], clip_skip: int) -> torch.Tensor:
    database = sd_hijack.model_hijack.embedding_db
    for name, vectors in replacements.items():
        embedding = Embedding(vectors, name)
        embedding.vectors, embedding.shape = vectors.shape
        database.register_embedding(embedding, shared.sd_model)
    before = shared.opts.CLIP_stop_at_last_layers
    shared.opts.CLIP_stop_at_last_layers = clip_skip
    try:
        with devices.autocast():
            return shared.sd_model.cond_stage_model([prompt])
    finally:
        shared.opts.CLIP_stop_at_last_layers = before
        for name in replacements:
            database.register_embedding_by_name(None, shared.sd_model, name)


def _weights_hash(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _random_states() -> tuple[Any, ...]:
    return torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()


def _same_states(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return bool(torch.equal(one[0], other[0]) and (one[1] == other[1]).all() and one[2] == other[2])
