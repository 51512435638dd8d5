import json

import pytest
import safetensors.torch
import torch

from lib_dsm.errors import ModelError
from lib_dsm.extraction.compare_loras import compare
from lib_dsm.extraction.edit_lora import edit_lora
from tests.extraction.test_edit_lora import CONV, FULL, LINEAR, change, lora


def test_comparing_two_files(tmp_path):
    one, other = lora(tmp_path / "a.safetensors"), lora(tmp_path / "b.safetensors", seed=2)
    found = compare(one, other)
    for name, (distance, cosine) in found.modules.items():
        a, b = change(one, name), change(other, name)
        assert distance == pytest.approx(float((a - b).norm() / a.norm()), rel=1e-4)
        assert cosine == pytest.approx(float((a * b).sum() / a.norm() / b.norm()), abs=1e-4)
    wide = edit_lora([(one, 1.0)], tmp_path / "same.safetensors", FULL)
    same = compare(one, wide.path)
    assert same.distance < 1e-3 and same.cosine == pytest.approx(1.0)
    del_conv = {key: t for key, t in safetensors.torch.load_file(one).items() if CONV not in key}
    safetensors.torch.save_file(del_conv, tmp_path / "less.safetensors")
    assert compare(one, tmp_path / "less.safetensors").only_first == (CONV,)


def test_whole_differences_norms_and_embeddings_are_compared(tmp_path):
    one = lora(tmp_path / "a.safetensors")
    norm = {"lora_unet_out_0.w_norm": torch.ones(4), "lora_unet_out_0.b_norm": torch.zeros(4)}
    whole = {
        **norm,
        f"{CONV}.diff": change(one, CONV).reshape(10, 5, 3, 3),
        f"{LINEAR}.diff": torch.zeros(1),
        f"{LINEAR}.diff_b": torch.ones(20),
        "bundle_emb.me.string_to_param.*": torch.ones(2, 768),
    }
    safetensors.torch.save_file(whole, tmp_path / "w.safetensors")
    found = compare(one, tmp_path / "w.safetensors")
    assert found.modules[CONV] == (pytest.approx(0, abs=1e-5), pytest.approx(1.0))
    size = float(change(one, LINEAR).double().square().sum())
    assert found.modules[LINEAR] == (pytest.approx(((size + 20) / size) ** 0.5), 0.0)
    assert found.only_second == ("lora_unet_out_0",) and found.embeddings == {"me": "only in the second"}
    both = size + float(change(one, CONV).double().square().sum())
    assert found.distance == pytest.approx(((size + 20 + 4) / both) ** 0.5, rel=1e-4)
    whole |= {"lora_unet_out_0.w_norm": 3 * torch.ones(4), "bundle_emb.me.string_to_param.*": torch.zeros(2, 768)}
    safetensors.torch.save_file(whole, tmp_path / "v.safetensors")
    found = compare(tmp_path / "w.safetensors", tmp_path / "v.safetensors")
    assert found.modules["lora_unet_out_0"] == (pytest.approx(2.0), pytest.approx(1.0))
    assert found.embeddings == {"me": "different"} and "me is different" in found.text("w", "v")


def test_what_cannot_be_compared_is_named(tmp_path):
    loha = {f"lora_unet_mid_block_resnets_1_conv1.hada_w1_{part}": torch.ones(4, 4) for part in "ab"}
    dead = {f"{LINEAR}.lora_up.weight": torch.zeros(20, 6), f"{CONV}.lora_up.weight": torch.zeros(10, 6, 1, 1)}
    one = lora(tmp_path / "a.safetensors", **loha, **dead)
    found = compare(one, lora(tmp_path / "b.safetensors", **loha))
    assert found.not_compared == ("lora_unet_mid_block_resnets_1_conv1",)
    assert found.distance is None and found.modules[LINEAR][0] is None
    json.dumps([found.distance, found.modules], allow_nan=False)
    assert "conv1" in found.text("a", "b") and "a changes nothing" in found.text("a", "b")
    safetensors.torch.save_file({f"{CONV}.diff": torch.ones(10, 5, 1, 1)}, tmp_path / "w.safetensors")
    with pytest.raises(ModelError, match="another shape"):
        compare(lora(tmp_path / "c.safetensors"), tmp_path / "w.safetensors")
