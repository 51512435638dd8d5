"""LoRA files of diffusers and PEFT, in the spellings of their versions, under the names of kohya's.

A key is a model (`unet.`, `text_encoder.`, `text_encoder_2.`, or nothing in the first files), a module, and a part:
`.processor.to_q_lora.up.weight`, `.to_q_lora.up.weight`, `.to_q.lora.up.weight`, `.q_proj.lora_linear_layer.up.weight`
or `.to_q.lora_A.weight`. The scale is 1, or alpha / rank where there is an `.alpha`, or what the adapter's metadata
say (adapter_scales.py).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.adapter_scales import adapter_scales, needs_config, no_config
from lib_dsm.extraction.key_map import FIXED, RESNET

_PART = re.compile(
    r"^(?:base_model\.model\.)?(?P<module>.+?)(?:\.processor)?\.?(?P<old>to_(?:q|k|v|out)_lora)?"
    r"(?:\.lora|\.lora_linear_layer)?\.(?P<part>up\.weight|down\.weight|lora_[AB](?:\.default)?\.weight|alpha)$"
)
_STARTS = ("unet.", "text_encoder.", "text_encoder_2.", "down_blocks.", "up_blocks.", "mid_block.", "text_model.",
           "base_model.model.")  # fmt: skip
_PARTS = {"up.weight": "up", "lora_B.weight": "up", "lora_B.default.weight": "up", "alpha": "alpha"}
_RESNET = {name: ldm for ldm, name in RESNET.items()}
_FIXED = {name: ldm for ldm, name in FIXED.items()} | {
    "conv_norm_out": "out.0", "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_XL_CONTEXT = 2048


def is_diffusers(names: Iterable[str]) -> bool:
    """Whether tensors have names of this layout."""
    return any(name.startswith(_STARTS) and (_PART.match(name) or "magnitude" in name) for name in names)


def diffusers_modules(
    path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]
) -> dict[str, tuple[torch.Tensor, torch.Tensor, float]]:
    """Module name → up, down, scale.

    Raises:
        ModelError: a module lacks a part, has a form that the WebUI reads otherwise (DoRA), or is of no such model; or
            a file of PEFT itself has no `adapter_config.json` beside it.
    """
    found: dict[tuple[str, str], dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        if "magnitude" in key:
            raise ModelError(f"{path} is a DoRA ({key}), whose scales the WebUI reads otherwise.", "Use a plain LoRA.")
        match = _PART.match(key)
        if match is None:
            raise ModelError(f'"{key}" in {path} is no part of a LoRA that is known.', "Use a plain LoRA.")
        part = _PARTS.get(match["part"], "down")
        found.setdefault(_module(match["module"], match["old"] or "", path), {})[part] = tensor
    two_encoders = any(model == "text_encoder_2" for model, _ in found)
    wide = any(
        name.endswith("attn2.to_k") and parts["down"].shape[1] == _XL_CONTEXT
        for (_, name), parts in found.items()
        if "down" in parts
    )
    scales = adapter_scales(path, metadata)
    foreign = any(map(needs_config, tensors))
    modules = {}
    for (model, name), parts in found.items():
        if "up" not in parts or "down" not in parts:
            raise ModelError(f"{model}.{name} in {path} has one of its two matrices only.", "Get the file again.")
        rank = parts["down"].shape[0]
        scale = float(parts["alpha"]) / rank if "alpha" in parts else scales.scale(model, name, rank)
        if scale is None and foreign:
            raise no_config(path)
        modules[_kohya_name(model, name, wide or two_encoders)] = (
            parts["up"],
            parts["down"],
            1.0 if scale is None else scale,
        )
    return modules


def _module(module: str, old: str, path: Path) -> tuple[str, str]:
    model = next((start for start in ("unet", "text_encoder_2", "text_encoder") if module.startswith(f"{start}.")), "")
    name = module[len(model) + 1 :] if model else module
    if not model:
        model = "text_encoder" if name.startswith("text_model.") else "unet"
    if model == "unet" and not name.startswith(("down_", "up_", "mid_", "conv_", "time_", "add_")):
        raise ModelError(f'"{module}" in {path} belongs to no U-Net of Stable Diffusion.', "Use a LoRA for SD or SDXL.")
    if model != "unet" and not name.startswith("text_model."):
        name = f"text_model.{name}"
    if old:
        part = old.removesuffix("_lora")
        name += f".{part.removeprefix('to_')}_proj" if model != "unet" else f".{part}{'.0' * (part == 'to_out')}"
    return model, name


def _kohya_name(model: str, name: str, xl: bool) -> str:
    if model == "unet":
        return "lora_unet_" + (_ldm_name(name) if xl else name).replace(".", "_")
    prefix = "lora_te2_" if model == "text_encoder_2" else "lora_te1_" if xl else "lora_te_"
    return prefix + name.replace(".", "_")


def _ldm_name(name: str) -> str:
    """The ldm name of a module of SDXL's U-Net."""
    if name in _FIXED:
        return _FIXED[name]
    if match := re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)$", name):
        place = "1" if match[1] == "attentions" else str(2 * int(match[2]))
        return f"middle_block.{place}.{_RESNET.get(match[3], match[3])}"
    if match := re.match(r"(down|up)_blocks\.(\d+)\.(resnets|attentions)\.(\d+)\.(.+)$", name):
        index = 3 * int(match[2]) + int(match[4]) + (match[1] == "down")
        blocks = "input_blocks" if match[1] == "down" else "output_blocks"
        return f"{blocks}.{index}.{int(match[3] == 'attentions')}.{_RESNET.get(match[5], match[5])}"
    if match := re.match(r"down_blocks\.(\d+)\.downsamplers\.0\.conv$", name):
        return f"input_blocks.{3 * int(match[1]) + 3}.0.op"
    if match := re.match(r"up_blocks\.(\d+)\.upsamplers\.0\.conv$", name):
        return f"output_blocks.{3 * int(match[1]) + 2}.2.conv"
    return name
