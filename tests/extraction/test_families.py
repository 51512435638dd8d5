"""Extraction from SD2 and SDXL checkpoints, made of a few layers each."""

import pytest
import safetensors.torch
import torch

from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions
from tests.extraction.test_key_map import openclip

UNET = {
    "model.diffusion_model.input_blocks.3.0.op.weight": (8, 8, 3, 3),
    "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (8, 16),
}
OPTIONS = ExtractionOptions(rank=2, conv_rank=2, precision="fp32")


def checkpoint(shapes, seed):
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def extract(folder, base, tuned, options=OPTIONS):
    for name, tensors in (("base", base), ("tuned", tuned)):
        torch.save(tensors, folder / f"{name}.ckpt")  # which keeps the order of the keys
    out = folder / "out.safetensors"
    report = extract_checkpoint(folder / "base.ckpt", folder / "tuned.ckpt", out, options)
    return report, safetensors.torch.load_file(out), safetensors.safe_open(str(out), "pt").metadata()


def product(tensors, name):
    return tensors[f"{name}.lora_up.weight"] @ tensors[f"{name}.lora_down.weight"]


@pytest.mark.parametrize("prefix", ["cond_stage_model.model.", "conditioner.embedders.0.model."])
def test_joint_projections_of_sd2_are_three_modules_and_come_all_or_none(tmp_path, prefix):
    base = checkpoint({**UNET, **openclip(prefix, 2)}, 1)
    joint = f"{prefix}transformer.resblocks.1.attn.in_proj_weight"
    tuned = {key: tensor.clone() for key, tensor in base.items()}
    change = torch.outer(torch.ones(8), torch.arange(8.0))
    tuned[joint][8:16] += change  # the keys alone
    tuned[f"{prefix}transformer.resblocks.1.attn.in_proj_bias"] += 1
    tuned[f"{prefix}transformer.resblocks.0.ln_1.weight"] += 1
    report, tensors, metadata = extract(tmp_path, base, tuned)
    name = "lora_te_text_model_encoder_layers_1_self_attn_{}_proj"
    assert {key.split(".")[0] for key in tensors} == {
        *(name.format(part) for part in ("q", "k", "v", "out")), "model_transformer_resblocks_0_ln_1"
    }  # fmt: skip
    assert torch.allclose(product(tensors, name.format("k")), change, atol=1e-5)
    assert not any(product(tensors, name.format(part)).any() for part in ("q", "v", "out"))
    assert [item.key.split(".")[-1] for item in report.left_out] == ["in_proj_bias"]
    assert metadata["ss_v2"] == "True" and metadata["ss_base_model_version"] == "sd_v2"


@pytest.mark.parametrize("second_first", [False, True])
def test_sdxl_with_both_encoders_and_a_changed_word(tmp_path, second_first):
    second, first = "conditioner.embedders.1.model.", "conditioner.embedders.0.transformer.text_model."
    clip = {
        f"{first}encoder.layers.0.self_attn.q_proj.weight": (8, 8),
        f"{first}encoder.layers.0.self_attn.q_proj.bias": (8,),
        f"{first}embeddings.token_embedding.weight": (400, 8),
    }
    big = {**openclip(second), f"{second}token_embedding.weight": (400, 8)}
    shapes = {**big, **clip, **UNET} if second_first else {**UNET, **clip, **big}
    base = checkpoint(shapes, 1)
    tuned = {key: tensor.clone() for key, tensor in base.items()}
    table = f"{second}token_embedding.weight"
    tuned[table][320] += 1
    tuned[f"{first}encoder.layers.0.self_attn.q_proj.weight"] += 1
    tuned[f"{second}transformer.resblocks.0.mlp.c_fc.weight"] += 1
    tuned["model.diffusion_model.input_blocks.3.0.op.weight"] += 1
    report, tensors, metadata = extract(tmp_path, base, tuned)
    assert {key.split(".")[0] for key in tensors} == {
        "lora_unet_input_blocks_3_0_op", "lora_te1_text_model_encoder_layers_0_self_attn_q_proj",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1", "bundle_emb",
    }  # fmt: skip
    assert torch.equal(tensors["bundle_emb.a.clip_g"], tuned[table][320:321])
    assert torch.equal(tensors["bundle_emb.a.clip_l"], base[f"{first}embeddings.token_embedding.weight"][320:321])
    assert report.total_error < 1e-5 and metadata["ss_base_model_version"].startswith("sdxl_")


def test_an_inpainting_models_further_channels_are_told(tmp_path):
    end = "model.diffusion_model.input_blocks.0.0.weight"
    base = checkpoint({**UNET, end: (8, 9, 3, 3), **openclip("cond_stage_model.model.")}, 1)
    tuned = {**base, end: base[end] + 1}
    report, tensors, _ = extract(tmp_path, base, tuned)
    assert tensors["lora_unet_conv_in.diff"].shape == (8, 4, 3, 3)
    assert [item.key for item in report.left_out] == [end] and report.total_error > 0.5
