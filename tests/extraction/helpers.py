"""Changed copies of the demo world's checkpoint, and what a loader makes of a LoRA of them."""

from dataclasses import replace
from pathlib import Path

import safetensors.torch
import torch

from lib_dsm.demo import __file__ as demo
from lib_dsm.diffusion.ldm_layout import text_key_map, unet_key_map
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions

MICRO = Path(demo).parent / "models" / "micro.safetensors"
UNET, TEXT = "model.diffusion_model.", "cond_stage_model.transformer.text_model."
RANK = 3
OPTIONS = ExtractionOptions(rank=RANK, conv_rank=RANK, precision="fp32")
SAMPLE = (
    "time_embed.0.weight",
    "input_blocks.0.0.weight",
    "input_blocks.3.0.op.weight",
    "input_blocks.4.0.skip_connection.weight",
    "input_blocks.4.0.in_layers.2.weight",
    "middle_block.1.proj_in.weight",
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight",
    "output_blocks.2.2.conv.weight",
    "output_blocks.5.1.transformer_blocks.0.ff.net.0.proj.weight",
    "out.2.weight",
)


def low_rank_change(shape, seed, size=0.05):
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], int(torch.Size(shape[1:]).numel())
    change = torch.randn(rows, RANK, generator=generator) @ torch.randn(RANK, columns, generator=generator)
    return (size * change).reshape(shape)


def tuned_like(base, keys):
    return {key: tensor + low_rank_change(tensor.shape, hash_of(key)) if key in keys else tensor
            for key, tensor in base.items()}  # fmt: skip


def hash_of(key):
    return sum(map(ord, key))


def apply_by_hand(base, lora_file):
    """Change every weight and bias by the formulas that loaders use."""
    sizes = read_sizes(MICRO.with_suffix(".yaml"))
    names = {"lora_te1_text_model_final_layer_norm": f"{TEXT}final_layer_norm"}
    for key, name in unet_key_map(sizes).items():
        module = key.rpartition(".")[0]
        names["lora_unet_" + name.rpartition(".")[0].replace(".", "_")] = module
        names["lora_unet_" + module.removeprefix(UNET).replace(".", "_")] = module
    for key, name in text_key_map(sizes).items():
        names["lora_te_text_model_" + name.rpartition(".")[0].replace(".", "_")] = key.rpartition(".")[0]
    lora = {key: tensor for key, tensor in safetensors.torch.load_file(lora_file).items() if "bundle_emb" not in key}
    result = dict(base)
    for part, tensor in lora.items():
        module, _, parameter = part.partition(".")
        key = f"{names[module]}.{'bias' if parameter in ('diff_b', 'b_norm') else 'weight'}"
        if parameter in ("diff_b", "w_norm", "b_norm", "diff"):
            assert tensor.dtype == torch.float32
            result[key] = base[key] + tensor
        if parameter != "alpha":
            continue
        up, down = lora[f"{module}.lora_up.weight"].float(), lora[f"{module}.lora_down.weight"].float()
        if base[key].dim() == 4:
            assert up.shape[2:] == (1, 1) and down.shape[1:] == base[key].shape[1:]
            # A convolution with `down`, then a 1×1 convolution with `up`.
            change = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
        else:
            change = up @ down
        result[key] = base[key] + float(tensor) / down.shape[0] * change
    return result


def extract(folder, tensors, options=OPTIONS, job=None):
    safetensors.torch.save_file(tensors, folder / "tuned.safetensors")
    out = folder / "out.safetensors"
    return extract_checkpoint(
        folder / "base.safetensors", folder / "tuned.safetensors", out, replace(options, overwrite=True), job
    )
