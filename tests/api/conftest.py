from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from lib_dsm.api.app import mount
from lib_dsm.api.service import Service

TOKEN = "the-token-of-this-test"
CAPTIONS = {"a": "1girl, blue eyes, hat", "b": "1girl, blue eyes, outdoors", "c": "1girl, smile"}


@pytest.fixture
def project(tmp_path) -> Path:
    folder = tmp_path / "project"
    (folder / "IMGS").mkdir(parents=True)
    for number, (name, caption) in enumerate(CAPTIONS.items()):
        Image.new("RGB", (80 + 40 * number, 80), (50 * number, 90, 120)).save(folder / "IMGS" / f"{name}.png")
        (folder / "IMGS" / f"{name}.txt").write_text(caption, encoding="utf-8")
    return folder


@pytest.fixture
def service(studio) -> Service:
    return Service(studio)


@pytest.fixture
def client(service) -> TestClient:
    """A client that has the token."""
    return make_client(service, headers={"X-DSM-Token": TOKEN})


def make_client(service: Service, credentials: dict[str, str] | None = None, **how) -> TestClient:
    app = Starlette()
    mount(app, service, TOKEN, credentials)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False, **how)


@pytest.fixture
def opened(client, project) -> Path:
    """The project's pictures, after the person opened it."""
    assert client.post("/dsm/v1/project/open", json={"path": str(project)}).status_code == 200
    return project / "IMGS"
