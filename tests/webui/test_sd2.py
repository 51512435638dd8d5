"""Stable Diffusion 2 in the WebUI, and what is refused before it is loaded; the numbers are test_parity.py's."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from tests.webui.running import A1111

WORD = "zorgle"
SECOND = pytest.mark.hosts(A1111, why="the others know Stable Diffusion 2 by a text encoder of 1.4 GB alone")


@pytest.fixture
def second_loaded(webui):
    """The person works with the SD2 checkpoint."""
    webui.inside("snapshot")  # waits for the first model, in whose loading the WebUI must not be disturbed
    titles = {model["filename"]: model["title"] for model in webui.call("/sdapi/v1/sd-models")}
    webui.set_options(sd_model_checkpoint=titles[str(webui.second_checkpoint)])
    yield
    webui.set_options(sd_model_checkpoint=titles[str(webui.checkpoint)])


@SECOND
def test_it_is_trained_on_and_given_back(webui, second_loaded, tmp_path):
    picture, before = webui.txt2img(), webui.inside("snapshot")
    assert before["checkpoint"] == webui.second_checkpoint.name
    seen = webui.inside("train", vectors=str(tmp_path / "vectors"))
    assert seen["moved"] > 0
    for inside in (seen["begin"], seen["end"]):
        assert inside["trainable"] == inside["gradients"] == 0
        assert inside["weights"] == before["weights"]
    assert webui.inside("snapshot") == before
    assert webui.txt2img() == picture
    webui.inside("publish", vectors=str(tmp_path / "vectors"))
    try:
        assert webui.call("/sdapi/v1/embeddings")["loaded"][WORD]["shape"] == 256
    finally:
        (webui.data / "embeddings" / f"{WORD}.safetensors").unlink()
        webui.call("/sdapi/v1/refresh-embeddings", {})


@SECOND
def test_a_text_is_cut_into_tokens_with_either_encoder(webui, second_loaded):
    assert webui.inside("tokens", text="red hair, zorgle")[:3] == ["red", "hair", ","]


@SECOND
def test_attention_is_computed_in_float32_where_the_weights_are_not(webui, second_loaded):
    seen = webui.inside("attention_in_half_precision")
    assert seen["inside"] == "_forward_in_float32"
    assert seen["before"] == seen["previews"] == seen["after"] != seen["inside"]
    assert seen["difference"] < 1e-5


def test_it_computes_as_is_best_for_training_and_as_before_elsewhere(webui):
    seen = webui.inside("computing")
    before, inside, *previews, after = seen["channels last"]
    assert inside and previews and not any([before, after, *previews])
    assert seen["same gradients"] and seen["forward put back"]


def test_another_family_is_refused_before_it_is_loaded(webui):
    path = webui.checkpoint.with_name("big.safetensors")
    unet, text = "model.diffusion_model.input_blocks.0.0.weight", "conditioner.embedders.1.model.ln_final.weight"
    save_file({unet: torch.zeros(320, 4, 3, 3), text: torch.zeros(1280)}, path)
    before, log = webui.inside("snapshot"), webui.log.stat().st_size
    try:
        said = webui.inside("refusal", checkpoint=path.name)
    finally:
        path.unlink()
        webui.call("/sdapi/v1/refresh-checkpoints", {})
    assert said.startswith("ModelError: big.safetensors is an SDXL model")
    assert webui.inside("snapshot") == before
    assert b"Loading weights" not in webui.log.read_bytes()[log:]
