"""Which checkpoints can be compared, which weights of them count, and what is no change."""

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.checkpoint import extract_checkpoint
from tests.extraction.helpers import OPTIONS, TEXT, UNET, extract, tuned_like


def with_averages(tensors, averages):
    names = {key: "model_ema." + key[len("model.") :].replace(".", "") for key in tensors if key.startswith(UNET)}
    return {**tensors, **{name: averages[key].clone() for key, name in names.items()}}


def test_averaged_weights_are_taken_where_they_are_the_tuned_files_own(base, folder):
    key, other = f"{UNET}time_embed.0.weight", f"{UNET}time_embed.2.weight"
    live, averaged = tuned_like(base, [key]), tuned_like(base, [other])
    report = extract(folder, with_averages(live, averaged))
    assert [module.key for module in report.modules] == [other] and "EMA" in report.text()
    report = extract(folder, with_averages(live, averaged), replace(OPTIONS, averages="never"))
    assert [module.key for module in report.modules] == [key] and not report.note
    # A trainer that leaves the base's averages behind.
    safetensors.torch.save_file(with_averages(base, averaged), folder / "full.safetensors")
    safetensors.torch.save_file(with_averages(live, averaged), folder / "tuned.safetensors")
    report = extract_checkpoint(
        folder / "full.safetensors", folder / "tuned.safetensors", folder / "ema.safetensors", OPTIONS
    )
    assert [module.key for module in report.modules] == [key] and "base's own" in report.note


@pytest.mark.parametrize("kind", [torch.float32, torch.float16])
def test_averages_that_are_the_bases_plain_weights_hide_nothing(base, folder, kind):
    key = f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_v.weight"
    left_behind = {name: tensor.to(kind) if tensor.is_floating_point() else tensor for name, tensor in base.items()}
    report = extract(folder, with_averages(tuned_like(base, [key]), left_behind))
    assert [module.key for module in report.modules] == [key] and "passed over" in report.note
    # Averages of one layer alone are a training's all the same.
    report = extract(folder, with_averages(base, tuned_like(base, [key])))
    assert [module.key for module in report.modules] == [key] and "taken" in report.note


@pytest.mark.parametrize("key", [
    "lora_unet_x.lora_up.weight", "unet.x.attn1.to_q.lora_A.weight", "unet.x.attn1.processor.to_q_lora.up.weight",
    "text_encoder.x.q_proj.lora_linear_layer.down.weight", "lora_unet_x.lokr_w1", "lora_unet_x.hada_w1_a",
    "unet:0:up", "base_model.model.x.to_q.lora_B.default.weight", "lycoris_x.diff",
])  # fmt: skip
def test_a_lora_is_called_a_lora_whoever_wrote_it(folder, tmp_path, key):
    safetensors.torch.save_file({key: torch.ones(2, 2)}, tmp_path / "lora.safetensors")
    with pytest.raises(ModelError, match=r"lora\.safetensors is a LoRA already"):
        extract_checkpoint(
            folder / "base.safetensors", tmp_path / "lora.safetensors", tmp_path / "out.safetensors", OPTIONS
        )


@pytest.mark.parametrize("added", [1, -1])
def test_a_vocabulary_with_another_word_is_compared_where_both_have_rows(base, folder, added):
    table, key = f"{TEXT}embeddings.token_embedding.weight", f"{UNET}time_embed.0.weight"
    tuned = tuned_like(base, [key])
    changed = base[table].clone()
    changed[10] += 1
    tuned[table] = torch.cat([changed, torch.ones(1, changed.shape[1])]) if added > 0 else changed[:-1].clone()
    report = extract(folder, tuned)
    assert [module.key for module in report.modules] == [key]
    reasons = [item.reason for item in report.left_out]
    assert reasons == ["1 added vectors of tokens without a name"] * (added > 0) + ["1 vectors of tokens"]
    assert report.total_error == pytest.approx(
        (changed.shape[1] / (changed.shape[1] + float((tuned[key] - base[key]).square().sum()))) ** 0.5, rel=1e-3
    )
    with pytest.raises(ModelError, match="time_embed"):
        extract(folder, {**base, key: base[key][:-1].clone()})


def test_a_half_precision_copy_is_no_change_and_a_pickled_one_neither(base, folder, tmp_path):
    with pytest.raises(ModelError, match="equal"):
        extract(folder, {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in base.items()})
    torch.save({"state_dict": base}, tmp_path / "tuned.ckpt")
    with pytest.raises(ModelError, match="equal"):
        extract_checkpoint(folder / "base.safetensors", tmp_path / "tuned.ckpt", tmp_path / "o.safetensors", OPTIONS)
    assert not (tmp_path / "o.safetensors").exists()


@pytest.mark.parametrize("swapped", [False, True])
def test_two_half_precisions_of_one_model_are_equal_and_a_change_beyond_rounding_is_found(base, tmp_path, swapped):
    kinds = [torch.float16, torch.bfloat16]
    one, other = reversed(kinds) if swapped else kinds
    # Numbers of every size that a model has, those too small for half precision's full digits as well.
    small = f"{UNET}time_embed.2.weight"
    whole = {**base, small: base[small] * torch.logspace(-7, 0, base[small].numel()).reshape(base[small].shape)}

    def saved(name, tensors, kind):
        cut = {key: tensor.to(kind) if tensor.is_floating_point() else tensor for key, tensor in tensors.items()}
        safetensors.torch.save_file(cut, tmp_path / name)
        return tmp_path / name

    first = saved("base.safetensors", whole, one)
    with pytest.raises(ModelError, match="equal"):
        extract_checkpoint(first, saved("tuned.safetensors", whole, other), tmp_path / "out.safetensors", OPTIONS)
    key = f"{UNET}time_embed.0.weight"
    moved = whole[key].clone()
    moved[3, 4] *= 1 + 2**-7  # one step of bfloat16
    tuned = saved("tuned.safetensors", {**whole, key: moved}, other)
    report = extract_checkpoint(first, tuned, tmp_path / "out.safetensors", OPTIONS)
    assert [module.key for module in report.modules] == [key]


def test_the_vae_and_schedules_do_not_matter_but_a_changed_vae_is_listed(base, folder, tmp_path):
    vae = "first_stage_model.decoder.conv_in.weight"
    old = {**base, vae: torch.ones(2, 2), "betas": torch.ones(3), "model_ema.decay": torch.ones(1)}
    safetensors.torch.save_file(old, tmp_path / "a.safetensors")
    tuned = {**tuned_like(base, [f"{UNET}time_embed.0.weight"]), vae: torch.zeros(2, 2), "betas": torch.zeros(3)}
    safetensors.torch.save_file(tuned, tmp_path / "b.safetensors")
    report = extract_checkpoint(
        tmp_path / "a.safetensors", tmp_path / "b.safetensors", tmp_path / "o.safetensors", OPTIONS
    )
    assert [item.key for item in report.left_out] == [vae] and report.total_error == report.error


def test_checkpoints_that_do_not_fit_are_refused_in_a_sentence(base, folder):
    key = f"{UNET}input_blocks.0.0.weight"
    with pytest.raises(ModelError, match="64×9×3×3"):
        extract(folder, {**base, key: torch.ones(64, 9, 3, 3)})
    with pytest.raises(ModelError, match="lacks"):
        extract(folder, {name: tensor for name, tensor in base.items() if name != key})
    with pytest.raises(ModelError, match="lacks"):
        extract(folder, {**base, f"{UNET}input_blocks.9.0.op.weight": torch.ones(1)})
    with pytest.raises(ModelError, match="no text encoder"):
        extract(folder, {name: tensor for name, tensor in base.items() if name.startswith(UNET)})
    with pytest.raises(ModelError, match="ldm layout"):
        extract(folder, {"down_blocks.0.x": torch.ones(1)})
    with pytest.raises(ModelError, match="is a LoRA already"):
        extract(folder, {"lora_unet_conv_in.lora_up.weight": torch.ones(1)})
    with pytest.raises(ModelError, match=r"family SD1 and .* of SD2"):
        text = {"cond_stage_model.model.ln_final.weight": torch.ones(4)}
        extract(folder, {**{name: tensor for name, tensor in base.items() if name.startswith(UNET)}, **text})
    with pytest.raises(ModelError, match=r"NaN.*tuned"):
        extract(folder, {**base, key: base[key] * float("nan")})
