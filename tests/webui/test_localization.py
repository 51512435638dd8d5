"""The WebUI set to another language, with its tabs in another order and some of them hidden: ours goes along."""

from __future__ import annotations

import pytest

from tests.browser.helpers import train_settings, trained
from tests.ui.strings import translation
from tests.webui.pages import TABS, at_our_tab, reload_ui, settled

WORD = "zorgsprache"
ORDER = ["DSM", "PNG Info", "txt2img"]
HIDDEN = ["Train", "Checkpoint Merger"]
# Texts, hints and what fields show while they are empty, of our tab and of what lies over the page.
SHOWN = """() => {
    const found = [], add = (text, where) => text && text.trim() && found.push([text.trim(), where]);
    for (const part of [document.querySelector("#tab_dsm"), document.querySelector("#dsm_over")].filter(Boolean)) {
        const walk = document.createTreeWalker(part, NodeFilter.SHOW_TEXT);
        for (let node; (node = walk.nextNode());) {
            if (!node.parentElement.closest("textarea, pre, code, kbd, style, script")) add(node.textContent, "text");
        }
        for (const element of part.querySelectorAll("[title], [placeholder]")) {
            add(element.title, "title");
            add(element.placeholder, "placeholder");
        }
    }
    return found;
}"""


@pytest.fixture(scope="module", params=["de_DE", "zh_CN"])
def language(request, webui, chromium):
    """The WebUI's page reloaded with the language; afterwards it is as it was before."""

    def use(name: str, order: list[str], hidden: list[str]) -> None:
        webui.set_options(localization=name, ui_tab_order=order, hidden_tabs=hidden)
        context = chromium.new_context()
        page = context.new_page()
        at_our_tab(page, webui.url)
        reload_ui(page, webui)
        settled(page)
        context.close()

    use(request.param, ORDER, HIDDEN)
    yield request.param
    use("None", [], [])


@pytest.fixture
def made(webui):
    yield
    for path in (webui.data / "embeddings").glob(f"{WORD}*"):
        path.unlink()
    webui.call("/sdapi/v1/refresh-embeddings", {})


def test_our_tab_speaks_the_language_and_works_in_it(language, page, webui, made, problems, shots):
    words = translation(language)
    labels = page.locator("#tabs > .tab-nav > button").all_inner_texts()
    assert labels[0].strip() == "DSM" and len(labels) > 4
    assert page.locator("#tab_ti, #tab_modelmerger").count() == 0
    buttons = page.locator("#dsm_tabs > .tab-nav > button")
    assert [text.strip() for text in buttons.all_inner_texts()] == [words.get(label, label) for label in TABS]

    page.click("#dsm_tour_open")
    page.wait_for_selector(f".dsm-tour.dsm-dialog :text('{words['From pictures to a word of your own']}')")
    page.keyboard.press("Escape")
    page.locator("#dsm_dataset_page button").get_by_text(words["Make a small demo project"], exact=True).click()
    page.wait_for_function("document.querySelectorAll('#dsm_dataset_thumbs img').length === 26")
    english = []
    for number, label in enumerate(TABS):
        page.evaluate("label => DSM.openTab(label)", label)
        page.wait_for_function("number => DSM.tabButton(DSM.TABS[number]).classList.contains('selected')", arg=number)
        page.wait_for_timeout(700)  # what a page draws late
        page.screenshot(path=shots / f"webui-{language}-{label.lower()}.png")
        english += [(label, *found) for found in page.evaluate(SHOWN) if words.get(found[0], found[0]) != found[0]]
    assert english == []

    # The form's values are what they are in English, and so is what is chosen of translated words.
    page.evaluate("DSM.openTab('Train')")
    word = f"{WORD}{language[:2]}"  # of its own: the run of the other language is shown as it ended
    settings = {
        "kind": "embedding", "name": word, "checkpoint": webui.checkpoint.name, "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 2, "batch_size": 1, "gradient_accumulation": 1, "width": 64,
        "height": 64, "save_every": 0, "preview_every": 2, "validate_every": 0, "validation_share": 0,
        "overwrite": True,
    }  # fmt: skip
    preview = {"prompt": "solo, [name]", "width": 64, "height": 64, "steps": 2, "seed": 3, "sampler": "Euler"}
    train_settings(page, **settings, previews=[preview])
    page.click("#dsm_train_start")
    assert trained(page, word) == "done", page.inner_text("#dsm_train_panel")
    page.screenshot(path=shots / f"webui-{language}-trained.png")
    page.evaluate("DSM.openTab('LoRA')")
    page.locator("#dsm_lora_kind label").nth(2).click()
    page.wait_for_selector("#dsm_lora_forms[data-kind=checkpoints]")

    # Our way to the WebUI's own tabs, which are in another order.
    page.evaluate("DSM.openTab('Train')")
    page.locator("#dsm_previews .dsm-preview").last.click()
    problems.clear()  # the WebUI's own tab stumbles whenever its sizes change
    page.click("#dsm_send_txt2img")
    page.wait_for_function(f"document.querySelector('#txt2img_prompt textarea').value === 'solo, {word}'")
    page.wait_for_selector("#tab_txt2img", state="visible")
    page.wait_for_timeout(2500)  # the WebUI's own way there, to whatever tab is the first, comes later
    assert page.locator("#tab_txt2img").is_visible() and not page.locator("#tab_dsm").is_visible()
    problems.clear()
