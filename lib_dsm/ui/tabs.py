"""The one top tab: the project above, and the six tabs in the order of the work."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr

from lib_dsm.api.service import Service
from lib_dsm.ui import compat, dataset_tab, lora_tab, messages, page_tabs, tag_tab, train_tab
from lib_dsm.ui.parts import Page

TABS = (
    ("Dataset", dataset_tab.build),
    ("Crop", page_tabs.build_crop),
    ("Tag", tag_tab.build),
    ("Prune", page_tabs.build_prune),
    ("Train", train_tab.build),
    ("LoRA", lora_tab.build),
)


def build(service: Service, token: str, project: str = "") -> Any:
    """The page as gradio Blocks. `token` opens the routes to its scripts; `project` is the folder to begin with."""
    with compat.blocks("DSM") as blocks, gr.Column(elem_id="dsm_page", elem_classes=["dsm"]):
        compat.html(
            f'<div data-dsm="root" data-token="{html.escape(token)}" data-project="{html.escape(project)}"></div>',
            elem_classes=["dsm-root"],
        )
        with gr.Row(elem_id="dsm_project_row"):
            folder = gr.Textbox(
                label="Project folder",
                placeholder="A folder with pictures, or one to be made",
                elem_id="dsm_project_path",
                max_lines=1,
                scale=6,
            )
            # What was open belongs to the browser, not to the host's saved settings.
            folder.do_not_save_to_config = True
            gr.Button("Open", elem_id="dsm_project_open", scale=1, min_width=90)
            gr.Button("New", elem_id="dsm_project_new", scale=1, min_width=90)
            tour = gr.Button("?", elem_id="dsm_tour_open", scale=1, min_width=44)
            tour.do_not_save_to_config = True
        compat.html('<div data-dsm="project"></div>', "dsm_project_summary")
        page = Page(service, folder)
        with gr.Tabs(elem_id="dsm_tabs"):
            for label, lay_out in TABS:
                with compat.tab(label, label.lower()):
                    compat.html(messages.place("hint", tab=label.lower()), f"dsm_{label.lower()}_hint")
                    lay_out(page)
    return blocks
