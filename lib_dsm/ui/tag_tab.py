"""The tab Tag: which tagger, how its scores become captions, and undo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.dataset.history import undo
from lib_dsm.jobs import Job
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.registry import LABELS_FILE, MODEL_FILE, MODELS
from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form

TAB = "tag"
_DEMO = Path(__file__).resolve().parents[1] / "demo" / "models" / "tagger"
LISTED = 50


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "A tagger writes a caption beside each picture. Captions that are there already are kept unless you say "
        "otherwise, and every run can be undone."
    )
    form = Form(TagOptions, TAB)
    with gr.Row():
        with gr.Column(scale=1, min_width=360):
            folder = page.folder(TAB, "Pictures to tag")
            form.add(
                "model",
                kind=gr.Dropdown,
                choices=_taggers(service),
                allow_custom_value=True,
                label="Tagger",
                info=f"Fetched when first used; or write a folder's path with {MODEL_FILE} and {LABELS_FILE}.",
            )
            form.add("on_existing", label="Where there is a caption")
        with gr.Column(scale=1, min_width=360):
            form.add("threshold", label="General threshold")
            form.add("character_threshold")
            with gr.Row():
                form.add("sort", label="Order of tags")
                form.add("mcut")
    with gr.Accordion("More", open=False, elem_id="dsm_tag_more"):
        with gr.Row():
            for name in ("exclude", "only", "first"):
                form.add(name, separator=",", label=f"Tags: {name}", placeholder="with commas between")
        with gr.Row():
            rest = [name for name in options.specs(TagOptions) if name not in form.components]
            for name in rest:
                form.add(name, label=f"Tagging: {options.specs(TagOptions)[name].label.lower()}")
    with gr.Row():
        take_back = gr.Button("Undo last tagging or edit", elem_id="dsm_tag_undo")
        start = gr.Button("Tag pictures", elem_id="dsm_tag_start", variant="primary")
    panel = compat.html(messages.job_place(TAB), "dsm_tag_panel")
    page.next("Prune")

    def on_start(project: str, where: str, *values: Any) -> str:
        from lib_dsm.tagging.run import tag_folder
        from lib_dsm.tagging.writing import TagReport

        chosen = options.from_json(TagOptions, form.read(values), "tagging")
        pictures = page.picture_folder(project, where, TAB)

        def work(job: Job) -> TagReport:
            report = tag_folder(pictures, chosen, service.host.folders.taggers, job)
            job.data["summary"] = (
                f"{len(report.written)} tagged, {len(report.skipped)} had a caption, {len(report.failed)} failed."
            )
            job.data["problems"] = [f"{path.name}: {text}" for path, text in report.failed[:LISTED]]
            return report

        return messages.job_place(TAB, service.host.jobs.start(f"Tagging {pictures.name}", work, "pictures"))

    def on_undo(project: str, where: str) -> str:
        outcome = undo(page.picture_folder(project, where, TAB))
        return messages.note(TAB, f"Undone: {outcome.title}.", f"{len(outcome.changed)} captions are as before.")

    page.act(start.click, TAB, on_start, [page.project, folder, *form.inputs], [panel])
    page.act(take_back.click, TAB, on_undo, [page.project, folder], [panel])


def _taggers(service: Service) -> list[str]:
    """The known taggers, the folders beside the downloaded ones that hold one, and in the studio the demo world's."""
    folder = service.host.folders.taggers
    found = sorted(path.parent for path in folder.glob(f"*/{MODEL_FILE}")) if folder.is_dir() else []
    if service.host.name == "studio" and (_DEMO / MODEL_FILE).is_file():
        found.append(_DEMO)
    return [*(model.name for model in MODELS), *map(str, found)]
