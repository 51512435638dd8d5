"""Extraction on the demo world's checkpoint, applied by hand as a loader would."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image

from lib_dsm.demo import __file__ as demo
from lib_dsm.diffusion.ldm_layout import text_key_map, unet_key_map
from lib_dsm.diffusion.sizes import read_sizes
from lib_dsm.errors import Cancelled, InputError, ModelError, StorageError
from lib_dsm.extraction.about import About
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.lora_file import LoraFile
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.extraction.survey import survey
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


def test_unchanged_layers_are_skipped_norms_and_lone_biases_are_whole_and_the_rest_is_listed(base, folder):
    keys = [UNET + key for key in SAMPLE] + [f"{TEXT}encoder.layers.0.self_attn.q_proj.weight"]
    changed = tuned_like(base, keys)
    exact = [f"{UNET}out.0.bias", f"{UNET}input_blocks.1.0.in_layers.0.weight", f"{TEXT}final_layer_norm.weight",
             f"{UNET}input_blocks.1.0.in_layers.2.bias", f"{TEXT}encoder.layers.1.layer_norm1.bias"]  # fmt: skip
    lost = [f"{UNET}time_embed.0.bias", f"{TEXT}embeddings.position_embedding.weight"]
    for key in exact + lost:
        changed[key] = changed[key] + 0.01
    report = extract(folder, changed)
    assert sorted(module.key for module in report.modules) == sorted(keys + exact)
    assert sorted(item.key for item in report.left_out) == sorted(lost)
    assert report.unchanged == len(base) - 1 - len(keys) - len(exact) - len(lost)  # but for the position numbers
    assert report.error < 1e-4 < report.total_error
    assert all(key in report.text() for key in lost)
    applied = apply_by_hand(base, report.path)
    for key in base:
        assert torch.equal(applied[key], base[key]) == (key not in keys + exact), key
    assert all(torch.allclose(applied[key], changed[key], atol=1e-6) for key in exact)
    squares = {key: float((changed[key] - base[key]).square().sum()) for key in changed if key in base}
    whole = sum(squares.values())
    assert report.total_error == pytest.approx((sum(squares[key] for key in lost) / whole) ** 0.5, rel=1e-3)


def test_changed_words_are_bundled_under_their_name(base, folder):
    table = f"{TEXT}embeddings.token_embedding.weight"
    # Row 320 would be a word; this table has the bytes' rows alone, and those of single letters at a word's end.
    wide = {**base, table: torch.cat([base[table]] * 8)}
    safetensors.torch.save_file(wide, folder / "wide.safetensors")
    tuned = {**wide, table: wide[table].clone()}
    tuned[table][320] += 1.0  # "a", the first row of a whole word
    tuned[table][64] += 0.1  # the letter within a word
    safetensors.torch.save_file(tuned, folder / "tuned.safetensors")
    report = extract_checkpoint(
        folder / "wide.safetensors", folder / "tuned.safetensors", folder / "words.safetensors", OPTIONS
    )
    assert report.words == ("a",)
    assert [item.reason for item in report.left_out] == ["1 vectors of tokens"]
    vectors = safetensors.torch.load_file(report.path)["bundle_emb.a.string_to_param.*"]
    assert torch.equal(vectors, tuned[table][320:321])


def test_energy_and_size_choose_ranks(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE if key not in ("input_blocks.0.0.weight", "out.2.weight")]
    tuned = {key: tensor + (0.01 + 0.02 * ("time_embed" in key)) * torch.randn(tensor.shape, generator=generator)
             if key in keys else tensor for key, tensor in base.items()}  # fmt: skip
    report = extract(folder, tuned, replace(OPTIONS, energy=0.8))
    for module in report.modules:
        values = torch.linalg.svdvals((tuned[module.key] - base[module.key]).flatten(1)).double().square()
        kept = values.cumsum(0) / values.sum()
        assert module.kind == "whole" or kept[module.rank - 2] < 0.8 <= kept[module.rank - 1] + 1e-4
    errors = []
    for size in (0.03, 0.06, 0.2):
        report = extract(folder, tuned, replace(OPTIONS, size=size, precision="fp16"))
        assert 0.85 * size * 1e6 < report.path.stat().st_size + 6000 and report.path.stat().st_size <= size * 1e6
        errors.append(report.total_error)
    assert errors == sorted(errors, reverse=True) and errors[0] > 1.1 * errors[2]
    # The same bytes at one rank for all leave more.
    fixed = extract(folder, tuned, replace(OPTIONS, rank=8, conv_rank=8, precision="fp16"))
    chosen = extract(folder, tuned, replace(OPTIONS, size=fixed.path.stat().st_size / 1e6, precision="fp16"))
    assert chosen.total_error < fixed.total_error
    with pytest.raises(InputError, match="too few"):
        extract(folder, tuned, replace(OPTIONS, size=0.001))
    with pytest.raises(InputError, match="Both"):
        extract(folder, tuned, replace(OPTIONS, size=1, energy=0.5))


def test_words_biases_and_the_card_are_within_the_size(base, folder, tmp_path):
    generator = torch.Generator().manual_seed(1)
    table = f"{TEXT}embeddings.token_embedding.weight"
    wide = {**base, table: torch.randn(1000, base[table].shape[1], generator=generator)}
    # Long biases beside weights that a small file has no room for.
    keys = [key for key in base if key.endswith(("emb_layers.1.weight", "in_layers.2.weight"))]
    biases = [key.removesuffix("weight") + "bias" for key in keys]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys + biases else tensor
             for key, tensor in wide.items()}  # fmt: skip
    tuned[table] = wide[table].clone()
    tuned[table][320:380] += 1.0
    for name, tensors in (("base", wide), ("tuned", tuned)):
        safetensors.torch.save_file(tensors, tmp_path / f"{name}.safetensors")
    out, options = tmp_path / "out.safetensors", ExtractionOptions(overwrite=True, conv_rank=0)
    picture = About(cover=Image.effect_noise((512, 512), 100))

    def made(size, about=None):
        return extract_checkpoint(
            tmp_path / "base.safetensors", tmp_path / "tuned.safetensors", out, replace(options, size=size), None, about
        )

    with pytest.raises(InputError, match="words") as found:
        made(0.005)
    least = float(str(found.value).split(" take ")[1].split(" MB")[0])
    for size in (least + 0.005, least + 0.05, least + 0.1):
        assert made(size).words and out.stat().st_size <= size * 1e6
        assert out.stat().st_size > size * 1e6 - 25_000  # the room is used
    with pytest.raises(InputError, match="card"):
        made(least + 0.01, picture)
    made(least + 0.4, picture)
    assert out.stat().st_size <= (least + 0.4) * 1e6


def test_the_size_is_told_to_the_byte_or_a_little_above(tmp_path):
    lora = LoraFile()
    for index in range(50):
        lora.add_module(f"lora_unet_{index}", torch.ones(32, 2).half(), torch.ones(2, 9).half(), (32, 9))
    lora.save(tmp_path / "o.safetensors")
    assert 0 <= lora.size() - (tmp_path / "o.safetensors").stat().st_size < 500


def test_a_survey_tells_size_and_error_before_anything_is_written(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys else tensor
             for key, tensor in base.items()}  # fmt: skip
    options = ExtractionOptions(rank=4, conv_rank=4)
    report = extract(folder, tuned, options)
    found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
    outlook = found.outlook(options)
    modules = [module for module in report.modules if module.kind == "low rank"]
    lost, whole = (sum((item.norm * share) ** 2 for item, share in pairs)
                   for pairs in ([(m, m.error) for m in modules], [(m, 1) for m in modules]))  # fmt: skip
    assert outlook.error == pytest.approx((lost / whole) ** 0.5, rel=6e-3)
    assert abs(outlook.bytes - report.path.stat().st_size) < 8000
    errors = [item.error for item in found.outlooks(options)]
    assert len(errors) > 3 and errors == sorted(errors, reverse=True)


def test_a_survey_knows_ranks_above_the_highest_and_convolutions_left_out(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [UNET + key for key in SAMPLE if key not in ("input_blocks.0.0.weight", "out.2.weight")]
    tuned = {key: tensor + 0.01 * torch.randn(tensor.shape, generator=generator) if key in keys else tensor
             for key, tensor in base.items()}  # fmt: skip
    for options in (ExtractionOptions(rank=24, conv_rank=16, max_rank=4), ExtractionOptions(rank=8, conv_rank=0)):
        report = extract(folder, tuned, options)
        found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
        outlook = found.outlook(options)
        assert outlook.error == pytest.approx(report.total_error, rel=0.01)
        assert abs(outlook.bytes - report.path.stat().st_size) < 8000
    # Energy and size go to the highest rank and no further.
    for choice in ({"energy": 1.0}, {"size": 5.0}):
        report = extract(folder, tuned, ExtractionOptions(max_rank=4, **choice))
        assert {module.rank for module in report.modules} == {4}


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


def test_a_folder_is_no_file_to_write_to_and_that_is_said_first(folder, tmp_path):
    (tmp_path / "out.safetensors").mkdir()
    with pytest.raises(InputError, match=r"out\.safetensors is a folder"):
        extract_checkpoint(
            folder / "base.safetensors", folder / "none.safetensors", tmp_path / "out.safetensors",
            replace(OPTIONS, overwrite=True),
        )  # fmt: skip


@pytest.mark.parametrize("choice", [{"rank": 16}, {"energy": 1.0}, {"size": 3.0}])
@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_rounding_is_no_rank(base, folder, choice, precision):
    key = f"{UNET}middle_block.1.proj_in.weight"
    tuned = {**base, key: base[key] + low_rank_change(base[key].shape, 1, size=0.002)}
    options = ExtractionOptions(precision=precision, max_rank=24, **choice)
    report = extract(folder, tuned, options)
    assert [module.rank for module in report.modules] == [RANK] and report.error < 1e-3 and not report.note
    found = survey(folder / "base.safetensors", folder / "tuned.safetensors", options)
    assert list(found.ranks(options).values()) == [RANK]


def test_an_energy_that_the_highest_rank_does_not_reach_is_told(base, folder):
    generator = torch.Generator().manual_seed(1)
    keys = [f"{UNET}time_embed.0.weight", f"{UNET}time_embed.2.weight"]
    tuned = {**base, **{key: base[key] + 0.01 * torch.randn(base[key].shape, generator=generator) for key in keys}}
    report = extract(folder, tuned, replace(OPTIONS, energy=0.9, max_rank=2))
    assert "highest rank of 2 holds less than 90.0% of 2 layers" in report.text()
    assert not extract(folder, tuned, replace(OPTIONS, energy=0.9, max_rank=1024)).note


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
            if module.kind == "whole":
                continue
            residual = float(torch.linalg.norm(tuned[module.key] - applied[module.key]))
            change = float(torch.linalg.norm(tuned[module.key] - base[module.key]))
            assert module.error == pytest.approx(residual / change, rel=1e-3, abs=1e-6)
            least = torch.linalg.svdvals((tuned[module.key] - base[module.key]).flatten(1))[module.rank :].norm()
            assert residual <= float(least) * 1.01 + 1e-3 * change  # the latter for rounding
            assert module.rank == (4 if base[module.key].dim() == 4 and base[module.key].shape[-1] == 3 else 8)
            lost, kept = lost + residual**2, kept + change**2
        kept += sum(module.norm**2 for module in report.modules if module.kind == "whole")
        assert report.error == pytest.approx((lost / kept) ** 0.5, rel=1e-3)


def test_convolutions_at_rank_zero_are_left_out_and_said(base, folder):
    keys = [UNET + key for key in SAMPLE]
    report = extract(folder, tuned_like(base, keys), replace(OPTIONS, conv_rank=0))
    ends = {f"{UNET}input_blocks.0.0.weight", f"{UNET}out.2.weight"}
    large = {key for key in keys if base[key].dim() == 4 and base[key].shape[-1] == 3} - ends
    assert {item.key for item in report.left_out} == large and len(large) == 3
    assert {module.key for module in report.modules} == set(keys) - large
    assert report.total_error > report.error
    only = {**base, f"{UNET}input_blocks.3.0.op.weight": base[f"{UNET}input_blocks.3.0.op.weight"] * 2}
    with pytest.raises(ModelError, match="convolutions at rank 0"):
        extract(folder, only, replace(OPTIONS, conv_rank=0))


def test_names_types_and_metadata_of_the_file(base, folder):
    report = extract(folder, tuned_like(base, [UNET + key for key in SAMPLE]), ExtractionOptions(rank=4, conv_rank=2))
    with safetensors.safe_open(str(report.path), "pt") as file:
        metadata = file.metadata()
        halves = [key for key in file.keys() if file.get_slice(key).get_dtype() == "F16"]  # noqa: SIM118
        assert halves and all(key.endswith(("up.weight", "down.weight")) for key in halves)
        assert file.get_tensor("lora_unet_output_blocks_2_2_conv.alpha").shape == ()
    assert metadata["ss_output_name"] == "out" and metadata["ss_base_model_version"] == "sd_v1"
    assert metadata["ss_network_module"] == "networks.lora" and metadata["ss_network_dim"] == "4"
    assert metadata["ss_sd_model_name"] == "base.safetensors" and len(metadata["sshs_model_hash"]) == 64
    assert json.loads(metadata["ss_network_args"]) == {"conv_dim": "2", "conv_alpha": "2"}
    assert len(json.loads(metadata["dsm_layer_errors"])) == len(SAMPLE) - 2  # without the ends
    found = describe(report.path)
    assert (found["kind"], found["family"], found["modules"]) == ("lora", "SD1", len(SAMPLE))
    first = report.path.read_bytes()
    assert extract(folder, tuned_like(base, [UNET + key for key in SAMPLE]), ExtractionOptions(rank=4, conv_rank=2))
    assert report.path.read_bytes() == first


def test_a_rank_above_the_layers_own_is_exact(base, folder):
    generator = torch.Generator().manual_seed(1)
    key = f"{UNET}time_embed.0.weight"
    change = torch.randn(base[key].shape, generator=generator)
    report = extract(folder, {**base, key: base[key] + change}, replace(OPTIONS, rank=1024))
    assert report.modules[0].kind == "whole" and report.error == 0
    assert torch.allclose(apply_by_hand(base, report.path)[key], base[key] + change, atol=1e-6)


def test_the_ends_are_carried_whole_whatever_the_rank_with_their_biases(base, folder):
    keys = [f"{UNET}{end}.{part}" for end in ("input_blocks.0.0", "out.2") for part in ("weight", "bias")]
    tuned = {**base, **{key: base[key] * 1.5 for key in keys}}
    report = extract(folder, tuned, replace(OPTIONS, conv_rank=0))
    assert sorted(module.key for module in report.modules) == sorted(keys) and report.total_error == 0
    applied = apply_by_hand(base, report.path)
    assert all(torch.allclose(applied[key], tuned[key], atol=1e-6) for key in keys)


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
    with pytest.raises(ModelError, match="is a LoRA already"):
        extract(folder, {"lora_unet_conv_in.lora_up.weight": torch.ones(1)})
    with pytest.raises(ModelError, match=r"family SD1 and .* of SD2"):
        text = {"cond_stage_model.model.ln_final.weight": torch.ones(4)}
        extract(folder, {**{name: tensor for name, tensor in base.items() if name.startswith(UNET)}, **text})
    with pytest.raises(ModelError, match=r"NaN.*tuned"):
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


def test_a_truncated_file_and_a_full_disk_leave_nothing_behind(base, folder, tmp_path, monkeypatch):
    tuned = tuned_like(base, [f"{UNET}time_embed.0.weight"])
    safetensors.torch.save_file(tuned, folder / "tuned.safetensors")
    whole = (folder / "tuned.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    out = tmp_path / "out" / "o.safetensors"
    with pytest.raises(ModelError, match="cut short"):
        extract_checkpoint(folder / "base.safetensors", tmp_path / "cut.safetensors", out, OPTIONS)
    real = os.fsync

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        extract_checkpoint(folder / "base.safetensors", folder / "tuned.safetensors", out, OPTIONS)
    monkeypatch.setattr(os, "fsync", real)
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_it_reports_progress_and_stops_when_asked(base, folder, tmp_path):
    tuned = tuned_like(base, [f"{UNET}time_embed.0.weight"])
    job = Job("extract")
    extract(folder, tuned, job=job)
    assert job.done == job.total > 150
    job = Job("extract")
    job.cancel()
    with pytest.raises(Cancelled):
        extract_checkpoint(
            folder / "base.safetensors", folder / "tuned.safetensors", tmp_path / "o.safetensors", OPTIONS, job
        )
    assert not (tmp_path / "o.safetensors").exists()
