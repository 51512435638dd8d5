"""Widgets from options and back."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from lib_dsm import options
from lib_dsm.cropping.plan import CropOptions
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.options import option
from lib_dsm.tagging.options import TagOptions
from lib_dsm.training.config import PreviewRequest, RunConfig

gr = pytest.importorskip("gradio")
from lib_dsm.ui.widgets import Form  # noqa: E402 - needs gradio


@dataclass(frozen=True)
class Sample:
    name: str = option(help="A word.")
    count: int = option(3, "How many.", minimum=1, maximum=20)
    seed: int = option(0, "Any number.", minimum=0, maximum=2**32 - 1)
    share: float = option(0.5, "A part.", minimum=0.0, maximum=1.0, step=0.05)
    on: bool = option(True, "Whether.")
    kind: str = option("a", "Which.", choices=("a", "b"))
    lines: tuple[str, ...] = option(("x, y", "z"), "Lines.")
    limit: int | None = option(None, "At most.")


def form_of(kind: type, **how) -> Form:
    with gr.Blocks():
        form = Form(kind, "test")
        for name in options.specs(kind):
            form.add(name, **how)
    return form


def test_every_type_gets_the_fitting_component():
    kinds = {name: type(component).__name__ for name, component in form_of(Sample).components.items()}
    assert kinds == {
        "name": "Textbox", "count": "Slider", "seed": "Number", "share": "Slider", "on": "Checkbox", "kind": "Dropdown",
        "lines": "Textbox", "limit": "Number",
    }  # fmt: skip


@pytest.mark.parametrize("kind", [RunConfig, PreviewRequest, TagOptions, CropOptions, ExtractionOptions])
@pytest.mark.parametrize("separator", ["\n", ","])
def test_untouched_widgets_give_the_defaults(kind, separator):
    known = {"name": "word", "checkpoint": "file", "dataset": "folder"} if kind is RunConfig else {}
    with gr.Blocks():
        form = Form(kind, "test")
        for name, spec in options.specs(kind).items():
            # A template's lines hold commas; versions and previews are no widgets.
            if name not in ("template", "previews", "version", *known):
                form.add(name, separator=separator)
            assert spec.help
    values = form.read([component.value for component in form.inputs])
    assert options.from_json(kind, {**values, **known}) == kind(**known)


def test_lines_may_hold_commas():
    form = form_of(Sample)
    values = ["word", 3, 0, 0.5, True, "a", "one, two\n\n three ", None]
    assert form.read(values)["lines"] == ("one, two", "three")


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (1, None, "Count is empty"),
        (1, 21, "Count is 21"),
        (3, -0.1, "Share is -0.1"),
        (1, 2.5, "Count"),
        (5, "c", "Kind"),
    ],
)
def test_a_wrong_value_is_a_sentence(place, value, said):
    form = form_of(Sample)
    values = ["word", 3, 0, 0.5, True, "a", "x", None]
    values[place] = value
    with pytest.raises(InputError, match=said):
        form.read(values)
