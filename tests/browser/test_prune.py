"""Pruning as a person does it: the character, filters and their mistakes, chips, selections, history, two pages."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_dsm.demo import world
from tests.browser.helpers import open_project, tab


@pytest.fixture
def project(tmp_path) -> Path:
    folder = tmp_path / "set"
    world.draw_dataset(folder / "IMGS", world.character_of(40), count=24, seed=5)
    return folder


@pytest.fixture
def prune_page(open_page, project):
    def make(**how):
        page = open_page(**how)
        open_project(page, project)
        tab(page, "Prune")
        page.wait_for_selector("#dsm_prune_tags .dsm-tag.dsm-current")
        page.wait_for_selector("#dsm_prune_thumbs .dsm-thumb img")
        page.focus(".dsm-page-prune")
        return page

    return make


def captions(project: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in (project / "IMGS").glob("*.txt")}


def shown(page, count: int) -> None:
    page.wait_for_function(
        "count => document.querySelectorAll('#dsm_prune_thumbs .dsm-thumb').length === count", arg=count
    )


def test_prune_the_character_in_two_clicks(prune_page, project, shots):
    page = prune_page(width=1280)
    before = captions(project)
    constant = {
        tag for name in world.CONSTANT for tag in world.attribute_tags(world.character_of(40), name)
    }  # fmt: skip
    page.click("#dsm_prune_character")
    page.wait_for_selector("#dsm_prune_accept:has-text('captions')")
    page.screenshot(path=shots / "prune-character.png")
    told = page.locator("#dsm_prune_character_dialog .dsm-follows").inner_text()
    assert "Learned as inherent" in told and all(tag in told for tag in constant)
    page.click("#dsm_prune_accept")
    page.wait_for_selector("#dsm_prune_undo[title*=remove]")
    after = captions(project)
    for name, text in before.items():
        assert after[name] == ", ".join(tag for tag in text.split(", ") if tag not in constant)
    page.keyboard.press("u")
    page.wait_for_selector("#dsm_prune_redo:not([disabled])")
    assert captions(project) == before


def test_click_shift_click_and_hover(prune_page, project):
    page = prune_page(width=1920)
    row = page.locator("#dsm_prune_tags .dsm-tag[data-tag=smile]")
    having = [text for text in captions(project).values() if "smile" in text.split(", ")]
    row.hover()
    page.wait_for_selector("#dsm_prune_thumbs.dsm-lighting")
    assert page.locator("#dsm_prune_thumbs .dsm-lit").count() == len(having)
    row.click()
    shown(page, len(having))
    page.locator("#dsm_prune_tags .dsm-tag[data-tag=smile]").click(modifiers=["Shift"])
    shown(page, 24 - len(having))
    page.keyboard.press("Escape")
    shown(page, 24)


def test_a_mistake_in_a_query_is_shown_at_its_place(prune_page, project, shots):
    page = prune_page(width=1280, refusing="where=")
    page.keyboard.press("q")
    page.keyboard.type("smile AND tokens > many")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dsm_prune_query_error:has-text('A number is missing')")
    lines = page.locator("#dsm_prune_query_error pre").inner_text().split("\n")
    assert lines[0][lines[1].index("▲") :] == "many"
    page.screenshot(path=shots / "prune-query-error.png")
    page.fill("#dsm_prune_query", "tags > 200")
    page.keyboard.press("Enter")
    page.wait_for_selector("#dsm_prune_total:has-text('No picture matches')")
    assert page.locator("#dsm_prune_query_error").is_hidden()


def test_chips_are_moved_edited_removed_and_restored(prune_page, project):
    page = prune_page(width=1920)
    file = project / "IMGS" / "001.txt"
    tags = file.read_text().split(", ")

    def now(wanted: list[str]) -> None:
        text = ", ".join(wanted)
        page.wait_for_function(
            "n => document.querySelectorAll('#dsm_prune_chips .dsm-chip').length === n", arg=len(wanted)
        )
        page.wait_for_function(
            "text => [...document.querySelectorAll('#dsm_prune_chips .dsm-chip-text')].map(e => e.textContent)"
            ".join(', ') === text",
            arg=text,
        )
        assert file.read_text() == text

    chip = page.locator("#dsm_prune_chips .dsm-chip")
    chip.nth(2).drag_to(chip.nth(0), target_position={"x": 3, "y": 8})
    tags.insert(0, tags.pop(2))
    now(tags)
    chip.nth(0).focus()
    page.keyboard.press("Control+ArrowRight")
    tags[0], tags[1] = tags[1], tags[0]
    now(tags)
    page.keyboard.press("Delete")
    gone = tags.pop(1)
    now(tags)
    page.click(f"[aria-label='Restore {gone}']")
    tags.append(gone)
    now(tags)
    chip.nth(0).dblclick()
    page.keyboard.press("Control+a")
    page.keyboard.type("nekomim")
    page.wait_for_selector(".dsm-complete-item:has-text('cat ears')")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    tags[0] = "cat ears"
    now(tags)


def test_several_pictures_have_tags_in_common(prune_page, project, shots):
    page = prune_page(width=1280)
    thumbs = page.locator("#dsm_prune_thumbs .dsm-thumb")
    thumbs.nth(0).click()
    thumbs.nth(3).click(modifiers=["Shift"])
    page.wait_for_selector("#dsm_prune_total:has-text('4 selected')")
    texts = [set(captions(project)[f"00{number}.txt"].split(", ")) for number in (1, 2, 3, 4)]
    page.wait_for_selector("#dsm_prune_common .dsm-chip")
    common = {text.strip().split("\n")[0] for text in page.locator("#dsm_prune_common .dsm-chip").all_inner_texts()}
    assert {text.removesuffix("×").strip() for text in common} == set.intersection(*texts)
    page.screenshot(path=shots / "prune-several.png")
    page.fill("#dsm_prune_add", "four")
    page.press("#dsm_prune_add", "Enter")
    page.wait_for_selector("#dsm_prune_common:has-text('four')")
    assert sum("four" in text for text in captions(project).values()) == 4
    page.click("#dsm_prune_take_out")
    page.click(".dsm-dialog .dsm-primary")
    shown(page, 20)
    assert (project / "IMGS" / ".dsm" / "removed" / "004.txt").read_text().endswith("four")
    page.focus(".dsm-page-prune")
    page.keyboard.press("u")
    shown(page, 24)
    assert (project / "IMGS" / "004.png").is_file()


def test_tags_are_removed_from_the_pictures_selected_or_from_all(prune_page, project):
    page = prune_page(width=1280)
    tag = world.attribute_tags(world.character_of(40), world.CONSTANT[0])[0]
    before = captions(project)
    thumbs = page.locator("#dsm_prune_thumbs .dsm-thumb")
    thumbs.nth(0).click()
    for number in (2, 5):
        thumbs.nth(number).click(modifiers=["Control"])
    page.wait_for_selector("#dsm_prune_total:has-text('3 selected')")
    page.fill("#dsm_prune_search", tag)

    def select() -> None:
        page.locator(f"#dsm_prune_tags [data-tag='{tag}']").click(modifiers=["Control"])

    def pruned(expected: set[str]) -> None:
        page.wait_for_selector("#dsm_prune_remove_all", state="hidden")
        after = captions(project)
        assert {name for name, text in before.items() if after[name] != text} == expected
        assert not any(tag in after[name].split(", ") for name in expected)

    for act in (lambda: page.click("#dsm_prune_remove_shown"), lambda: page.keyboard.press("Delete")):
        select()
        page.wait_for_selector("#dsm_prune_remove_shown:has-text('Remove from the 3 selected')")
        page.focus(".dsm-page-prune")
        act()
        pruned({"001.txt", "003.txt", "006.txt"})
        page.keyboard.press("u")
        page.wait_for_selector("#dsm_prune_redo:not([disabled])")
    select()
    page.wait_for_selector(f"#dsm_prune_remove_all:has-text('Remove from {len(before)} captions')")
    page.click("#dsm_prune_remove_all")
    pruned(set(before))


def test_an_edit_shows_what_it_will_change_and_history_steps_through(prune_page, project, shots):
    page = prune_page(width=1280)
    first = captions(project)
    for old in ("smile", "frown"):
        page.keyboard.press("e")
        page.keyboard.type(old)
        page.keyboard.press("Enter")  # over the suggestions
        page.locator("#dsm_prune_edit_dialog .dsm-field").nth(1).fill("face")
        count = sum(old in text.split(", ") for text in captions(project).values())
        page.wait_for_selector(f"#dsm_prune_edit_apply:has-text('{count} captions')")
        page.screenshot(path=shots / "prune-edit.png")
        page.click("#dsm_prune_edit_apply")
        page.wait_for_selector(f"#dsm_prune_undo[title*={old}]")
    last = captions(project)
    assert not any("smile" in text or "frown" in text for text in last.values())
    page.keyboard.press("h")
    page.wait_for_selector("#dsm_prune_history_dialog .dsm-diff-gone")
    page.screenshot(path=shots / "prune-history.png")
    page.click("#dsm_prune_originals")
    page.wait_for_selector("#dsm_prune_history_dialog .dsm-act-undone >> nth=1")
    assert captions(project) == first
    page.click("#dsm_prune_go")
    page.wait_for_selector("#dsm_prune_history_dialog .dsm-act-done >> nth=1")
    assert captions(project) == last


def test_two_pages_agree_and_a_foreign_change_is_told(prune_page, project):
    one, other = prune_page(), prune_page()
    one.keyboard.press("a")
    one.keyboard.type("seen by both")
    one.keyboard.press("Enter")
    other.wait_for_selector("#dsm_prune_chips:has-text('seen by both')")
    file = project / "IMGS" / "001.txt"
    file.write_text("by another program")
    for page in (one, other):
        page.wait_for_selector("#dsm_prune_chips:has-text('by another program')")
    assert one.locator(".dsm-toast:has-text('001.txt')").count() == 1
    one.evaluate("document.activeElement.blur()")
    one.focus(".dsm-page-prune")
    one.keyboard.press("u")
    one.wait_for_selector(".dsm-toast:has-text('left alone')")
    assert file.read_text() == "by another program"


def test_every_key_is_in_the_list(prune_page):
    page = prune_page()
    page.keyboard.press("?")
    told = page.locator(".dsm-keys").inner_text()
    for word in (
        "search the tags",
        "prune the character",
        "history",
        "undo",
        "select the picture",
        "without its pictures",
    ):
        assert word in told
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.wait_for_function("!document.querySelector('#dsm_prune_tags .dsm-tag-heading')")
    page.keyboard.press("g")
    page.wait_for_selector("#dsm_prune_tags .dsm-tag-heading")
    page.keyboard.press("End")
    page.wait_for_selector("#dsm_prune_thumbs .dsm-thumb.dsm-current:has-text('024.png')")
    page.keyboard.press("Control+a")
    page.wait_for_selector("#dsm_prune_total:has-text('24 selected')")


@pytest.mark.skipif(not os.environ.get("DSM_MANY_PICTURES"), reason="DSM_MANY_PICTURES names a project of very many")
def test_very_many_pictures(open_page, shots):
    page = open_page(1920)
    open_project(page, Path(os.environ["DSM_MANY_PICTURES"]))
    tab(page, "Prune")
    page.wait_for_selector("#dsm_prune_thumbs .dsm-thumb img")
    assert page.locator("#dsm_prune_thumbs .dsm-thumb").count() < 300
    page.focus(".dsm-page-prune")
    page.keyboard.press("End")
    page.wait_for_selector("#dsm_prune_thumbs .dsm-thumb.dsm-current img")
    page.screenshot(path=shots / "prune-many.png")
