"""The API in a WebUI that was started with --api --api-auth: a program has these credentials, and nothing else."""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from lib_dsm.demo.install import TAGGER
from lib_dsm.networks.inspect import describe
from tests.micro import untagged_project
from tests.webui.running import CREDENTIALS, ROOT

V1 = "/dsm/v1/"
NAME = "scriptedhome"
QUICK = {"size_step": 8, "save_every": 1, "preview_every": 0, "learning_rate": "0.0001", "validation_share": 0}
USER, PASSWORD = CREDENTIALS.split(":")


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A few pictures without captions."""
    return untagged_project(tmp_path_factory.mktemp("api") / "character")


@pytest.fixture
def asking(webui):
    """One call as it goes over the wire: its status and the bytes of the answer."""
    connection = http.client.HTTPConnection(urlsplit(webui.url).netloc, timeout=120)

    def ask(method, path, credentials=None, body=None, **headers):
        if credentials:
            headers["Authorization"] = f"Basic {base64.b64encode(credentials.encode()).decode()}"
        content = None if method in ("GET", "HEAD", "OPTIONS") else json.dumps(body or {})
        connection.request(method, path, content, headers)
        answer = connection.getresponse()
        return answer.status, answer.read()

    yield ask
    connection.close()


def script(webui, project, *more, password=PASSWORD) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, str(ROOT / "docs" / "api_example.py"), "--url", webui.url, "--user", USER,
        "--password", password, "--project", str(project), "--tagger", str(TAGGER),
        "--checkpoint", webui.checkpoint.name, "--steps", "4", "--size", "64", "--name", NAME,
        "--settings", json.dumps(QUICK), *more,
    ]  # fmt: skip
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=600, check=False)


def test_the_script_tags_trains_stops_resumes_and_extracts(webui, project):
    try:
        ran = script(webui, project, "--stop-after", "1")
        assert ran.returncode == 0, ran.stdout + ran.stderr
        assert all(path.with_suffix(".txt").read_text() for path in (project / "IMGS").glob("*.png"))
        assert len(list((project / "SET").glob("*.png"))) == 4
        assert (webui.data / "models" / "hypernetworks" / f"{NAME}.pt").is_file()
        lora = Path(re.search(r"(/\S+\.safetensors)", ran.stdout)[1])
        assert lora.is_relative_to(webui.data)
        assert describe(lora)["kind"] == "lora"
        told = [line.split(maxsplit=1) for line in ran.stdout.splitlines() if line.startswith("  ")]
        ours = [state for state, title in told if NAME in title]
        assert ours.count("cancelled") == 1, ran.stdout
        assert set(ours) == {"cancelled", "done"}
        loras = webui.call("/sdapi/v1/refresh-loras", {}) or webui.call("/sdapi/v1/loras")
        assert lora.stem in {known["name"] for known in loras}
    finally:
        for path in [*(webui.data / "models").rglob(f"{NAME}*"), *(webui.data / "models").rglob(f"*{NAME}*")]:
            if path.is_file():
                path.unlink()


def test_a_wrong_password_is_a_sentence(webui, project):
    ran = script(webui, project, password="guessed")
    assert ran.returncode == 1
    assert "no valid token" in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    "credentials", [None, f"{USER}:guessed", f"guessed:{PASSWORD}", f"{USER}:", ":", f"{USER}:{PASSWORD} "]
)
def test_every_route_refuses_who_is_not_known(webui, asking, credentials):
    routes = webui.call(V1 + "schema")["routes"]
    assert len(routes) > 50
    for route in routes:
        path = V1 + route["path"].replace("{id}", "x")
        status, content = asking(route["method"], path, credentials)
        assert status == 403, f"{route['method']} {path}: {status}"
        assert "no valid token" in json.loads(content)["error"]["problem"]
        status, content = asking("HEAD", path, credentials)
        assert status in (403, 405), path
        status, content = asking("OPTIONS", path, credentials)
        assert status in (400, 403, 405), path
        assert b"error" not in content or b"token" in content


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"}, {"Origin": "null"},
        {"Origin": "https://evil.example", "Host": "evil.example:8"},
        {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"},
    ],
)  # fmt: skip
def test_another_sites_page_is_refused_whatever_it_has(webui, asking, headers):
    for route in webui.call(V1 + "schema")["routes"]:
        path = V1 + route["path"].replace("{id}", "x")
        status, _ = asking(route["method"], path, CREDENTIALS, **headers)
        assert status == 403, f"{route['method']} {path} with {headers}: {status}"
    own = {"Origin": webui.url, "Sec-Fetch-Site": "same-origin"}
    assert asking("GET", V1 + "status", CREDENTIALS, **own)[0] == 200


def test_jobs_are_listed_followed_and_cancelled(webui, project):
    webui.call(V1 + "project/open", {"path": str(project)})
    config = {
        "kind": "hypernetwork", "name": f"{NAME}-long", "checkpoint": webui.checkpoint.name,
        "dataset": str(project / "IMGS"), "template": ["[filewords]"], "max_steps": 100_000, "width": 64, "height": 64,
        **QUICK, "save_every": 0,
    }  # fmt: skip
    job = webui.call(V1 + "train/start", {"config": config})["job"]
    try:
        while (seen := webui.call(f"{V1}jobs/{job}"))["state"] == "running" and seen["done"] < 2:
            time.sleep(0.2)
        assert seen["state"] == "running", seen["error"]
        assert seen["total"] == 100_000
        listed = {one["id"]: one for one in webui.call(f"{V1}jobs")["jobs"]}
        assert listed[job]["state"] == "running"
        assert job in {one["id"] for one in webui.call(f"{V1}jobs?tab=train")["jobs"]}
    finally:
        webui.call(f"{V1}jobs/{job}/cancel", {})
    ended = webui.wait_for_job(job)
    assert ended["state"] == "cancelled"
    assert 0 < ended["done"] < 100_000
    webui.txt2img()  # the model is the WebUI's again
