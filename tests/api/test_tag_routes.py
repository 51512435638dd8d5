"""Tagging over the routes, with the demo world's tagger."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.demo.install import TAGGER
from tests.api.conftest import make_client

V1 = "/dsm/v1/"
OPTIONS = {"model": str(TAGGER), "threshold": 0.1, "on_existing": "append"}


def post(client, path: str, /, **values):
    answer = client.post(V1 + path, json=values)
    return answer.status_code, answer.json()


def finished(client, service, job: str):
    assert service.host.jobs.get(job).wait(60)
    return client.get(f"{V1}jobs/{job}").json()


def captions(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text("utf-8") for path in sorted(folder.glob("*.txt"))}


def test_trying_out_then_tagging_then_undo(client, service, opened) -> None:
    before = captions(opened)
    where = {"folder": str(opened), "options": OPTIONS}
    status, answer = post(client, "tag/look", **where)
    job = finished(client, service, answer["job"])
    assert (status, job["state"]) == (200, "done") and "No caption was written" in job["data"]["summary"]
    assert captions(opened) == before

    _, tried = post(client, "tag/try", **where, fresh=True)
    assert (tried["pictures"], tried["missing"]) == (3, 0) and tried["total"] == sum(
        tag["count"] for tag in tried["tags"]
    )
    _, fewer = post(client, "tag/try", folder=str(opened), options={**OPTIONS, "threshold": 0.95})
    assert fewer["total"] < tried["total"] and fewer["thresholds"][0] == 0.95
    _, shown = post(client, "tag/histogram", **where, tag=tried["tags"][0]["tag"])
    assert sum(shown["bins"]) == 3 and shown["threshold"] == pytest.approx(0.1, abs=1e-3)
    _, page = post(client, "tag/changes", **where, size=2)
    assert page["pages"] == 2 and [change["name"] for change in page["changes"]] == ["a.png", "b.png"]

    _, answer = post(client, "tag", **where, dry_run=True)
    told = finished(client, service, answer["job"])["result"]
    assert captions(opened) == before and [change["after"] for change in told["changes"]][:2] == [
        change["after"] for change in page["changes"]
    ]
    _, answer = post(client, "tag", **where)
    assert finished(client, service, answer["job"])["data"]["summary"].startswith("3 tagged")
    assert captions(opened)["a.txt"] == ", ".join(page["changes"][0]["after"])
    post(client, "undo", folder=str(opened))
    assert captions(opened) == before


@pytest.mark.parametrize("of", ["tag", "caption"])
@pytest.mark.parametrize("inside", [False, True])
def test_what_we_wrote_is_nobody_elses(client, service, opened, of: str, inside: bool) -> None:
    """Neither in the folder that is looked at nor in one above it; what another program writes before or after is."""
    deep = opened / "deep"
    deep.mkdir()
    for name in ("d.png", "e.png"):
        Image.new("RGB", (32, 32), "red").save(deep / name)
    (deep / "e.txt").write_text("old")

    def foreign() -> list[str]:
        service.indexes.get(opened, True, now=True)
        service.indexes.get(opened, now=True)
        return service.indexes.foreign(opened, 0)

    assert foreign() == []
    if of == "tag":
        where = opened if not inside else deep
        _, answer = post(client, "tag", folder=str(where), options={**OPTIONS, "recursive": not inside})
        assert finished(client, service, answer["job"])["state"] == "done"
    else:
        picture = str(deep / "e.png" if inside else opened / "a.png")
        digest = client.get(f"{V1}caption", params={"path": picture}).json()["digest"]
        assert client.put(f"{V1}caption", json={"path": picture, "tags": ["x"], "digest": digest}).status_code == 200
    assert foreign() == []
    (deep / "e.txt").write_text("by another program")
    assert foreign() == ["deep/e.txt"]


def test_one_picture_by_path_and_by_content(client, opened) -> None:
    status, found = post(client, "tag/picture", options=OPTIONS, path=str(opened / "a.png"))
    assert status == 200 and found["tags"] and found["rating"] in found["ratings"] and found["general"]
    content = base64.b64encode((opened / "a.png").read_bytes()).decode()
    for text in (content, f"data:image/png;base64,{content}"):
        assert post(client, "tag/picture", options=OPTIONS, picture=text) == (200, found)


@pytest.mark.parametrize(
    ("path", "values", "status"),
    [
        ("tag/picture", {"picture": "%%%"}, 400),
        ("tag/picture", {"picture": base64.b64encode(b"no picture").decode()}, 400),
        ("tag/picture", {"path": "/etc/hostname"}, 403),
        ("tag/try", {"folder": "/etc"}, 403),
        ("tag", {"folder": "/etc"}, 403),
        ("tag", {"options": {"thresold": 1}}, 400),
        ("tag/histogram", {"tag": "no such tag"}, 400),
    ],
)
def test_what_cannot_be_is_refused_in_a_sentence(client, opened, path, values, status) -> None:
    given = {"folder": str(opened), "options": OPTIONS, **values}
    found, answer = post(client, path, **given)
    assert found == status and answer["error"]["problem"].endswith(".")


def test_nothing_to_try_is_no_failure_and_fetches_nothing(client, service, opened) -> None:
    for model, why in (("wd-vit-v3", "not here yet"), (str(TAGGER), "not looked at"), ("wd99", "no tagger")):
        status, answer = post(client, "tag/try", folder=str(opened), options={"model": model})
        assert (status, answer["pictures"]) == (200, 0) and why in answer["reason"]
    assert not list(service.host.folders.taggers.glob("models--*"))


def test_taggers_are_listed_and_let_go(client, service, opened) -> None:
    rows = client.get(V1 + "taggers").json()["taggers"]
    assert rows[0]["name"] == "wd14-convnext" and rows[0]["licence"] and rows[0]["threshold"] == 0.3685
    assert not any(row["here"] for row in rows)
    post(client, "tag/picture", options={**OPTIONS, "keep_loaded": True}, path=str(opened / "a.png"))
    assert client.get(V1 + "taggers").json()["loaded"] == 1
    assert post(client, "taggers/unload") == (200, {"unloaded": 1})


def test_a_stranger_is_not_let_in(service, opened) -> None:
    assert make_client(service).post(V1 + "tag", json={"folder": str(opened)}).status_code == 403
