"""From pictures to a trained embedding and a LoRA file by clicking alone."""

from __future__ import annotations

from pathlib import Path

from lib_dsm.demo.install import TAGGER
from lib_dsm.networks.inspect import describe
from tests.browser.helpers import choose, ended, fill, forget_ended, open_project, tab, unfold


def test_from_pictures_to_an_embedding(open_page, pictures, tmp_path, shots):
    page = open_page()
    project = tmp_path / "my set ねこ"

    # A new project, and the pictures into it; the broken one is named, the rest goes on.
    open_project(page, project, new=True)
    page.set_input_files("#dsm_dataset_upload input[type=file]", [str(path) for path in sorted(pictures.iterdir())])
    page.wait_for_selector("#dsm_dataset_upload .file-preview")
    page.click("#dsm_dataset_add")
    assert ended(page, "dsm_dataset_panel") == "done"
    assert "text.png" in page.inner_text("#dsm_dataset_panel .dsm-job-notes")
    page.wait_for_selector("#dsm_dataset_thumbs .dsm-thumb >> nth=8")
    page.screenshot(path=shots / "walk-1-dataset.png")
    assert len(list((project / "IMGS").glob("*.png"))) == 9

    # Crop: the long one becomes two, the first is moved by hand.
    page.click("#dsm_next_crop")
    page.wait_for_selector("#dsm_crop_counts:has-text('0 of 9 confirmed')")
    page.click("#dsm_crop_mode_split")
    page.fill("#dsm_crop_width", "64")
    page.fill("#dsm_crop_height", "64")
    page.press("#dsm_crop_height", "Tab")
    page.wait_for_selector("#dsm_crop_counts:has-text('0 of 9 confirmed')")
    page.click("#dsm_crop_take")
    page.screenshot(path=shots / "walk-2-crop.png")
    page.click("#dsm_crop_accept")
    page.wait_for_selector("#dsm_crop_counts:has-text('9 of 9 confirmed')")
    page.click("#dsm_crop_write")
    assert ended(page, "dsm_crop_panel") == "done"
    crops = list((project / "DATASET_IMGS").glob("*.png"))
    assert len(crops) >= 10

    # Tag with the demo world's tagger.
    page.click("#dsm_next_tag")
    choose(page, "dsm_tag_model", str(TAGGER))
    page.click("#dsm_tag_start")
    assert ended(page, "dsm_tag_panel") == "done"
    page.screenshot(path=shots / "walk-3-tag.png")
    captions = {path: path.read_bytes() for path in (project / "DATASET_IMGS").glob("*.txt")}
    assert len(captions) == len(crops)

    # Prune what describes the character, take it back, do it again, and fill SET.
    page.click("#dsm_next_prune")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag")
    page.click("#dsm_prune_character")
    page.wait_for_selector("#dsm_prune_accept:has-text('Remove')")
    page.screenshot(path=shots / "walk-4-prune.png")
    page.click("#dsm_prune_accept")
    page.wait_for_selector("#dsm_prune_undo[title*=remove]")
    pruned = {path: path.read_bytes() for path in captions}
    assert pruned != captions
    page.click("#dsm_prune_undo")
    page.wait_for_selector("#dsm_prune_redo:not([disabled])")
    assert {path: path.read_bytes() for path in captions} == captions
    page.click("#dsm_prune_redo")
    page.wait_for_selector("#dsm_prune_redo[disabled]")
    assert {path: path.read_bytes() for path in captions} == pruned
    page.click("#dsm_prune_fill_set")
    page.wait_for_function("DSM.state.project.train.endsWith('SET')")

    # Train; the check speaks first.
    page.click("#dsm_next_train")
    unfold(page, "sizes", "saving", "watching")
    for name, value in {
        "name": "zorgle", "vectors": 4, "init_text": "solo", "learning_rate": "0.01", "max_steps": 3, "batch_size": 1,
        "gradient_accumulation": 1, "width": 64, "height": 64, "save_every": 2, "preview_every": 2, "validate_every": 0,
    }.items():  # fmt: skip
        fill(page, f"dsm_train_{name}", value)
    for name, value in {"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 3}.items():
        page.fill(f"#dsm_request_0_{name}", str(value))
        page.press(f"#dsm_request_0_{name}", "Tab")
    page.click("#dsm_train_check")
    page.wait_for_selector("#dsm_train_findings .dsm-line.dsm-ok")
    assert page.locator("#dsm_train_findings .dsm-crop-item").count() == len(crops)
    forget_ended(page)
    page.click("#dsm_train_start")
    assert ended(page, "dsm_train_panel") == "done", page.inner_text("#dsm_train_panel")
    page.wait_for_selector("#dsm_previews img")
    assert page.locator("#dsm_train_panel .dsm-charts-main .dsm-curve").count() >= 1
    assert "zorgle is ready" in page.inner_text("#dsm_train_panel")
    page.locator("#dsm_train_panel").screenshot(path=shots / "walk-5-train.png")
    page.click("#dsm_previews .dsm-preview >> nth=0")
    page.wait_for_selector(".dsm-compare img")
    page.keyboard.press("Escape")

    # A reload finds the run and the project again.
    page.reload()
    page.wait_for_function("window.DSM && DSM.state.project")
    tab(page, "Train")
    page.wait_for_selector("#dsm_train_panel .dsm-job-panel[data-state=done]")

    # The embedding becomes a LoRA file.
    tab(page, "LoRA")
    page.click("#dsm_lora_refresh")
    choose(page, "dsm_lora_embedding", "zorgle.safetensors")
    fill(page, "dsm_lora_bundle_name", "zorgle-lora")
    page.click("#dsm_lora_bundle")
    page.wait_for_selector("#dsm_lora_shown code:text('<lora:zorgle-lora:1> zorgle')")
    page.screenshot(path=shots / "walk-6-lora.png")
    shown = page.locator("#dsm_lora_shown .dsm-lora-file > div >> nth=0")
    path = shown.locator("span").inner_text().strip() + shown.locator("b").inner_text()
    assert describe(Path(path))["embeddings"] == ["zorgle"]
    # By the keyboard: a list in which something was typed lies over the page until the mouse closes it.
    page.locator("#dsm_lora_kind input").last.press(" ")
    choose(page, "dsm_lora_file", path, own=True)
    page.click("#dsm_lora_inspect")
    page.wait_for_selector("#dsm_lora_facts :text('zorgle')")
