"""The studio in a headless Chromium."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lib_dsm.demo import world
from lib_dsm.demo.world import draw_dataset
from tests.browser.chromium import WAIT

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def pictures(tmp_path_factory) -> Path:
    """Pictures of one character as a person would bring them: without captions, one broken, one long, odd names."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("found")
    draw_dataset(folder, world.character_of(40), count=8, seed=3)
    for caption in folder.glob("*.txt"):
        caption.unlink()
    with Image.open(folder / "001.png") as one, Image.open(folder / "002.png") as two:
        long = Image.new("RGB", (one.width + two.width + 60, max(one.height, two.height)), "white")
        long.paste(one, (0, 0))
        long.paste(two, (long.width - two.width, 0))
        long.save(folder / "two of 'them' ねこ.png")
    (folder / "text.png").write_text("not a picture", encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def studio_data(tmp_path_factory) -> Path:
    """The folder of the studio."""
    return tmp_path_factory.mktemp("studio")


@pytest.fixture(scope="session")
def studio_url(studio_data) -> Iterator[str]:
    """A studio in a process of its own, as a person starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lib_dsm", "studio", "--port", "0", "--data", str(studio_data)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_ENDPOINT": "http://127.0.0.1:9"},  # nothing answers there
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found, f"the studio said {line!r}"
    yield found.group()
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 0


@pytest.fixture
def open_page(chromium, studio_url, shots, request) -> Iterator[Callable]:
    """Opens a page; at the end, nothing must have gone to the browser's console as an error.

    The browser notes there, too, that a route refuses; `refusing` is a part of the address of one that is meant to.
    """
    contexts, problems = [], []

    def make(width: int = 1280, theme: str = "light", refusing: str = " "):
        context = chromium.new_context(viewport={"width": width, "height": 1080 if width > 1500 else 900})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT)
        own = urlsplit(studio_url).netloc

        def on_console(message) -> None:
            address = message.location.get("url", "")
            source = urlsplit(address).netloc
            if refusing in address and "responded with a status of" in message.text:
                return
            if message.type == "error" and source in ("", own):
                problems.append(f"{message.text} ({message.location.get('url')})")

        page.on("console", on_console)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(f"{studio_url}?__theme={theme}")
        page.wait_for_selector("#dsm_tabs")
        page.wait_for_function("window.DSM && DSM.state.token")
        return page

    yield make
    for number, context in enumerate(contexts):
        for page in context.pages:
            page.screenshot(path=shots / f"{request.node.name}-{number}-end.png")
        context.close()
    assert not problems, "\n".join(problems)
