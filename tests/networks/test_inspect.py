import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from PIL import Image

import lib_dsm.demo
from lib_dsm.errors import ModelError
from lib_dsm.networks.embedding import Embedding, save_png, save_pt, save_safetensors
from lib_dsm.networks.inspect import describe, describe_text

MICRO = Path(lib_dsm.demo.__file__).parent / "models" / "micro.safetensors"
EMBEDDING = Embedding("asuka", torch.ones(4, 768), 500, "nai", "0123456789", 2)


def test_embeddings(tmp_path):
    save_pt(EMBEDDING, tmp_path / "a.pt")
    save_safetensors(EMBEDDING, tmp_path / "a.safetensors")
    save_png(EMBEDDING, Image.new("RGB", (8, 8)), tmp_path / "a.png")
    for name in ("a.pt", "a.safetensors", "a.png"):
        found = describe(tmp_path / name)
        assert (found["kind"], found["vectors"], found["width"], found["family"]) == ("embedding", 4, 768, "SD1")
        text = describe_text(found)
        assert "an embedding of 4 vectors × 768" in text and "nai" in text and "500" in text
        json.dumps(found)


def test_the_micro_checkpoint():
    found = describe(MICRO)
    assert (found["kind"], found["family"], found["context_width"]) == ("checkpoint", "SD1", 80)
    assert found["has_vae"] and found["has_text_encoder"]
    assert "a checkpoint of the family SD1" in describe_text(found)


@pytest.mark.parametrize(
    ("encoder", "family", "width"),
    [
        ("cond_stage_model.model.ln_final.weight", "SD2", 1024),
        ("conditioner.embedders.0.x", "SDXL", 2048),
        ("nothing", "SD1", 768),
    ],
)
def test_families_of_checkpoints(tmp_path, encoder, family, width):
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    tensors = {key: torch.ones(4, width), encoder: torch.ones(1)}
    torch.save({"state_dict": tensors}, tmp_path / "a.ckpt")
    assert describe(tmp_path / "a.ckpt")["family"] == family


def test_an_inpainting_model_is_said_to_be_one(tmp_path):
    tensors = {"model.diffusion_model.input_blocks.0.0.weight": torch.ones(2, 9, 3, 3)}
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors")
    assert "inpainting" in describe_text(describe(tmp_path / "a.safetensors"))


def test_a_lora_with_a_bundled_embedding(tmp_path):
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k"
    tensors = {
        f"{name}.lora_up.weight": torch.ones(320, 8),
        f"{name}.lora_down.weight": torch.ones(8, 768),
        f"{name}.alpha": torch.tensor(8.0),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": torch.ones(2, 2),
        "bundle_emb.asuka.string_to_param.*": torch.ones(4, 768),
    }
    safetensors.torch.save_file(tensors, tmp_path / "a.safetensors", {"ss_output_name": "asuka"})
    found = describe(tmp_path / "a.safetensors")
    assert (found["kind"], found["family"], found["ranks"]) == ("lora", "SD1", [8])
    assert (found["modules"], found["unet_modules"], found["text_encoder_modules"]) == (2, 1, 1)
    assert found["embeddings"] == ["asuka"] and found["methods"] == ["LoHa", "LoRA"]
    assert "bundled embedding" in describe_text(found)


def test_a_hypernetwork(tmp_path):
    layers = {"linear.0.weight": torch.ones(2, 2)}
    content = {768: (layers, layers), 320: (layers, layers), "step": 9, "name": "h", "layer_structure": [1, 2, 1]}
    torch.save(content, tmp_path / "h.pt")
    found = describe(tmp_path / "h.pt")
    assert (found["kind"], found["widths"], found["layer_structure"]) == ("hypernetwork", [320, 768], [1, 2, 1])
    assert "a hypernetwork" in describe_text(found)


def test_everything_else(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert describe(tmp_path / "a.png")["kind"] == "picture"
    safetensors.torch.save_file({"decoder.conv_in.weight": torch.ones(1), "x": torch.ones(1)}, tmp_path / "v")
    assert describe(tmp_path / "v")["kind"] == "vae"
    torch.save([torch.ones(2)] * 4, tmp_path / "old.pt")
    assert "4 unnamed tensors" in describe_text(describe(tmp_path / "old.pt"))
    (tmp_path / "page.pt").write_text("<html>")
    assert "web page" in describe_text(describe(tmp_path / "page.pt"))
    torch.save({"a": 1}, tmp_path / "other.pt")
    assert describe(tmp_path / "other.pt")["kind"] == "unknown"
    (tmp_path / "cut.pt").write_bytes((tmp_path / "other.pt").read_bytes()[:100])
    with pytest.raises(ModelError):
        describe(tmp_path / "cut.pt")


@pytest.mark.parametrize("names", [("unet:0:up", "unet:0:down"), ("unet.mid_block.attn1.to_q.lora.up.weight",
                                   "unet.mid_block.attn1.to_q.lora.down.weight")])  # fmt: skip
def test_loras_of_other_tools_are_told(tmp_path, names):
    safetensors.torch.save_file({name: torch.ones(2, 2) for name in names}, tmp_path / "x.safetensors")
    found = describe(tmp_path / "x.safetensors")
    assert found["kind"] == "lora" and found["modules"] == 1 and "extract lora" in describe_text(found)
