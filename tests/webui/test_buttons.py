"""The WebUI's own Interrupt and Skip, clicked while a training runs and a generation waits for it."""

from __future__ import annotations

import pytest
from PIL import Image

from tests.browser.helpers import open_project, train_settings, trained
from tests.webui.pages import tab, top

WORD = "zorgbuttons"
SETTINGS = {
    "name": WORD, "vectors": 2, "init_text": "solo", "learning_rate": "0.01", "max_steps": 3000, "batch_size": 1,
    "gradient_accumulation": 1, "width": 64, "height": 64, "save_every": 0, "preview_every": 20, "validate_every": 0,
    "validation_share": 0, "overwrite": True,
    "previews": [{"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 3, "seed": 1, "sampler": "Euler"}],
}  # fmt: skip


@pytest.fixture
def training(page, webui, character):
    """A training that was started by clicking and draws previews."""
    open_project(page, character)
    tab(page, "Train")
    train_settings(page, **SETTINGS, checkpoint=webui.checkpoint.name)
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_previews .dsm-preview img")
    yield f"#dsm_train_panel [aria-label='Training {WORD}'].dsm-job-panel"
    for job in webui.call("/dsm/v1/jobs")["jobs"]:
        if job["state"] == "running":
            webui.call(f"/dsm/v1/jobs/{job['id']}/cancel", {})
            webui.wait_for_job(job["id"])
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def queue_a_picture(page) -> str:
    """Press Generate on txt2img while the training has the model; what its gallery shows before."""
    top(page, "txt2img")
    page.fill("#txt2img_prompt textarea", "solo, red hair, smile")
    for name, value in (("steps", 4), ("width", 64), ("height", 64), ("seed", 1)):
        page.fill(f"#txt2img_{name} input[type=number]", str(value))
        page.press(f"#txt2img_{name} input[type=number]", "Tab")
    before = page.evaluate("DSM.webui.shownFile('txt2img')")
    page.click("#txt2img_generate")
    page.wait_for_selector("#txt2img_interrupt", state="visible")
    return str(before)


def test_our_tab_shows_how_far_it_is_and_the_webui_too(page, webui, training):
    page.wait_for_selector(f"{training} .dsm-tile:has-text('left') :text-matches('^[0-9]+:[0-9]{{2}}')")
    page.wait_for_selector(f"{training} :text-matches('^[0-9]+ / 3000 steps')")
    assert page.eval_on_selector(f"{training} .dsm-bar-fill", "element => parseFloat(element.style.width)") > 0
    progress = webui.call("/sdapi/v1/progress")
    assert progress["state"]["job"] == "DSM training" and progress["eta_relative"] > 0 and 0 < progress["progress"] < 1
    while not progress["current_image"]:  # the WebUI's live preview is the newest preview, once there is one
        assert webui.call("/dsm/v1/jobs")["jobs"][-1]["state"] == "running"
        progress = webui.call("/sdapi/v1/progress")


def test_skip_lets_the_training_go_on_and_interrupt_ends_it_with_a_checkpoint(page, webui, training, problems, shots):
    before = queue_a_picture(page)
    done = webui.call("/dsm/v1/jobs")["jobs"][-1]["done"]
    page.click("#txt2img_skip")
    while (job := webui.call("/dsm/v1/jobs")["jobs"][-1])["done"] < done + 5:
        assert job["state"] == "running"
    page.screenshot(path=shots / "webui-interrupt.png")
    page.click("#txt2img_interrupt")
    top(page, "DSM")
    assert trained(page, WORD) == "cancelled"
    job = webui.call(f"/dsm/v1/jobs/{job['id']}")
    assert job["data"]["saved"] == [job["done"]] and 0 < job["done"] < 3000
    assert (webui.data / "embeddings" / f"{WORD}.safetensors").is_file()

    # The picture that waited is drawn to its end.
    top(page, "txt2img")
    page.wait_for_function("before => ![before, ''].includes(DSM.webui.shownFile('txt2img'))", arg=before)
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change
    with Image.open(page.evaluate("DSM.webui.shownFile('txt2img')")) as drawn:
        assert drawn.convert("RGB").tobytes() == webui.txt2img(cfg_scale=7, sampler_name="DPM++ 2M")

    # And the run goes on from where it was ended.
    top(page, "DSM")
    page.fill("#dsm_train_until", str(job["done"] + 3))
    page.click("#dsm_train_resume_start")
    page.wait_for_selector(f"{training} :text-matches('^{job['done'] + 3} / {job['done'] + 3} steps')")
    assert trained(page, WORD) == "done"
