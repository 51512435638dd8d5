"""Tagging inside the real WebUI: its progress shows it, its Interrupt stops it, and generating goes on meanwhile."""

from __future__ import annotations

import threading
import time

import pytest

from lib_dsm.demo import world
from tests.benchmarks.tagging import write_network
from tests.browser.chromium import WAIT
from tests.browser.helpers import fill, open_project
from tests.webui.pages import tab


@pytest.fixture
def slow(tmp_path, request):
    """A tagger that takes long enough to be watched, and pictures for a minute of it, which it has not seen before."""
    world.draw_dataset(tmp_path / "set", world.character_of(10), count=200, seed=len(request.node.name))
    for caption in (tmp_path / "set").glob("*.txt"):
        caption.unlink()
    return write_network(tmp_path / "model", 12), tmp_path / "set"


def until(condition, seconds: float = 60):
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("it did not come to pass")


def test_progress_interrupt_and_generating(webui, slow) -> None:
    model, folder = slow
    webui.call("/dsm/v1/project/open", {"path": str(folder)})
    job = webui.call("/dsm/v1/tag", {"folder": str(folder), "options": {"model": str(model), "threshold": 0.0}})["job"]

    def state():
        return webui.call("/sdapi/v1/progress")["state"]

    shown = until(lambda: (now := state())["job"].startswith("DSM") and now["job_no"] > 0 and now)
    assert shown["job_count"] == 200
    asked = {"id_task": f"task(dsm-{job})", "live_preview": False}
    bar = webui.call("/internal/progress", asked)
    assert bar["active"] and 0 < bar["progress"] < 1

    done: list[dict] = []
    prompt = {"prompt": "solo", "steps": 3, "width": 64, "height": 64}
    generating = threading.Thread(target=lambda: done.append(webui.call("/sdapi/v1/txt2img", prompt)))
    generating.start()
    generating.join(120)
    running = webui.call(f"/dsm/v1/jobs/{job}")
    assert done and done[0]["images"] and running["state"] == "running"

    until(lambda: state()["job"].startswith("DSM"))
    webui.call("/sdapi/v1/interrupt", {})
    until(lambda: webui.call(f"/dsm/v1/jobs/{job}")["state"] == "cancelled")
    until(lambda: state()["job"] == "")
    assert webui.call("/internal/progress", asked)["completed"]
    written = len(list(folder.glob("*.txt")))
    assert 0 < written < 200
    assert webui.call("/sdapi/v1/txt2img", prompt)["images"]


def test_the_webuis_own_bar_and_trying_out_by_clicking(page, webui, slow, shots) -> None:
    model, folder = slow
    for picture in sorted(folder.glob("*.png"))[30:]:
        picture.unlink()
    open_project(page, folder)
    tab(page, "Tag")
    field = page.locator("#dsm_tag_model input").first
    field.fill(str(model))
    field.press("Enter")
    fill(page, "dsm_tag_threshold", "0.2")
    page.click("#dsm_tag_look")
    page.wait_for_selector("#dsm_tag_panel .progressDiv .progress:has-text('%')", timeout=WAIT)
    page.screenshot(path=shots / "webui-tag-running.png")
    page.wait_for_selector("#dsm_tag_panel [data-state=done]")
    page.wait_for_selector("#dsm_tag_panel .progressDiv", state="detached")
    page.wait_for_selector("#dsm_tag_page .dsm-try-summary:has-text('in 30 pictures')")
    page.screenshot(path=shots / "webui-tag-tried.png", full_page=True)
