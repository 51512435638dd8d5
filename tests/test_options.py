"""Options are checked by name, kind and bound, and come back from JSON as they were."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.options import option


@dataclass(frozen=True)
class Inner:
    prompt: str = option("", "The prompt.")
    steps: int = option(20, "Steps.", minimum=1, maximum=150)


@dataclass(frozen=True)
class Sample:
    name: str = option(help="A name.")
    count: int = option(3, "How many.", minimum=1, maximum=10)
    rate: float = option(0.5, "How fast.", label="Learning rate", minimum=0.0, maximum=1.0, step=0.1)
    fast: bool = option(False, "Whether.")
    mode: str = option("a", "Which.", choices=("a", "b"))
    limit: int | None = option(None, "At most.")
    tags: tuple[str, ...] = option(("x",), "Tags.")
    sizes: tuple[int, ...] = option((), "Sizes.")
    previews: tuple[Inner, ...] = option((Inner(),), "Pictures.")


def test_the_smallest_object_gets_the_defaults() -> None:
    assert options.from_json(Sample, {"name": "n"}) == Sample("n")


samples = st.builds(
    Sample,
    name=st.text(),
    count=st.integers(1, 10),
    rate=st.floats(0, 1),
    fast=st.booleans(),
    mode=st.sampled_from(("a", "b")),
    limit=st.none() | st.integers(),
    tags=st.lists(st.text()).map(tuple),
    sizes=st.lists(st.integers()).map(tuple),
    previews=st.lists(st.builds(Inner, prompt=st.text(), steps=st.integers(1, 150)), max_size=3).map(tuple),
)


@given(sample=samples)
def test_json_brings_back_an_equal_object(sample: Sample) -> None:
    assert options.from_json(Sample, json.loads(json.dumps(options.to_json(sample)))) == sample


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"name": "n", "cuont": 3}, '"cuont"'),
        ({}, '"name"'),
        ({"name": 3}, "Name"),
        ({"name": "n", "count": 0}, "Count is 0, below 1"),
        ({"name": "n", "count": 11}, "Count is 11, above 10"),
        ({"name": "n", "count": 10**400}, "Count is 1000.*…, above 10"),
        ({"name": "n", "count": 1_234_567}, "Count is 1234567, above 10"),
        ({"name": "n", "count": 1.5}, "1.5"),
        ({"name": "n", "count": "many"}, "many"),
        ({"name": "n", "count": True}, "True"),
        ({"name": "n", "count": None}, "None"),
        ({"name": "n", "count": math.inf}, "inf"),
        ({"name": "n", "rate": 1.01}, "Learning rate is 1.01, above 1"),
        ({"name": "n", "rate": math.nan}, "nan"),
        ({"name": "n", "rate": "inf"}, "inf"),
        ({"name": "n", "rate": [1]}, r"\[1\]"),
        ({"name": "n", "fast": 1}, "true or false"),
        ({"name": "n", "fast": "perhaps"}, "perhaps"),
        ({"name": "n", "mode": "c"}, "a, b"),
        ({"name": "n", "tags": "x, y"}, "a list"),
        ({"name": "n", "tags": [1]}, "Tags"),
        ({"name": "n", "sizes": ["x"]}, "Sizes"),
        ({"name": "n", "previews": [{"prompt": "p", "stpes": 1}]}, '"stpes"'),
        ({"name": "n", "previews": [{"steps": 151}]}, "Steps is 151"),
        ({"name": "n", "previews": [3]}, "previews"),
        ([], "list"),
        (None, "NoneType"),
    ],
)
def test_what_is_wrong_is_named(values: Any, word: str) -> None:
    with pytest.raises(InputError, match=word):
        options.from_json(Sample, values)


def test_an_unknown_key_says_which_are_known() -> None:
    with pytest.raises(InputError, match=r"run settings.*count, fast, limit"):
        options.from_json(Sample, {"name": "n", "x": 1}, "run settings")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("count", "7", 7),
        ("count", 7.0, 7),
        ("rate", "0.25", 0.25),
        ("rate", 1, 1.0),
        ("fast", "Yes", True),
        ("fast", "off", False),
        ("limit", "5", 5),
        ("limit", None, None),
        ("tags", ("a", "b"), ("a", "b")),
    ],
)
def test_numbers_and_switches_may_be_written_as_text(key: str, text: Any, value: Any) -> None:
    found = getattr(options.from_json(Sample, {"name": "n", key: text}), key)
    assert found == value
    assert type(found) is type(value)


def test_a_text_may_be_given_as_a_number_where_it_is_declared_so() -> None:
    @dataclass(frozen=True)
    class Written:
        rate: str = option("1", "A rate.", number_as_text=True)

    spec = options.specs(Written)["rate"]
    assert [options.check(spec, value) for value in (0.25, 3, "0.1:5")] == ["0.25", "3", "0.1:5"]
    for wrong in (True, None, [1]):
        with pytest.raises(InputError, match="must be text"):
            options.check(spec, wrong)


def test_bounds_are_inclusive() -> None:
    for count in (1, 10):
        assert options.from_json(Sample, {"name": "n", "count": count}).count == count


def test_specs_hold_what_a_face_needs() -> None:
    specs = options.specs(Sample)
    assert list(specs) == ["name", "count", "rate", "fast", "mode", "limit", "tags", "sizes", "previews"]
    rate = specs["rate"]
    assert (rate.label, rate.help, rate.minimum, rate.maximum, rate.step) == ("Learning rate", "How fast.", 0, 1, 0.1)
    assert specs["count"].label == "Count"


def test_the_table_has_a_row_an_option_and_no_broken_cell() -> None:
    from lib_dsm.training.config import PreviewRequest, RunConfig

    for kind in (Sample, RunConfig, PreviewRequest):
        rows = options.markdown_table(kind).splitlines()
        assert len(rows) == 2 + len(options.specs(kind))
        assert all(row.replace("\\|", "").count("|") == 4 for row in rows)
        for row, name in zip(rows[2:], options.specs(kind), strict=True):
            assert row.startswith(f"| `{name}` |")
