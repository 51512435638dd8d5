"""Grids over the routes: started, listed, shown, gone on with, a trial used; and what is refused."""

from __future__ import annotations

import pytest

from tests.api.test_routes import V1, finish
from tests.api.test_train_routes import config  # noqa: F401 - a fixture


def tune(client, settings, vary, **more):
    return client.post(V1 + "train/tune", json={"config": settings, "vary": vary, **more})


def test_a_grid_is_trained_listed_and_used(client, config, service):  # noqa: F811
    settings = {**config, "max_steps": 2, "preview_every": 0, "previews": []}
    answer = tune(client, settings, {"learning_rate": ["0.01", "0.02"]})
    assert answer.status_code == 200, answer.text
    job = finish(client, answer.json()["job"])
    assert job["state"] == "done" and job["data"]["tab"] == "tune"
    assert [row["state"] for row in job["data"]["trials"]] == ["done", "done"]
    (grid,) = client.get(V1 + "train/grids").json()["grids"]
    assert (grid["name"], grid["trials"], grid["done"], grid["job"]) == ("zorgle", 2, 2, None)
    shown = client.get(V1 + "train/grid", params={"grid": "zorgle"}).json()
    assert shown["trials"] == job["data"]["trials"] and shown["config"]["learning_rate"] == "0.01"
    assert not service.host.folders.embeddings.exists()
    assert client.post(V1 + "train/grid/use", json={"grid": "zorgle"}).status_code == 400
    used = finish(client, client.post(V1 + "train/grid/use", json={"grid": "zorgle", "trial": 2}).json()["job"])
    assert used["state"] == "done" and (service.host.folders.embeddings / "zorgle.safetensors").is_file()
    again = finish(client, client.post(V1 + "train/grid/resume", json={"grid": "zorgle"}).json()["job"])
    assert again["state"] == "done" and again["data"]["trials"] == shown["trials"]


@pytest.mark.parametrize(
    ("vary", "said"),
    [
        ({"checkpoint": ["micro.safetensors", "/etc/passwd"]}, "checkpoint"),
        ({"template_file": ["/etc/passwd", "x"]}, "template_file"),
        ({"init_embedding": ["/etc/passwd", "x"]}, "init_embedding"),
        ({"output": ["/tmp", "/"]}, "output"),
        ({"vectors": 4}, "no list"),
        ({"vectors": [1, 4000]}, "4000"),
        ({}, "one combination"),
    ],
)
def test_what_makes_no_grid_is_refused(client, config, vary, said):  # noqa: F811
    answer = tune(client, config, vary)
    assert answer.status_code == 400 and said in answer.text


@pytest.mark.parametrize("name", ["nothing", "../zorgle", "/etc"])
def test_only_grids_of_the_list_lead_anywhere(client, name):
    assert client.get(V1 + "train/grid", params={"grid": name}).status_code == 404
    assert client.post(V1 + "train/grid/resume", json={"grid": name}).status_code == 404
    assert client.post(V1 + "train/grid/use", json={"grid": name, "trial": 1}).status_code == 404
