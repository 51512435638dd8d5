"""The tab Train: settings, check, start, resume; the page's scripts show the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.api.train_routes import run_config, runs
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest, RunConfig
from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form

TAB = "train"
NOT_ASKED = (
    "version",
    "kind",
    "dataset",
    "checkpoint",
    "previews",
    "output",
)  # given by the project, the dropdown and the previews; runs of the page lie in the host's own folder


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "The embedding learns from the pictures and captions of the folder chosen here. "
        "A stopped run is saved and goes on with <b>Resume run</b>."
    )
    run, preview = Form(RunConfig, TAB), Form(PreviewRequest, "preview")
    names = _checkpoints(service)
    with gr.Row():
        with gr.Column(scale=3, min_width=420):
            with gr.Row():
                run.add("name", label="Embedding name", info="This word then stands for it in prompts.")
                folder = page.folder(TAB, "Training pictures")
            with gr.Row():
                checkpoint = gr.Dropdown(
                    names,
                    value=names[0] if names else None,
                    label="Checkpoint to train on",
                    elem_id="dsm_train_checkpoint",
                )
                refresh = page.tool("↻", "dsm_train_checkpoint_refresh")
            with gr.Row():
                run.add("init_text", label="Initialization text", info="Words the vectors start from.")
                run.add("vectors", info="More hold more, and are harder to combine.")
            run.add("template", label="Prompt template", info="One is drawn each time: [name], [filewords].", lines=2)
        with gr.Column(scale=3, min_width=420):
            with gr.Row():
                run.add("learning_rate", info="rate, or rate:last step, …")
                run.add("max_steps", info="Optimiser steps to finish at.")
            with gr.Row():
                run.add("batch_size", info="Pictures at once.")
                run.add("gradient_accumulation", info="Batches that make one step.")
            with gr.Row():
                run.add("width", label="Training width", info="With the height: largest area.")
                run.add("height", label="Training height", info="Pictures keep their shape.")
            with gr.Row():
                run.add(
                    "clip_skip", label="CLIP skip", value=service.host.default_clip_skip(), info="As you will generate."
                )
                run.add("save_every", info="Steps between saved copies.")
                run.add("preview_every", info="Steps between previews.")
    with gr.Accordion("Previews", open=False, elem_id="dsm_train_previews"):
        with gr.Row():
            preview.add("prompt", label="Preview prompt", placeholder="[name] stands for the embedding")
            preview.add("negative", label="Preview negative prompt")
        with gr.Row():
            for name in ("steps", "cfg", "width", "height", "seed", "sampler"):
                preview.add(name, label=f"Preview {name}")
    with gr.Accordion("Advanced", open=False, elem_id="dsm_train_advanced"):
        rest = [name for name in options.specs(RunConfig) if name not in (*NOT_ASKED, *run.components)]
        for start in range(0, len(rest), 3):
            with gr.Row():
                for name in rest[start : start + 3]:
                    run.add(name)
    with gr.Row():
        check = gr.Button("Check settings", elem_id="dsm_train_check")
        start_button = gr.Button("Start training", elem_id="dsm_train_start", variant="primary")
    checked = compat.html("", "dsm_train_findings")
    panel = compat.html(messages.job_place(TAB), "dsm_train_panel")
    with gr.Accordion("Go on with an earlier run", open=False, elem_id="dsm_train_resume"), gr.Row():
        known = [path.name for path in runs(service)]
        earlier = gr.Dropdown(known, value=known[0] if known else None, label="Earlier run", elem_id="dsm_train_run")
        refresh_runs = page.tool("↻", "dsm_train_runs_refresh")
        until = gr.Number(
            value=0, precision=0, label="Train up to step", info="0: as it was set.", elem_id="dsm_train_until"
        )
        resume = gr.Button("Resume run", elem_id="dsm_train_resume_start")

    def read(project: str, where: str, model: str, *values: Any) -> RunConfig:
        if not str(values[0] or "").strip():
            raise InputError("The embedding has no name.", "Write one; it is the word you will use in prompts.")
        if not model:
            raise InputError(
                "No checkpoint is chosen.", f"Put one into {service.host.folders.checkpoints} and press ↻."
            )
        count = len(run.inputs)
        settings = run.read(values[:count])
        request = PreviewRequest(**preview.read(values[count:]))
        pictures = page.picture_folder(project, where, TAB)
        return dataclasses.replace(RunConfig(**settings, checkpoint=model, dataset=str(pictures)), previews=(request,))

    def on_check(*values: Any) -> str:
        from lib_dsm.host.run import check_run

        return messages.findings(check_run(service.host, read(*values)))

    def on_start(*values: Any) -> str:
        return messages.job_place(TAB, _start(service, read(*values), resume=False))

    def on_resume(name: str | None, steps: float | None) -> str:
        if not name:
            raise InputError("No run is chosen.", "Choose one from the list.")
        changes = {"max_steps": int(steps)} if steps else {}
        folder = next((path for path in runs(service) if path.name == name), service.host.folders.logs / str(name))
        return messages.job_place(TAB, _start(service, run_config(folder, changes), resume=True))

    def on_refresh() -> Any:
        return compat.update(choices=_checkpoints(service))

    def on_refresh_runs() -> Any:
        return compat.update(choices=[path.name for path in runs(service)])

    everything = [page.project, folder, checkpoint, *run.inputs, *preview.inputs]
    page.act(check.click, TAB, on_check, everything, [checked])
    page.act(start_button.click, TAB, on_start, everything, [panel])
    page.act(resume.click, TAB, on_resume, [earlier, until], [panel])
    compat.listen(refresh.click, on_refresh, [], [checkpoint])
    compat.listen(refresh_runs.click, on_refresh_runs, [], [earlier])


def _start(service: Service, config: RunConfig, resume: bool) -> Job:
    from lib_dsm.host.run import start_training

    return start_training(service.host, config, resume)


def _checkpoints(service: Service) -> list[str]:
    return [checkpoint.name for checkpoint in service.host.checkpoints()]
