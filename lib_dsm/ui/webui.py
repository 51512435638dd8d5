"""Our tab and routes inside the WebUI."""

from __future__ import annotations

import functools
from typing import Any

from lib_dsm.api.app import mount as mount_routes
from lib_dsm.api.security import new_token
from lib_dsm.api.service import Service
from lib_dsm.ui.tabs import TABS, build


def tabs() -> list[tuple[Any, str, str]]:
    """What the WebUI's `on_ui_tabs` wants: the page, its label and its id."""
    service, token = _shared()
    return [(build(service, token), "DSM", "dsm")]


def settings() -> None:
    """What the WebUI's `on_ui_settings` wants: our section."""
    from lib_dsm.host import webui_settings

    webui_settings.register([label for label, _ in TABS])


def mount(app: Any) -> None:
    """Add the routes to the WebUI's app."""
    service, token = _shared()
    mount_routes(app, service, token, getattr(service.host, "credentials", None))


@functools.cache
def _shared() -> tuple[Service, str]:
    """One for the process: after "Reload UI" the pages that are still open go on working."""
    from lib_dsm.host.webui import WebUIHost

    return Service(WebUIHost()), new_token()
