"""The forms that make a LoRA of an embedding and of a hypernetwork."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import HypernetworkOptions
from lib_dsm.host.lora_options import CaptureOptions
from lib_dsm.jobs import Job
from lib_dsm.ui import lora_lists
from lib_dsm.ui.compat import Component
from lib_dsm.ui.lora_parts import TAB, Lists, bundled, fields, name_field, start, step, with_words
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form


def build_embedding(page: Page, lists: Lists, panel: Component) -> None:
    """Lay the form for embeddings out and attach its handler."""
    service = page.service
    embedding = lists.add(
        service, lora_lists.embeddings, first=True, label="Trained embedding", elem_id="dsm_lora_embedding",
        info="Of the embeddings folder, and what the runs saved.",
    )  # fmt: skip
    step(2, "Write")
    name = name_field("dsm_lora_bundle_name", "Empty: as the embedding. It is bundled as it is, so nothing is lost.")
    bundle = gr.Button("Bundle as LoRA", elem_id="dsm_lora_bundle", variant="primary")

    def on_bundle(source: str | None, called: str) -> str:
        from lib_dsm.extraction.embedding_lora import embedding_to_lora, facts_of_bundle
        from lib_dsm.extraction.lora_file import check_output

        path = lora_lists.embeddings(service).get(source or "")
        if path is None:
            raise InputError("No embedding is chosen.", "Train one, press the refresh button, and choose it.")
        out = lora_lists.target(service, called.strip() or path.stem)
        check_output(out, {"embedding": path}, overwrite=False)

        def work(job: Job) -> dict[str, Any]:
            made = embedding_to_lora(path, out)
            job.data["summary"] = f"{made.path} holds {made.name}, {made.vectors} vectors."
            return {**facts_of_bundle(out, made.name, made.vectors), "prompt": made.prompt}

        return start(service, f"Bundling {out.name}", "files", work, out)

    page.act(bundle.click, TAB, on_bundle, [embedding, name], [panel])


def build_hypernetwork(page: Page, lists: Lists, panel: Component) -> None:
    """Lay the form for hypernetworks out and attach its handler."""
    service = page.service
    form, capture = Form(HypernetworkOptions, "lora_hyper"), Form(CaptureOptions, "lora_hyper")

    def bases(service: Service) -> list[str]:
        return [lora_lists.AUTOMATIC, *lora_lists.checkpoints(service)]

    with gr.Row():
        hyper = lists.add(service, lora_lists.hypernetworks, label="Hypernetwork", elem_id="dsm_lora_hypernetwork")
        base = lists.add(service, bases, first=True, label="Its checkpoint", elem_id="dsm_lora_hyper_base")
    step(2, "How small?")
    fields(
        form, "rank", "strength",
        rank={"info": "0: exact if it is linear, else 32."}, strength={"info": "At which it is used."},
    )  # fmt: skip
    fields(
        form, "precision", "independent",
        independent={"label": "For any checkpoint", "info": "Linear ones without a bias of the values only."},
    )  # fmt: skip
    fields(
        capture, "clip_skip",
        clip_skip={"kind": gr.Number, "info": "It was trained with; for one that is not linear."},
    )  # fmt: skip
    fields(
        form, "least_fit", "force",
        least_fit={"info": "One that is not linear is fitted on the project's captions."},
        force={"label": "Write a bad fit too", "info": None},
    )  # fmt: skip
    embeddings = bundled(service, lists, "dsm_lora_hyper_embeddings")
    step(3, "Write")
    name = name_field("dsm_lora_hyper_name", "Empty: as the hypernetwork, with -lora behind.")
    make = gr.Button("Make LoRA of it", elem_id="dsm_lora_hyper_make", variant="primary")

    def on_make(
        source: str | None, before: str | None, called: str, project: str, words: list[str] | None, skip: Any,
        *values: Any,
    ) -> str:  # fmt: skip
        from lib_dsm.extraction.about import About, write_sidecar
        from lib_dsm.extraction.facts import of_fit
        from lib_dsm.extraction.hypernetwork_lora import extract_hypernetwork
        from lib_dsm.extraction.lora_file import check_output
        from lib_dsm.host.capturing import captured_contexts

        path = lora_lists.hypernetworks(service).get(source or "")
        if path is None:
            raise InputError("No hypernetwork is chosen.", "Train one, press the refresh button, and choose it.")
        base_path = lora_lists.base_of(service, path, before)
        out = lora_lists.target(service, called.strip() or f"{path.stem}-lora")
        wanted = options.from_json(HypernetworkOptions, form.read(values), "extraction")
        clip_skip = options.from_json(CaptureOptions, capture.read((skip,)), "fit").clip_skip
        check_output(out, {"hypernetwork": path, "base checkpoint": base_path}, wanted.overwrite)
        captions = lora_lists.captions(service, project)
        about = About(
            made=f"made of the hypernetwork {path.name}", embeddings=lora_lists.embedding_paths(service, words)
        )
        _ = about.loaded  # what is wrong with them is said before any work

        def work(job: Job) -> dict[str, Any]:
            # The host's name for it, where it still has one.
            names = (item.name for item in service.host.checkpoints() if item.path == base_path)
            checkpoint = next(names, str(base_path))
            captured = captured_contexts(service.host, path, checkpoint, captions, job, clip_skip)
            report = extract_hypernetwork(path, base_path, out, wanted, captured, job, about)
            write_sidecar(out, report.family, "")
            job.data["summary"] = about.told(report.text())
            source = {"base": str(base_path), "hypernetwork": str(path), "strength": wanted.strength,
                      "clip_skip": clip_skip, "captions": str(captions or "")}  # fmt: skip
            return with_words({**of_fit(report), "source": source}, about)

        return start(service, f"Making {out.name}", "layers", work, out)

    page.act(
        make.click, TAB, on_make, [hyper, base, name, page.project, embeddings, *capture.inputs, *form.inputs], [panel]
    )
