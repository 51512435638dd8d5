"""A folder that came from elsewhere may hold links: no job of the pages reads or writes what they lead to."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.demo.install import CHECKPOINT, TAGGER
from lib_dsm.errors import InputError
from lib_dsm.tagging.options import TagOptions
from lib_dsm.tagging.run import tag_folder

V1 = "/dsm/v1/"
SECRET = "the secret of another folder"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")


@pytest.fixture
def outside(tmp_path) -> Path:
    """What the links lead to."""
    folder = tmp_path / "outside"
    folder.mkdir()
    Image.new("RGB", (80, 80), "red").save(folder / "secret.png")
    (folder / "secret.txt").write_text(SECRET, encoding="utf-8")
    (folder / "b.png").write_bytes((folder / "secret.png").read_bytes())
    (folder / "b.txt").write_text(SECRET, encoding="utf-8")
    return folder


LINKS = ["caption", "picture", "captionless"]


@pytest.fixture
def linked(request, opened, outside) -> Path:
    """The project's pictures with one link out of it, which it tells."""
    if request.param == "caption":
        link, to = opened / "b.txt", outside / "secret.txt"
    elif request.param == "picture":
        link, to = opened / "b.png", outside / "secret.png"
    elif request.param == "captionless":
        link, to = opened / "b.caption", outside / "secret.txt"
        (opened / "b.txt").unlink()
    elif request.param == "records":
        link, to = opened / ".dsm", outside
    else:
        (opened / ".dsm").mkdir()
        link, to = opened / ".dsm" / "history", outside
    link.unlink(missing_ok=True)
    link.symlink_to(to)
    return link


def state(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def jobs_of(folder: Path) -> list[tuple[str, dict]]:
    """Every call that has a job, or an answer, made of all that lies in a folder, but for pruning."""
    project, options = str(folder.parent), {"model": str(TAGGER)}
    config = {"name": "word", "checkpoint": str(CHECKPOINT), "dataset": str(folder), "max_steps": 1, "template": ["x"]}
    item = {"source": "b.png", "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    return [
        ("tag", {"folder": str(folder), "options": options}),
        ("tag", {"folder": str(folder), "options": options, "dry_run": True}),
        ("tag/look", {"folder": str(folder), "options": options}),
        ("tag/changes", {"folder": str(folder), "options": options}),
        ("project/fill-set", {"path": project}),
        ("crop/propose", {"project": project, "options": {}}),
        ("crop/write", {"project": project, "options": {}, "plan": {"items": [item]}}),
        ("crop/clean", {"project": project}),
        ("train/plan", {"config": config, "pictures": True}),
        ("train/check", {"config": config}),
        ("train/start", {"config": config}),
        ("train/tune", {"config": config, "vary": {"seed": [1, 2]}}),
        ("train/words", {"dataset": str(folder), "vectors": 75}),
    ]


@pytest.mark.parametrize("linked", [*LINKS, "records", "history"], indirect=True)
def test_no_job_reads_through_a_link_that_leads_out(client, service, opened, outside, linked):
    before = state(outside)
    for route, body in jobs_of(opened):
        answer = client.post(V1 + route, json=body)
        assert answer.status_code == 403, f"{route}: {answer.text}"
        problem = answer.json()["error"]["problem"]
        assert problem == f"{linked} is a link that leads out of the opened folders.", route
    assert not service.host.jobs.all()
    assert state(outside) == before
    assert not (opened.parent / "SET").exists()


def test_trying_options_looks_for_links_again_soon(client, service, opened, outside, monkeypatch):
    from lib_dsm.api import tag_routes

    options = {"model": str(TAGGER)}
    asked = {"folder": str(opened), "options": options}
    started = client.post(V1 + "tag/look", json=asked).json()["job"]
    assert service.host.jobs.get(started).wait(60)
    assert client.post(V1 + "tag/changes", json=asked).status_code == 200
    (opened / "b.txt").unlink()
    (opened / "b.txt").symlink_to(outside / "secret.txt")
    monkeypatch.setattr(tag_routes, "_LOOKED_LATELY", 0.0)
    answer = client.post(V1 + "tag/changes", json=asked)
    assert answer.status_code == 403
    assert SECRET not in answer.text


@pytest.mark.parametrize("linked", LINKS, indirect=True)
def test_what_the_link_leads_to_can_be_opened(client, service, opened, outside, linked):
    assert client.post(V1 + "project/open", json={"path": str(outside)}).status_code == 200
    started = client.post(V1 + "project/fill-set", json={"path": str(opened.parent)}).json()["job"]
    job = service.host.jobs.get(started)
    assert job.wait(60)
    assert job.state == "done", job.error
    assert len(list((opened.parent / "SET").glob("*.png"))) == 3


def test_links_within_the_folder_are_no_way_out(client, service, opened):
    (opened / "d.png").symlink_to(opened / "a.png")
    (opened / "d.txt").symlink_to(opened / "a.txt")
    started = client.post(V1 + "project/fill-set", json={"path": str(opened.parent)}).json()["job"]
    assert service.host.jobs.get(started).wait(60)
    assert (opened.parent / "SET" / "d.txt").read_text() == (opened / "a.txt").read_text()


def test_a_folder_inside_counts_where_the_work_goes_there(client, opened, outside):
    (opened / "sub").mkdir()
    (opened / "sub" / "x.png").symlink_to(outside / "secret.png")
    for recursive, status in ((True, 403), (False, 200)):
        options = {"model": str(TAGGER), "recursive": recursive}
        assert client.post(V1 + "tag/look", json={"folder": str(opened), "options": options}).status_code == status


@pytest.mark.parametrize("place", [".hidden", ".dsm/removed"])
@pytest.mark.parametrize("ending", ["png", "txt"])
def test_a_plan_names_no_link_that_the_lists_pass_over(client, service, opened, outside, place, ending):
    """What lies in hidden folders is in no list, and so is what was taken out of the set."""
    (opened / place).mkdir(parents=True)
    (opened / place / "x.png").write_bytes((opened / "a.png").read_bytes())
    (opened / place / f"x.{ending}").unlink(missing_ok=True)
    (opened / place / f"x.{ending}").symlink_to(outside / f"secret.{ending}")
    item = {"source": f"{place}/x.png", "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    asked = {"project": str(opened.parent), "options": {}, "plan": {"items": [item]}}
    assert client.post(V1 + "crop/write", json=asked).status_code == 403
    assert not service.host.jobs.all()


@pytest.mark.parametrize("name", ["", ".", "..", "/", "a/..", "a\nb", "x" * 300])
def test_a_plan_with_a_name_that_is_none_fails_in_a_sentence(client, service, opened, name):
    item = {"source": name, "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    asked = {"project": str(opened.parent), "options": {}, "plan": {"items": [item]}}
    answer = client.post(V1 + "crop/write", json=asked)
    assert answer.status_code in (200, 400), answer.text
    if answer.status_code == 200:
        job = service.host.jobs.get(answer.json()["job"])
        assert job.wait(60) and "1 failed" in job.data["summary"]


@pytest.mark.parametrize("name", ["IMGS", "DATASET_IMGS", "SET"])
def test_a_projects_own_folder_that_leads_out_is_refused(client, tmp_path, outside, name):
    project = tmp_path / "foreign"
    project.mkdir()
    (project / name).symlink_to(outside)
    assert client.post(V1 + "project/open", json={"path": str(project)}).status_code == 200
    before = state(outside)
    asked = {
        "IMGS": ["project/fill-set", "crop/open", "crop/propose", "crop/write", "crop/clean", "crop/sizes", "undo"],
        "DATASET_IMGS": ["project/fill-set", "crop/write", "crop/undo", "undo", "redo"],
        "SET": ["undo", "redo"],
    }[name]
    item = {"source": "b.png", "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    (project / "c.png").write_bytes((outside / "b.png").read_bytes())
    for route in asked:
        body = {"path": str(project), "project": str(project), "options": {}, "plan": {"items": [item]}}
        assert client.post(V1 + route, json=body).status_code == 403, route
    assert client.get(V1 + "history", params={"project": str(project)}).status_code == 403
    assert state(outside) == before


def test_the_list_tells_of_a_picture_that_is_a_link_and_does_not_open_it(client, opened, outside):
    (opened / "b.png").unlink()
    (opened / "b.png").symlink_to(outside / "secret.png")
    for route, key in (("pictures", "folder"), ("crop/open", "project")):
        if route == "pictures":
            told = client.get(V1 + route, params={key: str(opened)}).json()["pictures"][1]
            assert "is a link that leads out of the opened folders" in told["problem"]
            assert "width" not in told
        else:
            answer = client.post(V1 + route, json={key: str(opened.parent)}).json()
            assert [picture["name"] for picture in answer["pictures"]] == ["a.png", "c.png"]
            assert "b.png" in answer["problems"][0]
    shown = client.get(V1 + "pictures", params={"folder": str(opened), "where": "width > 0"}).json()
    assert [picture["name"] for picture in shown["pictures"]] == ["a.png", "c.png"]


@pytest.mark.parametrize("route", ["crop/open", "crop/sizes"])
def test_of_a_picture_that_is_no_link_it_is_not_found_out_where_it_leads(client, service, opened, monkeypatch, route):
    """That takes several times as long as reading its size."""
    asked: list[Path] = []
    is_open = service._is_open
    monkeypatch.setattr(service, "_is_open", lambda path: asked.append(path) or is_open(path))
    counts = []
    for number in range(2):
        asked.clear()
        answer = client.post(V1 + route, json={"project": str(opened.parent)}).json()
        assert len(answer["pictures"]) == 3 + number
        counts.append(len(asked))
        (opened / "d.png").write_bytes((opened / "a.png").read_bytes())
    assert counts[0] == counts[1]


def test_a_cache_that_was_made_with_more_rights_tells_nothing(client, opened, outside, monkeypatch):
    from lib_dsm.dataset import tag_index

    monkeypatch.setattr(tag_index, "_WORTH_A_CACHE", 1)
    (opened / "b.txt").unlink()
    (opened / "b.txt").symlink_to(outside / "secret.txt")
    monkeypatch.setattr(tag_index, "_TOO_FRESH", -60.0)
    assert SECRET in tag_index.TagIndex.read(opened).counts  # as on the command line, where it is the person's own
    counts = client.get(V1 + "tags", params={"folder": str(opened)}).json()
    assert SECRET not in {item["tag"] for item in counts["tags"]}
    assert any("b.txt" in note for note in counts["notes"])


def test_what_is_kept_of_a_project_is_not_looked_for_behind_a_link(client, opened, outside, monkeypatch):
    """Of the projects' own `.dsm` and of the folders': the draft of the crops, the index of the tags, the history."""
    from lib_dsm.dataset import tag_index

    monkeypatch.setattr(tag_index, "_WORTH_A_CACHE", 1)
    project = opened.parent
    (outside / "crop-plan.json").write_text("no plan", encoding="utf-8")
    (outside / "history").mkdir()
    act = [{"version": 1, "title": SECRET, "time": "2026-01-01T00:00:00+00:00"}, {"state": "done"}]
    (outside / "history" / "000001.jsonl").write_text("".join(json.dumps(line) + "\n" for line in act))
    for folder in (project, opened):
        (folder / ".dsm").symlink_to(outside)
    before = state(outside)
    decided = [{"source": "a.png", "state": "skipped", "stamp": ""}]
    for route in ("crop/open", "crop/save", "crop/write"):
        answer = client.post(V1 + route, json={"project": str(project), "pictures": decided})
        assert answer.status_code in (403, 507), route
        assert "is a link" in answer.json()["error"]["problem"]
    assert client.get(V1 + "tags", params={"folder": str(opened)}).status_code == 200
    assert client.get(V1 + "history", params={"folder": str(opened)}).json()["acts"] == []
    assert client.get(V1 + "history/act", params={"folder": str(opened), "act": 1}).status_code == 400
    assert state(outside) == before


def test_a_picture_that_is_a_link_into_an_opened_folder_has_its_own_caption(client, opened, outside):
    client.post(V1 + "project/open", json={"path": str(outside)})
    (opened / "d.png").symlink_to(outside / "secret.png")
    (opened / "d.txt").write_text("1girl, shoes", encoding="utf-8")
    where = {"path": str(opened / "d.png")}
    listed = client.get(V1 + "pictures", params={"folder": str(opened)}).json()["pictures"][3]
    changed = client.put(V1 + "caption", json={**where, "tags": ["1girl"], "digest": listed["digest"]})
    assert changed.status_code == 200, changed.text
    assert (opened / "d.txt").read_text(encoding="utf-8") == "1girl"
    assert (outside / "secret.txt").read_text(encoding="utf-8") == SECRET
    item = {"source": "d.png", "mode": "center", "box": [0, 0, 64, 64], "width": 32, "height": 32}
    asked = {"project": str(opened.parent), "name": "d.png", "items": [item]}
    assert client.post(V1 + "crop/judge", json=asked).status_code == 200
    assert client.post(V1 + "crop/judge", json={**asked, "name": "../IMGS/../a.png"}).status_code == 400


def test_a_link_from_elsewhere_to_an_opened_picture_brings_no_caption_of_there(client, opened, outside):
    (outside / "e.png").symlink_to(opened / "a.png")
    (outside / "e.txt").write_text(SECRET, encoding="utf-8")
    answer = client.get(V1 + "caption", params={"path": str(outside / "e.png")})
    assert SECRET not in answer.text


@pytest.mark.parametrize("name", ["nowhere", "a\0b", "f.txt"])
def test_a_folder_that_is_none_is_said_to_be_none(service, tmp_path, name):
    (tmp_path / "f.txt").touch()
    with pytest.raises(InputError, match=r"does not exist|is a file"):
        service.without_ways_out(tmp_path / name)


def test_a_run_that_is_a_link_out_is_none_of_the_list(client, service, tmp_path):
    logs = service.host.folders.logs
    logs.mkdir(parents=True)
    for place in (tmp_path / "outside-run", logs / "own"):
        place.mkdir()
        record = {"version": 1, "begun": SECRET, "config": {"name": place.name, "max_steps": 1}}
        (place / "run.json").write_text(json.dumps(record), encoding="utf-8")
    (logs / "linked").symlink_to(tmp_path / "outside-run")
    names = [run["name"] for run in client.get(V1 + "train/runs").json()["runs"]]
    assert names == ["own"]
    assert client.get(V1 + "train/run", params={"run": "linked"}).status_code == 404


def test_a_template_of_the_hosts_folder_that_leads_out_is_refused(client, service, opened, outside):
    templates = service.host.folders.templates
    templates.mkdir(parents=True)
    (templates / "mine.txt").symlink_to(outside / "secret.txt")
    config = {
        "name": "word", "checkpoint": str(CHECKPOINT), "dataset": str(opened), "template_source": "file",
        "template_file": "mine",
    }  # fmt: skip
    answer = client.post(V1 + "train/plan", json={"config": config})
    assert answer.status_code == 403
    assert SECRET not in answer.text


def test_on_the_command_line_links_are_the_persons_own(opened, outside, tmp_path):
    """Pictures on another disk are common there; a caption is written beside the link, and what it led to stays."""
    (opened / "b.png").unlink()
    (opened / "b.png").symlink_to(outside / "secret.png")
    (opened / "b.txt").unlink()
    (opened / "b.txt").symlink_to(outside / "secret.txt")
    options = TagOptions(model=str(TAGGER), on_existing="replace", threshold=0.05)
    report = tag_folder(opened, options, tmp_path / "cache")
    assert opened / "b.png" in report.written
    assert not report.failed
    assert (opened / "b.txt").read_text(encoding="utf-8") != SECRET
    assert (outside / "secret.txt").read_text(encoding="utf-8") == SECRET
