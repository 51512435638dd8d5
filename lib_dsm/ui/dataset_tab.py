"""The tab Dataset: what the project holds, and adding pictures to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm.api.project_routes import reported
from lib_dsm.dataset.listing import PICTURE_SUFFIXES, list_pictures
from lib_dsm.dataset.project import CopyReport
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import Page

TAB = "dataset"


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    page.intro(
        "A project is a folder with <b>IMGS</b> (pictures as you found them), <b>DATASET_IMGS</b> (cropped, tagged and "
        "pruned) and <b>SET</b> (what is trained on). A plain folder of pictures works as well."
    )
    compat.html(messages.place("dataset"), "dsm_dataset_page")
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            files = compat.upload("Add pictures to IMGS", "dsm_dataset_upload", [*sorted(PICTURE_SUFFIXES), ".txt"])
            add = gr.Button("Add these pictures", elem_id="dsm_dataset_add")
        with gr.Column(scale=2, min_width=320):
            folder = gr.Textbox(
                label="Copy from a folder",
                info="Its pictures and their captions are copied to IMGS; the folder stays as it is.",
                placeholder="/home/me/pictures",
                elem_id="dsm_dataset_from",
                max_lines=1,
            )
            copy = gr.Button("Copy into IMGS", elem_id="dsm_dataset_copy")
    panel = compat.html(messages.job_place(TAB), "dsm_dataset_panel")
    page.next("Crop")

    def bring(project: str, sources: list[Path]) -> str:
        opened = page.opened(project)

        def work(job: Job) -> CopyReport:
            return reported(job, opened.import_pictures(sources, job), "IMGS")

        return messages.job_place(TAB, page.service.host.jobs.start("Adding pictures", work, "pictures"))

    def on_add(project: str, dropped: Any) -> list[Any]:
        # A caption travels with the picture beside it, so that only pictures are named.
        paths = [Path(path) for path in compat.uploaded(dropped)]
        if not paths:
            raise InputError("No pictures were dropped.", "Drop some on the field, or click it to choose them.")
        return [bring(project, [path for path in paths if path.suffix.lower() != ".txt"]), compat.update(value=None)]

    def on_copy(project: str, source: str) -> str:
        if not source.strip():
            raise InputError("No folder is named.", "Write the whole path of the folder with the pictures.")
        pictures, _ = list_pictures(page.service.without_ways_out(Path(source.strip()).expanduser()))
        if not pictures:
            raise InputError(f"{source} holds no pictures.", "Name the folder that holds them itself.")
        return bring(project, pictures)

    page.act(add.click, TAB, on_add, [page.project, files], [panel, files])
    page.act(copy.click, TAB, on_copy, [page.project, folder], [panel])
