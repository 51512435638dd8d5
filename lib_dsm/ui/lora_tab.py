"""The tab LoRA: files that are used like one, made from an embedding or from two checkpoints; and what a file is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.api.train_routes import runs
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import EditOptions, ExtractionOptions, HypernetworkOptions
from lib_dsm.files import file_name
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, lora_charts, messages
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form

TAB = "lora"
EMBEDDINGS = (".safetensors", ".pt", ".png")
NETWORKS = (*EMBEDDINGS, ".ckpt", ".bin")


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "Everything that training leaves behind as one LoRA file: embeddings, hypernetworks, fine-tuned checkpoints, "
        "and the LoRAs of other tools. New files lie in the LoRA folder and can be used at once."
    )
    form = Form(ExtractionOptions, TAB)
    hyper_form, edit_form = Form(HypernetworkOptions, "lora_hyper"), Form(EditOptions, "lora_result")
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
                    label = options.specs(ExtractionOptions)[name].label
                    label = label if label[:2].isupper() else label[0].lower() + label[1:]
                    plain = {"kind": gr.Number} if name in ("energy", "tokens") else {}
                    form.add(name, label=f"LoRA {label}", **plain)
            extract_name = gr.Textbox(label="Name of the extracted LoRA", elem_id="dsm_lora_extract_name", max_lines=1)
            with gr.Row():
                look = gr.Button("Sizes and errors first", elem_id="dsm_lora_look")
                extract = gr.Button("Extract LoRA", elem_id="dsm_lora_extract", variant="primary")
    with gr.Row():
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>Hypernetwork → LoRA</h3>")
            with gr.Row():
                hyper = gr.Dropdown(
                    list(_hypernetworks(service)), value=None, label="Hypernetwork", elem_id="dsm_lora_hypernetwork"
                )
                hyper_base = gr.Dropdown(models, value=None, label="Its checkpoint", elem_id="dsm_lora_hyper_base")
            with gr.Row():
                for name, spec in options.specs(HypernetworkOptions).items():
                    if name in ("rank", "strength", "force"):
                        hyper_form.add(name, label=f"Hypernetwork {spec.label.lower()}")
            hyper_name = gr.Textbox(label="Name of its LoRA", elem_id="dsm_lora_hyper_name", max_lines=1)
            make_hyper = gr.Button("Make LoRA of it", elem_id="dsm_lora_hyper_make", variant="primary")
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>Convert, resize, merge</h3>")
            sources = gr.Textbox(
                label="LoRA files", elem_id="dsm_lora_sources", lines=2,
                info="One a line, of any tool: a name in the LoRA folder or a path, with a weight behind = if not 1.",
            )  # fmt: skip
            with gr.Row():
                for name, spec in options.specs(EditOptions).items():
                    if name in ("rank", "scale", "precision"):
                        edit_form.add(name, label=f"Result {spec.label.lower()}")
            edit_name = gr.Textbox(label="Name of the result", elem_id="dsm_lora_edit_name", max_lines=1)
            edit = gr.Button("Write LoRA", elem_id="dsm_lora_edit", variant="primary")
        with gr.Column(min_width=340, elem_classes=["dsm-card"]):
            compat.html("<h3>What is this file?</h3>")
            known = gr.Dropdown(
                _files(service), value=None, label="File to inspect", elem_id="dsm_lora_file", allow_custom_value=True,
                info="One from the list, or a path.",
            )  # fmt: skip
            inspect = gr.Button("Inspect file", elem_id="dsm_lora_inspect")
            facts = compat.html("", "dsm_lora_facts")
    panel = compat.html(messages.job_place(TAB), "dsm_lora_panel")
    chart = compat.html("", "dsm_lora_chart")

    newest_chart = [""]

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

        base_path, tuned_path = _chosen(service, before, after)
        out = _target(service, name)
        chosen = options.from_json(ExtractionOptions, form.read(values), "extraction")

        def work(job: Job) -> Any:
            report = extract_checkpoint(base_path, tuned_path, out, chosen, job)
            service.host.networks_changed()
            job.data["summary"] = report.text()
            newest_chart[0] = lora_charts.of_report(report)
            return report

        return messages.job_place(TAB, service.host.jobs.start(f"Extracting {out.name}", work, "layers"))

    def on_look(before: str | None, after: str | None, *values: Any) -> str:
        from lib_dsm.extraction.survey import survey

        base_path, tuned_path = _chosen(service, before, after)
        chosen = options.from_json(ExtractionOptions, form.read(values), "extraction")

        def work(job: Job) -> Any:
            found = survey(base_path, tuned_path, chosen, job)
            outlooks = found.outlooks(chosen)
            job.data["summary"] = "\n".join(
                f"{item.label}: {item.bytes / 1e6:.1f} MB, error {item.error:.1%}" for item in outlooks
            )
            newest_chart[0] = lora_charts.of_survey(found, [*outlooks, found.outlook(chosen)])

        return messages.job_place(TAB, service.host.jobs.start("Looking at both checkpoints", work, "layers"))

    def on_hyper(source: str | None, before: str | None, name: str, project: str, *values: Any) -> str:
        from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
        from lib_dsm.host.capturing import captured_contexts

        path = _hypernetworks(service).get(source or "")
        if path is None:
            raise InputError("No hypernetwork is chosen.", "Train one, press the refresh button, and choose it.")
        (base_path,) = _chosen(service, before)
        out = _target(service, name or path.stem)
        chosen = options.from_json(HypernetworkOptions, hyper_form.read(values), "extraction")
        captions = page.opened(project).training_folder() if project.strip() else None

        def work(job: Job) -> Any:
            captured = captured_contexts(path, base_path, captions, job)
            report = extract_hypernetwork(path, base_path, out, chosen, captured, job)
            service.host.networks_changed()
            job.data["summary"] = report.text()

        return messages.job_place(TAB, service.host.jobs.start(f"Making {out.name}", work, "layers"))

    def on_edit(text: str, name: str, *values: Any) -> str:
        from lib_dsm.extraction.edit_lora import edit_lora

        given = [_weighted(service, line.strip()) for line in text.splitlines() if line.strip()]
        out = _target(service, name)
        chosen = options.from_json(EditOptions, edit_form.read(values), "result")

        def work(job: Job) -> Any:
            report = edit_lora(given, out, chosen, job)
            service.host.networks_changed()
            job.data["summary"] = report.text()

        return messages.job_place(TAB, service.host.jobs.start(f"Writing {out.name}", work, "modules"))

    def on_chart() -> str:
        return newest_chart[0]

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
            compat.update(choices=list(_hypernetworks(service))),
            compat.update(choices=checkpoints),
        ]

    page.act(bundle.click, TAB, on_bundle, [embedding, bundle_name], [panel])
    page.act(extract.click, TAB, on_extract, [base, tuned, extract_name, *form.inputs], [panel])
    page.act(look.click, TAB, on_look, [base, tuned, *form.inputs], [panel])
    page.act(
        make_hyper.click, TAB, on_hyper, [hyper, hyper_base, hyper_name, page.project, *hyper_form.inputs], [panel]
    )
    page.act(edit.click, TAB, on_edit, [sources, edit_name, *edit_form.inputs], [panel])
    show = gr.Button("Show the newest chart", elem_id="dsm_lora_show_chart")
    compat.listen(show.click, on_chart, [], [chart])
    page.act(inspect.click, TAB, on_inspect, [known], [facts])
    compat.listen(refresh.click, on_refresh, [], [embedding, base, tuned, known, hyper, hyper_base])


def _chosen(service: Service, *names: str | None) -> list[Path]:
    """The paths of checkpoints by name."""
    paths = {checkpoint.name: checkpoint.path for checkpoint in service.host.checkpoints()}
    if not all(names):
        raise InputError("One of the checkpoints is not chosen.", "Choose the base and what was made of it.")
    for name in names:
        if name not in paths:
            raise InputError(f'There is no checkpoint "{name}" any more.', "Press ↻ and choose again.")
    return [paths[name] for name in names if name]


def _weighted(service: Service, line: str) -> tuple[Path, float]:
    """A file and its weight; a name is one of the host's folder."""
    text, sign, weight = line.rpartition("=")
    try:
        name, factor = (text.strip(), float(weight)) if sign else (line, 1.0)
    except ValueError:
        name, factor = line, 1.0
    path = Path(name)
    if not path.is_absolute():
        path = service.host.folders.lora / name
    return (path if path.suffix else path.with_name(f"{path.name}.safetensors")), factor


def _hypernetworks(service: Service) -> dict[str, Path]:
    """The host's hypernetworks, the newest first."""
    folder = service.host.folders.hypernetworks
    files = [path for path in folder.rglob("*.pt") if not path.name.startswith(".")] if folder.is_dir() else []
    ordered = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    return {path.relative_to(folder).as_posix(): path for path in ordered}


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
