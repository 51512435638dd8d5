"""What the tests do inside the WebUI's process, each function reachable as POST /dsm-checks/<name>; see conftest.py.

It runs in the WebUI's Python with the WebUI's torch; tensors travel in safetensors files. Here is what concerns the
session that the WebUI lends; each other subject has an inside_SUBJECT.py, which finds this module as `dsm_checks`.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import torch
from fastapi import Body
from modules import call_queue, script_callbacks, sd_hijack, sd_models, sd_unet, sd_vae, shared
from safetensors.torch import load_file

from lib_dsm.diffusion.hypertile import is_tiled
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
    return {
        "checkpoint": model.sd_checkpoint_info.name,
        "vae": sd_vae.loaded_vae_file,
        "weights": _weights_hash(model),
        "autoencoder": _weights_hash(model.first_stage_model),
        "trainable": sum(parameter.requires_grad for parameter in model.parameters()),
        "gradients": sum(parameter.grad is not None for parameter in model.parameters()),
        "attention": attention_class().forward.__name__,
        "circular": sd_hijack.model_hijack.circular_enabled,
        "embeddings": sorted(sd_hijack.model_hijack.embedding_db.word_embeddings),
        "database": type(sd_hijack.model_hijack.embedding_db).__name__,
        "options": {key: value for key, value in shared.opts.data.items() if key != "sd_checkpoint_hash"},
        "job": shared.state.job,
        "locked": call_queue.queue_lock._lock.locked(),
    }


def attention_class() -> type:
    """The class of the U-Net's attention layers; it has the same name in every WebUI's package."""
    modules = shared.sd_model.model.diffusion_model.modules()
    return next(type(module) for module in modules if type(module).__name__ == "CrossAttention")


def preview(prompt: str, negative: str, sampler: str, clip_skip: int, vectors: str, out: str) -> None:
    """Write the preview's picture, drawn with the vectors of a file."""
    request = PreviewRequest(prompt=prompt, negative=negative, sampler=sampler, width=64, height=64, steps=4, seed=1)
    with begin_session() as session:
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
    with begin_session() as session:
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

    with begin_session() as session:

        def given_up() -> bool:
            try:
                session.preview(request, {}, 1)
            except Cancelled:
                return True
            return False

        whole = session.preview(request, {}, 1).tobytes()
        script_callbacks.on_cfg_denoiser(interrupt)
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
    with begin_session() as session:
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
    with begin_session() as session:
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
    with begin_session() as session, torch.no_grad():
        vectors = {WORD: torch.ones(2, session.model.hidden_size)}
        expected = session.model.encode_prompts([WORD], vectors, 1)
        with session.model.prompting(vectors, 1):
            sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
            return bool(torch.equal(shared.sd_model.cond_stage_model([WORD]), expected))


def reload_embeddings() -> None:
    """Read the WebUI's embeddings anew, whoever has the model."""
    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)


def refusals() -> dict[str, str]:
    """What the host says to what it cannot train on."""
    said = {}
    with begin_session():
        said["second session"] = _refusal(None)
    said["no such checkpoint"] = _refusal("nothing.safetensors")
    model = shared.sd_model
    for name, holder, attribute, value in (
        ("SDXL", model, "is_sdxl", True),
        ("inpainting", model.model, "conditioning_key", "hybrid"),
    ):
        had, before = hasattr(holder, attribute), getattr(holder, attribute, None)
        setattr(holder, attribute, value)
        try:
            said[name] = _refusal(None)
        finally:
            setattr(holder, attribute, before)
            if not had:
                delattr(holder, attribute)
    return said


def refusal(checkpoint: str) -> str:
    """What the host says to a training on this checkpoint."""
    return _refusal(checkpoint)


def stale_networks() -> dict[str, bool]:
    """Whether the weights hold the last generation's LoRA, before a session and in it."""
    loaded = _weights_hash(shared.sd_model)
    with begin_session():
        inside = _weights_hash(shared.sd_model)
    on_disk = sd_models.read_state_dict(shared.sd_model.sd_checkpoint_info.filename)
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    weight = shared.sd_model.state_dict()[key]
    return {"changed": loaded != inside, "as on disk": bool(torch.equal(weight.cpu(), on_disk[key].to(weight.dtype)))}


def set_aside() -> dict[str, Any]:
    """What a session says that it set aside, and whether attention is cut into tiles in it and after it."""
    with begin_session() as session:
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


FUNCTIONS = {
    function.__name__: function
    for function in (
        modules,
        snapshot,
        preview,
        publish,
        wait_for_interrupt,
        interrupted_preview,
        checkpoint_chosen_meanwhile,
        model_moved,
        embeddings_refreshed_meanwhile,
        reload_embeddings,
        refusals,
        refusal,
        stale_networks,
        set_aside,
        other_engine_and_patch,
    )
}


def begin_session(checkpoint: str | None = None) -> Any:
    """A training session on this checkpoint, or on the one that is loaded."""
    name = checkpoint or shared.sd_model.sd_checkpoint_info.name
    return WebUIHost().training_session(RunConfig(name=WORD, checkpoint=name, dataset=str(Path.cwd())))


def _refusal(checkpoint: str | None) -> str:
    try:
        with begin_session(checkpoint):
            return ""
    except DsmError as error:
        return f"{type(error).__name__}: {error}"


def _weights_hash(module: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for _, tensor in sorted(module.state_dict().items()):
        tensor = tensor.detach().cpu().contiguous()
        if tensor.element_size() == 1:  # NumPy knows no 8 bit floats
            tensor = tensor.float()
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
