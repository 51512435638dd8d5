"""The tab inside the real WebUI, by clicking: its gradio draws other elements, and txt2img is beside us."""

from __future__ import annotations

import pytest
from PIL import Image

from lib_dsm.demo import world
from lib_dsm.networks.embedding import load_embedding
from tests.browser.helpers import assert_fits, fill, open_project, train_settings, trained, unfold
from tests.webui.pages import TABS, choose, tab, top

WORD = "zorgclick"
SMALL = {
    "vectors": 2, "init_text": "solo", "learning_rate": "0.01", "max_steps": 4, "batch_size": 1,
    "gradient_accumulation": 1, "width": 64, "height": 64, "save_every": 2, "preview_every": 2, "validate_every": 0,
    "validation_share": 0, "warmup_steps": 0, "schedule": "steps",
}  # fmt: skip


@pytest.fixture
def project(tmp_path, webui):
    """A project with tagged pictures; what is trained on them goes again."""
    folder = tmp_path / "project"
    for part in ("IMGS", "SET"):
        world.draw_dataset(folder / part, world.character_of(10), count=6, seed=1)
    yield folder
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def test_an_embedding_is_trained_by_clicking(page, project, webui, problems, shots):
    open_project(page, project)
    for label in TABS:
        tab(page, label)
        page.wait_for_timeout(400)
        page.screenshot(path=shots / f"webui-{label.lower()}.png", full_page=True)
        assert_fits(page, label)

    # A preset, then less of everything.
    tab(page, "Train")
    page.wait_for_function("DSM.train.ready")
    fill(page, "dsm_train_name", WORD)
    fill(page, "dsm_train_init_text", "solo, red hair")
    page.select_option("#dsm_preset", "Quick trial")
    page.click("#dsm_preset_use")
    page.wait_for_function("async () => (await DSM.train.read()).max_steps === 300 && DSM.train.values().vectors === 8")
    assert page.evaluate("DSM.train.values().init_text") == "solo, red hair"
    page.click("#dsm_preset_undo")
    page.wait_for_function("async () => (await DSM.train.read()).max_steps === 5000")
    train_settings(page, **SMALL, checkpoint=webui.checkpoint.name, previews=[])

    # The prompt of the WebUI's own tab, with a sampler and a schedule type that only the WebUI has.
    assert problems == []
    top(page, "txt2img")
    page.fill("#txt2img_prompt textarea", "solo, smile")
    page.fill("#txt2img_neg_prompt textarea", "hat")
    choose(page, "txt2img_sampling", "Heun")
    choose(page, "txt2img_scheduler", "Karras")
    for name, value in (("steps", 3), ("width", 64), ("height", 64), ("seed", 5)):
        fill(page, f"txt2img_{name}", value)
    top(page, "DSM")
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change
    unfold(page, "saving")
    page.click("#dsm_requests_txt2img")
    taken = page.evaluate("DSM.train.requests.get()")
    assert taken == [
        {"prompt": "solo, smile", "negative": "hat", "seed": 5, "steps": 3, "cfg": 7, "width": 64, "height": 64,
         "sampler": "Heun", "scheduler": "Karras"}
    ]  # fmt: skip
    page.wait_for_selector(f".dsm-request-warning:has-text('nor {WORD}')")
    page.fill("#dsm_request_0_prompt", "solo, smile, [name]")
    assert page.inner_text(".dsm-request-warning") == ""
    page.screenshot(path=shots / "webui-form.png", full_page=True)

    page.click("#dsm_train_check")
    page.wait_for_selector("#dsm_train_findings .dsm-line.dsm-ok")
    page.wait_for_selector("#dsm_train_findings .dsm-crop-kept")
    page.click("#dsm_train_start")
    assert trained(page, WORD) == "done", page.inner_text("#dsm_train_panel")
    assert page.locator("#dsm_previews .dsm-timeline-step").all_inner_texts() == ["2", "4"]
    page.wait_for_function(
        "[...document.querySelectorAll('#dsm_previews .dsm-preview img')].every((item) => item.naturalWidth === 64)"
    )
    page.locator("#dsm_train_panel .dsm-run").screenshot(path=shots / "webui-run.png")

    # The preview is the picture that txt2img draws with the same settings.
    page.click("#dsm_previews .dsm-timeline-step[data-step='2']")
    page.click("#dsm_use_step")
    page.wait_for_selector(".dsm-toast:has-text('step 2')")
    assert load_embedding(webui.data / "embeddings" / f"{WORD}.safetensors").step == 2
    shown = webui.call(f"/dsm/v1/train/run?run={WORD}")["job"]["data"]["previews"][0]
    preview = Image.open(shown["path"]).convert("RGB")
    drawn = webui.picture(
        prompt=f"solo, smile, {WORD}", negative_prompt="hat", seed=5, steps=3, sampler_name="Heun", scheduler="Karras",
        cfg_scale=7, override_settings={"sd_model_checkpoint": webui.checkpoint.name},
    )  # fmt: skip
    assert drawn.tobytes() == preview.tobytes()

    # What was trained can be chosen to start from at once, and says how many vectors it has.
    train_settings(page, vectors=7)
    unfold(page, "vectors")
    choose(page, "dsm_train_init_embedding", WORD)
    page.wait_for_function("async () => (await DSM.train.read()).vectors === 2")
    # The WebUI's own templates are there by name.
    unfold(page, "captions")
    choose(page, "dsm_train_template_file", "subject_filewords.txt")
    page.wait_for_function("async () => (await DSM.train.read()).template_source === 'file'")
    page.wait_for_selector(f"#dsm_train_prompts li:has-text('{WORD}')")
