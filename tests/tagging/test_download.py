"""The download against a small server on this machine that answers as the hub does."""

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
FETCH = """
import sys
from pathlib import Path
from lib_dsm.errors import ModelError
from lib_dsm.jobs import Job
from lib_dsm.tagging.download import model_folder
from lib_dsm.tagging.registry import MODELS
try:
    folder = model_folder(MODELS[0], Path(sys.argv[1]), job := Job("fetch"))
    print(*sorted(path.name for path in folder.iterdir()), len(job.snapshot()["lines"]))
except ModelError as error:
    print("ModelError", error)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def answer(self) -> None:
        parts = self.path.split("/")
        content = b"content of " + parts[-1].encode()
        found = parts[1:5] == ["SmilingWolf", "wd-v1-4-convnext-tagger-v2", "resolve", "main"] or "1" * 40 in parts
        self.send_response(200 if found else 404)
        self.send_header("ETag", f'"{parts[-1]}"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def fetch(endpoint: str, cache: Path) -> str:
    hindering = ("proxy", "offline")
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith(hindering)}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HOME": str(cache / "home")}
    command = [sys.executable, "-c", FETCH, str(cache)]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_fetched_once_and_then_used_without_the_network(hub: str, tmp_path: Path) -> None:
    assert fetch(hub, tmp_path) == "model.onnx selected_tags.csv 2"
    assert fetch("http://127.0.0.1:9", tmp_path) == "model.onnx selected_tags.csv 0"


def test_no_network_is_one_clear_sentence(tmp_path: Path) -> None:
    said = fetch("http://127.0.0.1:9", tmp_path)
    assert said.startswith("ModelError The tagger wd14-convnext could not be downloaded") and "folder" in said
