"""The tab LoRA: on the left what there is and how small it shall be, on the right what became of it.

Each kind of source has a form of its own; all of them show their work and their result in the same place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_dsm.ui import compat, lora_checkpoints, lora_files, lora_networks, messages
from lib_dsm.ui.compat import Component
from lib_dsm.ui.lora_parts import TAB, Lists, step, unsaved
from lib_dsm.ui.parts import Page

_KINDS: tuple[tuple[str, str, Callable[[Page, Lists, Component], None]], ...] = (
    ("Embedding", "embedding", lora_networks.build_embedding),
    ("Hypernetwork", "hypernetwork", lora_networks.build_hypernetwork),
    ("Two checkpoints", "checkpoints", lora_checkpoints.build),
    ("LoRA files", "files", lora_files.build_edit),
    ("Any file", "unknown", lora_files.build_inspect),
)


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    lists = Lists()
    with gr.Row(elem_id="dsm_lora_intro"):
        page.intro(
            "Everything that training leaves behind as one LoRA file for <b>&lt;lora:NAME:1&gt;</b>. New files lie in "
            "the LoRA folder and can be used at once."
        )
        refresh = page.tool("↻", "dsm_lora_refresh")
    with gr.Row(elem_id="dsm_lora_row"):
        with gr.Column(scale=5, min_width=400, elem_id="dsm_lora_forms"):
            # The place of the job is made first, since the forms' handlers write to it, and shown on the other side.
            panel = compat.html(messages.job_place(TAB), "dsm_lora_panel", render=False)
            labels = [label for label, _, _ in _KINDS]
            step(1, "What do you have?")
            kind = unsaved(gr.Radio(labels, value=labels[0], show_label=False, elem_id="dsm_lora_kind"))
            for _, name, lay_out in _KINDS:
                # All of them are in the page; the script shows the one that is chosen.
                with gr.Column(elem_id=f"dsm_lora_form_{name}", elem_classes=["dsm-lora-form"]):
                    lay_out(page, lists, panel)
        with gr.Column(scale=6, min_width=440, elem_id="dsm_lora_result"):
            panel.render()
            compat.html(messages.place("lora"), "dsm_lora_shown")

    def on_refresh() -> Any:
        updates = [compat.update(choices=list(choices(service))) for choices in lists.choices]
        return updates if len(updates) != 1 else updates[0]

    names = json.dumps({label: name for label, name, _ in _KINDS})
    compat.listen(kind.change, None, [kind], js=f"(kind) => DSM.lora.choose({names}[kind])")
    compat.listen(refresh.click, on_refresh, [], lists.components)
