"""What the WebUI loads: registers the tab and the routes, and nothing more, so that its start stays quick."""

from modules import script_callbacks

import lib_dsm  # noqa: F401 - must be found now, while the extension's folder is on the path


def _tabs():
    from lib_dsm.ui import webui

    return webui.tabs()


def _settings():
    from lib_dsm.ui import webui

    webui.settings()


def _mount(_demo, app):
    from lib_dsm.ui import webui

    webui.mount(app)


script_callbacks.on_ui_settings(_settings)
script_callbacks.on_ui_tabs(_tabs)
script_callbacks.on_app_started(_mount)
