"""The script in docs/ against a studio that really runs, from untagged pictures to a LoRA file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib_dsm.api.app import PREFIX, routes
from lib_dsm.demo.install import TAGGER
from lib_dsm.networks.inspect import describe
from tests.micro import untagged_project

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "docs" / "api_example.py"
PASSWORD = "a password: with colon"
QUICK = '{"size_step": 8, "save_every": 1, "preview_every": 0, "learning_rate": "0.0001", "validation_share": 0}'


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A few pictures without captions."""
    return untagged_project(tmp_path_factory.mktemp("api") / "character")


@pytest.fixture(scope="module")
def studio_url(tmp_path_factory) -> Iterator[str]:
    """A studio in a process of its own, as a person starts it."""
    pytest.importorskip("gradio")
    data = tmp_path_factory.mktemp("studio")
    command = [sys.executable, "-m", "lib_dsm", "studio", "--port", "0", "--data", str(data), "--password", PASSWORD]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            line = next(line for line in running.stdout if "http://" in line)
            yield line.split()[-1]
        finally:
            running.terminate()
            running.wait(60)


def run_script(url: str, project: Path, *more: str, password: str = PASSWORD) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, str(SCRIPT), "--url", url, "--password", password, "--project", str(project),
        "--tagger", str(TAGGER), "--steps", "4", "--size", "64", "--name", "scripted", "--settings", QUICK, *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=500, check=False)


def test_the_script_tags_trains_stops_resumes_and_extracts(studio_url, project):
    ran = run_script(studio_url, project, "--stop-after", "1")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert all((project / "IMGS" / f"{path.stem}.txt").read_text() for path in (project / "IMGS").glob("*.png"))
    assert len(list((project / "SET").glob("*.png"))) == 4
    lora = Path(re.search(r"(/\S+\.safetensors)", ran.stdout)[1])
    assert describe(lora)["kind"] == "lora"
    told = ran.stdout.splitlines()
    jobs = [line.split(maxsplit=1) for line in told if line.startswith("  ")]
    states = [state for state, _ in jobs]
    assert states.count("cancelled") == 1, ran.stdout
    assert set(states) == {"cancelled", "done"}
    assert any("going on" in line for line in told)


def test_a_wrong_password_is_a_sentence(studio_url, project):
    ran = run_script(studio_url, project, password="guessed")
    assert ran.returncode == 1
    assert "no valid token" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_the_page_on_the_api_names_every_route():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    named = set(re.findall(r"^\| `(GET|POST|PUT|DELETE) ([^`]+)` \|", text, re.MULTILINE))
    assert named == {(route.method, route.path) for route in routes()}
    assert PREFIX in text


def test_the_script_imports_nothing_but_the_standard_library():
    source = SCRIPT.read_text(encoding="utf-8")
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names)
