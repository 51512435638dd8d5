from pathlib import Path

import pytest

from lib_dsm.errors import InputError
from lib_dsm.tagging.naming import caption_file, demand_pattern


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[name].txt", "a.b.txt"),
        ("[name].[extension].txt", "a.b.PNG.txt"),
        ("wd [name].caption", "wd a.b.caption"),
        ("[name].v1.txt", "a.b.v1.txt"),
    ],
)
def test_names(pattern: str, expected: str) -> None:
    demand_pattern(pattern)
    assert caption_file(Path("set/set/a.b.PNG"), pattern) == Path("set/set") / expected


@pytest.mark.parametrize(
    "pattern", ["", "x.txt", "[name]", "[name].png", "[nam].txt", "../[name].txt", "sub/[name].txt", "[name]\0.txt"]
)
def test_bad_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(InputError):
        demand_pattern(pattern)
