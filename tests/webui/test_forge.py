"""Forge: training is refused in a sentence, and everything that needs no model works by clicking."""

from __future__ import annotations

import pytest

from lib_dsm.networks.inspect import describe
from tests.browser.helpers import assert_fits, choose, ended, fill, forget_ended
from tests.webui.pages import TABS, accept_crops, at_our_tab, demo_project, tab, tag_crops, write_crops
from tests.webui.running import FORGE

pytestmark = pytest.mark.hosts(FORGE, why="what holds in Forge alone")
REASON = "Forge keeps its model in a form that cannot be trained yet."


def test_every_part_opens_and_training_says_why_not(page, webui, problems, shots):
    for label in TABS:
        tab(page, label)
        page.wait_for_timeout(500)
        page.screenshot(path=shots / f"forge-{label.lower()}.png", full_page=True)
        assert_fits(page, label)
    tab(page, "Train")
    page.wait_for_selector(f"#dsm_train_status :text('{REASON}')")
    page.screenshot(path=shots / "forge-train.png", full_page=True)
    assert webui.call("/dsm/v1/status")["model"]["note"].startswith(REASON)


def test_a_training_that_is_started_all_the_same_is_refused(webui, character):
    webui.call("/dsm/v1/project/open", {"path": str(character)})
    config = {"name": "zorgforge", "checkpoint": webui.checkpoint.name, "dataset": str(character), "max_steps": 2}
    job = webui.wait_for_job(webui.call("/dsm/v1/train/start", {"config": config})["job"])
    assert job["state"] == "failed" and REASON in str(job["error"])


def test_crop_tag_prune_and_extract_by_clicking(page, webui, problems, shots):
    project = demo_project(page)
    accept_crops(page)
    crops = write_crops(page, project)

    tag_crops(page)
    captions = {path: path.read_text("utf-8") for path in (project / "DATASET_IMGS").glob("*.txt")}
    assert len(captions) == crops
    page.screenshot(path=shots / "forge-tagged.png", full_page=True)

    page.click("#dsm_next_prune")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag")
    page.click("#dsm_prune_character")
    page.wait_for_selector("#dsm_prune_accept:has-text('Remove')")
    page.click("#dsm_prune_accept")
    page.wait_for_selector("#dsm_prune_undo[title*=remove]")
    assert {path: path.read_text("utf-8") for path in captions} != captions
    page.screenshot(path=shots / "forge-pruned.png", full_page=True)

    tab(page, "LoRA")
    page.click("#dsm_lora_refresh")
    page.locator("#dsm_lora_kind label").filter(has_text="Two checkpoints").click()
    page.wait_for_selector("#dsm_lora_base", state="visible")
    choose(page, "dsm_lora_base", webui.checkpoint.name)
    choose(page, "dsm_lora_tuned", webui.other_checkpoint.name)
    fill(page, "dsm_lora_extract_name", "forgemade")
    forget_ended(page)
    page.click("#dsm_lora_extract")
    assert ended(page, "dsm_lora_panel") == "done"
    page.wait_for_selector("#dsm_lora_shown code:text('<lora:forgemade:1>')")
    assert describe(webui.data / "models" / "Lora" / "forgemade.safetensors")["ranks"]
    page.screenshot(path=shots / "forge-lora.png", full_page=True)
    at_our_tab(page, webui.url)
    page.wait_for_function("DSM.state.project && DSM.state.project.name === 'demo'")
