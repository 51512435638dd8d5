"""The page on the guards names every one of them, and only tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

from lib_dsm.guards.check import RULES

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "guards.md").read_text(encoding="utf-8")
ROW = re.compile(r"^\| `([a-z0-9-]+)` \|", re.MULTILINE)


def test_every_guard_is_on_the_page_and_no_other():
    before = set(ROW.findall(PAGE[PAGE.index("## Before training") : PAGE.index("## While training runs")]))
    known = {name for guard in RULES for name in guard.ids}
    assert not known - before
    # What is looked at once the pictures are read is no rule of the list, but its id stands in the package.
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lib_dsm" / "guards").glob("*.py"))
    assert [name for name in before - known if f'"{name}"' not in source] == []


def test_every_test_that_the_page_names_is_there():
    known: dict[str, str] = {}
    missing = []
    named = re.findall(r"`([\w/]+\.py)::(\w+)`", PAGE)
    assert len(named) > 100
    for file, test in named:
        path = next(
            (place for place in (ROOT / "tests" / "guards" / file, ROOT / "tests" / file) if place.is_file()), None
        )
        if path is None or f"def {test}(" not in known.setdefault(file, path.read_text(encoding="utf-8")):
            missing.append(f"{file}::{test}")
    assert not missing
