"""The LoRA of a run, and pictures of it, over the routes."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from lib_dsm.jobs import Job
from tests.api.test_train_routes import V1, finish


@pytest.fixture
def made(service, client, run_config, character_folder):
    """The job that made a LoRA of an embedding's run."""
    import dataclasses

    from lib_dsm.host.run import train

    train(service.host, dataclasses.replace(run_config(max_steps=2), output=""), Job("train"))
    job = finish(client, client.post(V1 + "train/lora", json={"run": "zorgle"}).json()["job"])
    assert job["state"] == "done", job["error"]
    return job


def test_its_pictures_are_drawn_of_the_runs_captions(client, made, service):
    assert [job["id"] for job in client.get(V1 + "jobs", params={"tab": "lora"}).json()["jobs"]] == [made["id"]]
    asked = client.get(V1 + "lora/prompts", params={"job": made["id"], "count": 2}).json()["prompts"]
    assert len(asked) == 2 and all(prompt.endswith(", zorgle") and "solo" in prompt for prompt in asked)
    settings = {"previews": 2, "preview_steps": 2, "preview_cfg": 2}
    answer = client.post(V1 + "lora/compare", json={"job": made["id"], "prompts": asked, "settings": settings})
    drawn = finish(client, answer.json()["job"])
    assert drawn["state"] == "done", drawn["error"]
    assert drawn["data"]["of"] == made["id"] and drawn["data"]["compared"]["columns"] == ["base", "base + LoRA"]
    sheet = Path(drawn["data"]["compared"]["sheet"])
    before = sheet.read_bytes()
    settings["preview_seed"] = 7
    answer = client.post(V1 + "lora/compare", json={"job": made["id"], "prompts": asked, "settings": settings})
    again = finish(client, answer.json()["job"])["data"]["compared"]["sheet"]
    assert again == str(sheet.with_name("zorgle-lora-compared-2.png")) and sheet.read_bytes() == before
    assert sheet.parent == service.host.folders.lora and client.get(V1 + "file", params={"path": str(sheet)}).is_success


def test_what_cannot_be_drawn_is_a_sentence(client, made, service):
    def refused(**call):
        answer = client.post(V1 + "lora/compare", json=call)
        assert not answer.is_success
        return answer.json()["error"]["problem"]

    assert "no LoRA to draw" in refused(job=_other(service), prompts=["a"], settings={"previews": 1})
    assert "previwes" in refused(job=made["id"], prompts=["a"], settings={"previwes": 1})
    assert "No picture" in refused(job=made["id"], prompts=["a"], settings={})
    go = threading.Event()
    busy = service.host.jobs.start("pictures", lambda job: go.wait(30))
    busy.data["of"] = made["id"]
    assert "being drawn" in refused(job=made["id"], prompts=["a"], settings={"previews": 1})
    go.set()
    assert busy.wait(30)


def _other(service):
    job = service.host.jobs.start("nothing", lambda job: None)
    job.wait(10)
    return job.id
