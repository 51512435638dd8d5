"""What is in the repository is fit to be there, and its tables say what the program does."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
from pathlib import Path

import pytest

import lib_dsm
from lib_dsm import options

ROOT = Path(__file__).resolve().parent.parent
LARGEST_TEXT = 4_000_000
UNFINISHED = re.compile(r"\b(TO" + r"DO|FIX" + r"ME)\b")
MARKER = re.compile(r"^<!-- options: ([\w.]+)\.(\w+) -->$", re.MULTILINE)


def repository_files() -> list[Path]:
    """Every file that is, or is about to be, part of the repository."""
    try:
        answer = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
        names = [name for name in answer.stdout.split("\0") if name]
    except (OSError, subprocess.CalledProcessError):  # a download without its history
        skipped = {"__pycache__", "studio", "demo"}
        names = []
        for folder, folders, found in os.walk(ROOT):
            at_top = Path(folder) == ROOT
            folders[:] = [n for n in folders if not n.startswith(".") and (not at_top or n not in skipped)]
            names += [os.path.relpath(Path(folder, name), ROOT) for name in found if not name.endswith(".pyc")]
    return [path for name in sorted(names) if (path := ROOT / name).is_file()]


def texts() -> dict[str, str]:
    """The text files among them by name, their newlines untouched."""
    found = {}
    for path in repository_files():
        content = path.read_bytes() if path.stat().st_size <= LARGEST_TEXT else b"\0"
        if b"\0" not in content:
            try:
                found[path.relative_to(ROOT).as_posix()] = content.decode("utf-8")
            except UnicodeDecodeError:
                continue
    return found


@pytest.fixture(scope="module")
def content() -> dict[str, str]:
    found = texts()
    assert "install.py" in found
    assert "lib_dsm/options.py" in found
    return found


def lines_with(pattern: re.Pattern[str], content: dict[str, str]) -> list[str]:
    return [
        f"{name}:{number}: {line.strip()[:100]}"
        for name, text in content.items()
        for number, line in enumerate(text.split("\n"), 1)
        if pattern.search(line)
    ]


def test_no_file_names_a_folder_of_this_machine(content: dict[str, str]) -> None:
    folders = {str(ROOT), ROOT.as_posix(), str(Path.home())}
    # A checkout at the root of a disk, or a home such as /root, has a name that may mean something else.
    long_enough = [re.escape(folder) for folder in folders if len(Path(folder).parts) > 2]
    if long_enough:
        assert lines_with(re.compile(rf"(?<![\w.-])({'|'.join(long_enough)})(?![\w-])"), content) == []


def test_nothing_is_left_for_later(content: dict[str, str]) -> None:
    assert lines_with(UNFINISHED, content) == []


def test_lines_end_the_same_everywhere(content: dict[str, str]) -> None:
    assert [name for name, text in content.items() if "\r\n" in text] == []


def test_the_tables_list_the_options_there_are(content: dict[str, str]) -> None:
    wrong = []
    for name, text in content.items():
        if not name.endswith(".md"):
            continue
        for marker in MARKER.finditer(text):
            kind = getattr(importlib.import_module(marker.group(1)), marker.group(2))
            written = text[marker.end() :].lstrip("\n").split("\n\n")[0].strip()
            if written != options.markdown_table(kind).strip():
                wrong.append(f"{name}: {marker.group(1)}.{marker.group(2)} should read\n{options.markdown_table(kind)}")
    assert not wrong, "\n\n".join(wrong)


def test_the_version_has_its_changes(content: dict[str, str]) -> None:
    assert f"## {lib_dsm.__version__}" in content["CHANGELOG.md"]


def test_every_requirement_is_locked(content: dict[str, str]) -> None:
    for source, lock in (
        ("requirements.in", "requirements.lock"),
        ("tests/gradio3.in", "tests/gradio3.lock"),
        ("tests/gradio4.in", "tests/gradio4.lock"),
    ):
        pinned = dict(
            re.match(r"([\w.-]+)==([^ ;]+)", line).groups()  # type: ignore[union-attr]
            for line in content[lock].splitlines()
            if line and not line.startswith("#")
        )
        for line in content[source].splitlines():
            if line and not line.startswith("#"):
                name = re.split(r"[=<>~ ;]", line)[0].lower().replace("_", "-")
                assert name in pinned, f"{source} asks for {name}, which {lock} lacks"
        assert "://" not in content[lock] + content[source], f"{lock} names an address"
