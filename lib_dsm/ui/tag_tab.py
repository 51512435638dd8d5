"""The tab Tag: which tagger, how its scores become captions, trying that out, and undo.

What is above the buttons is gradio's; the page below them (dsm_tag.js) reads it through a hidden button and shows what
the settings would write, from the scores that are kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.api.tag_routes import looking_job, tagging_job
from lib_dsm.dataset.history import undo
from lib_dsm.tagging.layouts import layout_of
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.registry import LABELS_FILE, MODEL_FILE, MODELS
from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import FOLDERS, Page
from lib_dsm.ui.widgets import Form

TAB = "tag"
_DEMO = Path(__file__).resolve().parents[1] / "demo" / "models" / "tagger"
_LISTS = {
    "exclude": "watermark, signature, *censor*",
    "only": "all that the tagger finds",
    "first": "my character",
    "replace": "long hair=hair, 1girl=",
    "also": "wd-swinv2-v3",
    "kinds": "copyright, artist",
}


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "A tagger writes a caption beside each picture. The settings are fine as they are: press <b>Tag pictures</b>, "
        "which other taggers call Interrogate. Captions that are there already are kept unless you say otherwise, and "
        "every run can be undone."
    )
    form = Form(TagOptions, TAB)
    with gr.Row(elem_id="dsm_tag_form"):
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
            form.add("sort", label="Order of tags", info="Alphabetical is what some guides use.")
        with gr.Column(scale=1, min_width=360):
            form.add("threshold", label="General threshold")
            form.add("character_threshold")
            with gr.Row():
                form.add("balanced", label="Balanced threshold")
                form.add("mcut", label="MCut, for each picture")
    with gr.Accordion("Which tags, and how they are written", open=False, elem_id="dsm_tag_more"):
        with gr.Row():
            for name in ("first", "exclude", "only"):
                form.add(name, separator=",", label=f"Tags: {name}", placeholder=_LISTS[name])
        with gr.Row():
            for name in ("replace", "kinds"):
                form.add(name, separator=",", label=f"Tags: {name}", placeholder=_LISTS[name])
            form.add("file_name", label="Tags: caption file")
        with gr.Row():
            for name in ("escape", "keep_underscores", "weights", "rating"):
                form.add(name, label=f"Tagging: {options.specs(TagOptions)[name].label.lower()}")
    with gr.Accordion("Several taggers, folders inside, memory", open=False, elem_id="dsm_tag_run"), gr.Row():
        form.add("also", separator=",", label="Tags: also by", placeholder=_LISTS["also"])
        rest = [name for name in options.specs(TagOptions) if name not in form.components]
        for name in rest:
            form.add(name, label=f"Tagging: {options.specs(TagOptions)[name].label.lower()}")
    with gr.Row(elem_id="dsm_tag_buttons"):
        take_back = gr.Button("Undo last tagging or edit", elem_id="dsm_tag_undo")
        look = gr.Button("Try out first", elem_id="dsm_tag_look")
        start = gr.Button("Tag pictures", elem_id="dsm_tag_start", variant="primary")
    gather = gr.Button("Gather", elem_id="dsm_tag_gather", elem_classes=["dsm-hidden"])
    panel = compat.html(messages.job_place(TAB), "dsm_tag_panel")
    compat.html(_page_place(form), "dsm_tag_page")
    page.next("Prune")

    def chosen(values: tuple[Any, ...]) -> TagOptions:
        return options.from_json(TagOptions, form.read(values), "tagging")

    def on_start(project: str, where: str, *values: Any) -> str:
        job = tagging_job(service, page.picture_folder(project, where, TAB), chosen(values))
        return messages.job_place(TAB, job)

    def on_look(project: str, where: str, *values: Any) -> str:
        job = looking_job(service, page.picture_folder(project, where, TAB), chosen(values))
        return messages.job_place(TAB, job)

    def on_undo(project: str, where: str) -> str:
        outcome = undo(page.picture_folder(project, where, TAB))
        return messages.note(TAB, f"Undone: {outcome.title}.", f"{len(outcome.changed)} captions are as before.")

    page.act(start.click, TAB, on_start, [page.project, folder, *form.inputs], [panel])
    page.act(look.click, TAB, on_look, [page.project, folder, *form.inputs], [panel])
    page.act(take_back.click, TAB, on_undo, [page.project, folder], [panel])
    compat.listen(gather.click, None, [folder, *form.inputs], js="(...values) => DSM.tag.gathered(...values)")


def _page_place(form: Form) -> str:
    """The place of the page below the form, told in what order the fields come and what they mean."""
    specs = options.specs(TagOptions)
    fields = [{"name": name, "list": name in _LISTS, "default": specs[name].default} for name in form.components]
    return messages.place(TAB, fields=json.dumps(fields), folders=json.dumps(list(FOLDERS)))


def _taggers(service: Service) -> list[str]:
    """The known taggers, the folders beside the downloaded ones that hold one, and the demo world's."""
    folder = service.host.folders.taggers
    found = sorted(path for path in folder.iterdir() if path.is_dir() and layout_of(path)) if folder.is_dir() else []
    if (_DEMO / MODEL_FILE).is_file():
        found.append(_DEMO)
    return [*(model.name for model in MODELS), *map(str, found)]
