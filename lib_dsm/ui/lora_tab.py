"""The tab LoRA: files that are used like one, made from an embedding or from two checkpoints; and what a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.api.train_routes import runs
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.files import file_name
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, messages
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form

TAB = "lora"
EMBEDDINGS = (".safetensors", ".pt", ".png")
NETWORKS = (*EMBEDDINGS, ".ckpt", ".bin")


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "Bundle a trained embedding into a LoRA file, take the difference of two checkpoints as a LoRA, or see what a "
        "file is. New files lie in the LoRA folder and can be used at once."
    )
    form = Form(ExtractionOptions, TAB)
    names = list(_embeddings(service))
    models = [checkpoint.name for checkpoint in service.host.checkpoints()]
    with gr.Row():
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>Embedding → LoRA</h3>")
            with gr.Row():
                embedding = gr.Dropdown(
                    names, value=names[0] if names else None, label="Trained embedding", elem_id="dsm_lora_embedding"
                )
                refresh = page.tool("↻", "dsm_lora_refresh")
            bundle_name = gr.Textbox(
                label="Name of the LoRA", info="Empty: as the embedding.", elem_id="dsm_lora_bundle_name", max_lines=1
            )
            bundle = gr.Button("Bundle as LoRA", elem_id="dsm_lora_bundle", variant="primary")
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>Two checkpoints → LoRA</h3>")
            with gr.Row():
                base = gr.Dropdown(models, value=None, label="Base checkpoint", elem_id="dsm_lora_base")
                tuned = gr.Dropdown(models, value=None, label="Fine-tuned checkpoint", elem_id="dsm_lora_tuned")
            with gr.Row():
                for name in options.specs(ExtractionOptions):
                    form.add(name, label=f"LoRA {options.specs(ExtractionOptions)[name].label.lower()}")
            extract_name = gr.Textbox(label="Name of the extracted LoRA", elem_id="dsm_lora_extract_name", max_lines=1)
            extract = gr.Button("Extract LoRA", elem_id="dsm_lora_extract", variant="primary")
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>What is this file?</h3>")
            known = gr.Dropdown(
                _files(service), value=None, label="File to inspect", elem_id="dsm_lora_file", allow_custom_value=True,
                info="One from the list, or a path.",
            )  # fmt: skip
            inspect = gr.Button("Inspect file", elem_id="dsm_lora_inspect")
            facts = compat.html("", "dsm_lora_facts")
    panel = compat.html(messages.job_place(TAB), "dsm_lora_panel")

    def on_bundle(source: str | None, name: str) -> str:
        from lib_dsm.extraction.embedding_lora import embedding_to_lora

        path = _embeddings(service).get(source or "")
        if path is None:
            raise InputError("No embedding is chosen.", "Train one, press the refresh button, and choose it.")
        out = _target(service, name or path.stem)
        made = embedding_to_lora(path, out)
        service.host.networks_changed()
        return messages.note(TAB, f"{made.path} is ready.", f"In a prompt: {made.prompt}")

    def on_extract(before: str | None, after: str | None, name: str, *values: Any) -> str:
        from lib_dsm.extraction.checkpoint import extract_checkpoint

        paths = {checkpoint.name: checkpoint.path for checkpoint in service.host.checkpoints()}
        if not before or not after:
            raise InputError("One of the checkpoints is not chosen.", "Choose the base and the fine-tuned one.")
        for chosen_name in (before, after):
            if chosen_name not in paths:
                raise InputError(f'There is no checkpoint "{chosen_name}" any more.', "Press ↻ and choose again.")
        out = _target(service, name)
        chosen = options.from_json(ExtractionOptions, form.read(values), "extraction")

        def work(job: Job) -> Any:
            report = extract_checkpoint(paths[before], paths[after], out, chosen, job)
            service.host.networks_changed()
            job.data["summary"] = report.text()
            return report

        return messages.job_place(TAB, service.host.jobs.start(f"Extracting {out.name}", work, "layers"))

    def on_inspect(text: str | None) -> str:
        from lib_dsm.networks.inspect import describe, describe_text

        if not text:
            raise InputError("No file is named.", "Choose one, or write its path.")
        return messages.lines(describe_text(describe(Path(text))))

    def on_refresh() -> list[Any]:
        checkpoints = [checkpoint.name for checkpoint in service.host.checkpoints()]
        found = list(_embeddings(service))
        return [
            compat.update(choices=found, value=found[0] if found else None),
            compat.update(choices=checkpoints),
            compat.update(choices=checkpoints),
            compat.update(choices=_files(service)),
        ]

    page.act(bundle.click, TAB, on_bundle, [embedding, bundle_name], [panel])
    page.act(extract.click, TAB, on_extract, [base, tuned, extract_name, *form.inputs], [panel])
    page.act(inspect.click, TAB, on_inspect, [known], [facts])
    compat.listen(refresh.click, on_refresh, [], [embedding, base, tuned, known])


def _target(service: Service, name: str) -> Path:
    return service.host.folders.lora / f"{file_name(name, 'LoRA name')}.safetensors"


def _embeddings(service: Service) -> dict[str, Path]:
    """The host's embeddings, the newest first, and the states that the runs saved, by what the list shows."""
    found = {}
    folder = service.host.folders.embeddings
    files = [path for path in folder.rglob("*") if path.suffix.lower() in EMBEDDINGS] if folder.is_dir() else []
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        if not path.name.startswith("."):
            found[path.relative_to(folder).as_posix()] = path
    for run in runs(service):
        for path in sorted(run.glob(f"checkpoints/*/{run.name}.safetensors"), reverse=True):
            found[f"{run.name}, {path.parent.name}"] = path
    return found


def _files(service: Service) -> list[str]:
    folders = service.host.folders
    found = [
        str(path)
        for folder in (folders.lora, folders.embeddings, folders.hypernetworks)
        if folder.is_dir()
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in NETWORKS and not path.name.startswith(".")
    ]
    return found + [str(checkpoint.path) for checkpoint in service.host.checkpoints()]
