"""The files that settings come in: a RUN.json, the record of a run, a preset."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lib_dsm.errors import InputError

_PRESET = frozenset({"version", "help", "kind", "settings"})
PRESET_VERSION = RECORD_VERSION = 1
ANY_RUN: Mapping[str, Any] = {"name": "unnamed", "checkpoint": "", "dataset": ""}
"""For what such a file may leave out, though a run cannot be without it."""


def settings_in(content: Any, what: str) -> dict[str, Any]:
    """The settings in a JSON file's content, whichever of the three it is; those of a RUN.json are the content itself.

    Raises:
        InputError: it is no object, a preset or record of a later version, or a preset with an unknown key.
    """
    if not isinstance(content, Mapping):
        raise InputError(f"{what} holds no object with settings.", "Choose a RUN.json, a preset or a run's run.json.")
    if isinstance(content.get("settings"), Mapping):
        _demand_version(content, PRESET_VERSION, what)
        if unknown := sorted(content.keys() - _PRESET):
            raise InputError(f'{what} has the unknown key "{unknown[0]}".', "Remove it, or save the preset anew.")
        kind = {"kind": content["kind"]} if "kind" in content else {}
        return {**kind, **content["settings"]}
    if isinstance(content.get("config"), Mapping):  # whatever else the record of a run holds is no setting
        _demand_version(content, RECORD_VERSION, what)
        return dict(content["config"])
    return dict(content)


def _demand_version(content: Mapping[str, Any], known: int, what: str) -> None:
    version = content.get("version")
    if version != known:
        raise InputError(f"{what} is of version {version!r}; this program knows {known}.", "Update the program.")
