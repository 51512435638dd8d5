"""The Train tab on hypernetworks: the kind is chosen, its options are shown, one is created and trained."""

from __future__ import annotations

import time

import pytest

from lib_dsm.demo import world
from lib_dsm.networks.hypernetwork import load_hypernetwork
from tests.browser.helpers import fill, open_project, tab, train_settings, unfold


@pytest.fixture
def train_page(open_page, tmp_path):
    """The Train tab of a project with six tagged pictures."""
    folder = tmp_path / "set"
    world.draw_dataset(folder / "SET", world.character_of(40), count=6, seed=5)

    def make(**how):
        page = open_page(1280, "light", **how)
        open_project(page, folder)
        tab(page, "Train")
        page.wait_for_function("DSM.train.ready")
        return page

    return make


def choose_kind(page, kind: str) -> None:
    page.locator(f"#dsm_train_kind input[value={kind}]").click()
    page.wait_for_function(f"DSM.train.values().kind === '{kind}'")


def visible(page, name: str) -> bool:
    return page.locator(f"#dsm_train_{name}").is_visible()


def test_a_kind_shows_its_own_options_and_begins_with_its_own_rate(train_page, shots):
    page = train_page(refusing="/train/")  # what is half written
    unfold(page, "vectors")
    page.wait_for_selector("#dsm_train_init_mode")
    assert visible(page, "vectors") and visible(page, "init_mode") and not visible(page, "layer_structure")
    choose_kind(page, "hypernetwork")
    page.wait_for_function("DSM.train.values().learning_rate === '0.00001'")
    page.wait_for_function("DSM.train.values().template === '[filewords]'")
    page.wait_for_selector("#dsm_train_widths")
    page.wait_for_selector("#dsm_train_structure svg")
    for name in ("vectors", "init_text", "init_mode", "norm_control", "init_embedding", "tokens"):
        assert not visible(page, name), name
    for name in ("layer_structure", "activation", "widths", "dropout_structure", "init_hypernetwork", "structure"):
        assert visible(page, name), name
    assert "217 k parameters" in page.inner_text("#dsm_train_structure")
    fill(page, "dsm_train_layer_structure", "1, 2, 3, 1")
    page.wait_for_selector("#dsm_train_structure:has-text('595 k')")
    fill(page, "dsm_train_layer_structure", "1, 2")
    page.wait_for_selector("#dsm_train_structure .dsm-over:has-text('begins and ends with 1')")
    fill(page, "dsm_train_layer_structure", "1, 2, 1")
    page.wait_for_selector("#dsm_train_structure:has-text('217 k')")
    page.screenshot(path=shots / "train-hypernetwork.png", full_page=True)
    # What the person wrote stays; what was as it begins becomes as the other kind begins.
    fill(page, "dsm_train_learning_rate", "0.00003")
    choose_kind(page, "embedding")
    page.wait_for_function("DSM.train.values().template === '[filewords], [name]'")
    assert page.evaluate("DSM.train.values().learning_rate") == "0.00003"


def test_presets_are_those_of_the_kind(train_page):
    page = train_page()
    page.wait_for_selector("#dsm_preset option:has-text('Guide: character')", state="attached")
    choose_kind(page, "hypernetwork")
    page.wait_for_selector("#dsm_preset option:has-text('Hypernetwork: style')", state="attached")
    assert page.locator("#dsm_preset option:has-text('Guide: character')").count() == 0
    page.select_option("#dsm_preset", "Hypernetwork: deeper, with dropout")
    page.click("#dsm_preset_use")
    page.wait_for_function("DSM.train.values().dropout_structure === '0, 0.05, 0.15, 0'")
    assert page.evaluate("DSM.train.values().kind") == "hypernetwork"
    page.wait_for_selector("#dsm_train_structure:has-text('drop 0.15')")


def test_created_checked_and_trained(train_page, studio_data):
    page = train_page()
    choose_kind(page, "hypernetwork")
    page.wait_for_function("DSM.train.values().learning_rate === '0.00001'")
    fill(page, "dsm_train_name", "inkpage")
    page.click("#dsm_train_create")
    page.wait_for_selector("text=inkpage.pt holds an untrained hypernetwork", timeout=120_000)
    file = studio_data / "hypernetworks" / "inkpage.pt"
    assert load_hypernetwork(file).step == 0
    fill(page, "dsm_train_learning_rate", "0.005")
    page.click("#dsm_train_check")
    page.wait_for_selector("#dsm_train_findings:has-text('0.005 is one for embeddings')", timeout=120_000)
    train_settings(
        page, learning_rate="0.0001", max_steps=4, width=64, height=64, save_every=2, preview_every=4,
        validate_every=0, batch_size=2, gradient_accumulation=1, layer_structure="1, 1.5, 1",
        previews=[{"prompt": "solo", "width": 64, "height": 64, "steps": 2}],
    )  # fmt: skip
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel:has-text('<hypernet:inkpage:1>')", timeout=240_000)
    end = time.monotonic() + 240  # the untrained one is called so too
    while (made := load_hypernetwork(file)).step != 4:
        assert time.monotonic() < end
        time.sleep(0.2)
    assert made.step == 4 and made.structure.layers == (1, 1.5, 1)
