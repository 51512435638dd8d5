"""What the routes do."""

from __future__ import annotations

import asyncio
import io
import time

import pytest
from PIL import Image
from starlette.applications import Starlette

from lib_dsm.api.app import mount
from lib_dsm.api.thumbnails import Thumbnails
from lib_dsm.errors import ModelError
from tests.api.conftest import TOKEN

V1 = "/dsm/v1/"


def finish(client, job_id: str) -> dict:
    for _ in range(15000):  # ends a hang; a busy machine takes its time
        job = client.get(f"{V1}jobs/{job_id}").json()
        if job["state"] != "running":
            return job
        time.sleep(0.02)
    raise AssertionError(f"the job did not end: {job}")


def test_a_new_project_is_made_and_open(client, tmp_path):
    made = client.post(V1 + "project/new", json={"path": str(tmp_path / "new ねこ")}).json()
    assert [folder["name"] for folder in made["folders"]] == ["IMGS", "DATASET_IMGS", "SET"]
    assert (tmp_path / "new ねこ" / "IMGS").is_dir()
    assert client.get(V1 + "pictures", params={"folder": made["crop"]}).json()["total"] == 0


@pytest.mark.parametrize("path", ["", "relative", "/nowhere/at/all", "~nobody-of-that-name/x"])
def test_a_project_that_is_none_is_a_sentence(client, path):
    answer = client.post(V1 + "project/open", json={"path": path})
    assert answer.status_code == 400
    assert answer.json()["error"]["problem"]


def test_pictures_come_in_pages_with_captions_and_problems(client, opened):
    (opened / "text.png").write_text("no picture", encoding="utf-8")
    first = client.get(V1 + "pictures", params={"folder": str(opened), "size": 3}).json()
    assert [picture["name"] for picture in first["pictures"]] == ["a.png", "b.png", "c.png"]
    assert (first["total"], first["pages"]) == (4, 2)
    assert first["pictures"][1]["tags"] == ["1girl", "blue eyes", "outdoors"]
    assert first["pictures"][1]["width"] == 120
    second = client.get(V1 + "pictures", params={"folder": str(opened), "size": 3, "page": 1}).json()
    assert "text.png" in second["pictures"][0]["problem"]
    assert client.get(V1 + "pictures", params={"folder": str(opened), "size": 10_000}).status_code == 400


def test_pictures_and_tags_are_filtered_by_a_query(client, opened):
    where = {"folder": str(opened), "where": '"blue eyes" AND NOT hat'}
    assert [item["name"] for item in client.get(V1 + "pictures", params=where).json()["pictures"]] == ["b.png"]
    counts = client.get(V1 + "tags", params=where).json()
    assert counts["filtered"] == 1
    assert {item["tag"]: (item["count"], item["filtered"]) for item in counts["tags"]}["blue eyes"] == (2, 1)
    assert client.get(V1 + "tags", params={"folder": str(opened), "where": "(hat"}).status_code == 400


def test_thumbnails_are_small_jpegs(client, opened):
    answer = client.get(V1 + "thumbnail", params={"path": str(opened / "c.png"), "size": 40})
    with Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (40, 20))
    Image.new("RGB", (30, 60)).save(opened / "c.png")
    changed = client.get(V1 + "thumbnail", params={"path": str(opened / "c.png"), "size": 40})
    with Image.open(io.BytesIO(changed.content)) as image:
        assert image.size == (20, 40)


def test_a_caption_is_changed_only_as_it_was_seen(client, opened):
    where = {"path": str(opened / "a.png")}
    seen = client.get(V1 + "caption", params=where).json()
    changed = client.put(V1 + "caption", json={**where, "tags": ["hat", "new, tag", "hat"], "digest": seen["digest"]})
    assert changed.json()["tags"] == ["hat", "new", "tag"]
    assert (opened / "a.txt").read_text(encoding="utf-8") == "hat, new, tag"
    late = client.put(V1 + "caption", json={**where, "tags": [], "digest": seen["digest"]})
    assert late.status_code == 409
    assert (opened / "a.txt").read_text(encoding="utf-8") == "hat, new, tag"
    assert client.post(V1 + "undo", json={"folder": str(opened)}).json()["changed"] == 1
    assert (opened / "a.txt").read_text(encoding="utf-8") == "1girl, blue eyes, hat"


def test_pruning_says_before_what_it_will_change_and_can_be_undone(client, opened):
    before = {path: path.read_bytes() for path in opened.glob("*.txt")}
    wish = {"folder": str(opened), "options": {"remove": ["blue eyes"]}}
    plan = client.post(V1 + "prune/plan", json=wish).json()
    assert plan["changes"] == 2
    assert {path: path.read_bytes() for path in before} == before
    (opened / "b.txt").write_text("1girl", encoding="utf-8")
    assert client.post(V1 + "prune/apply", json={**wish, "expect": 2}).status_code == 409
    before = {path: path.read_bytes() for path in before}
    assert client.post(V1 + "prune/apply", json={**wish, "expect": 1}).json()["changed"] == 1
    assert (opened / "a.txt").read_text(encoding="utf-8") == "1girl, hat"
    acts = client.get(V1 + "history", params={"folder": str(opened)}).json()
    assert (acts["undo"], acts["redo"], acts["acts"][0]["captions"]) == (True, False, 1)
    client.post(V1 + "undo", json={"folder": str(opened)})
    assert {path: path.read_bytes() for path in before} == before
    client.post(V1 + "redo", json={"folder": str(opened)})
    assert (opened / "a.txt").read_text(encoding="utf-8") == "1girl, hat"
    assert client.post(V1 + "redo", json={"folder": str(opened)}).status_code == 400


def test_an_unknown_option_is_named(client, opened):
    answer = client.post(V1 + "prune/plan", json={"folder": str(opened), "options": {"remoev": ["x"]}})
    assert answer.status_code == 400
    assert "remoev" in answer.json()["error"]["problem"]


def test_crops_are_proposed_changed_and_written(client, opened):
    (opened / "text.png").write_text("no picture", encoding="utf-8")
    project = str(opened.parent)
    options = {"mode": "center", "width": 64, "height": 64}
    proposed = client.post(V1 + "crop/propose", json={"project": project, "options": options}).json()
    assert len(proposed["pictures"]) == 3
    assert "text.png" in proposed["problems"][0]
    items = [item for picture in proposed["pictures"] for item in picture["items"]]
    items[2].update(box=[10, 0, 90, 80], mode="free")
    started = client.post(V1 + "crop/write", json={"project": project, "plan": {"items": items}, "options": options})
    job = finish(client, started.json()["job"])
    assert job["state"] == "done", job
    assert "3 written" in job["data"]["summary"]
    with Image.open(opened.parent / "DATASET_IMGS" / "c.png") as crop:
        assert crop.size == (64, 64)
    assert (opened.parent / "DATASET_IMGS" / "c.txt").read_text(encoding="utf-8") == "1girl, smile"
    items[0].update(box=[5, 5, 5, 5], mode="free")
    items[1].update(part="/../../../escaped", mode="free")
    items[2].update(part="new")
    wrong = client.post(V1 + "crop/write", json={"project": project, "plan": {"items": items}, "options": options})
    job = finish(client, wrong.json()["job"])
    assert job["data"]["summary"].startswith("1 written") and len(job["data"]["problems"]) == 2
    assert not list(opened.parent.parent.rglob("*escaped*"))
    items[0]["box"] = "all"
    wrong = client.post(V1 + "crop/write", json={"project": project, "plan": {"items": items}, "options": options})
    assert wrong.status_code == 400


def test_a_crop_plan_is_saved_written_and_taken_back(client, opened):
    project, options = str(opened.parent), {"width": 64, "height": 64, "mode": "subject"}
    found = client.post(V1 + "crop/propose", json={"project": project, "options": options, "names": ["c.png"]}).json()
    frames = found["pictures"][0]["items"]
    nothing = client.post(V1 + "crop/write", json={"project": project, "options": options})
    assert nothing.status_code == 400 and "Nothing is confirmed" in nothing.json()["error"]["problem"]
    decision = {"source": "c.png", "state": "confirmed", "stamp": found["pictures"][0]["stamp"], "items": frames}
    saved = client.post(V1 + "crop/save", json={"project": project, "pictures": [decision]}).json()
    assert (saved["confirmed"], saved["crops"], saved["left"]) == (1, len(frames), [])
    wrong = client.post(V1 + "crop/save", json={"project": project, "pictures": [{**decision, "state": "perhaps"}]})
    assert wrong.status_code == 400
    shown = client.post(V1 + "crop/open", json={"project": project}).json()
    assert {one["name"]: one["state"] for one in shown["pictures"]}["c.png"] == "confirmed"
    job = client.post(V1 + "crop/write", json={"project": project, "options": options}).json()["job"]
    assert finish(client, job)["state"] == "done"
    assert [path.name for path in (opened.parent / "DATASET_IMGS").glob("*.png")] == ["c.png"]
    assert client.post(V1 + "crop/undo", json={"project": project}).json()["title"] == "take back 1 crop"
    assert not list((opened.parent / "DATASET_IMGS").glob("*.png"))
    foreign = {**options, "detector": "/etc/passwd"}
    assert client.post(V1 + "crop/propose", json={"project": project, "options": foreign}).status_code == 400
    sizes = client.post(V1 + "crop/sizes", json={"project": project, "width": 64, "height": 64}).json()
    assert sum(bucket["pictures"] for bucket in sizes["buckets"]) + sizes["small"] == len(shown["pictures"])


def test_pruning_tells_of_captions_it_passed_over(client, opened):
    (opened / "b.txt").write_bytes(b"\0")
    (opened / "c.txt").unlink()
    wish = {"folder": str(opened), "options": {"remove": ["hat"]}}
    notes = client.post(V1 + "prune/plan", json=wish).json()["notes"]
    assert len(notes) == 1 and notes[0].startswith("b.png: ") and "not text" in notes[0]
    applied = client.post(V1 + "prune/apply", json=wish).json()
    assert (applied["changed"], applied["notes"]) == (1, notes)


def test_thumbnails_are_kept_up_to_a_size(opened):
    kept = Thumbnails(limit=10**6)
    first = kept.of(opened / "a.png", 40)
    assert kept.of(opened / "a.png", 40) is first and kept.size == len(first)
    few = Thumbnails(limit=len(first))
    again = few.of(opened / "a.png", 40)
    assert few.of(opened / "a.png", 40) is again
    few.of(opened / "a.png", 39)
    assert few.size <= len(first) and few.of(opened / "a.png", 40) is not again
    none = Thumbnails(limit=1)
    assert none.of(opened / "a.png", 40) == first and none.size == 0


def test_filling_the_set(client, opened):
    job = finish(client, client.post(V1 + "project/fill-set", json={"path": str(opened.parent)}).json()["job"])
    assert job["state"] == "done"
    assert len(list((opened.parent / "SET").glob("*.txt"))) == 3


def test_jobs_are_shown_cancelled_and_asked(client, service):
    seen = []

    def work(job):
        job.data.update(tab="here", losses=[[1, float("nan")]])
        while not job.cancel_requested:
            seen.extend(["save"] * job.asked("save"))
            time.sleep(0.005)
        job.check()

    job = service.host.jobs.start("Waiting", work)
    assert client.get(f"{V1}jobs/{job.id}").json()["state"] == "running"
    assert client.post(f"{V1}jobs/{job.id}/ask", json={"wish": "dance"}).status_code == 400
    assert client.post(f"{V1}jobs/{job.id}/ask", json={"wish": "save"}).status_code == 200
    while not seen:
        time.sleep(0.005)
    assert [item["id"] for item in client.get(V1 + "jobs", params={"tab": "here"}).json()["jobs"]] == [job.id]
    assert client.get(V1 + "jobs", params={"tab": "there"}).json()["jobs"] == []
    client.post(f"{V1}jobs/{job.id}/cancel")
    ended = finish(client, job.id)
    assert (ended["state"], ended["data"]["losses"]) == ("cancelled", [[1, None]])
    assert client.get(V1 + "jobs/none").status_code == 404


def test_a_job_that_fails_tells_its_sentence(client, service):
    def work(job):
        raise ModelError("The model is bent.", "Straighten it.")

    assert finish(client, service.host.jobs.start("Bending", work).id)["error"] == "The model is bent. Straighten it."


def test_training_takes_only_known_checkpoints_and_opened_folders(client, opened, tmp_path):
    config = {"name": "zorgle", "checkpoint": "micro.safetensors", "dataset": str(opened)}
    (tmp_path / "x.safetensors").write_bytes(b"")
    elsewhere = {**config, "checkpoint": str(tmp_path / "x.safetensors")}
    assert client.post(V1 + "train/start", json={"config": elsewhere}).status_code == 403
    assert client.post(V1 + "train/start", json={"config": {**config, "dataset": str(tmp_path)}}).status_code == 403
    assert client.post(V1 + "train/start", json={"config": {**config, "name": "../x"}}).status_code == 400


def test_a_run_goes_from_start_to_list(client, opened):
    config = {
        "name": "zorgle", "checkpoint": "micro.safetensors", "dataset": str(opened), "vectors": 2, "init_text": "solo",
        "learning_rate": "0.01", "max_steps": 2, "gradient_accumulation": 1, "width": 64, "height": 64,
        "preview_every": 0,
    }  # fmt: skip
    answer = client.post(V1 + "train/check", json={"config": config}).json()
    findings = answer["findings"]
    assert all({"id", "severity", "problem", "remedy", "apply"} == finding.keys() for finding in findings)
    assert {"id": "disk-full", "fine": "The disk has room for the run"} in answer["passed"]
    assert not [finding for finding in findings if finding["severity"] == "block"]
    job = finish(client, client.post(V1 + "train/start", json={"config": config}).json()["job"])
    assert job["state"] == "done", job
    assert len(job["data"]["losses"]) == 2
    assert [run["name"] for run in client.get(V1 + "train/runs").json()["runs"]] == ["zorgle"]


def test_a_call_that_is_cut_off_begins_nothing_and_is_no_error_of_ours(service, opened, caplog):
    """As when a page is closed, or taken away by "Reload UI", while it sends."""
    app, said = Starlette(), []
    mount(app, service, TOKEN)
    parts = iter([
        {"type": "http.request", "body": b'{"project": ', "more_body": True},
        {"type": "http.disconnect"},
    ])  # fmt: skip

    async def receive():
        return next(parts)

    async def send(message):
        said.append(message)

    scope = {
        "type": "http", "method": "POST", "path": "/dsm/v1/crop/save", "raw_path": b"", "query_string": b"",
        "headers": [(b"x-dsm-token", TOKEN.encode())], "http_version": "1.1", "scheme": "http", "root_path": "",
        "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
    }  # fmt: skip
    asyncio.run(app(scope, receive, send))
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert said[0]["status"] == 400


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "63.5", "true", "[]", '"x"', '"1e3"'])
def test_what_is_no_whole_number_is_a_sentence(client, opened, number):
    body = f'{{"project": "{opened.parent.as_posix()}", "width": {number}}}'
    answer = client.post("/dsm/v1/crop/sizes", content=body)
    assert answer.status_code == 400
    assert "whole number from 16 to 8192" in answer.json()["error"]["remedy"]


def test_a_whole_number_may_come_as_any_kind(client, opened):
    for number in ("512", "512.0", '"512"'):
        body = f'{{"project": "{opened.parent.as_posix()}", "width": {number}}}'
        assert client.post("/dsm/v1/crop/sizes", content=body).status_code == 200


def test_a_tag_of_two_lines_is_no_tag_of_the_table(client, service):
    for tag in ("a\u2028[eyes]", "a\x0bb", "a\nb"):
        answer = client.put("/dsm/v1/prune/kinds", json={"tag": tag, "kind": "hair"})
        assert answer.status_code == 400
        assert "is not one tag" in answer.json()["error"]["problem"]
