"""The form that makes a LoRA of two checkpoints, and shows sizes and errors before anything is written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.errors import InputError
from lib_dsm.extraction.options import ExtractionOptions
from lib_dsm.jobs import Job
from lib_dsm.ui import compat, lora_lists
from lib_dsm.ui.compat import Component
from lib_dsm.ui.lora_parts import Lists, bundled, fields, name_field, start, step, unsaved, with_words
from lib_dsm.ui.parts import Page
from lib_dsm.ui.widgets import Form

RANK, ENERGY, SIZE = WAYS = ("A rank", "A share of the change", "The file's size")
_ENERGY, _SIZE = 0.95, 100.0  # where to begin


def build(page: Page, lists: Lists, panel: Component) -> None:
    """Lay the form out and attach its handlers."""
    service = page.service
    form = Form(ExtractionOptions, "lora")
    with gr.Row():
        base = lists.add(service, lora_lists.checkpoints, label="Base checkpoint", elem_id="dsm_lora_base")
        tuned = lists.add(service, lora_lists.checkpoints, label="Fine-tuned checkpoint", elem_id="dsm_lora_tuned")
    step(2, "How small?")
    way = unsaved(gr.Radio(list(WAYS), value=RANK, label="Decided by", elem_id="dsm_lora_way"))
    with gr.Row():
        parts = {
            "rank": {"info": "Linear layers, 1×1 convolutions."},
            "conv_rank": {"info": "Larger convolutions; 0: none."},
            "energy": {"label": "Share to keep", "info": "Of each layer's squared change.", "value": _ENERGY,
                       "kind": gr.Number, "visible": False},
            "size": {"info": "Spent where the error falls most.", "value": _SIZE, "visible": False},
            "max_rank": {"info": "Of any layer.", "visible": False},
        }  # fmt: skip
        for name, changes in parts.items():
            unsaved(form.add(name, min_width=110, **changes))
    with gr.Accordion("Precision, EMA weights, changed words", open=False, elem_id="dsm_lora_more"):
        fields(form, "precision", "averages", averages={"info": "auto: the tuned file's, where they are its own."})
        fields(
            form, "tokens", "overwrite",
            tokens={"kind": gr.Number, "info": "Bundled as embeddings, at most."},
            overwrite={"label": "Replace a file"},
        )  # fmt: skip
    embeddings = bundled(service, lists, "dsm_lora_extract_embeddings")
    step(3, "Look, then write")
    name = name_field("dsm_lora_extract_name", "Empty: as the fine-tuned checkpoint, with -lora behind.")
    with gr.Row():
        look = gr.Button("Sizes and errors first", elem_id="dsm_lora_look")
        extract = gr.Button("Extract LoRA", elem_id="dsm_lora_extract", variant="primary")

    def chosen(decided: str | None, values: tuple[Any, ...]) -> ExtractionOptions:
        read = form.read(values)
        if decided != ENERGY:
            read["energy"] = 0.0
        if decided != SIZE:
            read["size"] = 0.0
        for part, wanted in (("energy", ENERGY), ("size", SIZE)):
            if decided == wanted and not read[part]:
                raise InputError(f'"{wanted}" is chosen, and it is 0.', "Fill it in, or decide by a rank.")
        return options.from_json(ExtractionOptions, read, "extraction")

    def on_extract(
        before: str | None, after: str | None, called: str, project: str, words: list[str] | None, decided: str,
        *values: Any,
    ) -> str:  # fmt: skip
        from lib_dsm.extraction.about import About, write_sidecar
        from lib_dsm.extraction.checkpoint import extract_checkpoint
        from lib_dsm.extraction.facts import of_report
        from lib_dsm.extraction.lora_file import check_output

        base_path, tuned_path = lora_lists.checkpoint_paths(service, before, after)
        out = lora_lists.target(service, called.strip() or f"{tuned_path.stem}-lora")
        wanted = chosen(decided, values)
        check_output(out, {"base checkpoint": base_path, "tuned checkpoint": tuned_path}, wanted.overwrite)
        captions = lora_lists.captions(service, project)
        about = About(
            made=f"extracted from {tuned_path.name} and {base_path.name}",
            embeddings=lora_lists.embedding_paths(service, words),
        )
        _ = about.loaded  # what is wrong with them is said before any work

        def work(job: Job) -> dict[str, Any]:
            report = extract_checkpoint(base_path, tuned_path, out, wanted, job, about)
            write_sidecar(out, report.family, "")
            job.data["summary"] = about.told(report.text())
            source = {"base": str(base_path), "tuned": str(tuned_path), "averages": wanted.averages,
                      "captions": str(captions or "")}  # fmt: skip
            return with_words({**of_report(report), "source": source}, about)

        return start(service, f"Extracting {out.name}", "layers", work, out)

    def on_look(before: str | None, after: str | None, decided: str, *values: Any) -> str:
        from lib_dsm.extraction.facts import of_survey
        from lib_dsm.extraction.survey import survey

        base_path, tuned_path = lora_lists.checkpoint_paths(service, before, after)
        wanted = chosen(decided, values)

        def work(job: Job) -> dict[str, Any]:
            found = survey(base_path, tuned_path, wanted, job)
            now = found.outlook(wanted)
            job.data["summary"] = f"As the form says ({now.label}): {now.bytes / 1e6:.1f} MB, error {now.error:.1%}."
            return of_survey(found, found.outlooks(wanted), now, found.ranks(wanted))

        return start(service, f"{Path(tuned_path).name} against {base_path.name}", "layers", work)

    def on_way(decided: str) -> list[Any]:
        shown = {"rank": decided == RANK, "conv_rank": True, "energy": decided == ENERGY, "size": decided == SIZE,
                 "max_rank": decided != RANK}  # fmt: skip
        return [compat.update(visible=shown[part]) for part in parts]

    compat.listen(way.change, on_way, [way], [form.components[part] for part in parts])
    page.act(
        extract.click, "lora", on_extract, [base, tuned, name, page.project, embeddings, way, *form.inputs], [panel]
    )
    page.act(look.click, "lora", on_look, [base, tuned, way, *form.inputs], [panel])
