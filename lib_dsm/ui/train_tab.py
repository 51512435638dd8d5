"""The tab Train: the form and the places in which the page's scripts check, start and show runs.

The fields are gradio's; the scripts read and write all of them at once through two hidden buttons, whose handlers run
in the page alone, and do everything else over the routes. So a reload, a preset and an earlier run's settings go the
same way, and a program sees what the page sees.
"""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from lib_dsm import options
from lib_dsm.api.service import Service
from lib_dsm.host.protocol import Host
from lib_dsm.host.starting import embedding_choices, hypernetwork_choices
from lib_dsm.host.templates import template_names
from lib_dsm.options import Spec
from lib_dsm.training.config import KINDS, PreviewRequest, RunConfig
from lib_dsm.training.presets import NOT_IN_A_PRESET
from lib_dsm.ui import compat, messages
from lib_dsm.ui.compat import Component
from lib_dsm.ui.parts import Page
from lib_dsm.ui.train_groups import KIND_OF, ONLY_WITH, groups_of
from lib_dsm.ui.widgets import Form

TAB = "train"
A_ROW = 3  # options beside each other
# Options that name a file of the host's, which may change while the page is open.
LISTED: dict[str, Callable[[Host], list[str]]] = {
    "init_embedding": embedding_choices,
    "template_file": template_names,
    "init_hypernetwork": hypernetwork_choices,
}
# Where the option's own words do not fit a field of this form.
LABELS: dict[str, dict[str, Any]] = {
    "kind": {"kind": gr.Radio, "choices": list(KINDS), "label": "What to train", "info": None},
    "name": {"label": "Name", "info": "A word of its own; in prompts it stands for what is trained."},
    "layer_structure": {"info": "Widths of the layers, in times the context's."},
    "activation": {"info": "swish and linear are recommended."},
    "learning_rate": {"info": "A rate, or rate:last step, …"},
    "init_text": {"info": "Words the vectors start from."},
    "vectors": {"info": "More hold more, and are harder to combine."},
    "template": {"label": "Prompt template", "lines": 2},
    "template_file": {"info": "One of the list, or a path; it sets the source to file."},
    "width": {"label": "Training width"},
    "height": {"label": "Training height"},
    "clip_skip": {"label": "CLIP skip"},
    "seed": {"label": "Training seed"},
    "override": {"label": "Guards overridden", "lines": 1},
}


def build(page: Page) -> None:
    """Lay the tab out and attach its handlers."""
    service = page.service
    page.intro(
        "What is trained learns from the pictures and captions of the folder chosen here. An <b>embedding</b> is a "
        "word for a character or thing; a <b>hypernetwork</b> changes how every prompt is drawn, as a style does."
    )
    compat.html(messages.place("modelstatus"), "dsm_train_status")
    compat.html(messages.place("trainpresets"), "dsm_train_presets")
    form = Form(RunConfig, TAB)
    refreshers: list[Component] = []
    with gr.Column(elem_id="dsm_train_form"):
        _add(form, "kind")
        with gr.Row():
            with gr.Column(scale=3, min_width=420), gr.Row():
                _add(form, "name")
                folder = page.folder(TAB, "Training pictures", "With their captions beside them.")
            with gr.Column(scale=3, min_width=420), gr.Row():
                names = _checkpoints(service)
                first = names[0] if names else None
                checkpoint = gr.Dropdown(
                    names, value=first, label="Checkpoint to train on", elem_id="dsm_train_checkpoint",
                    info="A base model; what is trained works best with it and its kin.",
                )  # fmt: skip
                refreshers.append(page.tool("↻", "dsm_train_checkpoint_refresh"))
        with gr.Row():
            with gr.Column(scale=3, min_width=420), gr.Row():
                _add(form, "init_text")
                _add(form, "vectors")
                _add(form, "layer_structure")
                _add(form, "activation")
            with gr.Column(scale=3, min_width=420), gr.Row():
                _add(form, "learning_rate")
                _add(form, "max_steps")
        with gr.Row():
            with gr.Column(scale=3, min_width=420):
                compat.html(messages.place("traintokens"), "dsm_train_tokens")
                compat.html(messages.place("trainstructure"), "dsm_train_structure")
            with gr.Column(scale=3, min_width=420):
                compat.html(messages.place("trainplan"), "dsm_train_plan")
        with gr.Column(elem_id="dsm_train_groups"):
            for group, members in groups_of(options.specs(RunConfig)).items():
                with gr.Accordion(group.title, open=False, elem_id=group.elem_id):
                    refreshers += _rows(form, members, page)
                    if "template" in members:
                        compat.html(messages.place("trainprompts"), "dsm_train_prompts")
                    if "preview_every" in members:
                        compat.html(messages.place("trainrequests"), "dsm_train_requests_place")
    places = {"folder": folder, "checkpoint": checkpoint}
    _wire(form, places, service)
    with gr.Row():
        gr.Button("Create only", elem_id="dsm_train_create")
        gr.Button("Check settings", elem_id="dsm_train_check")
        gr.Button("Start training", elem_id="dsm_train_start", variant="primary")
    compat.html(messages.place("traincheck"), "dsm_train_findings")
    compat.html(messages.place("traintune"), "dsm_train_tune")
    compat.html(messages.place("trainruns"), "dsm_train_runs_place")
    compat.html(messages.place("trainrun"), "dsm_train_panel")
    page.next("LoRA")
    for component in (checkpoint, form.components["clip_skip"], *(form.components[name] for name in LISTED)):
        # The WebUI would begin with what the host had when it was started for the first time, whatever it has now.
        component.do_not_save_to_config = True
    listed = {"checkpoint": checkpoint, **{name: form.components[name] for name in LISTED}}

    def look_again() -> list[Any]:
        return [compat.update(choices=_choices(name, service)) for name in listed]

    for refresh in refreshers:
        compat.listen(refresh.click, look_again, [], list(listed.values()))
    # Who chooses a file wants its lines.
    file, source = (form.components[name] for name in ("template_file", "template_source"))
    compat.listen(file.input, None, [file, source], [source], js='(file, source) => (file ? "file" : source)')


def _wire(form: Form, places: dict[str, Component], service: Service) -> None:
    """The hidden buttons by which the scripts read and write all fields, and what they must know of these."""
    specs = options.specs(RunConfig)
    components = {**form.components, **places}
    everything = list(components.values())
    with gr.Row(elem_classes=["dsm-hidden"]):
        gather = gr.Button("Read the form", elem_id="dsm_train_gather")
        restore = gr.Button("Write the form", elem_id="dsm_train_restore")
    compat.listen(gather.click, None, everything, [], js="(...values) => DSM.train.gathered(...values)")
    compat.listen(restore.click, None, everything, everything, js="(...values) => DSM.train.filled(...values)")
    described = [_field(specs[name]) for name in form.components]
    under = {name: group.elem_id for group, members in groups_of(specs).items() for name in members}
    for field in described:
        name = field["name"]
        # The host may begin with another value than the option's default, such as its own CLIP skip.
        field |= {"initial": form.components[name].value, "group": under.get(name), "only": ONLY_WITH.get(name)}
        field["of"] = KIND_OF.get(name)
    placed = [{"name": name, "kind": "place", "label": "", "initial": part.value} for name, part in places.items()]
    requests = options.specs(PreviewRequest).values()
    known = {
        "fields": json.dumps([*described, *placed]),
        "requests": json.dumps([_request_field(spec, service.host) for spec in requests]),
        # In the form a place stands for the dataset.
        "kept": json.dumps(sorted({"folder", *NOT_IN_A_PRESET})),
        "kinds": json.dumps({kind: _kind_defaults(kind) for kind in KINDS}),
        "previews": json.dumps([options.to_json(request) for request in specs["previews"].default]),
    }
    compat.html(messages.place("trainform", **known), "dsm_train_fields")


def _rows(form: Form, names: Sequence[str], page: Page) -> list[Component]:
    """The fields of a group; gives the buttons that look again for what there is to choose from."""
    refreshers = []
    for begin in range(0, len(names), A_ROW):
        with gr.Row():
            for name in names[begin : begin + A_ROW]:
                _add(form, name, **_from_host(name, page.service))
                if name in LISTED:
                    refreshers.append(page.tool("↻", f"dsm_train_{name}_refresh"))
    return refreshers


def _from_host(name: str, service: Service) -> dict[str, Any]:
    """What the host knows of an option: the value to begin with, or what there is to choose from."""
    if name == "clip_skip":
        return {"value": service.host.default_clip_skip()}
    if name in LISTED:
        return {"kind": gr.Dropdown, "choices": _choices(name, service), "allow_custom_value": True}
    return {}


def _choices(name: str, service: Service) -> list[str]:
    """What there is to choose from at present."""
    return ["", *LISTED[name](service.host)] if name in LISTED else _checkpoints(service)


def _request_field(spec: Spec, host: Host) -> dict[str, Any]:
    """An option of a preview as the scripts know it; samplers and schedule types are those of the host."""
    choices = {"sampler": list(host.samplers()), "scheduler": ["", *host.schedulers()]}
    return {**_field(spec), **({"choices": choices[spec.name]} if spec.name in choices else {})}


def _add(form: Form, name: str, **changes: Any) -> Component:
    separator = "," if _numbers(options.specs(RunConfig)[name]) else "\n"
    return form.add(name, separator, **{**LABELS.get(name, {}), **changes})


def _numbers(spec: Spec) -> bool:
    """Whether the option is a list of numbers, which are written with commas between."""
    return typing.get_origin(spec.type) is tuple and typing.get_args(spec.type)[0] in (int, float)


def _kind_defaults(kind: str) -> dict[str, Any]:
    """What a network of this kind begins with where that is another value than the option's own."""
    return dict(RunConfig.defaults_for({"kind": kind}))


def _field(spec: Spec) -> dict[str, Any]:
    """An option as the scripts know it."""
    kinds = typing.get_args(spec.type) or (spec.type,)
    kind = "text"
    if typing.get_origin(spec.type) is tuple:
        kind = "list" if _numbers(spec) else "lines"
    elif bool in kinds:
        kind = "flag"
    elif int in kinds or float in kinds:
        kind = "number"
    default = None if spec.default is dataclasses.MISSING else spec.default
    return {
        "name": spec.name,
        "label": spec.label,
        "help": spec.help,
        "kind": kind,
        "whole": int in kinds,
        "optional": type(None) in kinds,
        "minimum": spec.minimum,
        "maximum": spec.maximum,
        "step": spec.step or (1 if int in kinds else 0.01),
        "choices": spec.choices,
        "initial": "" if default is None and kind == "text" else default,
    }


def _checkpoints(service: Service) -> list[str]:
    return [checkpoint.name for checkpoint in service.host.checkpoints()]
