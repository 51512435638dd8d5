"""Inside the WebUI's process: what the lent model computes, and what the WebUI's own does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from dsm_checks import WORD, attention_class, begin_session
from modules import devices, script_callbacks, sd_hijack, shared
from modules.hypernetworks import hypernetwork
from modules.textual_inversion.textual_inversion import Embedding
from safetensors.torch import load_file, save_file

from lib_dsm.host.webui import WebUIHost
from lib_dsm.training.config import PreviewRequest


def encode(checkpoint: str, prompts: list[str], vectors: str, clip_skips: list[int], out: str) -> list[bool]:
    """Encode each prompt by our model and by the WebUI's encoder alone, with the embeddings of the file `vectors`.

    Writes ours, prompt by prompt for each CLIP skip; tells where the two are the same bits.
    """
    replacements = load_file(vectors)
    ours, same = [], []
    with begin_session(checkpoint) as session, torch.no_grad():
        for clip_skip in clip_skips:
            for prompt in prompts:
                ours.append(session.model.encode_prompts([prompt], replacements, clip_skip))
                assert ours[-1].shape[1] == 77 * session.model.chunk_counts([prompt], replacements)[0]
                same.append(bool(torch.equal(ours[-1], _encode_without_us(prompt, replacements, clip_skip))))
    save_file({f"{index:03d}": tensor.contiguous() for index, tensor in enumerate(ours)}, out)
    return same


def encode_together(checkpoint: str, prompts: list[str]) -> float:
    """The greatest difference between our encoding of a batch and the WebUI's of the same batch."""
    with begin_session(checkpoint) as session, torch.no_grad():
        ours = session.model.encode_prompts(prompts, {}, 1)
        return float((ours - shared.sd_model.cond_stage_model(prompts)).abs().max())


def run_model(checkpoint: str, inputs: str, out: str) -> None:
    """Write what the autoencoder and the U-Net make of pixels, noisy latents, timesteps and conditioning of a file."""
    given = load_file(inputs)
    with begin_session(checkpoint) as session, torch.no_grad():
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
    with begin_session(checkpoint) as session, torch.no_grad():
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


def tokens(text: str) -> list[str]:
    """How the loaded model's tokenizer cuts a text."""
    return WebUIHost().tokens(text, shared.sd_model.sd_checkpoint_info.name)


def computing() -> dict[str, Any]:
    """How the U-Net computes in a session, in its previews and afterwards; gradients with and without recomputation."""
    unet = shared.sd_model.model.diffusion_model

    def layout() -> bool:
        weight = unet.input_blocks[1][0].in_layers[2].weight
        return bool(weight.is_contiguous(memory_format=torch.channels_last))

    def look(params: Any) -> None:
        seen["channels last"].append(layout())

    seen: dict[str, Any] = {"channels last": [layout()]}
    with begin_session() as session:
        seen["channels last"].append(layout())
        gradients = []
        for recompute in (False, True):
            session.model.recompute = recompute
            vectors = torch.full((2, session.model.hidden_size), 0.01, requires_grad=True)
            conditioning = session.model.encode_prompts([f"solo, {WORD}"], {WORD: vectors}, 2)
            noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
            session.model.predict(noise, torch.tensor([300]), conditioning).square().mean().backward()
            gradients.append(vectors.grad)
        script_callbacks.on_cfg_denoiser(look)
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
    unet, kind = shared.sd_model.model.diffusion_model, attention_class()
    module = next(module for module in unet.modules() if isinstance(module, kind))
    hidden = torch.randn(2, 6, module.to_q.in_features, generator=torch.Generator().manual_seed(0))
    seen: dict[str, Any] = {"before": kind.forward.__name__}
    unet.half()
    try:
        with begin_session() as session, torch.no_grad():
            seen["inside"] = kind.forward.__name__
            module.float()
            given = module(hidden)
            with session._as_generating():
                seen["previews"] = kind.forward.__name__
                seen["difference"] = float((module(hidden) - given).abs().max())
    finally:
        unet.float()
    return {**seen, "after": kind.forward.__name__}


FUNCTIONS = {
    function.__name__: function
    for function in (
        encode,
        encode_together,
        run_model,
        apply_hypernetworks,
        hypernetwork_as_loaded,
        tokens,
        computing,
        attention_in_half_precision,
    )
}


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
