"""The pages one by one: how they look in both themes, what the keys do, and that mistakes are told in sentences."""

from __future__ import annotations

import pytest
from PIL import Image

from lib_dsm.tagging.registry import MODELS
from tests.browser.helpers import assert_fits, choose, ended, fill, open_project, tab, unfold

TABS = ("Dataset", "Crop", "Tag", "Prune", "Train", "LoRA")


@pytest.fixture
def project(tmp_path, pictures):
    """A project as it is half way: pictures of several shapes with captions."""
    from lib_dsm.demo import world

    folder = tmp_path / "half way"
    world.draw_dataset(folder / "IMGS", world.character_of(40), count=10, seed=5)
    return folder


def test_every_tab_in_both_themes_and_two_sizes(open_page, project, shots):
    for theme, width in (("light", 1280), ("dark", 1280), ("light", 1920), ("dark", 1920)):
        page = open_page(width, theme)
        open_project(page, project)
        for label in TABS:
            tab(page, label)
            page.wait_for_timeout(400)
            page.screenshot(path=shots / f"{label.lower()}-{theme}-{width}.png", full_page=True)
            assert_fits(page, label)
        assert ("dark" in page.evaluate("document.body.className")) == (theme == "dark")


def test_mistakes_are_told_in_sentences(open_page, tmp_path, project):
    page = open_page()
    # The console lists refused calls as errors by itself; here they are what is tested.
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    tab(page, "Train")
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel .dsm-error:has-text('no name')")
    fill(page, "dsm_train_name", "zorgle")
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel .dsm-error:has-text('No project is open')")
    open_project(page, project)
    unfold(page, "captions")
    fill(page, "dsm_train_template", "no placeholder")
    page.click("#dsm_train_check")
    page.wait_for_selector("#dsm_train_findings .dsm-check.dsm-block:has-text('[name]')")
    page.click("#dsm_train_start")
    page.wait_for_selector("#dsm_train_panel [data-state=failed]")
    page.wait_for_selector("#dsm_train_panel .dsm-error:has-text('[name]')")
    tab(page, "Tag")
    choose(page, "dsm_tag_model", "no such tagger", own=True)
    page.locator("#dsm_tag_more button").first.click()
    choose(page, "dsm_tag_on_existing", "replace")
    page.click("#dsm_tag_start")
    page.wait_for_selector("#dsm_tag_panel .dsm-error:has-text('no such tagger')")
    assert MODELS[0].name in page.inner_text("#dsm_tag_panel .dsm-error")
    assert "Traceback" not in page.inner_text("body")


def train_tab_pressing(page, button: str) -> None:
    """Load the page anew and open Train, where the button is pressed the moment it is there."""
    page.add_init_script(
        f"""new MutationObserver((changes, self) => {{
            const button = document.querySelector("#{button}");
            if (button) {{ self.disconnect(); button.click(); }}
        }}).observe(document, {{childList: true, subtree: true}});"""
    )
    page.reload()
    page.wait_for_selector("#dsm_tabs")
    tab(page, "Train")


def test_a_click_before_gradio_listens_counts(open_page):
    page = open_page()
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    train_tab_pressing(page, "dsm_train_start")
    page.wait_for_selector("#dsm_train_panel .dsm-error:has-text('no name')")


def test_a_click_before_the_form_is_as_it_was_left_waits_for_that(open_page, project):
    page = open_page()
    open_project(page, project)
    tab(page, "Train")
    page.fill("#dsm_train_name textarea, #dsm_train_name input", "early")
    page.wait_for_function("(sessionStorage.getItem('dsm.train.draft') || '').includes('early')")
    train_tab_pressing(page, "dsm_train_check")
    said = page.wait_for_selector("#dsm_train_findings .dsm-check-findings, #dsm_train_panel .dsm-error").inner_text()
    assert "has no name" not in said


def test_cropping_by_keyboard_and_mouse(open_page, project, shots):
    Image.new("RGB", (400, 200), "teal").save(project / "IMGS" / "000 first.png")
    page = open_page()
    open_project(page, project)
    tab(page, "Crop")
    page.wait_for_selector("#dsm_crop_stage .dsm-frame")
    page.click("#dsm_crop_mode_center")
    page.wait_for_selector("#dsm_crop_stage .dsm-frame-label:has-text('200×200')")
    box = "() => document.querySelector('#dsm_crop_side dl').innerText.replace(/\\s+/g, ' ')"
    assert "Frame 200×200" in page.evaluate(box)
    label = page.locator("#dsm_crop_stage .dsm-frame").first
    before = label.bounding_box()
    page.focus(".dsm-page-crop")
    page.keyboard.press("ArrowRight")
    assert label.bounding_box()["x"] > before["x"]
    page.keyboard.press("-")
    page.wait_for_function(f"({box})().includes('Frame 192×192')")
    start = label.bounding_box()
    page.mouse.move(start["x"] + start["width"] / 2, start["y"] + start["height"] / 2)
    page.mouse.down()
    page.mouse.move(start["x"] + start["width"] / 2 - 3000, start["y"] + start["height"] / 2, steps=5)
    page.mouse.up()
    image = page.locator("#dsm_crop_stage img").bounding_box()
    assert abs(label.bounding_box()["x"] - image["x"]) < 3  # it stops at the picture's edge
    page.keyboard.press("n")
    assert page.locator("#dsm_crop_stage .dsm-frame").count() == 2
    page.keyboard.press("?")
    page.wait_for_selector(".dsm-dialog")
    page.screenshot(path=shots / "crop-keys.png")
    page.keyboard.press("Escape")
    page.keyboard.press("Enter")
    page.wait_for_function(f"({box})().includes('2 of 11')")
    page.keyboard.press("2")
    page.keyboard.press("s")
    page.wait_for_selector("#dsm_crop_strip .dsm-badge:has-text('left out')")
    page.reload()
    tab(page, "Crop")
    page.wait_for_selector("#dsm_crop_strip .dsm-badge:has-text('✓')")
    page.click("#dsm_crop_write")
    assert ended(page, "dsm_crop_panel") == "done"
    assert (project / "DATASET_IMGS" / "000 first-2.png").is_file()
    with Image.open(project / "DATASET_IMGS" / "000 first.png") as crop:
        assert crop.size == (192, 192)


def test_pruning_by_keyboard(open_page, project, shots):
    page = open_page()
    open_project(page, project)
    tab(page, "Prune")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag.dsm-current")
    page.focus(".dsm-page-prune")
    page.keyboard.press("/")
    page.keyboard.type("shirt")
    page.keyboard.press("Escape")
    shirt = page.locator("#dsm_prune_tags .dsm-tag.dsm-current .dsm-tag-name").inner_text()
    having = [path for path in (project / "IMGS").glob("*.txt") if shirt in path.read_text().split(", ")]
    page.keyboard.press("f")
    page.wait_for_function(
        "count => document.querySelectorAll('#dsm_prune_thumbs .dsm-thumb').length === count", arg=len(having)
    )
    page.keyboard.press("x")
    page.wait_for_selector(f"#dsm_prune_remove_shown:has-text('{len(having)}')")
    page.screenshot(path=shots / "prune-filtered.png")
    page.keyboard.press("Delete")
    page.wait_for_selector("#dsm_prune_undo[title*=remove]")
    assert not any(shirt in path.read_text().split(", ") for path in having)
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_selector("#dsm_prune_redo:not([disabled])")
    assert all(shirt in path.read_text().split(", ") for path in having)
    # One picture's own caption.
    page.fill("#dsm_prune_add", "extra tag, another")
    page.press("#dsm_prune_add", "Enter")
    page.wait_for_selector("#dsm_prune_chips:has-text('another')")
    page.click("#dsm_prune_chips button[aria-label='Remove extra tag']")
    page.wait_for_selector("#dsm_prune_chips:not(:has-text('extra tag'))")
    assert sum("another" in path.read_text() for path in (project / "IMGS").glob("*.txt")) == 1
