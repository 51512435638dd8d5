"""Settings as a whole: presets, and those in a RUN.json that the page was given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import Service
from lib_dsm.errors import InputError
from lib_dsm.files import parse_json
from lib_dsm.training.config import EMBEDDING, KINDS, RunConfig
from lib_dsm.training.presets import delete_preset, list_presets, save_preset
from lib_dsm.training.settings_file import ANY_RUN, settings_in


def show(service: Service, call: Call) -> Any:
    """The presets that come with the program and those a person saved, and what is wrong with a file of them."""
    presets, problems = list_presets(_folder(service))
    return {"presets": [preset.to_json() for preset in presets], "problems": problems}


def save(service: Service, call: Call) -> Any:
    """Keep `settings` as the preset `name` for networks of a `kind`; one's own of that name is replaced."""
    kind = call.text("kind", EMBEDDING)
    if kind not in KINDS:
        raise InputError(f'There is no kind "{kind}".', f"Known are {', '.join(KINDS)}.")
    settings = call.object("settings")
    return save_preset(_folder(service), call.text("name"), settings, call.text("help", ""), kind).to_json()


def delete(service: Service, call: Call) -> Any:
    """Delete a preset of one's own."""
    delete_preset(_folder(service), call.text("name"))
    return show(service, call)


def read_settings(service: Service, call: Call) -> Any:
    """The settings in `text`, a RUN.json, a preset or a run's record, checked key by key; only what it names."""
    try:
        given = parse_json(call.text("text"))
    except ValueError as error:
        raise InputError(f"The file is not valid JSON: {error}.", "Choose a RUN.json.") from None
    given = settings_in(given, "The file")
    config = options.from_json(RunConfig, {**ANY_RUN, **given}, "run settings")
    return {"settings": {key: value for key, value in options.to_json(config).items() if key in given}}


def _folder(service: Service) -> Path:
    return service.host.folders.data / "presets"


ROUTES = (
    Route("GET", "train/presets", show),
    Route("POST", "train/presets", save),
    Route("DELETE", "train/presets", delete),
    Route("POST", "train/settings", read_settings),
)
