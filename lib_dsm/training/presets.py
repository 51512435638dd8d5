"""Named settings: those that come with the program, those a person saved, and those of an earlier run.

A preset holds how to train, not what: the name, the checkpoint, the pictures, the output folder and the permissions to
overwrite or override are never in it. What it does not name has the option's default. On the disk a preset is a file
`NAME.json`: `{"version": 1, "help": …, "kind": …, "settings": {…}}`; one without `kind` is for embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.errors import DsmError, InputError, StorageError
from lib_dsm.files import file_name, is_file, read_json, write_json
from lib_dsm.training.config import EMBEDDING, HYPERNETWORK, KINDS, RunConfig
from lib_dsm.training.settings_file import ANY_RUN, PRESET_VERSION, settings_in

NOT_IN_A_PRESET = frozenset(
    {"name", "checkpoint", "dataset", "version", "kind", "output", "overwrite", "override"}
)  # fmt: skip


@dataclass(frozen=True)
class Preset:
    """Settings under a name, for one `kind` of network.

    `own` is false for those that come with the program, which cannot be deleted.
    """

    name: str
    settings: Mapping[str, Any]  # plain data by the option's name
    help: str = ""
    own: bool = True
    kind: str = EMBEDDING

    def to_json(self) -> dict[str, Any]:
        """Plain data for the faces."""
        told = {"name": self.name, "help": self.help, "own": self.own, "kind": self.kind}
        return {**told, "settings": dict(self.settings)}


_GUIDE: Mapping[str, Any] = {
    "vectors": 16,
    "learning_rate": "0.0005:5000, 0.0001:10000",
    "batch_size": 1,
    "gradient_accumulation": 5,
    "max_steps": 5000,
    "save_every": 250,
    "preview_every": 250,
    "shuffle_tags": True,
    "latent_sampling": "deterministic",
    "variable_aspect": True,
    # The guide knows no validation; held-out pictures tell whether what was learned holds for pictures never seen.
    "validation_share": 0.1,
}
_HELD_OUT = " A tenth of the pictures is held out to judge by; set the validation share to 0 to train on all."
_HYPERNETWORK: Mapping[str, Any] = {
    "layer_structure": [1.0, 2.0, 1.0],
    "activation": "linear",
    "template": ["[filewords]"],
    "batch_size": 1,
    "gradient_accumulation": 5,
    "shuffle_tags": True,
    "latent_sampling": "deterministic",
    "variable_aspect": True,
    "flip": 0.5,
    "validation_share": 0.1,
}
_LONG: Mapping[str, Any] = {
    "learning_rate": "0.00001",
    "max_steps": 10_000,
    "save_every": 500,
    "preview_every": 500,
    "validate_every": 500,
}
BUILT_IN: tuple[Preset, ...] = (
    Preset(
        "Guide: character",
        {**_GUIDE, "template": ["[filewords], [name]"]},
        "The character guide's settings: 16 vectors, 5000 steps over 5 pictures each, tags shuffled." + _HELD_OUT,
        own=False,
    ),
    Preset(
        "Guide: style",
        {**_GUIDE, "template_source": "style_filewords", "flip": 0.5},
        "The same for a style: prompts speak of a painter, and pictures are mirrored half the time." + _HELD_OUT,
        own=False,
    ),
    Preset(
        "Quick trial",
        {
            **_GUIDE,
            "vectors": 8,
            "learning_rate": "0.005:240, 0.001",
            "timestep_sampling": "logit-normal",
            "max_steps": 300,
            "gradient_accumulation": 2,
            "save_every": 100,
            "preview_every": 100,
            "validate_every": 50,
        },
        "Whether pictures and captions work at all, in 300 steps at a high rate." + _HELD_OUT,
        own=False,
    ),
    Preset(
        "Hypernetwork: style",
        {**_HYPERNETWORK, **_LONG},
        "A style at the WebUI's own rate and structure: 1, 2, 1 with Normal weights, 10000 steps over 5 pictures each, "
        "pictures mirrored half the time. The guides name no numbers for hypernetworks." + _HELD_OUT,
        own=False,
        kind=HYPERNETWORK,
    ),
    Preset(
        "Hypernetwork: deeper, with dropout",
        {
            **_HYPERNETWORK,
            **_LONG,
            "layer_structure": [1.0, 2.0, 2.0, 1.0],
            "activation": "swish",
            "weight_init": "KaimingNormal",
            "dropout_structure": [0.0, 0.05, 0.15, 0.0],
        },
        "What the WebUI recommends for more than a linear one: swish, Kaiming weights, dropout that rises from one "
        "layer to the next." + _HELD_OUT,
        own=False,
        kind=HYPERNETWORK,
    ),
    Preset(
        "Hypernetwork: quick trial",
        {
            **_HYPERNETWORK,
            "learning_rate": "0.0001",
            "gradient_accumulation": 2,
            "max_steps": 400,
            "save_every": 100,
            "preview_every": 100,
            "validate_every": 50,
        },
        "Whether pictures and captions work at all, in 400 steps at ten times the usual rate." + _HELD_OUT,
        own=False,
        kind=HYPERNETWORK,
    ),
)


def list_presets(folder: Path) -> tuple[list[Preset], list[str]]:
    """The built-in presets and those in `folder` by name; and a sentence for each file there that cannot be used."""
    presets, problems = list(BUILT_IN), []
    for path in sorted(folder.glob("*.json"), key=lambda path: path.stem.lower()) if folder.is_dir() else []:
        try:
            presets.append(_read(path))
        except DsmError as error:
            problems.append(str(error))
    return presets, problems


def save_preset(
    folder: Path,
    name: str,
    settings: Mapping[str, Any],
    help: str = "",  # noqa: A002
    kind: str = EMBEDDING,
) -> Preset:
    """Keep `settings` under `name`; one of that name in `folder` is replaced. What no preset holds is left out.

    Raises:
        InputError: the name is a built-in preset's or no file name, a key is unknown, or a value is wrong.
        StorageError: the disk does not take it.
    """
    name = file_name(name, "preset's name")
    if any(preset.name.lower() == name.lower() for preset in BUILT_IN):
        raise InputError(f'"{name}" comes with the program and stays as it is.', "Choose another name.")
    preset = Preset(name, _checked(settings, f'preset "{name}"', kind), help, kind=kind)
    content = {"version": PRESET_VERSION, "help": help, "kind": kind, "settings": dict(preset.settings)}
    write_json(_path(folder, name), content)
    return preset


def delete_preset(folder: Path, name: str) -> None:
    """Delete a preset of one's own.

    Raises:
        InputError: it comes with the program, or there is none.
        StorageError: the disk does not let go of it.
    """
    if any(preset.name == name for preset in BUILT_IN):
        raise InputError(f'"{name}" comes with the program and stays.', "Only presets of your own can be deleted.")
    path = _path(folder, name)
    try:
        path.unlink()
    except FileNotFoundError:
        raise InputError(f'There is no preset "{name}".', "It may have been deleted in another window.") from None
    except OSError as error:
        raise StorageError(f"{path} could not be deleted: {error.strerror}.", "Make the folder writable.") from error


def settings_of_run(folder: Path) -> RunConfig:
    """The settings that the run in `folder` was last started with.

    Raises:
        InputError: the folder is no run's, or its record is damaged or of a later version.
    """
    path = folder / "run.json"
    if not is_file(path):
        raise InputError(f"{folder} is not the folder of a run.", "Choose one that holds a run.json.")
    record = read_json(path)
    if not isinstance(record, dict):
        raise InputError(f"{path} is not the record of a run.", "Choose another run.")
    return options.from_json(RunConfig, record.get("config"), f"settings of the run in {folder}")


def _path(folder: Path, name: str) -> Path:
    return folder / f"{file_name(name, 'name of the preset')}.json"


def _read(path: Path) -> Preset:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
        raise InputError(f"{path} is not a preset.", "Delete it or save the preset anew.")
    kind = content.get("kind", EMBEDDING)
    if kind not in KINDS:
        raise InputError(f'{path} is a preset for a network of the kind "{kind}".', f"Known are {', '.join(KINDS)}.")
    settings = _checked(settings_in(content, str(path)), f"preset {path}", kind)
    return Preset(path.stem, settings, str(content.get("help") or ""), kind=kind)


def _checked(settings: Mapping[str, Any], what: str, kind: str) -> dict[str, Any]:
    config = options.from_json(RunConfig, {**settings, **ANY_RUN, "kind": kind}, what)
    values = options.to_json(config)
    return {name: values[name] for name in values if name in settings and name not in NOT_IN_A_PRESET}
