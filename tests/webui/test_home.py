"""What ties our tab to the WebUI's own: status line, sending to and from txt2img, PNG Info, settings, Reload UI."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.demo import world
from tests.browser.helpers import open_project
from tests.webui.pages import at_our_tab, choose, reload_ui, tab, top
from tests.webui.running import OTHER_VAE

WORD = "zorghome"
PROMPT = f"solo, {WORD}, smile"
PREVIEW = {
    "prompt": "solo, [name], smile", "negative": "hat, (frown:1.2)", "seed": 7, "steps": 5, "cfg": 4.5, "width": 64,
    "height": 96, "sampler": "Heun", "scheduler": "Karras",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(webui, tmp_path_factory):
    """A run of four steps with a preview at each second one; its project, and its job when it has ended."""
    project = tmp_path_factory.mktemp("home") / "project"
    world.draw_dataset(project / "SET", world.character_of(10), count=4, seed=1)
    webui.call("/dsm/v1/project/new", {"path": str(project)})
    config = {
        "name": WORD, "checkpoint": webui.checkpoint.name, "dataset": str(project / "SET"), "vectors": 2,
        "init_text": "solo", "learning_rate": "0.01", "max_steps": 4, "batch_size": 1, "gradient_accumulation": 1,
        "width": 64, "height": 64, "size_step": 8, "save_every": 2, "preview_every": 2, "validate_every": 0,
        "clip_skip": 2, "previews": [PREVIEW],
    }  # fmt: skip
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": config})["job"])
    assert job["state"] == "done", job["error"]
    yield project, job
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def status(page) -> str:
    return " ".join(page.inner_text("#dsm_train_status").split())


def generated(page, problems) -> Path:
    """Press Generate on txt2img and return the file that its gallery then shows."""
    before = page.evaluate("DSM.webui.shownFile('txt2img')")
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change
    page.click("#txt2img_generate")
    page.wait_for_function("before => ![before, ''].includes(DSM.webui.shownFile('txt2img'))", arg=before)
    return Path(page.evaluate("DSM.webui.shownFile('txt2img')"))


def pixels(path: Path) -> bytes:
    with Image.open(path) as picture:
        return picture.convert("RGB").tobytes()


def test_the_status_line_follows_the_webuis_own_dropdowns(page, webui):
    tab(page, "Train")
    page.wait_for_function("DSM.train.ready")
    page.wait_for_selector("#dsm_train_status :text('baked into the checkpoint')")
    assert f"Model {webui.checkpoint.name} loaded" in status(page) and "CLIP skip 1 pinned" in status(page)
    titles = {model["filename"]: model["title"] for model in webui.call("/sdapi/v1/sd-models")}
    try:
        choose(page, "setting_sd_model_checkpoint", titles[str(webui.other_checkpoint)])
        page.wait_for_selector(f"#dsm_train_status s:has-text('{webui.other_checkpoint.name}')")
        assert f"→ {webui.checkpoint.name} loaded for the training, put back afterwards" in status(page)
        choose(page, "setting_sd_model_checkpoint", titles[str(webui.checkpoint)])
        page.wait_for_selector("#dsm_train_status s", state="detached")
        # Another page, a program or the settings may move them as well.
        webui.set_options(sd_vae=OTHER_VAE, CLIP_stop_at_last_layers=2)
        page.wait_for_selector(f"#dsm_train_status s:has-text('{OTHER_VAE}')")
        assert f"VAE {OTHER_VAE} → baked into the checkpoint set aside while training" in status(page)
        assert "CLIP skip 2 → 1 pictures are generated with another one now" in status(page)
    finally:
        webui.set_options(sd_vae="None", CLIP_stop_at_last_layers=1, sd_model_checkpoint=titles[str(webui.checkpoint)])
    page.wait_for_selector("#dsm_train_status s", state="detached")


def test_a_preview_is_drawn_again_by_txt2img(page, webui, trained, problems, shots):
    project, job = trained
    open_project(page, project)
    tab(page, "Train")
    page.wait_for_selector("#dsm_previews .dsm-preview")
    page.click("#dsm_previews .dsm-preview[data-step='4']")
    page.screenshot(path=shots / "webui-large-view.png")
    page.click("#dsm_send_txt2img")
    page.wait_for_function(f"document.querySelector('#txt2img_prompt textarea').value === {json.dumps(PROMPT)}")
    assert page.input_value("#txt2img_neg_prompt textarea") == PREVIEW["negative"]
    for name in ("seed", "steps", "width", "height"):
        assert page.input_value(f"#txt2img_{name} input[type=number]") == str(PREVIEW[name])
    assert page.input_value("#txt2img_cfg_scale input[type=number]") == "4.5"
    assert page.input_value("#txt2img_sampling input") == "Heun"
    assert page.input_value("#txt2img_scheduler input") == "Karras"
    assert page.locator("#tab_txt2img").is_visible()
    assert pixels(generated(page, problems)) == pixels(Path(job["data"]["previews"][-1]["path"]))


def test_png_info_reads_a_preview_and_sends_it_on(page, webui, trained, problems):
    _, job = trained
    top(page, "PNG Info")
    page.set_input_files("#pnginfo_image input[type=file]", job["data"]["previews"][0]["path"])
    page.wait_for_selector("#tab_pnginfo :text('Sampler: Heun')")
    assert f"Model: {webui.checkpoint.stem}" in page.inner_text("#tab_pnginfo")
    page.click("#tab_pnginfo #txt2img_tab")
    page.wait_for_function(f"document.querySelector('#txt2img_prompt textarea').value === {json.dumps(PROMPT)}")
    assert page.input_value("#txt2img_seed input[type=number]") == "7"
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change


def test_a_generated_picture_goes_into_the_project_as_it_is(page, webui, trained, problems, shots):
    project, _ = trained
    top(page, "txt2img")
    page.click("#dsm_take_txt2img")
    page.wait_for_selector(".dsm-toast:has-text('No picture is shown here yet')")
    page.fill("#txt2img_prompt textarea", "solo, hat")
    for name, value in (("steps", 2), ("width", 64), ("height", 64)):
        page.fill(f"#txt2img_{name} input[type=number]", str(value))
        page.press(f"#txt2img_{name} input[type=number]", "Tab")
    picture = generated(page, problems)
    page.click("#dsm_take_txt2img")
    page.wait_for_selector(".dsm-toast:has-text('No project is open')")
    open_project(page, project)
    top(page, "txt2img")
    page.locator("#image_buttons_txt2img").scroll_into_view_if_needed()
    page.screenshot(path=shots / "webui-gallery.png")
    page.click("#dsm_take_txt2img")
    page.wait_for_selector(".dsm-toast:has-text('is in IMGS of project.')")
    (taken,) = (project / "IMGS").glob("*.png")
    assert taken.read_bytes() == picture.read_bytes()
    with Image.open(taken) as opened:
        assert opened.info["parameters"].startswith("solo, hat\nSteps: 2")
    page.click("#dsm_take_tag_txt2img")
    page.wait_for_selector(".dsm-toast:has-text('already')")
    page.wait_for_selector("#dsm_tag_start", state="visible")
    assert len(list((project / "IMGS").glob("*.png"))) == 1


def test_no_file_that_was_not_generated_is_taken(webui, trained, tmp_path):
    project, _ = trained
    Image.new("RGB", (64, 64)).save(tmp_path / "secret.png")
    for path in (tmp_path / "secret.png", Path("/etc/passwd")):
        with pytest.raises(Exception, match="403"):
            webui.call("/dsm/v1/project/take", {"path": str(project), "picture": str(path)})


def test_the_settings_hide_parts_and_buttons_at_once(page, webui):
    page.evaluate("sessionStorage.clear(); localStorage.clear()")
    top(page, "Settings")
    page.locator("#settings > .tab-nav > button").get_by_text("DSM", exact=True).click()
    page.wait_for_selector("#setting_dsm_hidden_tabs", state="visible")
    try:
        choose(page, "setting_dsm_hidden_tabs", "Crop")
        page.uncheck("#setting_dsm_gallery_buttons input")
        page.click("#settings_submit")
        page.wait_for_function("DSM.state.hidden.length === 1")
        top(page, "DSM")
        assert not page.locator("#dsm_tabs > .tab-nav > button").get_by_text("Crop", exact=True).is_visible()
        page.click("#dsm_next_crop")  # what follows a hidden part is opened instead
        page.wait_for_selector("#dsm_tag_start", state="visible")
        assert page.locator("#dsm_take_txt2img").count() == 0
    finally:
        webui.set_options(dsm_hidden_tabs=[], dsm_gallery_buttons=True)
    at_our_tab(page, webui.url)
    tab(page, "Crop")
    page.wait_for_selector("#dsm_crop_page", state="visible")


def test_the_demo_project_is_one_click_away_and_everything_is_there_after_reload_ui(page, webui, problems):
    page.wait_for_selector("#dsm_tour_card")
    assert page.locator("#dsm_tour_card li").count() == 6
    page.locator("#dsm_dataset_page button:has-text('demo project')").click()
    page.wait_for_function("DSM.state.project && DSM.state.project.name === 'demo'")
    assert page.evaluate("DSM.state.project.path") == str(webui.data / "dsm" / "projects" / "demo")
    page.wait_for_function("document.querySelectorAll('#dsm_dataset_thumbs img').length === 26")
    page.click("#dsm_tour_seen")
    page.click("#dsm_tour_open")
    page.wait_for_selector(".dsm-tour.dsm-dialog")
    page.keyboard.press("Escape")
    page.wait_for_selector(".dsm-tour.dsm-dialog", state="detached")

    tab(page, "Crop")  # the page that asks the most
    page.wait_for_selector("#dsm_crop_stage .dsm-frame")
    assert reload_ui(page, webui) == []
    problems.clear()  # while the server is gone, the WebUI's page asks in vain
    page.wait_for_function("DSM.state.project && DSM.state.project.name === 'demo'")
    top(page, "DSM")
    page.wait_for_function("document.querySelectorAll('#dsm_dataset_thumbs img').length === 26")
    assert page.locator("#dsm_tour_card").count() == 0
    page.wait_for_selector("#dsm_take_txt2img", state="attached")


def test_what_the_host_has_now_is_not_frozen_in_the_saved_defaults(webui):
    saved = json.loads((webui.data / "ui-config.json").read_text(encoding="utf-8"))
    ours = {key for key in saved if key.startswith("dsm/")}
    assert "dsm/Batch size/value" in ours
    assert not {key for key in ours if key.split("/")[1] in ("CLIP skip", "Checkpoint to train on", "Template file")}
