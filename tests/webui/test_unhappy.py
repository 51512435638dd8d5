"""Whatever VAE was loaded, whatever moves meanwhile and however a training ends: the same picture as before."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from PIL import Image

from tests.browser.helpers import open_project, train_settings
from tests.webui.pages import at_our_tab, tab
from tests.webui.running import A1111, OTHER_VAE

WORD = "zorghappy"
# How the WebUI comes to its VAE, and whether that is another one than the checkpoint's own.
WAYS = {
    "None": False,
    "Automatic": False,
    "chosen": True,
    "chosen, before all": True,
    "Automatic, beside": True,
    "None, beside": True,
    "None, beside, before all": False,
    "the checkpoint's choice": True,
    "the checkpoint's choice of none, chosen": False,
    "vae-path": True,
    "vae-path, None, before all": True,
}


@pytest.fixture(scope="module")
def baked(webui) -> bytes:
    """The picture with the checkpoint's own VAE."""
    return webui.txt2img()


@pytest.fixture
def usual_vae(webui):
    """Afterwards the WebUI finds its VAE as it did before."""
    webui.call("/sdapi/v1/refresh-vae", {})
    yield
    webui.inside("use_vae", way="None", vae=OTHER_VAE)
    webui.set_options(sd_vae="None", sd_vae_overrides_per_model_preferences=True)


@pytest.mark.hosts(
    A1111, why="reForge's count of parameters that ask for a gradient changes with each checkpoint loaded"
)
@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_vae_is_put_back(webui, baked, usual_vae, way):
    loaded = webui.inside("use_vae", way=way, vae=OTHER_VAE)["loaded"]
    assert bool(loaded) is WAYS[way], loaded
    picture, before = webui.txt2img(), webui.inside("snapshot")
    assert (picture != baked) is WAYS[way]
    for checkpoint in (webui.checkpoint.name, webui.other_checkpoint.name):
        for fail in (False, True):
            seen = webui.inside("train", checkpoint=checkpoint, fail=fail)
            assert seen["begin"]["vae"] is seen["end"]["vae"] is None
            assert seen["begin"]["autoencoder"] == seen["end"]["autoencoder"]
            assert (seen["begin"]["autoencoder"] != before["autoencoder"]) is WAYS[way]
            assert webui.inside("snapshot") == before
            assert webui.txt2img() == picture


@pytest.fixture
def run(webui, character):
    """The settings of a small run; its folder is open, and what it made goes again."""
    webui.call("/dsm/v1/project/open", {"path": str(character)})
    yield {
        "name": WORD, "checkpoint": webui.checkpoint.name, "dataset": str(character), "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 12, "batch_size": 2, "gradient_accumulation": 1, "width": 96,
        "height": 64, "size_step": 8, "save_every": 0, "preview_every": 6, "validate_every": 0, "clip_skip": 2,
        "overwrite": True, "previews": [{"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 4, "seed": 1}],
    }  # fmt: skip
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def made(webui, job: dict) -> tuple[bytes, list[bytes]]:
    """The vectors' file and the pixels of the previews."""
    assert job["state"] == "done", job["error"]
    pictures = [Image.open(preview["path"]).convert("RGB").tobytes() for preview in job["data"]["previews"]]
    return (webui.data / "embeddings" / f"{WORD}.safetensors").read_bytes(), pictures


def test_what_the_person_moves_meanwhile_changes_no_bit(webui, run):
    titles = {model["filename"]: model["title"] for model in webui.call("/sdapi/v1/sd-models")}
    webui.call("/sdapi/v1/refresh-vae", {})
    picture, before = webui.txt2img(), webui.inside("snapshot")
    undisturbed = made(webui, webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": run})["job"]))

    job = webui.call("/dsm/v1/train/start", {"config": run})["job"]
    while webui.call(f"/dsm/v1/jobs/{job}")["done"] < 1:
        pass
    webui.set_options(CLIP_stop_at_last_layers=5)
    waiting = [
        threading.Thread(target=webui.set_options, kwargs={"sd_model_checkpoint": titles[str(webui.other_checkpoint)]}),
        threading.Thread(target=webui.set_options, kwargs={"sd_vae": OTHER_VAE}),
        threading.Thread(target=webui.call, args=("/sdapi/v1/refresh-embeddings", {})),
        threading.Thread(target=webui.call, args=("/sdapi/v1/refresh-loras", {})),
    ]
    for thread in waiting:
        thread.start()
    moved_at = webui.call(f"/dsm/v1/jobs/{job}")["done"]
    assert moved_at < run["max_steps"], "the run was over before anything moved"
    disturbed = made(webui, webui.wait_for_job(job))
    for thread in waiting:
        thread.join()
    try:
        assert disturbed == undisturbed
        chosen = webui.inside("snapshot")
        assert chosen["checkpoint"] == webui.other_checkpoint.name and chosen["vae"].endswith(OTHER_VAE)
    finally:
        webui.set_options(sd_model_checkpoint=titles[str(webui.checkpoint)])
        webui.set_options(sd_vae="None", CLIP_stop_at_last_layers=1)
    assert webui.txt2img() == picture
    after = webui.inside("snapshot")
    assert {**after, "embeddings": []} == {**before, "embeddings": []}


def test_pictures_that_wait_are_drawn_afterwards_and_embeddings_reloaded_meanwhile_change_no_bit(webui, run):
    picture = webui.txt2img()
    undisturbed = made(webui, webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": run})["job"]))
    job = webui.call("/dsm/v1/train/start", {"config": run})["job"]
    while webui.call(f"/dsm/v1/jobs/{job}")["done"] < 1:
        pass
    drawn: list[bytes] = []
    waiting = [threading.Thread(target=lambda: drawn.append(webui.txt2img())) for _ in range(2)]
    for thread in waiting:
        thread.start()
    reloads = 0
    while webui.call(f"/dsm/v1/jobs/{job}")["state"] == "running":
        webui.inside("reload_embeddings")  # as a program does that does not wait for the queue
        reloads += 1
    assert reloads > 1
    assert made(webui, webui.wait_for_job(job)) == undisturbed
    for thread in waiting:
        thread.join()
    assert drawn == [picture, picture]


@pytest.mark.parametrize("end", ["interrupt", "skip", "cancel"])
def test_a_run_that_is_ended_leaves_the_same_picture(webui, run, external_vae, end):
    picture, before = webui.txt2img(), webui.inside("snapshot")
    job = webui.call("/dsm/v1/train/start", {"config": {**run, "max_steps": 400, "preview_every": 5}})["job"]
    while webui.call(f"/dsm/v1/jobs/{job}")["done"] < 4:  # about where a preview is drawn
        pass
    if end == "skip":  # of the preview that is drawn, or of nothing: the training goes on
        webui.call("/sdapi/v1/skip", {})
        done = webui.call(f"/dsm/v1/jobs/{job}")["done"]
        while (found := webui.call(f"/dsm/v1/jobs/{job}"))["done"] < done + 3:
            assert found["state"] == "running", found["error"]
    webui.call(f"/dsm/v1/jobs/{job}/cancel" if end == "cancel" else "/sdapi/v1/interrupt", {})
    assert webui.wait_for_job(job)["state"] == "cancelled"
    assert webui.txt2img() == picture
    assert {**webui.inside("snapshot"), "embeddings": []} == {**before, "embeddings": []}


def test_a_run_goes_on_without_the_browser_that_started_it(webui, run, character, chromium):
    picture = webui.txt2img()
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    at_our_tab(page, webui.url)
    open_project(page, character)
    tab(page, "Train")
    settings = {**run, "max_steps": 60, "preview_every": 30}
    train_settings(page, **{name: value for name, value in settings.items() if name != "dataset"})
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel [data-state=running]")
    context.close()
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    try:
        again = context.new_page()
        at_our_tab(again, webui.url)
        tab(again, "Train")
        again.wait_for_selector(f"#dsm_train_panel [aria-label='Training {WORD}'][data-state=done]")
        again.wait_for_function("document.querySelectorAll('#dsm_previews .dsm-preview').length === 2")
    finally:
        context.close()
    assert webui.txt2img() == picture
    assert Path(webui.data / "embeddings" / f"{WORD}.safetensors").is_file()
