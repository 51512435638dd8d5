"""From the names of an SD1 checkpoint (ldm) to the module names of a LoRA file (kohya).

A LoRA file names a module by its diffusers name with underscores: `lora_unet_down_blocks_0_attentions_0_proj_in`,
`lora_te_text_model_encoder_layers_0_mlp_fc1`. The WebUI turns these back into ldm names with arithmetic that holds
for SD1.5: two ResNet blocks a level, and the first upsampler second in its block. Where a smaller model differs, the
ldm name itself is used (`lora_unet_output_blocks_2_2_conv`), which the WebUI also takes. Names alone decide, so no yaml
with the model's sizes is needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from lib_dsm.diffusion.ldm_layout import UNET_PREFIX

_TEXT = re.compile(r"cond_stage_model\.transformer\.(?:text_model\.)?(encoder\.layers\.\d+\..+)$")
_BLOCK = re.compile(r"(input_blocks|middle_block|output_blocks)\.(\d+)\.(?:(\d+)\.)?(.+)$")
_FIXED = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "out.2": "conv_out",
}
_RESNET = {
    "in_layers.2": "conv1",
    "out_layers.3": "conv2",
    "emb_layers.1": "time_emb_proj",
    "skip_connection": "conv_shortcut",
}
_MIDDLE = {"0": "resnets.0", "1": "attentions.0", "2": "resnets.1"}
_PER_LEVEL = 3  # blocks of a level: two ResNets and the sampler on the way down, three ResNets on the way up


def lora_modules(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, str]:
    """The weights of a checkpoint that a LoRA can carry: checkpoint key → LoRA module name, in the checkpoint's order.

    These are all linear layers and convolutions of the U-Net and the text encoder's layers.
    """
    levels_are_standard = f"{UNET_PREFIX}input_blocks.3.0.op.weight" in shapes
    result = {}
    for key, shape in shapes.items():
        module, _, parameter = key.rpartition(".")
        if parameter != "weight" or len(shape) not in (2, 4):
            continue
        name = _module_name(module, levels_are_standard)
        if name is not None:
            result[key] = name
    return result


def _module_name(module: str, levels_are_standard: bool) -> str | None:
    text = _TEXT.match(module)
    if text:
        return "lora_te_text_model_" + text.group(1).replace(".", "_")
    if not module.startswith(UNET_PREFIX):
        return None
    ldm = module[len(UNET_PREFIX) :]
    return "lora_unet_" + ((_diffusers_name(ldm) if levels_are_standard else None) or ldm).replace(".", "_")


def _diffusers_name(ldm: str) -> str | None:
    """The diffusers name of a U-Net module, or None where the WebUI would not find the way back from it."""
    if ldm in _FIXED:
        return _FIXED[ldm]
    match = _BLOCK.match(ldm)
    if match is None:
        return None
    part, index, place, rest = match.group(1), int(match.group(2)), match.group(3), match.group(4)
    if part == "middle_block":
        return f"mid_block.{_MIDDLE[match.group(2)]}.{_RESNET.get(rest, rest)}"
    level, position = divmod(index - 1, _PER_LEVEL) if part == "input_blocks" else divmod(index, _PER_LEVEL)
    if rest == "op":
        return f"down_blocks.{level}.downsamplers.0.conv"
    if rest == "conv":
        return f"up_blocks.{level}.upsamplers.0.conv" if place == ("1" if level == 0 else "2") else None
    blocks = "down_blocks" if part == "input_blocks" else "up_blocks"
    kind = "resnets" if place == "0" else "attentions"
    return f"{blocks}.{level}.{kind}.{position}.{_RESNET.get(rest, rest)}"
