"""The Tag tab in the browser: trying out, the live counts, one picture, tagging, undo."""

from __future__ import annotations

from pathlib import Path

import pytest

from lib_dsm.demo import world
from lib_dsm.demo.install import TAGGER
from tests.browser.helpers import choose, ended, fill, forget_ended, open_project, tab


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "project"
    world.draw_dataset(folder / "IMGS", world.character_of(40), count=14, seed=3)
    for caption in (folder / "IMGS").glob("*.txt"):
        caption.unlink()
    return folder


def captions(project: Path) -> list[str]:
    return [path.read_text("utf-8") for path in sorted((project / "IMGS").glob("*.txt"))]


def summary(page) -> str:
    return page.inner_text("#dsm_tag_page .dsm-try-summary")


def test_trying_out_live_and_then_tagging(open_page, project, shots) -> None:
    page = open_page()
    open_project(page, project)
    tab(page, "Tag")
    page.wait_for_selector("#dsm_tag_about:has-text('balanced at 0.3685')")
    page.wait_for_selector("#dsm_tag_page .dsm-empty:has-text('tried out')")
    choose(page, "dsm_tag_model", str(TAGGER))
    page.click("#dsm_tag_look")
    assert ended(page, "dsm_tag_panel") == "done"
    page.wait_for_selector("#dsm_tag_list .dsm-tag")
    assert captions(project) == [] and "in 14 pictures" in summary(page)
    page.wait_for_selector("#dsm_tag_changes .dsm-try-new")
    assert page.locator("#dsm_tag_changes .dsm-try-change").count() == 12
    page.wait_for_selector("#dsm_tag_histogram svg .dsm-limit", state="attached")

    before = summary(page)
    fill(page, "dsm_tag_threshold", "0.99")
    page.wait_for_function("(old) => document.querySelector('.dsm-try-summary').innerText !== old", arg=before)
    assert "from 0.99" in summary(page)
    fill(page, "dsm_tag_threshold", "0.5")
    page.wait_for_function("document.querySelector('.dsm-try-summary').innerText.includes('from 0.50')")
    page.locator("#dsm_tag_more button").first.click()
    fill(page, "dsm_tag_first", "zorgle")
    page.wait_for_function("document.querySelector('#dsm_tag_changes .dsm-try-tags').innerText.startsWith('zorgle')")
    told = page.locator("#dsm_tag_changes .dsm-try-tags").first.inner_text()
    page.screenshot(path=shots / "tag-live.png", full_page=True)

    page.locator("#dsm_tag_changes .dsm-thumb").first.click()
    page.wait_for_selector("#dsm_tag_one .dsm-score.dsm-on")
    assert page.input_value("#dsm_tag_one textarea") == told

    forget_ended(page)
    page.click("#dsm_tag_start")
    assert ended(page, "dsm_tag_panel") == "done"
    written = captions(project)
    assert len(written) == 14 and written[0] == told
    page.click("#dsm_tag_undo")
    page.wait_for_selector("#dsm_tag_panel .dsm-ok:has-text('14 captions')")
    assert captions(project) == []


def test_a_picture_is_dropped(open_page, project) -> None:
    page = open_page()
    open_project(page, project)
    tab(page, "Tag")
    choose(page, "dsm_tag_model", str(TAGGER))
    picture = sorted((project / "IMGS").glob("*.png"))[0]
    page.set_input_files("#dsm_tag_page input[type=file]", picture)
    page.wait_for_selector("#dsm_tag_one .dsm-score")
    assert page.input_value("#dsm_tag_one textarea") and captions(project) == []
    assert "Rating" in page.inner_text("#dsm_tag_one")
