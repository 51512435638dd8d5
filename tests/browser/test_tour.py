"""What a newcomer sees: the way on one screen, what each tab lacks, and a demo project one click away."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tests.browser.helpers import open_project, tab


def hint(page, label: str):
    return page.locator(f"#dsm_{label}_hint [data-dsm=hint]")


def test_the_tour_is_shown_once_and_again_when_asked_for(open_page, shots):
    page = open_page()
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    page.reload()
    page.wait_for_selector("#dsm_tour_card")
    assert page.locator("#dsm_tour_card li b").all_inner_texts() == ["Collect", "Crop", "Tag", "Prune", "Train", "Use"]
    page.screenshot(path=shots / "tour-card.png")
    page.click("#dsm_tour_seen")
    page.wait_for_selector("#dsm_tour_card", state="detached")
    page.reload()
    page.wait_for_selector("#dsm_dataset_page .dsm-empty")
    assert page.locator("#dsm_tour_card").count() == 0

    page.click("#dsm_tour_open")
    page.wait_for_selector("[role=dialog] .dsm-tour-steps")
    assert page.evaluate("document.activeElement.id") == "dsm_tour_close"
    page.screenshot(path=shots / "tour-dialog.png")
    page.keyboard.press("Escape")
    page.wait_for_selector("[role=dialog]", state="detached")
    assert page.evaluate("document.activeElement.id") == "dsm_tour_open"
    page.click("#dsm_tour_open")
    page.locator("[role=dialog] .dsm-tour-step:has-text('Prune')").click()
    page.wait_for_selector("[role=dialog]", state="detached")
    page.wait_for_selector("#dsm_prune_page", state="visible")


def test_each_tab_says_what_it_lacks_and_leads_there(open_page, tmp_path, shots):
    page = open_page()
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    page.reload()
    page.wait_for_selector("#dsm_dataset_page .dsm-empty")
    for label, place in (("Crop", "#dsm_crop_page"), ("Tag", "#dsm_tag_hint"), ("Prune", "#dsm_prune_page"),
                         ("Train", "#dsm_train_hint")):  # fmt: skip
        tab(page, label)
        page.wait_for_selector(f"{place} .dsm-empty:has-text('No project is open')")
        page.screenshot(path=shots / f"empty-{label.lower()}.png")

    project = tmp_path / "empty"
    open_project(page, project, new=True)
    for label in ("tag", "prune", "train"):
        tab(page, label.capitalize())
        page.wait_for_selector(f"#dsm_{label}_hint:has-text('holds no pictures yet')")
    page.locator("#dsm_train_hint button").click()
    page.wait_for_selector("#dsm_dataset_page", state="visible")

    Image.new("RGB", (64, 64), "teal").save(project / "IMGS" / "1.png")
    open_project(page, project)
    page.wait_for_function("DSM.state.project.folders[0].pictures === 1")
    tab(page, "Tag")
    page.wait_for_function("!document.querySelector('#dsm_tag_hint [data-dsm=hint]').firstChild")
    tab(page, "Prune")
    page.wait_for_selector("#dsm_prune_hint:has-text('no captions to prune')")
    tab(page, "Train")
    page.wait_for_selector("#dsm_train_hint:has-text('No picture in IMGS has a caption yet')")
    page.screenshot(path=shots / "lacks-captions.png")
    page.locator("#dsm_train_hint button:has-text('Go to Tag')").click()
    page.wait_for_selector("#dsm_tag_start", state="visible")

    (project / "IMGS" / "1.txt").write_text("solo", encoding="utf-8")
    open_project(page, project)
    page.wait_for_function("DSM.state.project.folders[0].captions === 1")
    for label in ("tag", "prune", "train"):
        page.wait_for_function(
            "label => !document.querySelector(`#dsm_${label}_hint [data-dsm=hint]`).firstChild", arg=label
        )
        assert hint(page, label).inner_text() == ""


def test_the_demo_project_is_one_click_away(open_page, studio_data, shots):
    page = open_page(1280, "dark")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
    page.reload()
    page.locator("#dsm_dataset_page button:has-text('demo project')").click()
    page.wait_for_function("document.querySelectorAll('#dsm_dataset_thumbs img').length === 26")
    assert Path(page.evaluate("DSM.state.project.path")) == (studio_data / "projects" / "demo").resolve()
    page.screenshot(path=shots / "demo-project.png")
    # Nothing of what ties the page to the WebUI is here.
    assert page.evaluate("DSM.webui === undefined")
    page.evaluate("localStorage.clear(); sessionStorage.clear()")
