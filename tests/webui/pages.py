"""The WebUI's page in Chromium: fixtures, and what a person does with its tabs, which gradio 3 draws."""

from __future__ import annotations

import os
import weakref
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lib_dsm.demo.install import TAGGER
from tests.browser.chromium import WAIT
from tests.browser.helpers import ended

_opened: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
TABS = ("Dataset", "Crop", "Tag", "Prune", "Train", "LoRA")


@pytest.fixture
def problems():
    """What went to the browser's console as an error; at the end there must be none."""
    found: list[str] = []
    yield found
    assert not found, "\n".join(found)


@pytest.fixture
def page(chromium, webui, shots, problems, request):
    """The WebUI's page at our tab."""
    context = chromium.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(WAIT)

    def on_console(message) -> None:
        # The WebUI's theme asks for its fonts, from foreign servers and from a repository that may not be there.
        source = urlsplit(message.location.get("url", ""))
        fonts = source.netloc not in ("", urlsplit(webui.url).netloc) or source.path.startswith("/webui-assets/")
        if message.type == "error" and not fonts:
            problems.append(f"{message.text} ({message.location.get('url')})")

    page.on("console", on_console)
    page.on("pageerror", lambda error: problems.append(error.stack or str(error)))
    at_our_tab(page, webui.url)
    yield page
    page.screenshot(path=shots / f"webui-end-{request.node.name}.png", full_page=True)
    context.close()


def settled(page) -> None:
    """Wait until nothing of gradio's runs for the page: what a page leaves behind keeps Reload UI from ever ending."""
    for socket in _sockets(page):
        while not (socket.is_closed() or page.is_closed()):
            page.wait_for_timeout(50)


def _sockets(page) -> list:
    """The web sockets of a page from the first call on, by which gradio 3 runs what takes time."""
    if page not in _opened:
        _opened[page] = []
        page.on("websocket", lambda socket: _opened[page].append(socket))
    return _opened[page]


def at_our_tab(page, url: str) -> None:
    """Load the WebUI's page and wait until our tab is shown."""
    settled(page)
    page.goto(f"{url}?__theme={os.environ.get('DSM_THEME', 'light')}")
    page.wait_for_function("window.DSM && DSM.state.token")
    top(page, "DSM")
    page.wait_for_selector("#dsm_tabs", state="visible")


def top(page, label: str) -> None:
    """Open one of the WebUI's own tabs."""
    page.locator("#tabs > .tab-nav > button").get_by_text(label, exact=True).click()


def tab(page, label: str) -> None:
    """Open one of ours; to gradio 3 they are plain buttons."""
    page.locator("#dsm_tabs > .tab-nav > button").get_by_text(label, exact=True).click()


def choose(page, elem_id: str, value: str) -> None:
    """Pick a dropdown's value; its list has no roles in gradio 3."""
    field = page.locator(f"#{elem_id} input").first
    field.click()
    field.fill(value)
    page.locator(f"#{elem_id} ul.options li[aria-label='{value}']").click()
    field.press("Tab")


def demo_project(page) -> Path:
    """Have the demo project drawn, and wait for its pictures."""
    page.locator("#dsm_dataset_page button:has-text('demo project')").click()
    page.wait_for_function("document.querySelectorAll('#dsm_dataset_thumbs img').length === 26")
    return Path(page.evaluate("DSM.state.project.path"))


def accept_crops(page) -> None:
    """Go on to Crop, and confirm what is proposed for the demo project."""
    page.click("#dsm_next_crop")
    page.wait_for_selector("#dsm_crop_counts:has-text('of 26 confirmed')")
    page.click("#dsm_crop_accept")
    page.wait_for_selector("#dsm_crop_counts:has-text('26 of 26 confirmed')")


def write_crops(page, project: Path) -> int:
    """Write what is confirmed; the number of crops."""
    page.click("#dsm_crop_write")
    assert ended(page, "dsm_crop_panel") == "done"
    crops = len(list((project / "DATASET_IMGS").glob("*.png")))
    assert crops >= 26
    return crops


def tag_crops(page) -> None:
    """Go on to Tag, and have the demo's tagger tag."""
    page.click("#dsm_next_tag")
    choose(page, "dsm_tag_model", str(TAGGER))
    page.click("#dsm_tag_start")
    assert ended(page, "dsm_tag_panel") == "done"


def reload_ui(page, webui) -> list[str]:
    """Press the WebUI's "Reload UI" and wait until it is there again; the paths of ours that were asked for meanwhile.

    A request that comes while it adds its routes ends the WebUI, also its own page's, so that none is let through.
    """
    starts, asked = webui.starts(), []
    settled(page)
    page.wait_for_timeout(1500)  # what the page has asked for is answered: its server waits for that before it ends

    def hold(route) -> None:
        asked.append(urlsplit(route.request.url).path)
        route.abort()

    page.evaluate("window.before = true")
    page.click("footer a:has-text('Reload UI'), #footer a:has-text('Reload UI')")
    page.wait_for_selector("h1:has-text('Reloading')")
    page.route("**/*", hold)
    while webui.starts() == starts:
        page.wait_for_timeout(100)
    page.unroute("**/*", hold)
    page.wait_for_function("!window.before && window.DSM && DSM.state.token")
    settled(page)
    return [path for path in asked if path.startswith("/dsm/")]
