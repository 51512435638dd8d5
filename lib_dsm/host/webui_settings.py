"""The section "DSM" of the WebUI's settings: declared here once, shown and kept by the WebUI."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lib_dsm import options
from lib_dsm.errors import DsmError
from lib_dsm.options import option

SECTION = ("dsm", "DSM")
PREFIX = "dsm_"  # of the names in the WebUI's config.json
_FOLDERS = ("projects", "runs")  # where is written is for the person at the page to say, not for a program


@dataclass(frozen=True)
class WebUISettings:
    """What a person may want otherwise in the WebUI; all of it counts at once."""

    hidden_tabs: tuple[str, ...] = option((), "Parts of the tab DSM that are not shown.", label="Hidden parts")
    projects: str = option(
        "", "Where New makes a project that is given by its name alone; empty: dsm/projects in the data folder.",
        label="Folder for projects",
    )  # fmt: skip
    runs: str = option(
        "", "Where training runs are kept; empty: dsm/runs in the data folder. Runs made before stay where "
        "they are.", label="Folder for runs",
    )  # fmt: skip
    gallery_buttons: bool = option(
        True, "Buttons under the galleries of txt2img, img2img and Extras that put a picture into the open project.",
        label="Buttons under the galleries",
    )  # fmt: skip


def register(tabs: Sequence[str]) -> None:
    """Add the section; to be called from the WebUI's `on_ui_settings`. `tabs` are the parts that can be hidden."""
    from modules import shared
    from modules.ui_components import DropdownMulti

    for name, spec in options.specs(WebUISettings).items():
        several = typing.get_origin(spec.type) is tuple
        default = list(spec.default) if several else spec.default
        how = {"component": DropdownMulti, "component_args": {"choices": list(tabs)}} if several else {}
        info = shared.OptionInfo(default, spec.label, section=SECTION, **how).info(spec.help)
        info.restrict_api = name in _FOLDERS
        shared.opts.add_option(PREFIX + name, info)


def settings() -> WebUISettings:
    """As they are now; what config.json has of another kind counts as not set."""
    from modules import shared

    found: dict[str, Any] = {}
    for name, spec in options.specs(WebUISettings).items():
        try:
            found[name] = options.check(spec, shared.opts.data.get(PREFIX + name))
        except DsmError:
            continue
    return WebUISettings(**found)
