"""Components from declared options, and the options' values back from what the components hold."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.options import Spec
from lib_dsm.ui.compat import Component

SLIDER_STOPS = 300  # with more positions than this a number is better typed


class Form:
    """The widgets of one class of options, made one by one wherever the layout wants them.

    Texts that hold several items are written one a line (`separator` "\\n") or with commas between (",").
    """

    def __init__(self, kind: type, prefix: str) -> None:
        self._specs = options.specs(kind)
        self._prefix = prefix
        self._separators: dict[str, str] = {}
        self.components: dict[str, Component] = {}

    def add(self, name: str, separator: str = "\n", **changes: Any) -> Component:
        """Make the widget of one option; `changes` are given to gradio instead of what the option says.

        `kind` among them names another gradio class than the option's type would choose.
        """
        spec = self._specs[name]
        kind, values = _component(spec, separator)
        if "kind" in changes:
            kind, values = changes.pop("kind"), {"value": values["value"]}
        values = {"label": spec.label, "info": spec.help, "elem_id": f"dsm_{self._prefix}_{name}", **values, **changes}
        component = kind(**values)
        self._separators[name] = separator
        self.components[name] = component
        return component

    @property
    def inputs(self) -> list[Component]:
        """The components in the order that `read` expects their values in."""
        return list(self.components.values())

    def read(self, values: Sequence[Any]) -> dict[str, Any]:
        """The values as `options.from_json` takes them.

        Raises:
            InputError: a number was left empty, or a value is wrong or out of bounds.
        """
        found: dict[str, Any] = {}
        for name, value in zip(self.components, values, strict=True):
            spec = self._specs[name]
            if typing.get_origin(spec.type) is tuple and isinstance(value, str):
                value = [item.strip() for item in value.split(self._separators[name]) if item.strip()]
            if value is None and type(None) not in typing.get_args(spec.type):
                raise InputError(f"{spec.label} is empty.", "Fill it in.")
            found[name] = options.check(spec, value)
        return found


def _component(spec: Spec, separator: str) -> tuple[Any, dict[str, Any]]:
    default = None if spec.default is dataclasses.MISSING else spec.default
    kinds = [kind for kind in (typing.get_args(spec.type) or (spec.type,)) if kind is not type(None)]
    if typing.get_origin(spec.type) is tuple:
        shown = (f"{item:g}" if isinstance(item, float) else str(item) for item in default or ())
        text = f"{separator} ".replace("\n ", "\n").join(shown)
        return gr.Textbox, {"value": text, "lines": 3 if separator == "\n" else 1}
    if spec.choices is not None:
        return gr.Dropdown, {"choices": list(spec.choices), "value": default}
    if kinds == [bool]:
        return gr.Checkbox, {"value": bool(default)}
    if kinds == [str]:
        return gr.Textbox, {"value": default or "", "lines": 1, "max_lines": 1}
    step = spec.step or (1 if kinds == [int] else 0.01)
    bounded = default is not None and spec.minimum is not None and spec.maximum is not None
    if bounded and (spec.maximum - spec.minimum) / step <= SLIDER_STOPS:  # type: ignore[operator]
        return gr.Slider, {"minimum": spec.minimum, "maximum": spec.maximum, "step": step, "value": default}
    return gr.Number, {"value": default, **({"precision": 0} if kinds == [int] else {})}
