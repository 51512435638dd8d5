"""The extension comes up inside the WebUI without a complaint, and lets in whom it should."""

from __future__ import annotations

import json
import urllib.error

import pytest


def test_it_starts_without_a_complaint(webui):
    assert webui.trouble_after() == []


def test_the_tab_is_there(webui):
    tabs = [part["props"].get("label") for part in webui.call("/config", credentials=None)["components"]]
    assert tabs.count("DSM") == 1


def test_it_loads_nothing_heavy_at_the_start(webui):
    loaded = webui.inside("modules")
    assert "lib_dsm.host.webui" in loaded
    assert not {"onnxruntime", "diffusers", "lib_dsm.diffusion.diffusers", "lib_dsm.host.studio"} & set(loaded)


def test_programs_come_in_with_the_webuis_own_credentials(webui):
    status = webui.call("/dsm/v1/status")
    assert status["host"] == "webui"
    assert webui.checkpoint.name in status["checkpoints"]


@pytest.mark.parametrize("credentials", [None, "tester:wrong", "nobody:secret"])
def test_strangers_are_refused(webui, credentials):
    with pytest.raises(urllib.error.HTTPError) as refused:
        webui.call("/dsm/v1/status", credentials=credentials)
    assert refused.value.code == 403
    assert json.load(refused.value)["error"]["remedy"]
