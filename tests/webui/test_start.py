"""The extension comes up inside the WebUI without a complaint, and lets in whom it should."""

from __future__ import annotations

import json
import urllib.error

import pytest

from tests.webui.running import A1111


def test_it_starts_without_a_complaint(webui):
    assert webui.trouble_after() == []


def test_the_tab_is_there(webui):
    parts = [part["props"] for part in webui.call("/config", credentials=None)["components"]]
    tabs = [part for part in parts if part.get("label") == "DSM" and part.get("elem_id") != "settings_dsm"]
    assert len(tabs) == 1  # the other one is the section of the settings


def test_it_loads_nothing_heavy_at_the_start(webui):
    loaded = webui.inside("modules")
    assert "lib_dsm.host.webui" in loaded
    heavy = {"lib_dsm.diffusion.diffusers", "lib_dsm.host.studio"}
    if webui.kind == A1111:  # the others load these themselves
        heavy |= {"onnxruntime", "diffusers"}
    assert not heavy & set(loaded)


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
