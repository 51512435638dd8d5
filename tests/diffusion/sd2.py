"""A very small Stable Diffusion 2 checkpoint with random weights, its yaml beside it, and what ldm computes with it.

`reference_*` are written from the ldm and open_clip layouts alone: functions over the checkpoint's own tensor names.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file

from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes, read_sizes

State = dict[str, torch.Tensor]
UNET, TEXT = "model.diffusion_model.", "cond_stage_model.model."


def description(parameterization: str, width: int, arch: str, layer: str) -> dict[str, Any]:
    """The yaml, as `v2-inference-v.yaml` but for the sizes."""
    params = {
        "parameterization": parameterization,
        "linear_start": 0.00085,
        "linear_end": 0.0120,
        "num_timesteps_cond": 1,
        "log_every_t": 200,
        "timesteps": 1000,
        "first_stage_key": "jpg",
        "cond_stage_key": "txt",
        "image_size": 64,
        "channels": 4,
        "cond_stage_trainable": False,
        "conditioning_key": "crossattn",
        "monitor": "val/loss_simple_ema",
        "scale_factor": 0.18215,
        "use_ema": False,
        "unet_config": {
            "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
            "params": {
                "use_checkpoint": True,
                "use_fp16": True,
                "image_size": 32,
                "in_channels": 4,
                "out_channels": 4,
                "model_channels": 32,
                "attention_resolutions": [2, 1],
                "num_res_blocks": 2,
                "channel_mult": [1, 2],
                "num_head_channels": 16,
                "use_spatial_transformer": True,
                "use_linear_in_transformer": True,
                "transformer_depth": 1,
                "context_dim": width,
                "legacy": False,
            },
        },
        "first_stage_config": {
            "target": "ldm.models.autoencoder.AutoencoderKL",
            "params": {
                "embed_dim": 4,
                "monitor": "val/rec_loss",
                "ddconfig": {
                    "double_z": True,
                    "z_channels": 4,
                    "resolution": 64,
                    "in_channels": 3,
                    "out_ch": 3,
                    "ch": 32,
                    "ch_mult": [1, 1, 2, 2],
                    "num_res_blocks": 1,
                    "attn_resolutions": [],
                    "dropout": 0.0,
                },
                "lossconfig": {"target": "torch.nn.Identity"},
            },
        },
        "cond_stage_config": {
            "target": "ldm.modules.encoders.modules.FrozenOpenCLIPEmbedder",
            "params": {"freeze": True, "layer": layer, "arch": arch},
        },
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params}}


def write_sd2(
    path: Path,
    parameterization: str = "v",
    width: int = 128,
    blocks: int = 3,
    arch: str = "ViT-H-14",
    layer: str = "penultimate",
) -> State:
    """Write `path` and its yaml; the state. The same arguments give the same weights."""
    config = path.with_suffix(".yaml")
    config.write_text(yaml.safe_dump(description(parameterization, width, arch, layer)), encoding="utf-8")
    sizes = read_sizes(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        state = {**_unet(sizes), **_autoencoder(sizes), **_openclip(width, blocks)}
    save_file(state, path)
    return state


def _unet(sizes: Sizes) -> State:
    unet = UNet2DConditionModel(**ldm_layout.unet_config(sizes))
    return ldm_layout.to_ldm(unet.state_dict(), ldm_layout.unet_key_map(sizes))


def _autoencoder(sizes: Sizes) -> State:
    autoencoder = AutoencoderKL(**ldm_layout.vae_config(sizes))
    state = ldm_layout.to_ldm(autoencoder.state_dict(), ldm_layout.vae_key_map(sizes))
    return {key: tensor.contiguous() for key, tensor in state.items()}


def _openclip(width: int, blocks: int) -> State:
    """A text encoder in open_clip's layout, whose output has a mean that emphasis can divide by."""

    def norm() -> State:
        return {"weight": 1 + 0.1 * torch.randn(width), "bias": 0.1 * torch.randn(width)}

    def linear(inputs: int, outputs: int) -> State:
        return {"weight": torch.randn(outputs, inputs) / inputs**0.5, "bias": 0.1 * torch.randn(outputs)}

    parts: dict[str, State] = {"ln_final": norm()}
    for block in range(blocks):
        name = f"transformer.resblocks.{block}"
        projections = {f"in_proj_{kind}": tensor for kind, tensor in linear(width, 3 * width).items()}
        parts |= {f"{name}.ln_1": norm(), f"{name}.ln_2": norm(), f"{name}.attn.out_proj": linear(width, width)}
        parts |= {f"{name}.mlp.c_fc": linear(width, 4 * width), f"{name}.mlp.c_proj": linear(4 * width, width)}
        parts[f"{name}.attn"] = projections
    parts["ln_final"]["bias"] += 0.3
    state = {f"{TEXT}{part}.{kind}": tensor for part, tensors in parts.items() for kind, tensor in tensors.items()}
    state[f"{TEXT}token_embedding.weight"] = 0.1 * torch.randn(49408, width)
    state[f"{TEXT}positional_embedding"] = 0.05 * torch.randn(77, width)
    state[f"{TEXT}text_projection"] = torch.randn(width, width) / width**0.5
    state[f"{TEXT}logit_scale"] = torch.tensor(4.6)
    return state


def reference_text(state: State, vectors: torch.Tensor, blocks: int) -> torch.Tensor:
    """What FrozenOpenCLIPEmbedder makes of token vectors B×77×D with its first `blocks` blocks."""
    width = vectors.shape[-1]
    mask = torch.full((77, 77), float("-inf")).triu(1)
    hidden = vectors + state[f"{TEXT}positional_embedding"]
    for block in range(blocks):
        own = _part(state, f"{TEXT}transformer.resblocks.{block}.")
        attention = torch.nn.MultiheadAttention(width, width // 64, batch_first=True)
        attention.load_state_dict(_part(own, "attn."))
        normed = _layer_norm(hidden, own, "ln_1")
        hidden = hidden + attention(normed, normed, normed, attn_mask=mask, need_weights=False)[0]
        inner = F.gelu(_linear(_layer_norm(hidden, own, "ln_2"), own, "mlp.c_fc"))
        hidden = hidden + _linear(inner, own, "mlp.c_proj")
    return _layer_norm(hidden, _part(state, TEXT), "ln_final")


def reference_unet(state: State, noisy: torch.Tensor, timesteps: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """What ldm's UNetModel makes of it, for the sizes of `description`."""
    own = _part(state, UNET)
    channels = own["time_embed.0.weight"].shape[1]
    frequencies = torch.exp(-torch.arange(channels // 2) / (channels // 2) * torch.log(torch.tensor(10000.0)))
    angles = timesteps[:, None].float() * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=1)
    embedding = _linear(F.silu(_linear(embedding, own, "time_embed.0")), own, "time_embed.2")

    def run(name: str, hidden: torch.Tensor) -> torch.Tensor:
        for number in range(3):
            part = _part(own, f"{name}.{number}.")
            if "in_layers.0.weight" in part:
                hidden = _res_block(part, hidden, embedding)
            elif "proj_in.weight" in part:
                hidden = _transformer(part, hidden, context)
            elif "op.weight" in part:
                hidden = F.conv2d(hidden, part["op.weight"], part["op.bias"], stride=2, padding=1)
            elif "conv.weight" in part:
                hidden = _conv(F.interpolate(hidden, scale_factor=2, mode="nearest"), part, "conv")
            elif "weight" in part:
                hidden = F.conv2d(hidden, part["weight"], part["bias"], padding=1)
        return hidden

    count = len({key.split(".")[1] for key in own if key.startswith("input_blocks.")})
    hidden, skips = noisy, []
    for number in range(count):
        hidden = run(f"input_blocks.{number}", hidden)
        skips.append(hidden)
    hidden = run("middle_block", hidden)
    for number in range(count):
        hidden = run(f"output_blocks.{number}", torch.cat([hidden, skips.pop()], dim=1))
    return _conv(F.silu(_group_norm(hidden, own, "out.0", 1e-5)), own, "out.2")


def _res_block(part: State, hidden: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
    inner = _conv(F.silu(_group_norm(hidden, part, "in_layers.0", 1e-5)), part, "in_layers.2")
    inner = inner + _linear(F.silu(embedding), part, "emb_layers.1")[:, :, None, None]
    inner = _conv(F.silu(_group_norm(inner, part, "out_layers.0", 1e-5)), part, "out_layers.3")
    if "skip_connection.weight" in part:
        hidden = F.conv2d(hidden, part["skip_connection.weight"], part["skip_connection.bias"])
    return hidden + inner


def _transformer(part: State, hidden: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = hidden.shape
    inner = _group_norm(hidden, part, "norm", 1e-6).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
    inner = _linear(inner, part, "proj_in")
    block = _part(part, "transformer_blocks.0.")
    normed = _layer_norm(inner, block, "norm1")
    inner = inner + _attention(_part(block, "attn1."), normed, normed)
    inner = inner + _attention(_part(block, "attn2."), _layer_norm(inner, block, "norm2"), context)
    value, gate = _linear(_layer_norm(inner, block, "norm3"), block, "ff.net.0.proj").chunk(2, dim=-1)
    inner = inner + _linear(value * F.gelu(gate), block, "ff.net.2")
    inner = _linear(inner, part, "proj_out")
    return hidden + inner.reshape(batch, height, width, channels).permute(0, 3, 1, 2)


def _attention(part: State, hidden: torch.Tensor, context: torch.Tensor, head: int = 16) -> torch.Tensor:
    query, key, value = (
        F.linear(given, part[f"{name}.weight"]).unflatten(-1, (-1, head)).transpose(1, 2)
        for name, given in (("to_q", hidden), ("to_k", context), ("to_v", context))
    )
    weights = (query @ key.transpose(-1, -2) * head**-0.5).softmax(dim=-1)
    return _linear((weights @ value).transpose(1, 2).flatten(2), part, "to_out.0")


def _part(state: State, prefix: str) -> State:
    return {key[len(prefix) :]: tensor for key, tensor in state.items() if key.startswith(prefix)}


def _linear(hidden: torch.Tensor, part: State, name: str) -> torch.Tensor:
    return F.linear(hidden, part[f"{name}.weight"], part[f"{name}.bias"])


def _conv(hidden: torch.Tensor, part: State, name: str) -> torch.Tensor:
    return F.conv2d(hidden, part[f"{name}.weight"], part[f"{name}.bias"], padding=1)


def _layer_norm(hidden: torch.Tensor, part: State, name: str) -> torch.Tensor:
    return F.layer_norm(hidden, hidden.shape[-1:], part[f"{name}.weight"], part[f"{name}.bias"])


def _group_norm(hidden: torch.Tensor, part: State, name: str, epsilon: float) -> torch.Tensor:
    return F.group_norm(hidden, 32, part[f"{name}.weight"], part[f"{name}.bias"], epsilon)
