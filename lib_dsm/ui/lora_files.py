"""The forms for LoRA files that are there: convert, resize, merge, prune; and what a file is."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import EditOptions
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, lora_lists, messages
from lib_dsm.ui.compat import Component
from lib_dsm.ui.lora_parts import TAB, Lists, bundled, fields, name_field, start, step, unsaved
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form


def build_edit(page: Page, lists: Lists, panel: Component) -> None:
    """Lay the form that changes LoRA files out and attach its handlers."""
    service = page.service
    form = Form(EditOptions, "lora_result")
    known = lists.add(
        service, lora_lists.loras, label="Add a file", elem_id="dsm_lora_known", info="Of the LoRA folder."
    )
    sources = unsaved(
        gr.Textbox(
            label="LoRA files", elem_id="dsm_lora_sources", lines=3,
            info="One a line, of any tool: a name or a path; =0.7 behind is its weight. Several are added up.",
        )
    )  # fmt: skip
    step(2, "What shall become of it?")
    small = {"min_width": 90}
    fields(
        form, "rank", "conv_rank", "size",
        rank={"info": "At most; 0: all.", **small}, conv_rank={"info": "0: as the others.", **small},
        size={"info": "Instead; 0: off.", **small},
    )  # fmt: skip
    fields(
        form, "scale", "prune", "precision",
        scale={"info": "Of the whole.", **small}, prune={"info": "0: empty modules only.", "kind": gr.Number, **small},
        precision=small,
    )  # fmt: skip
    embeddings = bundled(service, lists, "dsm_lora_edit_embeddings")
    step(3, "Write")
    name = name_field("dsm_lora_edit_name", "A new one.")
    edit = gr.Button("Write LoRA", elem_id="dsm_lora_edit", variant="primary")

    def on_edit(text: str, called: str, words: list[str] | None, *values: Any) -> str:
        from lib_dsm.extraction.about import About, write_sidecar
        from lib_dsm.extraction.edit_lora import edit_lora
        from lib_dsm.extraction.facts import of_edit
        from lib_dsm.extraction.lora_file import check_output

        given = [lora_lists.weighted(service, line.strip()) for line in text.splitlines() if line.strip()]
        if not given:
            raise InputError("No LoRA is named.", "Add a file, or write one a line.")
        out = lora_lists.target(service, called)
        wanted = options.from_json(EditOptions, form.read(values), "result")
        check_output(out, {f"source {path.name}": path for path, _ in given}, wanted.overwrite)
        about = About(embeddings=lora_lists.embedding_paths(service, words))
        _ = about.loaded  # what is wrong with them is said before any work

        def work(job: Job) -> dict[str, Any]:
            report = edit_lora(given, out, wanted, job, about=about)
            write_sidecar(out, report.family, "")
            job.data["summary"] = report.text()
            return of_edit(report)

        return start(service, f"Writing {out.name}", "modules", work, out)

    def on_known(chosen: str | None, text: str) -> str:
        lines = [line for line in text.splitlines() if line.strip()]
        return "\n".join([*lines, *([chosen] if chosen and chosen not in lines else [])])

    compat.listen(known.change, on_known, [known, sources], [sources])
    page.act(edit.click, TAB, on_edit, [sources, name, embeddings, *form.inputs], [panel])


def build_inspect(page: Page, lists: Lists, panel: Component) -> None:
    """Lay the form that explains a file out and attach its handler."""
    service = page.service
    file = lists.add(
        service, lora_lists.every_file, label="File to inspect", elem_id="dsm_lora_file", allow_custom_value=True,
        info="One from the list, or a path.",
    )  # fmt: skip
    other = lists.add(
        service, lora_lists.loras, label="Compare with", elem_id="dsm_lora_other", info="If it is a LoRA: another one."
    )
    with gr.Row():
        inspect = gr.Button("Inspect file", elem_id="dsm_lora_inspect", variant="primary")
        compare = gr.Button("Compare", elem_id="dsm_lora_compare")
    facts = compat.html("", "dsm_lora_facts")

    def on_inspect(text: str | None) -> str:
        from lib_dsm.networks.inspect import describe, describe_text

        if not text:
            raise InputError("No file is named.", "Choose one, or write its path.")
        return messages.lines(describe_text(describe(lora_lists.readable(service, text))))

    def on_compare(text: str | None, second: str | None) -> str:
        from lib_dsm.extraction.compare_loras import compare as apart

        path = lora_lists.loras(service).get(second or "")
        if not text or path is None:
            raise InputError("Two LoRA files are needed.", "Choose both.")
        first = lora_lists.readable(service, text)
        return messages.lines(apart(first, path).text(first.name, path.name))

    page.act(inspect.click, TAB, on_inspect, [file], [facts])
    page.act(compare.click, TAB, on_compare, [file, other], [facts])
