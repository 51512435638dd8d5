"""The whole way by clicking, inside the real WebUI; then Reload UI, and a part of it again."""

from __future__ import annotations

import json

import pytest
from PIL import Image

from tests.browser.helpers import fill, forget_ended, train_settings, trained
from tests.webui.pages import accept_crops, choose, demo_project, reload_ui, tab, tag_crops, top, write_crops
from tests.webui.running import A1111

WORD, AGAIN, STYLE = "zorgwalk", "zorgagain", "stylewalk"
SMALL = {
    "learning_rate": "0.01", "batch_size": 1, "gradient_accumulation": 1, "width": 64, "height": 64, "size_step": 8,
    "save_every": 2, "preview_every": 2, "validate_every": 0, "validation_share": 0,
}  # fmt: skip
PREVIEW = {
    "prompt": "solo, [name]", "negative": "", "seed": 3, "steps": 3, "cfg": 7, "width": 64, "height": 64,
    "sampler": "Euler", "scheduler": "",
}  # fmt: skip


@pytest.fixture
def tidy(webui):
    """What the walk made among the WebUI's networks goes again."""
    yield
    for folder in (webui.data / "embeddings", webui.data / "models" / "hypernetworks", webui.data / "models" / "Lora"):
        for path in folder.glob("*"):
            if path.name.startswith((WORD, AGAIN, STYLE)):
                path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})
    webui.call("/sdapi/v1/refresh-loras", {})


def start(page, **settings) -> None:
    """Fill the form and press Start."""
    tab(page, "Train")
    train_settings(page, **{**SMALL, "previews": [PREVIEW], **settings})
    forget_ended(page)
    page.click("#dsm_train_start")


def drawn_by_txt2img(page, problems, word: str) -> bytes:
    """Send the newest preview to txt2img, press Generate, and return what is drawn."""
    page.locator("#dsm_previews .dsm-preview").last.click()
    preview = page.evaluate("[...document.querySelectorAll('#dsm_previews .dsm-preview img')].at(-1).dataset.path")
    page.click("#dsm_send_txt2img")
    page.wait_for_function(f"document.querySelector('#txt2img_prompt textarea').value === {json.dumps(word)}")
    before = page.evaluate("DSM.webui.shownFile('txt2img')")
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change
    page.click("#txt2img_generate")
    page.wait_for_function("before => ![before, ''].includes(DSM.webui.shownFile('txt2img'))", arg=before)
    with Image.open(page.evaluate("DSM.webui.shownFile('txt2img')")) as drawn, Image.open(preview) as shown:
        assert drawn.convert("RGB").tobytes() == shown.convert("RGB").tobytes()
        return drawn.convert("RGB").tobytes()


def test_the_whole_way_and_again_after_reload_ui(page, webui, tidy, problems, shots):
    checkpoint = webui.checkpoint.name

    def shot(name: str) -> None:
        page.screenshot(path=shots / f"walk-{name}.png")

    project = demo_project(page)
    shot("1-dataset")

    accept_crops(page)
    shot("2-crop")
    crops = write_crops(page, project)

    tag_crops(page)
    shot("3-tag")
    captions = {path: path.read_text("utf-8") for path in (project / "DATASET_IMGS").glob("*.txt")}
    assert len(captions) == crops

    page.click("#dsm_next_prune")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag")
    page.click("#dsm_prune_character")
    page.wait_for_selector("#dsm_prune_accept:has-text('Remove')")
    shot("4-prune")
    page.click("#dsm_prune_accept")
    page.wait_for_selector("#dsm_prune_undo[title*=remove]")
    assert {path: path.read_text("utf-8") for path in captions} != captions
    page.click("#dsm_prune_fill_set")
    page.wait_for_function("DSM.state.project.train.endsWith('SET')")

    # Trained, stopped in the middle, and resumed to the end.
    start(page, name=WORD, checkpoint=checkpoint, vectors=2, init_text="solo", max_steps=400)
    page.wait_for_selector("#dsm_previews .dsm-preview img")
    shot("5-train")
    page.click("#dsm_cancel_train")
    assert trained(page, WORD) == "cancelled"
    page.wait_for_selector("#dsm_previews .dsm-timeline-step")
    done = int(page.locator("#dsm_previews .dsm-timeline-step").last.inner_text())
    page.fill("#dsm_train_until", str(done + 4))
    page.click("#dsm_train_resume_start")
    page.wait_for_selector(f"#dsm_previews .dsm-timeline-step[data-step='{done + 4 - (done + 4) % 2}']")
    assert trained(page, WORD) == "done"
    with_word = drawn_by_txt2img(page, problems, f"solo, {WORD}")
    shot("6-txt2img")

    # A hypernetwork.
    top(page, "DSM")
    page.click("#dsm_train_kind label:has-text('hypernetwork')")
    start(page, kind="hypernetwork", name=STYLE, checkpoint=checkpoint, learning_rate="0.0005", max_steps=2,
          override=["hyper-rate"])  # fmt: skip
    assert trained(page, STYLE) == "done", page.inner_text("#dsm_train_panel")
    shot("7-hypernetwork")
    if webui.kind == A1111:  # no other WebUI computes hypernetworks in its own generation
        drawn_by_txt2img(page, problems, f"solo, {STYLE} <hypernet:{STYLE}:1>")

    # A LoRA of the embedding; it is enough by itself.
    top(page, "DSM")
    tab(page, "LoRA")
    page.click("#dsm_lora_refresh")
    choose(page, "dsm_lora_embedding", f"{WORD}.safetensors")
    fill(page, "dsm_lora_bundle_name", f"{WORD}-lora")
    page.click("#dsm_lora_bundle")
    page.wait_for_selector(f"#dsm_lora_shown:has-text('{WORD}-lora.safetensors')")
    shot("8-lora")
    (webui.data / "embeddings" / f"{WORD}.safetensors").unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})
    unread = page.locator("#dsm_lora_shown :text('does not read embeddings out of a LoRA')").count()
    assert bool(unread) is (webui.kind != A1111)
    if webui.kind == A1111:
        settings = {"seed": 3, "steps": 3, "cfg_scale": 7, "sampler_name": "Euler", "width": 64, "height": 64}
        assert webui.txt2img(prompt=f"solo, {WORD} <lora:{WORD}-lora:1>", **settings) == with_word
        assert webui.txt2img(prompt=f"solo, {WORD}", **settings) != with_word

    # Reload UI, and again.
    assert reload_ui(page, webui) == []
    page.wait_for_function("DSM.state.project")
    problems.clear()  # while the server is gone, the WebUI's page asks in vain
    top(page, "DSM")
    tab(page, "Prune")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag")
    tab(page, "Crop")
    page.wait_for_selector("#dsm_crop_stage .dsm-frame")
    tab(page, "Train")
    start(page, kind="embedding", name=AGAIN, checkpoint=checkpoint, vectors=2, init_text="solo", max_steps=4)
    assert trained(page, AGAIN) == "done"
    drawn_by_txt2img(page, problems, f"solo, {AGAIN}")
    shot("9-again")
