"""What the forms of the tab LoRA share: headings, fields that nobody saves, lists to refresh, jobs with a result."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_dsm.api.service import Service
from lib_dsm.host.lora_names import start_writing
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, lora_lists, messages
from lib_dsm.ui.compat import Component
from lib_dsm.ui.widgets import Form

if TYPE_CHECKING:
    from lib_dsm.extraction.about import About

TAB = "lora"
_UNREAD = "This WebUI does not read embeddings out of a LoRA: keep their own files among its embeddings."
Work = Callable[[Job], dict[str, Any]]


@dataclass
class Lists:
    """Dropdowns whose choices are files, and what finds these anew."""

    components: list[Component] = field(default_factory=list)
    choices: list[Callable[[Service], Iterable[str]]] = field(default_factory=list)

    def add(
        self, service: Service, choices: Callable[[Service], Iterable[str]], first: bool = False, **values: Any
    ) -> Component:
        """A dropdown of what `choices` gives, with the first of it chosen if `first`."""
        found = list(choices(service))
        component = unsaved(gr.Dropdown(found, value=found[0] if first and found else None, **values))
        self.components.append(component)
        self.choices.append(choices)
        return component


def unsaved(component: Component) -> Component:
    """The component as one of the page alone: the WebUI keeps no setting of it, so its label may occur again."""
    component.do_not_save_to_config = True
    return component


def step(number: int, text: str) -> None:
    """The heading of one step of a form."""
    compat.html(f'<h3 class="dsm-step"><b>{number}</b>{text}</h3>')


def name_field(elem_id: str, info: str) -> Component:
    """The field for the new file's name."""
    return unsaved(gr.Textbox(label="Name of the LoRA", info=info, elem_id=elem_id, max_lines=1))


def bundled(service: Service, lists: Lists, elem_id: str) -> Component:
    """A list of embeddings to bundle in the file."""
    return lists.add(
        service, lora_lists.embeddings, label="Embeddings to bundle", elem_id=elem_id, multiselect=True,
        info="In the same file, each under its own word.",
    )  # fmt: skip


def fields(form: Form, *names: str, **changes: dict[str, Any]) -> None:
    """Options beside each other; `changes` by name are as `Form.add` takes them."""
    with gr.Row():
        for name in names:
            unsaved(form.add(name, **{"min_width": 110, **changes.get(name, {})}))


def with_words(facts: dict[str, Any], about: About) -> dict[str, Any]:
    """The facts with the embeddings that were bundled besides."""
    words = [*facts.get("words", []), *(embedding.name for embedding in about.loaded)]
    return {**facts, "words": words}


def start(service: Service, title: str, unit: str, work: Work, out: Path | None = None) -> str:
    """Start a job whose work gives the facts of its result, and the place that shows it; `out` is what it writes.

    Raises:
        InputError: another job writes the same file.
    """

    def whole(job: Job) -> None:
        facts = work(job)
        if facts.get("file"):
            service.host.networks_changed()
            facts.setdefault("prompt", f"<lora:{Path(facts['file']).stem}:1>")
        if facts.get("words") and not service.host.reads_bundled_embeddings():
            facts["notes"] = [*facts.get("notes", []), _UNREAD]
        job.data["lora"] = facts

    jobs = service.host.jobs
    job = jobs.start(title, whole, unit) if out is None else start_writing(jobs, out, title, whole, unit)
    return messages.job_place(TAB, job)
