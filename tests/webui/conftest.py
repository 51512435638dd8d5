"""A real WebUI with the extension in it: `DSM_WEBUI` names its folder, `DSM_WEBUI_PYTHON` its interpreter."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lib_dsm.demo import world
from tests.webui.pages import page, problems  # noqa: F401 - fixtures
from tests.webui.running import OTHER_VAE, kind_of, running


@pytest.fixture(scope="session")
def webui(tmp_path_factory):
    folder = os.environ.get("DSM_WEBUI")
    if not folder:
        pytest.skip("DSM_WEBUI names no WebUI")
    with running(Path(folder), tmp_path_factory.mktemp("webui")) as started:
        yield started


@pytest.fixture(autouse=True)
def fitting_host(request):
    """`@pytest.mark.hosts(A1111, …, why=…)` names the WebUIs that a test can hold in; elsewhere it is skipped."""
    marker = request.node.get_closest_marker("hosts")
    folder = os.environ.get("DSM_WEBUI")
    if marker and folder and kind_of(Path(folder)) not in marker.args:
        pytest.skip(marker.kwargs["why"])


@pytest.fixture(autouse=True)
def no_trouble_in_the_log(webui, fitting_host):
    """No test may make the WebUI print a trace or a complaint that names us."""
    before = webui.log.stat().st_size
    yield
    assert webui.trouble_after(before) == []


@pytest.fixture
def external_vae(webui):
    """The person has chosen a VAE of their own; its file's name."""
    webui.call("/sdapi/v1/refresh-vae", {})
    webui.set_options(sd_vae=OTHER_VAE)
    yield OTHER_VAE
    webui.set_options(sd_vae="None")


@pytest.fixture(scope="session")
def character(tmp_path_factory) -> Path:
    """Pictures of a character that the demo's model has never seen, with captions."""
    folder = tmp_path_factory.mktemp("character")
    world.draw_dataset(folder, world.character_of(10), count=6, seed=1)
    return folder
