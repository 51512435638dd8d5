"""Extraction on the demo world's checkpoint, applied by hand as a loader would."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from lib_dsm.demo import __file__ as demo
from lib_dsm.diffusion.ldm_layout import text_key_map, unet_key_map
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.errors import Cancelled, InputError, ModelError
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.jobs import Job
from lib_dsm.networks.inspect import describe

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


@pytest.fixture(scope="module")
def base():
    # Small enough to be saved many times: without the VAE and most of the vocabulary.
    tensors = safetensors.torch.load_file(MICRO)
    table = f"{TEXT}embeddings.token_embedding.weight"
    kept = {key: tensor.float() for key, tensor in tensors.items() if key.startswith((UNET, TEXT))}
    return {**kept, table: kept[table][:50].clone(), f"{TEXT}embeddings.position_ids": torch.arange(77)[None]}


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    safetensors.torch.save_file(base, folder / "base.safetensors")
    return folder


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
    """Add alpha / rank · up · down to every weight, by the formula that loaders use."""
    sizes = read_sizes(MICRO.with_suffix(".yaml"))
    names = {}
    for key, name in unet_key_map(sizes).items():
        names["lora_unet_" + name.removesuffix(".weight").replace(".", "_")] = key
        names["lora_unet_" + key.removeprefix(UNET).removesuffix(".weight").replace(".", "_")] = key
    for key, name in text_key_map(sizes).items():
        names["lora_te_text_model_" + name.removesuffix(".weight").replace(".", "_")] = key
    lora = safetensors.torch.load_file(lora_file)
    result = dict(base)
    for part in lora:
        module, _, parameter = part.partition(".")
        if parameter != "alpha":
            continue
        up, down = lora[f"{module}.lora_up.weight"].float(), lora[f"{module}.lora_down.weight"].float()
        weight = base[names[module]]
        if weight.dim() == 4:
            assert up.shape[2:] == (1, 1) and down.shape[1:] == weight.shape[1:]
            # A convolution with `down`, then a 1×1 convolution with `up`.
            change = torch.einsum("or,rikl->oikl", up[:, :, 0, 0], down)
        else:
            change = up @ down
        result[names[module]] = weight + float(lora[part]) / down.shape[0] * change
    return result


def extract(folder, tensors, options=OPTIONS, job=None):
    safetensors.torch.save_file(tensors, folder / "tuned.safetensors")
    out = folder / "out.safetensors"
    return extract_checkpoint(
        folder / "base.safetensors", folder / "tuned.safetensors", out, replace(options, overwrite=True), job
    )


def test_every_layer_with_a_low_rank_change_is_reproduced(base, folder):
    keys = [
        key for key, tensor in base.items() if tensor.dim() in (2, 4) and "embedding" not in key and "ids" not in key
    ]
    assert len(keys) > 150
    tuned = tuned_like(base, keys)
    report = extract(folder, tuned)
    assert sorted(module.key for module in report.modules) == sorted(keys)
    assert report.error < 1e-4 and report.total_error == report.error and not report.left_out
    applied = apply_by_hand(base, report.path)
    for key in keys:
        assert torch.allclose(applied[key], tuned[key], rtol=0, atol=1e-5), key


def test_unchanged_layers_are_skipped_and_what_has_no_place_is_listed(base, folder):
    keys = [UNET + key for key in SAMPLE] + [f"{TEXT}encoder.layers.0.self_attn.q_proj.weight"]
    changed = tuned_like(base, keys)
    extra = [f"{UNET}out.0.bias", f"{TEXT}final_layer_norm.weight", f"{TEXT}embeddings.token_embedding.weight"]
    for key in extra:
        changed[key] = changed[key] + 0.01
    report = extract(folder, changed)
    assert sorted(module.key for module in report.modules) == sorted(keys)
    assert sorted(item.key for item in report.left_out) == sorted(extra)
    assert report.unchanged == len(base) - 1 - len(keys) - len(extra)  # but for the position numbers
    assert report.error < 1e-4 < report.total_error
    assert all(key in report.text() for key in extra)
    applied = apply_by_hand(base, report.path)
    for key in base:
        assert torch.equal(applied[key], base[key]) == (key not in keys), key


def test_a_tiny_change_of_the_text_encoder_is_kept(base, folder):
    key = f"{TEXT}encoder.layers.2.mlp.fc1.weight"
    tuned = {**base, key: base[key] + low_rank_change(base[key].shape, 1, size=1e-5)}
    report = extract(folder, tuned, replace(OPTIONS, precision="fp16"))
    assert [module.key for module in report.modules] == [key]
    assert report.error < 0.02


def test_the_error_is_that_of_the_file(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys else tensor
             for key, tensor in base.items()}  # fmt: skip
    for precision in ("fp16", "fp32"):
        report = extract(folder, tuned, ExtractionOptions(rank=8, conv_rank=4, precision=precision))
        applied = apply_by_hand(base, report.path)
        lost = kept = 0.0
        for module in report.modules:
            residual = float(torch.linalg.norm(tuned[module.key] - applied[module.key]))
            change = float(torch.linalg.norm(tuned[module.key] - base[module.key]))
            assert module.error == pytest.approx(residual / change, rel=1e-3, abs=1e-6)
            least = torch.linalg.svdvals((tuned[module.key] - base[module.key]).flatten(1))[module.rank :].norm()
            assert residual <= float(least) * 1.01 + 1e-3 * change  # the latter for rounding
            assert module.rank == (4 if base[module.key].dim() == 4 and base[module.key].shape[-1] == 3 else 8)
            lost, kept = lost + residual**2, kept + change**2
        assert report.error == pytest.approx((lost / kept) ** 0.5, rel=1e-3)


def test_convolutions_at_rank_zero_are_left_out_and_said(base, folder):
    keys = [UNET + key for key in SAMPLE]
    report = extract(folder, tuned_like(base, keys), replace(OPTIONS, conv_rank=0))
    large = {key for key in keys if base[key].dim() == 4 and base[key].shape[-1] == 3}
    assert {item.key for item in report.left_out} == large and len(large) == 5
    assert {module.key for module in report.modules} == set(keys) - large
    assert report.total_error > report.error
    only = {**base, f"{UNET}out.2.weight": base[f"{UNET}out.2.weight"] * 2}
    with pytest.raises(ModelError, match="convolutions at rank 0"):
        extract(folder, only, replace(OPTIONS, conv_rank=0))


def test_names_types_and_metadata_of_the_file(base, folder):
    report = extract(folder, tuned_like(base, [UNET + key for key in SAMPLE]), ExtractionOptions(rank=4, conv_rank=2))
    with safetensors.safe_open(str(report.path), "pt") as file:
        metadata = file.metadata()
        assert all(file.get_slice(key).get_dtype() == "F16" for key in file.keys())  # noqa: SIM118
        assert file.get_tensor("lora_unet_output_blocks_2_2_conv.alpha").shape == ()
    assert metadata["ss_output_name"] == "out" and metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_network_module"] == "networks.lora" and metadata["ss_network_dim"] == "4"
    assert metadata["ss_sd_model_name"] == "base.safetensors" and len(metadata["sshs_model_hash"]) == 64
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2"}
    assert len(json.loads(metadata["dsm_layer_errors"])) == len(SAMPLE)
    found = describe(report.path)
    assert (found["kind"], found["family"], found["modules"]) == ("lora", "SD1", len(SAMPLE))
    first = report.path.read_bytes()
    assert extract(folder, tuned_like(base, [UNET + key for key in SAMPLE]), ExtractionOptions(rank=4, conv_rank=2))
    assert report.path.read_bytes() == first


def test_a_rank_above_the_layers_own_is_exact(base, folder):
    report = extract(folder, tuned_like(base, [f"{UNET}out.2.weight"]), replace(OPTIONS, conv_rank=64))
    assert report.modules[0].rank == 4 and report.error < 1e-5


def test_a_half_precision_copy_is_no_change_and_a_pickled_one_neither(base, folder, tmp_path):
    with pytest.raises(ModelError, match="equal"):
        extract(folder, {key: tensor.half() if tensor.is_floating_point() else tensor for key, tensor in base.items()})
    torch.save({"state_dict": base}, tmp_path / "tuned.ckpt")
    with pytest.raises(ModelError, match="equal"):
        extract_checkpoint(folder / "base.safetensors", tmp_path / "tuned.ckpt", tmp_path / "o.safetensors", OPTIONS)
    assert not (tmp_path / "o.safetensors").exists()


def test_a_pickled_checkpoint_gives_the_same_file(base, folder, tmp_path):
    tuned = tuned_like(base, [UNET + key for key in SAMPLE])
    report = extract(folder, tuned)
    torch.save({"state_dict": tuned}, tmp_path / "tuned.safetensors")  # told apart by content
    other = extract_checkpoint(
        folder / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "out.safetensors", OPTIONS
    )
    assert other.path.read_bytes() == report.path.read_bytes()


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
    with pytest.raises(ModelError, match="NaN"):
        extract(folder, {**base, key: base[key] * float("nan")})


def test_outputs_that_would_hurt_are_refused(base, folder, tmp_path):
    here = folder / "base.safetensors"
    before = here.read_bytes()
    for out, match in ((here, "itself"), (tmp_path / "lora.pt", "end in .safetensors")):
        with pytest.raises(InputError, match=match):
            extract_checkpoint(here, here, out, replace(OPTIONS, overwrite=True))
    (tmp_path / "there.safetensors").write_bytes(b"x")
    with pytest.raises(InputError, match="exists"):
        extract_checkpoint(here, here, tmp_path / "there.safetensors", OPTIONS)
    with pytest.raises(InputError, match="none"):
        extract_checkpoint(here, tmp_path / "none.safetensors", tmp_path / "o.safetensors", OPTIONS)
    assert here.read_bytes() == before


def test_it_reports_progress_and_stops_when_asked(base, folder, tmp_path):
    tuned = tuned_like(base, [f"{UNET}time_embed.0.weight"])
    job = Job("extract")
    extract(folder, tuned, job=job)
    assert job.done == job.total > 300
    job = Job("extract")
    job.cancel()
    with pytest.raises(Cancelled):
        extract_checkpoint(
            folder / "base.safetensors", folder / "tuned.safetensors", tmp_path / "o.safetensors", OPTIONS, job
        )
    assert not (tmp_path / "o.safetensors").exists()
