"""The one place that knows how gradio 3.41.2, 4.40 and 6 differ. Everything else builds on these functions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

MAJOR = int(gr.__version__.partition(".")[0])

Component = Any  # gradio's classes moved between the versions
update = gr.update


def blocks(title: str) -> Any:
    """`gr.Blocks`, without analytics."""
    return gr.Blocks(analytics_enabled=False, title=title)


def tab(label: str, name: str) -> Any:
    """A tab whose content is in the page also while another one is selected, which gradio 6 leaves out by itself."""
    return gr.Tab(label, **_known(gr.Tab, id=name, elem_id=f"dsm_tab_{name}", render_children=True))


def html(
    value: str = "", elem_id: str | None = None, elem_classes: Sequence[str] = (), render: bool = True
) -> Component:
    """Raw HTML without gradio's own frame; without `render` its own `render()` puts it into the page, later."""
    values = _known(gr.HTML, elem_id=elem_id, elem_classes=list(elem_classes), padding=False, apply_default_css=False)
    if not render:
        values["render"] = False
    return gr.HTML(value, **values)


def upload(label: str, elem_id: str, kinds: Sequence[str]) -> Component:
    """A place to drop several files; the handler gets what `uploaded` reads."""
    values = _known(gr.File, label=label, elem_id=elem_id, file_count="multiple", file_types=list(kinds), height=120)
    return gr.File(**values)


def uploaded(value: Any) -> list[str]:
    """The paths of the files dropped; 3.41 gives objects with a name, later versions strings."""
    return [item if isinstance(item, str) else item.name for item in value or []]


def listen(
    event: Callable[..., Any],
    fn: Callable[..., Any] | None,
    inputs: Sequence[Component] = (),
    outputs: Sequence[Component] = (),
    js: str | None = None,
) -> None:
    """Attach a handler to an event such as `button.click`.

    Handlers only start jobs and read small things, so they bypass the queue in which the WebUI's generations stand;
    gradio's own progress veil is not shown, since it makes the page flicker.
    """
    values: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
    values |= {"api_visibility": "private"} if MAJOR >= 6 else {"api_name": False}
    if js is not None:
        values["js" if MAJOR >= 4 else "_js"] = js
    event(fn, list(inputs), list(outputs), **values)


def _known(function: Callable[..., Any], **values: Any) -> dict[str, Any]:
    """Those of the values that this version's function has a parameter for."""
    parameters = inspect.signature(function).parameters
    return {key: value for key, value in values.items() if key in parameters and value is not None}
