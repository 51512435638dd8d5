"""Training borrows the WebUI's model and gives it back as it was."""

from __future__ import annotations

import threading

import pytest
from PIL import Image

from lib_dsm.demo.install import install_checkpoint
from tests.webui.running import A1111, REFORGE

WORD = "zorgle"
TRAINING_ATTENTION = {A1111: "scaled_dot_product_attention_forward", REFORGE: "_attend"}


@pytest.mark.parametrize("fail", [False, True])
def test_only_the_vectors_change(webui, fail):
    picture, before = webui.txt2img(), webui.inside("snapshot")
    seen = webui.inside("train", fail=fail)
    assert seen.get("failed", False) is fail
    assert seen["moved"] > 0
    assert seen["random states kept"]
    for inside in (seen["begin"], seen["end"]):
        assert inside["locked"]
        assert inside["trainable"] == inside["gradients"] == 0
        assert inside["weights"] == before["weights"]
        assert inside["attention"] == TRAINING_ATTENTION[webui.kind] != before["attention"]
    assert webui.inside("snapshot") == before
    assert webui.txt2img() == picture


@pytest.mark.parametrize("fail", [False, True])
def test_the_baked_vae_is_used_and_the_external_one_put_back(webui, external_vae, fail):
    with_external, before = webui.txt2img(), webui.inside("snapshot")
    assert before["vae"].endswith(external_vae)
    seen = webui.inside("train", fail=fail)
    assert seen["vae_replaced"] == external_vae
    assert seen["begin"]["vae"] is seen["end"]["vae"] is None
    assert seen["begin"]["autoencoder"] == seen["end"]["autoencoder"] != before["autoencoder"]
    assert webui.inside("snapshot") == before
    assert webui.txt2img() == with_external
    webui.set_options(sd_vae="None")
    assert webui.inside("snapshot")["autoencoder"] == seen["end"]["autoencoder"]
    assert webui.txt2img() != with_external


@pytest.mark.parametrize("fail", [False, True])
def test_another_checkpoint_is_loaded_and_the_first_one_put_back(webui, external_vae, fail):
    picture, before = webui.txt2img(), webui.inside("snapshot")
    seen = webui.inside("train", checkpoint=webui.other_checkpoint.name, fail=fail)
    for inside in (seen["begin"], seen["end"]):
        assert inside["checkpoint"] == webui.other_checkpoint.name
        assert inside["vae"] is None
        assert inside["options"] == before["options"]
    assert webui.inside("snapshot") == before
    assert webui.txt2img() == picture


def test_the_last_generations_lora_is_taken_off(webui):
    without = webui.txt2img()
    assert webui.txt2img(prompt="solo, red hair, smile <lora:strong:1>") != without
    assert webui.inside("stale_networks") == {"changed": True, "as on disk": True}
    assert webui.txt2img() == without


def test_what_is_set_aside_is_named(webui, external_vae):
    webui.txt2img(prompt="solo, red hair, smile <lora:strong:1>", tiling=True)
    said = webui.inside("set_aside")
    assert said["networks"] == ["strong"] and said["vae"] == external_vae and said["tiling"]
    assert not said["unet"] and not said["hypertile"] and not said["patches"] and not said["unloaded"]
    webui.txt2img()
    assert not webui.inside("set_aside")["networks"]


def test_hypertile_is_off_in_training_and_on_again_afterwards(webui):
    if webui.kind != A1111:
        pytest.skip("HyperTile is put onto a generation here, not into the model")
    webui.set_options(hypertile_enable_unet=True)
    try:
        webui.txt2img()
        said = webui.inside("set_aside")
    finally:
        webui.set_options(hypertile_enable_unet=False)
        webui.txt2img()
    assert (said["hypertile"], said["tiled inside"], said["tiled after"]) == (True, False, True)
    assert not said["patches"]  # those of hypertile itself are none
    assert not webui.inside("set_aside")["hypertile"]


def test_another_engine_and_an_extensions_functions_in_the_unet_are_named(webui):
    said = webui.inside("other_engine_and_patch")
    assert said["unet"] == "[TRT] test" and said["patches"] == ["dsm_checks"]
    assert not webui.inside("set_aside")["unet"]


@pytest.mark.parametrize("sampler", ["Euler a", "Euler", "DDIM", "DPM++ 2M"])
def test_a_preview_is_what_txt2img_will_draw(webui, sampler, tmp_path):
    vectors, drawn = str(tmp_path / "vectors"), tmp_path / "preview.png"
    prompt, negative = f"solo, ({WORD}:1.2), smile", "hat"
    webui.inside("train", vectors=vectors, steps=4)
    webui.inside(
        "preview", prompt=prompt, negative=negative, sampler=sampler, clip_skip=2, vectors=vectors, out=str(drawn)
    )
    settings = {"prompt": prompt, "negative_prompt": negative, "sampler_name": sampler}
    options = {"override_settings": {"CLIP_stop_at_last_layers": 2}}
    as_plain_word = webui.txt2img(**settings, **options)
    webui.inside("publish", vectors=vectors)
    try:
        assert WORD in webui.call("/sdapi/v1/embeddings")["loaded"]
        assert webui.txt2img(**settings, **options) == Image.open(drawn).tobytes() != as_plain_word
        assert webui.txt2img(**settings) != as_plain_word
    finally:
        (webui.data / "embeddings" / f"{WORD}.safetensors").unlink()
        webui.call("/sdapi/v1/refresh-embeddings", {})


def test_generation_waits_and_interrupt_stops_the_training(webui):
    seen, pictures = {}, []
    picture = webui.txt2img()
    training = threading.Thread(target=lambda: seen.update(webui.inside("wait_for_interrupt", seconds=60)))
    training.start()
    while webui.call("/sdapi/v1/progress")["state"]["job"] != "DSM training":
        pass
    generation = threading.Thread(target=lambda: pictures.append(webui.txt2img()))
    generation.start()
    while (progress := webui.call("/sdapi/v1/progress"))["textinfo"] is None:
        pass
    assert progress["textinfo"] == "step &lt;3&gt;"
    assert 0.29 < progress["progress"] < 0.32
    assert not pictures
    webui.call("/sdapi/v1/interrupt", {})
    training.join()
    generation.join()
    assert seen == {"at once": False, "stopped": True, "again": False}
    assert pictures == [picture]


def test_interrupt_gives_a_preview_up(webui):
    assert all(webui.inside("interrupted_preview").values())


def test_a_checkpoint_chosen_meanwhile_waits(webui):
    titles = {model["filename"]: model["title"] for model in webui.call("/sdapi/v1/sd-models")}
    other = titles[str(webui.other_checkpoint)]
    try:
        seen = webui.inside("checkpoint_chosen_meanwhile", title=other)
    finally:
        webui.set_options(sd_model_checkpoint=titles[str(webui.checkpoint)])
    assert seen == {"inside": webui.checkpoint.name, "chosen": other, "after": webui.other_checkpoint.name}


def test_a_model_that_is_changed_under_the_trainer_is_noticed(webui):
    said = webui.inside("model_moved")
    assert said["at first"] == said["after a preview"] == ""
    assert "VAE other.safetensors" in said["VAE"]
    assert "was changed" in said["unloaded"]


def test_embeddings_reloaded_meanwhile_do_not_take_the_vectors_away(webui):
    assert webui.inside("embeddings_refreshed_meanwhile")


def test_what_cannot_be_trained_is_refused_with_a_sentence(webui):
    before = webui.inside("snapshot")
    said = webui.inside("refusals")
    assert said["second session"].startswith("BusyError: Another training")
    assert 'no checkpoint "nothing.safetensors"' in said["no such checkpoint"]
    for reason in ("SDXL", "inpainting"):
        assert said[reason].startswith("ModelError") and reason in said[reason]
    assert webui.inside("snapshot") == before


@pytest.mark.hosts(REFORGE, why="AUTOMATIC1111's WebUI builds any sizes that a yaml names")
def test_sizes_that_reforge_cannot_build_are_refused_before_they_are_loaded(webui):
    before = webui.inside("snapshot")
    demo = install_checkpoint(webui.checkpoint.parent)
    try:
        said = webui.inside("refusal", checkpoint=demo.name)
    finally:
        demo.unlink()
        demo.with_suffix(".yaml").unlink()
        webui.call("/sdapi/v1/refresh-checkpoints", {})
    assert said.startswith(f"ModelError: {demo.name} has a U-Net of width 64")
    assert webui.inside("snapshot") == before
