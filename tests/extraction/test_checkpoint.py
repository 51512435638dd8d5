"""Extraction on the demo world's checkpoint, applied by hand as a loader would."""

import json
import os
from dataclasses import replace

import pytest
import safetensors
import safetensors.torch
import torch

from lib_dsm.errors import Cancelled, InputError, ModelError, StorageError
from lib_dsm.extraction.checkpoint import extract_checkpoint
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.jobs import Job
from lib_dsm.networks.inspect import describe
from tests.extraction.helpers import (
    OPTIONS,
    SAMPLE,
    TEXT,
    UNET,
    apply_by_hand,
    extract,
    low_rank_change,
    tuned_like,
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


def test_a_folder_is_no_file_to_write_to_and_that_is_said_first(folder, tmp_path):
    (tmp_path / "out.safetensors").mkdir()
    with pytest.raises(InputError, match=r"out\.safetensors is a folder"):
        extract_checkpoint(
            folder / "base.safetensors", folder / "none.safetensors", tmp_path / "out.safetensors",
            replace(OPTIONS, overwrite=True),
        )  # fmt: skip


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


def test_a_pickled_checkpoint_gives_the_same_file(base, folder, tmp_path):
    tuned = tuned_like(base, [UNET + key for key in SAMPLE])
    report = extract(folder, tuned)
    torch.save({"state_dict": tuned}, tmp_path / "tuned.safetensors")  # told apart by content
    other = extract_checkpoint(
        folder / "base.safetensors", tmp_path / "tuned.safetensors", tmp_path / "out.safetensors", OPTIONS
    )
    assert other.path.read_bytes() == report.path.read_bytes()


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
