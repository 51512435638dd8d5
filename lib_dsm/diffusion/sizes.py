"""What must be known of a Stable Diffusion 1 or 2 checkpoint to build it: from the yaml beside it, or from its tensors.

The yaml has the layout of CompVis' `v1-inference.yaml` and Stability AI's `v2-inference-v.yaml`. Without one the sizes
are those of Stable Diffusion 1.5, or of Stable Diffusion 2 where the text encoder is OpenCLIP's of width 1024; that is
how AUTOMATIC1111's WebUI tells them apart too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from lib_dsm.errors import ModelError
from lib_dsm.files import is_file, is_folder

Shapes = Mapping[str, tuple[int, ...]]

# Stability AI's own package and the later one name the same module differently (the latter in "SD-Turbo").
OPENCLIP_PREFIXES = ("cond_stage_model.model.", "conditioner.embedders.0.model.")
_OPENCLIP_HEAD = 64  # width of a head of all of OpenCLIP's text encoders
_OPENCLIP_BLOCK = re.compile(r"transformer\.resblocks\.(\d+)\.")
_OPENCLIP_SKIPPED = {"last": 0, "penultimate": 1}  # blocks at the end that FrozenOpenCLIPEmbedder leaves out


@dataclass(frozen=True)
class Sizes:
    """What a model is built from; the defaults are those of version 1.5.

    `model_channels` times an entry of `channel_mult` is the width of that level of the U-Net, `vae_channels` times an
    entry of `vae_channel_mult` likewise of the autoencoder. A level has attention if its downsampling factor (1, 2, 4,
    …) is among `attention_resolutions`, with `num_heads` heads or, where that is 0, heads of `num_head_channels`.
    `text_layers` counts the layers that are used: SD2 leaves the last one out. `text_version` is a folder's absolute
    path if there is such a folder, else what the yaml names, such as "openai/clip-vit-large-patch14".
    `prediction_type` is "unknown" where only the weights can tell.
    """

    in_channels: int = 4
    out_channels: int = 4
    model_channels: int = 320
    channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    num_res_blocks: int = 2
    attention_resolutions: tuple[int, ...] = (4, 2, 1)
    num_heads: int = 8
    num_head_channels: int = 0
    linear_projection: bool = False
    transformer_depth: int = 1
    context_dim: int = 768

    vae_channels: int = 128
    vae_channel_mult: tuple[int, ...] = (1, 2, 4, 4)
    vae_res_blocks: int = 2
    vae_resolution: int = 256
    z_channels: int = 4

    text_encoder: Literal["clip", "openclip"] = "clip"
    text_layers: int = 12
    text_heads: int = 12
    text_intermediate: int = 3072
    text_version: str = "openai/clip-vit-large-patch14"

    linear_start: float = 0.00085
    linear_end: float = 0.012
    timesteps: int = 1000
    latent_scale: float = 0.18215
    prediction_type: Literal["epsilon", "v_prediction", "unknown"] = "epsilon"
    image_size: int = 64  # latent cells of a side that the yaml tells


SD2 = Sizes(
    num_heads=0,
    num_head_channels=64,
    linear_projection=True,
    context_dim=1024,
    text_encoder="openclip",
    text_layers=23,  # of 24
    text_heads=16,
    text_intermediate=4096,
    text_version="ViT-H-14",
    prediction_type="unknown",
)


def sizes_of(checkpoint: Path, shapes: Shapes | None = None) -> Sizes:
    """The sizes of a checkpoint: from the yaml of the same name beside it, else from its tensors' `shapes`.

    Without shapes, SD2's text encoder is taken for the usual one.

    Raises:
        ModelError: the yaml cannot be read or describes another family of models.
    """
    config = checkpoint.with_suffix(".yaml")
    if is_file(config):
        return read_sizes(config, shapes)
    return SD2 if openclip_width(shapes or {}) == SD2.context_dim else Sizes()


def read_sizes(config: Path, shapes: Shapes | None = None) -> Sizes:
    """Read a yaml in the layout of `v1-inference.yaml` or `v2-inference.yaml`.

    A relative `cond_stage_config.params.version` of a CLIP text encoder is looked for beside the yaml; its depth and
    heads come from that folder's config.json. An OpenCLIP text encoder's come from the tensors' `shapes`.

    Raises:
        ModelError: it cannot be read or describes another family of models than Stable Diffusion 1 and 2.
    """
    import yaml

    try:
        params = yaml.safe_load(config.read_text(encoding="utf-8"))["model"]["params"]
        sizes = _sizes_from(params, config, shapes or {})
    except OSError as error:
        raise ModelError(f"{config} cannot be read: {error.strerror or error}.", "Check the file.") from error
    except (
        yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError
    ) as error:  # fmt: skip
        raise ModelError(
            f"{config} is not the description of a Stable Diffusion 1 or 2 model: {error!r}.",
            "Put the yaml that came with the checkpoint beside it, or remove it if the checkpoint needs none.",
        ) from error
    return sizes


def openclip_width(shapes: Shapes) -> int | None:
    """The width of a checkpoint's OpenCLIP text encoder as SD2 has it, None if it has none."""
    return next((shape[0] for prefix in OPENCLIP_PREFIXES if (shape := shapes.get(f"{prefix}ln_final.weight"))), None)


def _sizes_from(params: Mapping[str, Any], config: Path, shapes: Shapes) -> Sizes:
    unet = params["unet_config"]["params"]
    vae = params["first_stage_config"]["params"]["ddconfig"]
    text = params["cond_stage_config"]
    default = Sizes()
    conditioning = params.get("conditioning_key", "crossattn")
    _refuse(config, conditioning != "crossattn", f'conditioning "{conditioning}"')
    _refuse(config, bool(unet.get("num_classes")), "classes or images beside the prompt")
    _refuse(config, bool(vae.get("attn_resolutions")), "attention in the autoencoder's levels")
    sizes = Sizes(
        in_channels=int(unet["in_channels"]),
        out_channels=int(unet["out_channels"]),
        model_channels=int(unet["model_channels"]),
        channel_mult=tuple(unet["channel_mult"]),
        num_res_blocks=int(unet["num_res_blocks"]),
        attention_resolutions=tuple(unet["attention_resolutions"]),
        num_heads=max(0, int(unet.get("num_heads", 0))),
        num_head_channels=max(0, int(unet.get("num_head_channels", 0))),
        linear_projection=bool(unet.get("use_linear_in_transformer")),
        transformer_depth=int(unet.get("transformer_depth", 1)),
        context_dim=int(unet["context_dim"]),
        vae_channels=int(vae["ch"]),
        vae_channel_mult=tuple(vae["ch_mult"]),
        vae_res_blocks=int(vae["num_res_blocks"]),
        vae_resolution=int(vae["resolution"]),
        z_channels=int(vae["z_channels"]),
        linear_start=float(params.get("linear_start", default.linear_start)),
        linear_end=float(params.get("linear_end", default.linear_end)),
        timesteps=int(params.get("timesteps", default.timesteps)),
        latent_scale=float(params.get("scale_factor", default.latent_scale)),
        prediction_type="v_prediction" if params.get("parameterization") == "v" else "epsilon",
        image_size=int(params.get("image_size", default.image_size)),
    )
    if sizes.num_head_channels:
        sizes = replace(sizes, num_heads=0)
    elif not sizes.num_heads:
        raise ValueError("neither num_heads nor num_head_channels")
    return _with_text(sizes, text, config, shapes)


def _with_text(sizes: Sizes, text: Mapping[str, Any], config: Path, shapes: Shapes) -> Sizes:
    target, params = str(text["target"]), text.get("params") or {}
    if target.endswith("FrozenCLIPEmbedder"):
        return _with_clip(sizes, str(params.get("version", sizes.text_version)), config)
    _refuse(config, not target.endswith("FrozenOpenCLIPEmbedder"), f"text encoder {target}")
    return _with_openclip(sizes, params, shapes)


def _with_clip(sizes: Sizes, version: str, config: Path) -> Sizes:
    folder = config.parent / version  # an absolute version stays what it is
    if not is_folder(folder):
        return replace(sizes, text_version=version)
    text = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    text = text.get("text_config") or text
    return replace(
        sizes,
        text_version=str(folder.resolve()),
        text_layers=int(text["num_hidden_layers"]),
        text_heads=int(text["num_attention_heads"]),
        text_intermediate=int(text["intermediate_size"]),
    )


def _with_openclip(sizes: Sizes, params: Mapping[str, Any], shapes: Shapes) -> Sizes:
    skipped = _OPENCLIP_SKIPPED[str(params.get("layer", "last"))]
    blocks = {int(found[1]) for name in shapes if (found := _OPENCLIP_BLOCK.search(name))}
    wide = [shape[0] for name, shape in shapes.items() if name.endswith(".resblocks.0.mlp.c_fc.weight")]
    return replace(
        sizes,
        text_encoder="openclip",
        text_version=str(params.get("arch", SD2.text_version)),
        text_layers=(len(blocks) or SD2.text_layers + 1) - skipped,
        text_heads=sizes.context_dim // _OPENCLIP_HEAD,
        text_intermediate=wide[0] if wide else SD2.text_intermediate,
    )


def _refuse(config: Path, condition: bool, what: str) -> None:
    if condition:
        raise ModelError(
            f"{config} describes a model with {what}, which is not Stable Diffusion 1 or 2.",
            "Choose a checkpoint of one of these families.",
        )
