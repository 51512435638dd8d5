"""A checkpoint of random weights that Stable Diffusion 1 is recognised in: its text encoder and autoencoder are whole.

For WebUIs that take no yaml's word for the sizes of these two; the U-Net, whose sizes they read off its tensors, is
small.
"""

from __future__ import annotations

from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel

from lib_dsm.demo.install import CHECKPOINT, CLIP
from lib_dsm.diffusion import ldm_layout
from lib_dsm.diffusion.sizes import Sizes

State = dict[str, torch.Tensor]
SIZES = Sizes(channel_mult=(1, 1), num_res_blocks=1, attention_resolutions=(1, 2))


def write_sd1(path: Path) -> State:
    """Write `path` in half precision and its yaml; the state. It always has the same weights."""
    described = yaml.safe_load(CHECKPOINT.with_suffix(".yaml").read_text(encoding="utf-8"))
    params = described["model"]["params"]
    params["unet_config"]["params"] |= {
        "model_channels": SIZES.model_channels,
        "attention_resolutions": list(SIZES.attention_resolutions),
        "num_res_blocks": SIZES.num_res_blocks,
        "channel_mult": list(SIZES.channel_mult),
        "num_heads": SIZES.num_heads,
        "context_dim": SIZES.context_dim,
    }
    params["first_stage_config"]["params"]["ddconfig"] |= {
        "ch": SIZES.vae_channels,
        "ch_mult": list(SIZES.vae_channel_mult),
        "num_res_blocks": SIZES.vae_res_blocks,
        "resolution": SIZES.vae_resolution,
    }
    params["cond_stage_config"]["params"]["version"] = str(CLIP.resolve())
    path.with_suffix(".yaml").write_text(yaml.safe_dump(described), encoding="utf-8")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(**ldm_layout.unet_config(SIZES)).state_dict()
        autoencoder = AutoencoderKL(**ldm_layout.vae_config(SIZES)).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**ldm_layout.text_config(SIZES))).state_dict()
    text["final_layer_norm.bias"] += 0.3  # emphasis divides by the output's mean
    state = {
        **ldm_layout.to_ldm(unet, ldm_layout.unet_key_map(SIZES)),
        **ldm_layout.to_ldm(autoencoder, ldm_layout.vae_key_map(SIZES)),
        **ldm_layout.to_ldm(text, ldm_layout.text_key_map(SIZES)),
    }
    state = {key: tensor.half().contiguous() for key, tensor in state.items()}
    save_file(state, path)
    return state
