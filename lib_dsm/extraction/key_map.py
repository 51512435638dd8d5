"""From the names of a checkpoint (ldm) to the module names that the WebUI's LoRA loader knows.

A LoRA file names a module by its diffusers name with underscores: `lora_unet_down_blocks_0_attentions_0_proj_in`,
`lora_te_text_model_encoder_layers_0_mlp_fc1`. The WebUI turns these back into ldm names with arithmetic that holds
for SD1.5 and SD2: two ResNet blocks a level, and the first upsampler second in its block. Where a smaller model
differs, and in SDXL, the ldm name itself is used (`lora_unet_output_blocks_2_2_conv`), which the WebUI also takes.
Norms of an OpenCLIP text encoder have no such name; their name in the WebUI's own model is used, which it takes as
well. Names alone decide, so no yaml with the model's sizes is needed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from lib_dsm.diffusion.ldm_layout import UNET_PREFIX

Shapes = Mapping[str, tuple[int, ...]]
Family = Literal["SD1", "SD2", "SDXL"]

CLIP_PREFIXES: Mapping[str, str] = {
    "SD1": "cond_stage_model.transformer.text_model.",
    "SDXL": "conditioner.embedders.0.transformer.text_model.",
}
OPENCLIP_PREFIXES: Mapping[str, str] = {"SD2": "cond_stage_model.model.", "SDXL": "conditioner.embedders.1.model."}
_CLIP_NAMES = {"SD1": "lora_te_text_model_", "SDXL": "lora_te1_text_model_"}
_OPENCLIP_NAMES = {"SD2": ("lora_te_text_model_", "model_"), "SDXL": ("lora_te2_text_model_", "1_model_")}
_CLIP_LAYER = re.compile(r"encoder\.layers\.\d+\..+$")
_OPENCLIP_LAYER = re.compile(r"transformer\.resblocks\.(\d+)\.(.+)$")
_OPENCLIP_PARTS = {"attn.out_proj": "self_attn_out_proj", "mlp.c_fc": "mlp_fc1", "mlp.c_proj": "mlp_fc2"}
_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:(\d+)\.)?(.+)$")
FIXED = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.2": "conv_out",
}
RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_PER_LEVEL = 3  # blocks of a level: two ResNets and the sampler on the way down, three ResNets on the way up
_JOINT = ("q", "k", "v")  # one below the other in OpenCLIP's `in_proj_weight`
ENDS = (f"{UNET_PREFIX}input_blocks.0.0.weight", f"{UNET_PREFIX}out.2.weight")


@dataclass(frozen=True)
class Layer:
    """A module of a LoRA file and where its numbers lie in the checkpoint.

    Attributes:
        name: the module's name in the file.
        weight: the checkpoint's key of the weight, "" if there is none.
        bias: that of the bias, "" if there is none or the loader cannot change it.
        shape: of the weight, as the module has it.
        rows: the first of the rows of `weight` that are the module's, where several share a tensor; else None.
        group: modules of one group are applied all together or not at all; "" if this one stands alone.
    """

    name: str
    weight: str
    bias: str
    shape: tuple[int, ...]
    rows: int | None = None
    group: str = ""

    @property
    def is_norm(self) -> bool:
        """Whether it is a group or layer norm, which are carried as they are."""
        return len(self.shape) == 1

    @property
    def is_convolution(self) -> bool:
        """Whether it is a convolution larger than 1×1."""
        return len(self.shape) == 4 and self.shape[2:] != (1, 1)

    @property
    def is_end(self) -> bool:
        """Whether it is the U-Net's first or last convolution, too thin for a low rank."""
        return self.weight in ENDS


def family_of(shapes: Iterable[str]) -> Family | None:
    """The family of a checkpoint by its text encoders, in canonical keys; None if it has none that is known."""
    found: dict[str, Family] = {
        OPENCLIP_PREFIXES["SDXL"]: "SDXL", OPENCLIP_PREFIXES["SD2"]: "SD2", CLIP_PREFIXES["SD1"]: "SD1",
    }  # fmt: skip
    keys = list(shapes)
    return next((family for prefix, family in found.items() if any(key.startswith(prefix) for key in keys)), None)


def canonical(key: str) -> str:
    """A key as current files have it: two older spellings of text encoders are brought to it."""
    for old, new in (
        ("conditioner.embedders.0.model.", "cond_stage_model.model."),  # Stability AI's later package
        (
            "cond_stage_model.transformer.",
            "cond_stage_model.transformer.text_model.",
        ),  # before transformers had the level
    ):
        if key.startswith(old) and not key.startswith(new):
            return new + key[len(old) :]
    return key


def text_prefixes(family: str) -> tuple[str, ...]:
    """How the canonical keys of a family's text encoders begin."""
    return tuple(prefixes[family] for prefixes in (CLIP_PREFIXES, OPENCLIP_PREFIXES) if family in prefixes)


def layers_of(shapes: Shapes, family: str = "SD1") -> list[Layer]:
    """Every module of a checkpoint that the WebUI's loader can change, in the checkpoint's order.

    `shapes` have canonical keys. These are all linear layers, convolutions and norms of the U-Net and the text
    encoders; an OpenCLIP encoder's queries, keys and values are three.
    """
    levels_are_standard = family != "SDXL" and f"{UNET_PREFIX}input_blocks.3.0.op.weight" in shapes
    found: list[Layer] = []
    for key, shape in shapes.items():
        module, _, parameter = key.rpartition(".")
        if parameter == "in_proj_weight":
            found += _joint(key, shape, family)
        elif parameter == "weight" and len(shape) in (1, 2, 4):
            name = _name(module, len(shape) == 1, family, levels_are_standard)
            if name:
                bias = f"{module}.bias"
                layer = Layer(name, key, bias if bias in shapes else "", shape)
                attention = module.endswith("attn.out_proj") and "resblocks" in module
                found.append(replace(layer, group=name.rpartition("_out_proj")[0]) if attention else layer)
    return found


def _name(module: str, norm: bool, family: str, levels_are_standard: bool) -> str:
    if module.startswith(UNET_PREFIX):
        ldm = module[len(UNET_PREFIX) :]
        return "lora_unet_" + ((_diffusers_name(ldm) if levels_are_standard else None) or ldm).replace(".", "_")
    clip = CLIP_PREFIXES.get(family)
    if clip is not None and module.startswith(clip):
        return _clip_name(module[len(clip) :], family)
    prefix = OPENCLIP_PREFIXES.get(family)
    if prefix is not None and module.startswith(prefix):
        return _openclip_name(module[len(prefix) :], norm, family)
    return ""


def _clip_name(module: str, family: str) -> str:
    if _CLIP_LAYER.match(module):
        return _CLIP_NAMES[family] + module.replace(".", "_")
    # The loader finds the last norm of SD1 only as SDXL files call it.
    return "lora_te1_text_model_final_layer_norm" if module == "final_layer_norm" else ""


def _openclip_name(module: str, norm: bool, family: str) -> str:
    names, own = _OPENCLIP_NAMES[family]
    if norm:
        return own + module.replace(".", "_")
    match = _OPENCLIP_LAYER.match(module)
    part = _OPENCLIP_PARTS.get(match[2]) if match else None
    return f"{names}encoder_layers_{match[1]}_{part}" if match and part else ""


def _joint(key: str, shape: tuple[int, ...], family: str) -> Iterator[Layer]:
    prefix = OPENCLIP_PREFIXES.get(family)
    match = _OPENCLIP_LAYER.match(key[len(prefix) :]) if prefix and key.startswith(prefix) else None
    if match is None or len(shape) != 2:
        return
    group = f"{_OPENCLIP_NAMES[family][0]}encoder_layers_{match[1]}_self_attn"
    width = shape[0] // 3
    for index, part in enumerate(_JOINT):
        yield Layer(f"{group}_{part}_proj", key, "", (width, shape[1]), index * width, group)


def _diffusers_name(ldm: str) -> str | None:
    """The diffusers name of a U-Net module, or None where the WebUI would not find the way back from it."""
    if ldm in FIXED:
        return FIXED[ldm]
    match = _BLOCK.match(ldm)
    if match is None:
        return None
    part, index, place, rest = match.group(1), int(match.group(2)), match.group(3), match.group(4)
    if part == "middle_block":
        return f"mid_block.{_MIDDLE[match.group(2)]}.{RESNET.get(rest, rest)}"
    level, position = divmod(index - 1, _PER_LEVEL) if part == "input_blocks" else divmod(index, _PER_LEVEL)
    if rest == "op":
        return f"down_blocks.{level}.downsamplers.0.conv"
    if rest == "conv":
        return f"up_blocks.{level}.upsamplers.0.conv" if place == ("1" if level == 0 else "2") else None
    blocks = "down_blocks" if part == "input_blocks" else "up_blocks"
    kind = "resnets" if place == "0" else "attentions"
    return f"{blocks}.{level}.{kind}.{position}.{RESNET.get(rest, rest)}"
