"""The download against a small server on this machine that answers as the hub does."""

import contextlib
import hashlib
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

import pytest

from tests.hub import Handler, environment, serving

ROOT = Path(__file__).parent.parent.parent
FETCH = """
import sys
from pathlib import Path
from lib_dsm.errors import Cancelled, ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.download import model_folder
from lib_dsm.tagging.registry import MODELS
seen = []
job = Job("fetch", watcher=lambda job: seen.append(dict(job.data.get("download", {}))))
if sys.argv[2:]:
    watch = job._watcher
    job._watcher = lambda job: (watch(job), job.cancel() if seen[-1] else None)
try:
    folder = model_folder(MODELS[0], Path(sys.argv[1]), job)
    print(*sorted(path.name for path in folder.iterdir()), len(job.snapshot()["lines"]))
    print((folder / "model.onnx").stat().st_size, max((step["done"] for step in seen if step), default=0))
except (ModelError, Cancelled) as error:
    print(type(error).__name__, error)
"""
LARGE = 36_000_000


LARGE_CONTENT = bytes(range(250)) * (LARGE // 250)


def content_of(name: str) -> bytes:
    return b"content of " + name.encode()


class Hub(Handler):
    def answer(self) -> None:
        parts = self.path.split("/")
        content = content_of(parts[-1])
        found = parts[1:5] == ["SmilingWolf", "wd-v1-4-convnext-tagger-v2", "resolve", "main"] or "1" * 40 in parts
        self.send_response(200 if found else 404)
        self.send_header("ETag", f'"{parts[-1]}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)


class LargeHub(Handler):
    """Names files by their hashes as the hub does; what it sends of the network is slow and may be other bytes."""

    asked: ClassVar[list[str]] = []
    damaged = False
    pause = 0.05

    def answer(self) -> None:
        name = self.path.split("/")[-1]
        content = LARGE_CONTENT if name == "model.onnx" else content_of(name)
        large = name == "model.onnx"
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        first = 0
        if self.command == "GET" and (wanted := self.headers.get("Range")):
            first = int(wanted.removeprefix("bytes=").partition("-")[0])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        if self.command == "GET":
            self.asked.append(f"{name} from {first}")
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest() if large else git}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(content) - first))
        self.end_headers()
        if self.command == "GET":
            sent = bytes(len(content)) if large and self.damaged else content
            with contextlib.suppress(OSError):
                for start in range(first, len(sent), 1_000_000):
                    self.wfile.write(sent[start : start + 1_000_000])
                    if large:
                        time.sleep(self.pause)


@pytest.fixture
def large_hub() -> Iterator[str]:
    LargeHub.asked.clear()
    with serving(LargeHub) as address:
        yield address


@pytest.fixture
def hub() -> Iterator[str]:
    with serving(Hub) as address:
        yield address


def fetch(endpoint: str, cache: Path, *more: str) -> str:
    command = [sys.executable, "-c", FETCH, str(cache), *more]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(endpoint, cache / "home"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_fetched_once_and_then_used_without_the_network(hub: str, tmp_path: Path) -> None:
    size = len(content_of("model.onnx"))
    assert fetch(hub, tmp_path) == f"model.onnx selected_tags.csv 2\n{size} 0"
    assert fetch("http://127.0.0.1:9", tmp_path) == f"model.onnx selected_tags.csv 0\n{size} 0"


def test_progress_is_told_and_what_came_is_checked(large_hub: str, tmp_path: Path) -> None:
    names, sizes = fetch(large_hub, tmp_path).splitlines()
    size, most = map(int, sizes.split())
    assert names == "model.onnx selected_tags.csv 2" and size == LARGE and 0 < most <= LARGE


def test_a_stop_and_a_second_try_that_goes_on(large_hub: str, tmp_path: Path) -> None:
    assert fetch(large_hub, tmp_path, "stop").startswith("Cancelled")
    names, sizes = fetch(large_hub, tmp_path).splitlines()
    assert names.startswith("model.onnx") and sizes.startswith(f"{LARGE} ")
    again = [int(line.split()[-1]) for line in LargeHub.asked if line.startswith("model.onnx")]
    assert again[0] == 0 and any(start > 0 for start in again[1:]), LargeHub.asked


def test_what_came_damaged_is_thrown_away(large_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LargeHub, "pause", 0)
    monkeypatch.setattr(LargeHub, "damaged", True)
    assert "came damaged" in fetch(large_hub, tmp_path)
    monkeypatch.setattr(LargeHub, "damaged", False)
    assert fetch(large_hub, tmp_path).startswith("model.onnx selected_tags.csv")


def test_two_at_once_fetch_it_once(large_hub: str, tmp_path: Path) -> None:
    with ThreadPoolExecutor(2) as threads:
        told = list(threads.map(lambda _: fetch(large_hub, tmp_path), range(2)))
    assert all(text.startswith("model.onnx selected_tags.csv") for text in told), told
    assert [line for line in LargeHub.asked if line.startswith("model.onnx")] == ["model.onnx from 0"]


def test_more_than_was_promised_is_fetched_anew(
    large_hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LargeHub, "pause", 0)
    blobs = tmp_path / "models--SmilingWolf--wd-v1-4-convnext-tagger-v2" / "blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{hashlib.sha256(LARGE_CONTENT).hexdigest()}.dsm-part").write_bytes(LARGE_CONTENT + b"more")
    assert fetch(large_hub, tmp_path).splitlines()[1].startswith(f"{LARGE} ")
    assert not list(blobs.glob("*.dsm-part"))


def test_no_network_is_one_clear_sentence(tmp_path: Path) -> None:
    said = fetch("http://127.0.0.1:9", tmp_path)
    assert said.startswith("ModelError The tagger wd14-convnext could not be downloaded") and "folder" in said
