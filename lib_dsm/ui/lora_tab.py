"""The tab LoRA: on the left what there is and how small it shall be, on the right what became of it.

Each kind of source has a form of its own; all of them show their work and their result in the same place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from lib_dsm.host.lora_pictures import IN_THE_WEBUI
from lib_dsm.ui import compat, lora_checkpoints, lora_files, lora_networks, messages
from lib_dsm.ui.compat import Component
from lib_dsm.ui.lora_parts import TAB, Lists
from lib_dsm.ui.parts import Page

_KINDS: tuple[tuple[str, str, Callable[[Page, Lists, Component], None]], ...] = (
    ("Embedding", "lora_embedding", lora_networks.build_embedding),
    ("Hypernetwork", "lora_hypernetwork", lora_networks.build_hypernetwork),
    ("Two checkpoints", "lora_checkpoints", lora_checkpoints.build),
    ("LoRA files", "lora_files", lora_files.build_edit),
    ("Look into a file", "lora_inspect", lora_files.build_inspect),
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
            with gr.Tabs(elem_id="dsm_lora_kinds"):
                for label, name, lay_out in _KINDS:
                    with compat.tab(label, name):
                        lay_out(page, lists, panel)
        with gr.Column(scale=6, min_width=440, elem_id="dsm_lora_result"):
            panel.render()
            note = "" if service.host.name == "studio" else IN_THE_WEBUI
            compat.html(messages.place("lora", pictures=note), "dsm_lora_shown")

    def on_refresh() -> Any:
        updates = [compat.update(choices=list(choices(service))) for choices in lists.choices]
        return updates if len(updates) != 1 else updates[0]

    compat.listen(refresh.click, on_refresh, [], lists.components)
