"""The WebUI's Settings → Defaults with our tab beside its own: what is changed is shown, kept and restored."""

from __future__ import annotations

import json

import pytest

from tests.browser.helpers import train_settings
from tests.webui.pages import reload_ui, tab, top

STEPS = "dsm/Max steps/value"


@pytest.fixture
def defaults(webui, page, problems):
    """The file of saved defaults, put back afterwards."""
    path = webui.data / "ui-config.json"
    before = path.read_bytes()
    yield path
    path.write_bytes(before)
    reload_ui(page, webui)
    problems.clear()  # while the server is gone, the WebUI's page asks in vain


def shown(page) -> list[list[str]]:
    """Press "View changes" and return the rows of ours."""
    top(page, "Settings")
    page.locator("#settings > .tab-nav > button").get_by_text("Defaults", exact=True).click()
    page.click("#ui_defaults_view")
    page.wait_for_selector("#tab_settings td")
    rows = page.evaluate(
        "[...document.querySelectorAll('#tab_settings tr')].map((row) => [...row.cells].map((cell) => cell.innerText))"
    )
    return [row for row in rows if row[0].startswith("dsm/")]


def test_a_default_of_ours_is_shown_applied_and_there_after_reload_ui(page, webui, defaults, problems):
    assert json.loads(defaults.read_text(encoding="utf-8"))[STEPS] == 5000
    tab(page, "Train")
    page.evaluate("localStorage.clear()")
    train_settings(page, max_steps=123)
    rows = {path: (old, new) for path, old, new in shown(page)}
    assert rows.pop(STEPS) == ("5000", "123")
    assert rows.keys() <= {"dsm/Tabs@dsm_tabs/selected"}, rows
    page.click("#ui_defaults_apply")
    page.wait_for_selector("#tab_settings :text('Wrote')")
    assert json.loads(defaults.read_text(encoding="utf-8"))[STEPS] == 123
    page.evaluate("localStorage.clear(); sessionStorage.clear()")  # where our page keeps what was written into the form
    reload_ui(page, webui)
    problems.clear()  # while the server is gone, the WebUI's page asks in vain
    top(page, "DSM")
    page.evaluate("DSM.openTab('Train')")
    page.wait_for_function("DSM.train.ready")
    assert page.evaluate("DSM.train.read().then((values) => values.max_steps)") == 123
    assert STEPS not in [row[0] for row in shown(page)]
    problems.clear()
