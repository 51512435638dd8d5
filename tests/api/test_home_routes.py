"""Projects by name, the demo project, pictures that the host made, and what previews were made with."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_dsm.dataset.listing import list_pictures

V1 = "/dsm/v1/"


def hashes(folder: Path) -> list[str]:
    return [hashlib.sha256(path.read_bytes()).hexdigest() for path in list_pictures(folder)[0]]


def test_a_name_alone_is_a_project_in_the_hosts_folder(client, studio):
    made = client.post(V1 + "project/new", json={"path": "my character"}).json()
    assert Path(made["path"]) == (studio.folders.projects / "my character").resolve()
    assert client.post(V1 + "project/open", json={"path": "my character"}).json() == made


@pytest.mark.parametrize("path", ["..", ".", "../x", "a/b", "a\\b", ".hidden", "a:b", "CON"])
def test_what_is_neither_a_name_nor_a_whole_path_is_refused(client, studio, path):
    assert client.post(V1 + "project/new", json={"path": path}).status_code == 400
    assert not studio.folders.projects.exists()


def test_the_demo_project_is_drawn_once_and_what_is_done_in_it_stays(client, studio):
    made = client.post(V1 + "project/demo").json()
    folder = studio.folders.projects / "demo" / "IMGS"
    assert [item["pictures"] for item in made["folders"]] == [26, 0, 0]
    drawn = hashes(folder)
    assert len(set(drawn)) == 26
    (folder / "01.png").unlink()
    (folder / "02.png").write_bytes((folder / "03.png").read_bytes())
    (folder / "02.txt").write_text("my tags", encoding="utf-8")
    assert client.post(V1 + "project/demo").json()["folders"][0]["captions"] == 1
    assert hashes(folder) == [drawn[0], drawn[2], *drawn[2:]]


@pytest.fixture
def own_picture(studio, tmp_path, monkeypatch):
    """A picture that the host made, with text in it, outside of every opened folder."""
    path = tmp_path / "outputs" / "00001-5.png"
    path.parent.mkdir()
    text = PngInfo()
    text.add_text("parameters", "solo\nSteps: 2")
    Image.new("RGB", (16, 16), "teal").save(path, pnginfo=text)
    monkeypatch.setattr(studio, "made_picture", lambda asked: asked == path)
    return path


def test_a_picture_that_the_host_made_is_copied_as_it_is(client, opened, own_picture):
    call = {"path": str(opened.parent), "picture": str(own_picture)}
    first = client.post(V1 + "project/take", json=call).json()
    assert (first["name"], first["new"]) == ("00001-5.png", True)
    assert (opened / "00001-5.png").read_bytes() == own_picture.read_bytes()
    again = client.post(V1 + "project/take", json=call).json()
    assert (again["name"], again["new"]) == ("00001-5.png", False)
    Image.new("RGB", (16, 16), "red").save(own_picture)
    assert client.post(V1 + "project/take", json=call).json()["name"] == "00001-5-2.png"


def test_other_pictures_and_other_folders_are_refused(client, opened, own_picture, tmp_path):
    other = own_picture.with_name("other.png")
    Image.new("RGB", (16, 16)).save(other)
    for call, status in (
        ({"path": str(opened.parent), "picture": str(other)}, 403),
        ({"path": str(tmp_path), "picture": str(own_picture)}, 403),
        ({"path": str(opened.parent), "picture": "x\0"}, 400),
    ):
        assert client.post(V1 + "project/take", json=call).status_code == status
    own_picture.unlink()
    gone = client.post(V1 + "project/take", json={"path": str(opened.parent), "picture": str(own_picture)})
    assert gone.status_code == 404 and "any more" in gone.json()["error"]["problem"]


def test_the_studio_made_no_picture_outside_its_runs(client, opened, tmp_path):
    Image.new("RGB", (16, 16)).save(tmp_path / "x.png")
    call = {"path": str(opened.parent), "picture": str(tmp_path / "x.png")}
    assert client.post(V1 + "project/take", json=call).status_code == 403


def test_what_a_preview_was_made_with(client, studio, opened, own_picture):
    images = studio.folders.logs / "zorgle" / "images"
    images.mkdir(parents=True)
    preview = images / "step-000002-1.png"
    preview.write_bytes(own_picture.read_bytes())
    answer = client.get(V1 + "train/parameters", params={"path": str(preview)})
    assert answer.json() == {"parameters": "solo\nSteps: 2"}
    without = client.get(V1 + "train/parameters", params={"path": str(opened / "a.png")})
    assert without.status_code == 400 and "does not hold" in without.json()["error"]["problem"]
    assert client.get(V1 + "train/parameters", params={"path": str(own_picture)}).status_code == 403
