"""How long a person waits on the Crop page for a picture of 24 megapixels, in a headless Chromium.

Run: `python -m tests.benchmarks.crop_page [--pictures 6]`. For JPEG, progressive JPEG and PNG a project of its own is
opened. Told are: the first picture, from the click on the tab, at once and after a look at Dataset; the next ones by
Page Down while one looks at each for a moment (they were fetched ahead); and one far down the strip that nobody has
fetched. A picture counts as opened when it is on the screen at its size there; a coarse one stands in its place until
then.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks.cropping import LARGE, photograph
from tests.browser.chromium import CHROMIUM
from tests.browser.conftest import ROOT

LOOKED_AT = 2.0  # seconds that a person looks at a picture
OPENED = """(name) => {
    const image = document.querySelector('#dsm_crop_stage img');
    return image && image.alt === name && image.complete && image.naturalWidth >= 1200;
}"""
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG": (".jpg", {"quality": 92}),
    "progressive JPEG": (".jpg", {"quality": 92, "progressive": True}),
    "PNG": (".png", {}),
}


def first_of(page: Any, url: str, suffix: str, look: float) -> float:
    """Seconds for the first picture, from the click on the tab, where Dataset was looked at for so long before."""
    page.goto(url)
    page.wait_for_selector("#dsm_tabs")
    page.wait_for_function("DSM.state.project")
    time.sleep(look)
    begin = time.perf_counter()
    page.locator("#dsm_tabs").get_by_role("tab", name="Crop", exact=True).click()
    page.wait_for_function(OPENED, arg=f"0{suffix}", timeout=90_000)
    return time.perf_counter() - begin


def others_of(page: Any, count: int, suffix: str) -> tuple[list[float], float]:
    """Seconds for the next pictures, and for the last one, which was not fetched ahead."""
    page.focus(".dsm-page-crop")
    nexts = []
    for number in range(1, count - 4):
        time.sleep(LOOKED_AT)
        begin = time.perf_counter()
        page.keyboard.press("PageDown")
        page.wait_for_function(OPENED, arg=f"{number}{suffix}", timeout=90_000)
        nexts.append(time.perf_counter() - begin)
    page.wait_for_function("document.querySelector('#dsm_crop_counts').innerText.includes('confirmed')", timeout=90_000)
    begin = time.perf_counter()
    page.locator("#dsm_crop_strip .dsm-thumb").last.click()
    page.wait_for_function(OPENED, arg=f"{count - 1}{suffix}", timeout=90_000)
    return nexts, time.perf_counter() - begin


@contextmanager
def studio(folder: Path, project: Path) -> Iterator[str]:
    """A studio that has made nothing yet; its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "lib_dsm", "studio", "--port", "0", "--data", str(folder), "--project", str(project)],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        found = re.search(r"http://\S+", process.stdout.readline())
        assert found is not None
        yield found.group()
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Measure and print."""
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=8, help="of each kind, 6 at least")
    count = max(6, parser.parse_args().pictures)
    with tempfile.TemporaryDirectory() as name, sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for kind, (suffix, how) in KINDS.items():
            project = Path(name) / kind
            (project / "IMGS").mkdir(parents=True)
            for number in range(count):
                photograph(LARGE, number).save(project / "IMGS" / f"{number}{suffix}", **how)
            firsts = []
            for look in (0.0, LOOKED_AT):
                with studio(Path(name) / "studio", project) as url:
                    page = browser.new_page(viewport={"width": 1920, "height": 1000})
                    firsts.append(first_of(page, url, suffix, look))
                    if look:
                        nexts, far = others_of(page, count, suffix)
                    page.close()
            told = ", ".join(f"{seconds:.2f}" for seconds in nexts)
            print(
                f"{kind}: first {firsts[0]:.2f} s, after a look {firsts[1]:.2f} s; next {told} s; "
                f"one not fetched ahead {far:.2f} s"
            )
        browser.close()


if __name__ == "__main__":
    main()
