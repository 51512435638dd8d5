"""The page builds, and is the same, on every gradio that a host pins and on the studio's own."""

from __future__ import annotations

import functools
import json
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import install

ROOT = Path(__file__).resolve().parents[2]
STUDIO_GRADIO = re.search(r"^gradio==(\S+)", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)
OLD = {name: (ROOT / folder, newest) for folder, _, name, newest in install.OLD_GRADIOS}
GRADIOS = [*OLD, f"gradio {STUDIO_GRADIO.group(1) if STUDIO_GRADIO else '?'}"]
SAVED = {"Slider", "Radio", "Checkbox", "Textbox", "Number", "Dropdown"}
INTERACTIVE = SAVED | {"Button", "CheckboxGroup", "File", "UploadButton", "Image", "Gallery"}


def python_with(gradio: str) -> Path:
    """The Python that has this gradio."""
    if gradio not in OLD:
        return Path(sys.executable)
    folder, newest = OLD[gradio]
    if sys.version_info[:2] > newest:
        pytest.skip(f"{gradio} has no builds for Python {install.dotted(sys.version_info[:2])}")
    python = install.python_of(folder)
    if not python.exists():
        pytest.skip(f"{folder.name} is not there; `python install.py test` makes it")
    return python


@functools.lru_cache
def built_with(gradio: str) -> dict[str, Any]:
    """What building and serving the page on one gradio gave."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python_with(gradio)), str(Path(__file__).with_name("build_ui.py")), folder]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert answer.returncode == 0, answer.stderr[-4000:]
    line = next(line for line in answer.stdout.splitlines() if line.startswith("REPORT "))
    report: dict[str, Any] = json.loads(line.removeprefix("REPORT "))
    assert f"gradio {report['gradio']}" == gradio
    return report


@pytest.fixture(params=GRADIOS)
def report(request: pytest.FixtureRequest) -> dict[str, Any]:
    return built_with(request.param)


def ids(report: dict[str, Any]) -> list[str]:
    return [part["elem_id"] for part in report["components"] if part["elem_id"]]


def test_it_builds_without_a_warning(report: dict[str, Any]) -> None:
    assert report["warnings"] == []


def test_it_is_served_whole(report: dict[str, Any]) -> None:
    assert report["status"] == 200
    assert report["listed"] == len(report["components"]) > 30


def test_building_it_loads_no_model_library(report: dict[str, Any]) -> None:
    assert report["heavy"] == []


def test_the_six_tabs_stand_in_the_order_of_the_work(report: dict[str, Any]) -> None:
    tabs = [part["label"] for part in report["components"] if part["kind"] in ("Tab", "TabItem")]
    assert [label for label in tabs if label in ("Dataset", "Crop", "Tag", "Prune", "Train", "LoRA")] == [
        "Dataset", "Crop", "Tag", "Prune", "Train", "LoRA",
    ]  # fmt: skip


def test_element_ids_are_ours_and_unique(report: dict[str, Any]) -> None:
    counted = Counter(ids(report))
    assert [name for name, count in counted.items() if count > 1] == []
    assert [name for name in counted if not name.startswith("dsm_")] == []


def test_whatever_a_person_can_touch_has_an_element_id(report: dict[str, Any]) -> None:
    nameless = [part for part in report["components"] if part["kind"] in INTERACTIVE and not part["elem_id"]]
    assert nameless == []


def test_labels_the_webui_saves_under_are_unique(report: dict[str, Any]) -> None:
    # ui-config.json keeps values under tab and label, so two fields of one label would share a value.
    saved = Counter(part["label"] for part in report["components"] if part["kind"] in SAVED and part["saved"])
    assert [label for label, count in saved.items() if count > 1] == []


@pytest.mark.parametrize("gradio", list(OLD))
def test_old_gradios_have_the_parts_the_new_one_has(gradio: str) -> None:
    assert set(ids(built_with(gradio))) == set(ids(built_with(GRADIOS[-1])))
