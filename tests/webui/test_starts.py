"""However the WebUI was started and set: training works, trains the same, and the WebUI draws what it drew before."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from PIL import Image

from tests.webui.running import OTHER_VAE, running

MEDVRAM, LOWVRAM, PLAIN = "medvram, vae-path", "lowvram", "medvram-sdxl"
STARTS = {
    MEDVRAM: ["--medvram", "--vae-path", f"{{models}}/VAE/{OTHER_VAE}"],
    LOWVRAM: ["--lowvram", "--opt-sub-quad-attention"],
    PLAIN: ["--medvram-sdxl", "--disable-opt-split-attention", "--no-half-vae", "--upcast-sampling"],
}
# What can be set while it runs; the value of an option that was never set is its default.
SETTINGS = {
    "fp8": ({"fp8_storage": "Enable"}, {"fp8_storage": "Disable"}),
    "fp8 for SDXL": ({"fp8_storage": "Enable for SDXL"}, {"fp8_storage": "Disable"}),
    "two checkpoints, one on the card": ({"sd_checkpoints_limit": 2}, {"sd_checkpoints_limit": 1}),
    "two checkpoints on the card": (
        {"sd_checkpoints_limit": 2, "sd_checkpoints_keep_in_cpu": False},
        {"sd_checkpoints_limit": 1, "sd_checkpoints_keep_in_cpu": True},
    ),
    "fp8, two checkpoints": (
        {"fp8_storage": "Enable", "sd_checkpoints_limit": 2},
        {"fp8_storage": "Disable", "sd_checkpoints_limit": 1},
    ),
    "checkpoints cached": (
        {"sd_checkpoint_cache": 2, "sd_vae_checkpoint_cache": 2, "sd_vae": OTHER_VAE},
        {"sd_checkpoint_cache": 0, "sd_vae_checkpoint_cache": 0, "sd_vae": "None"},
    ),
    **{
        attention: ({"cross_attention_optimization": attention}, {"cross_attention_optimization": "Automatic"})
        for attention in ("None", "Doggettx", "InvokeAI", "V1", "sub-quadratic", "sdp - scaled dot product")
    },
    "attention upcast": ({"upcast_attn": True}, {"upcast_attn": False}),
    "tokens merged": ({"token_merging_ratio": 0.5}, {"token_merging_ratio": 0.0}),
    "prompts padded": ({"pad_cond_uncond": True}, {"pad_cond_uncond": False}),
    "prompts padded, v0": ({"pad_cond_uncond_v0": True}, {"pad_cond_uncond_v0": False}),
    "no emphasis": ({"emphasis": "None"}, {"emphasis": "Original"}),
    "emphasis without normalisation": ({"emphasis": "No norm"}, {"emphasis": "Original"}),
    "hypertile": (
        {"hypertile_enable_unet": True, "hypertile_enable_vae": True},
        {"hypertile_enable_unet": False, "hypertile_enable_vae": False},
    ),
    "noise schedule": ({"sd_noise_schedule": "Zero Terminal SNR"}, {"sd_noise_schedule": "Default"}),
    "alphas downcast": ({"use_downcasted_alpha_bar": True}, {"use_downcasted_alpha_bar": False}),
}  # fmt: skip
WORD = "zorgstart"


@pytest.fixture(scope="module", params=STARTS)
def start(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def webui(start, tmp_path_factory):
    folder = os.environ.get("DSM_WEBUI")
    if not folder:
        pytest.skip("DSM_WEBUI names no WebUI")
    with running(Path(folder), tmp_path_factory.mktemp("webui"), STARTS[start]) as started:
        yield started


@pytest.fixture(scope="session")
def vectors() -> dict[str, str]:
    """What a training came to, by the checkpoint; the same however the WebUI was started."""
    return {}


def changed(before: dict, after: dict) -> dict:
    return {key: (before[key], after[key]) for key in before if before[key] != after[key]}


def trained_and_the_same_afterwards(webui, vectors: dict[str, str], tmp_path: Path) -> None:
    """Train on either checkpoint, once to the end and once into an error; look at everything before and after."""
    picture = webui.txt2img(prompt="solo, (red hair:1.3), smile")
    before, memory = webui.inside("snapshot"), webui.inside("memory")
    for checkpoint in (webui.checkpoint.name, webui.other_checkpoint.name):
        for fail in (False, True):
            out = tmp_path / "vectors"
            seen = webui.inside("train", checkpoint=checkpoint, fail=fail, vectors=str(out))
            assert seen.get("failed", False) is fail
            assert seen["begin"]["vae"] is seen["end"]["vae"] is None
            assert seen["begin"]["attention"] == "scaled_dot_product_attention_forward"
            assert seen["begin"]["weights"] == seen["end"]["weights"]
            assert vectors.setdefault(checkpoint, out.read_bytes().hex()) == out.read_bytes().hex()
            assert changed(before, webui.inside("snapshot")) == {}
            after = webui.inside("memory")
            assert (
                changed({**memory, "loaded": [], "on the card": ""}, {**after, "loaded": [], "on the card": ""}) == {}
            )
            assert after["loaded"][0] == memory["loaded"][0]
            assert webui.txt2img(prompt="solo, (red hair:1.3), smile") == picture


def test_the_webui_draws_what_it_drew_and_every_training_is_the_same(webui, vectors, tmp_path):
    trained_and_the_same_afterwards(webui, vectors, tmp_path)


def test_the_status_shows_the_vae_as_it_is_and_as_training_uses_it(webui, start):
    model = webui.call("/dsm/v1/status")["model"]
    assert model["checkpoint"] == webui.checkpoint.name and model["clip_skip"] == 1 and not model["note"]
    assert model["vae"] == (OTHER_VAE if start == MEDVRAM else "baked into the checkpoint")
    assert model["vae_in_training"] == "baked into the checkpoint"


def test_parts_stay_while_they_are_trained_through_and_move_in_previews(webui, start):
    moved = webui.inside("parts_moved")
    assert moved["step"] == moved["step after it"] == []
    if start == PLAIN:
        assert moved["preview"] == moved["afterwards"] == []
        return
    for time in ("preview", "afterwards"):
        assert "first_stage_model" in moved[time]
        assert any(name.startswith("cond_stage_model") for name in moved[time])
    blocks = [name for name in moved["preview"] if name.startswith("model")]
    assert blocks == ["model"] if start == MEDVRAM else len(blocks) > 3


def test_a_run_says_what_it_sets_aside_and_its_previews_are_txt2imgs(webui, start, character):
    webui.call("/dsm/v1/project/open", {"path": str(character)})
    preview = {"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 4, "seed": 1, "sampler": "Euler a"}
    config = {
        "name": WORD, "checkpoint": webui.checkpoint.name, "dataset": str(character), "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 4, "batch_size": 2, "gradient_accumulation": 1, "width": 96,
        "height": 64, "size_step": 8, "save_every": 0, "preview_every": 4, "validate_every": 0, "previews": [preview],
        "overwrite": True,
    }  # fmt: skip
    before = webui.txt2img()
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": config})["job"])
    assert job["state"] == "done", job["error"]
    said = {finding["id"] for finding in job["data"]["findings"] if finding["severity"] == "fix"}
    expected = {MEDVRAM: {"medvram", "vae-loaded"}, LOWVRAM: {"medvram"}, PLAIN: set()}[start]
    assert said & {"medvram", "vae-loaded", "model-in-ram", "fp8-weights"} == expected
    assert webui.txt2img() == before
    with Image.open(job["data"]["previews"][-1]["path"]) as shown:
        drawn = webui.txt2img(prompt=f"solo, {WORD}", cfg_scale=preview.get("cfg", 7), seed=1)
        # Previews are drawn with the VAE that is trained with; the other one is there again for everything else.
        assert (shown.convert("RGB").tobytes() == drawn) is (start != MEDVRAM)


@pytest.mark.parametrize("setting", SETTINGS)
def test_whatever_is_set(webui, start, setting, vectors, tmp_path):
    if start != PLAIN:
        pytest.skip("set in one of the starts")
    chosen, usual = SETTINGS[setting]
    ordinary = webui.txt2img()
    webui.call("/sdapi/v1/refresh-vae", {})
    webui.set_options(**chosen)
    try:
        assert webui.inside("set_aside")["eight_bits"] is (chosen.get("fp8_storage") == "Enable")
        # How the mean of an emphasised prompt is kept counts in the gradients' last digits.
        trained_and_the_same_afterwards(webui, {} if "emphasis" in setting else vectors, tmp_path)
    finally:
        webui.set_options(**usual)
        if "fp8_storage" in usual:
            webui.inside("read_again")
    assert webui.txt2img() == ordinary
