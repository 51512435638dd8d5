"""A known detector is fetched once from a hub on this machine, used, and not asked for again."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from tests.cropping.test_proposals import noise, yunet
from tests.hub import Handler, environment, serving

ROOT = Path(__file__).parent.parent.parent


class Hub(Handler):
    content: ClassVar[bytes] = b""
    asked: ClassVar[list[str]] = []

    def answer(self) -> None:
        found = self.path.startswith("/opencv/face_detection_yunet/resolve/")
        self.send_response(200 if found else 404)
        self.send_header("ETag", '"a-mirror-names-it-so"')
        self.send_header("X-Repo-Commit", "1" * 40)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        if self.command == "GET":
            self.asked.append(self.path)
            self.wfile.write(self.content)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    Hub.content = yunet(tmp_path / "face.onnx", (40, 24, 16, 20)).read_bytes()
    Hub.asked.clear()
    with serving(Hub) as address:
        yield address


def crop(folder: Path, endpoint: str, detector: str) -> subprocess.CompletedProcess[str]:
    command = ["crop", folder / "in", "--out", folder / "out", "--data", folder / "data", "--mode", "portrait",
               "--size", "64x64", "--detector", detector, "--save-plan", folder / "plan.json"]  # fmt: skip
    words = [sys.executable, "-m", "lib_dsm", *map(str, command)]
    return subprocess.run(
        words, cwd=ROOT, env=environment(endpoint, folder / "home"), capture_output=True, text=True, timeout=60
    )


def test_fetched_by_its_name_and_used(hub: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise((640, 640)).save(tmp_path / "in" / "a.png")
    for endpoint in (hub, "http://127.0.0.1:9"):  # the second time nobody is asked
        done = crop(tmp_path, endpoint, "yunet")
        assert done.returncode == 0, done.stderr
        frames = json.loads((tmp_path / "plan.json").read_text())["items"]
        portrait = next(frame for frame in frames if frame["part"] == "portrait")["box"]
        assert portrait[0] < 320 and portrait[2] > 480 and portrait[1] < 140 and portrait[3] > 340  # around the face
    assert len(Hub.asked) == 1


def test_without_a_network_it_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    noise((64, 64)).save(tmp_path / "in" / "a.png")
    done = crop(tmp_path, "http://127.0.0.1:9", "anime-head")
    assert done.returncode == 1 and "The detector anime-head could not be downloaded" in done.stderr
    assert "head_detect_v0_s/model.onnx of deepghs/anime_head_detection" in done.stderr
    assert not (tmp_path / "plan.json").exists()
