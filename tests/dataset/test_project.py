from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.dataset.history import undo
from lib_dsm.dataset.project import behind, create_project, open_project
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.errors import InputError


def picture(path: Path, color: str = "red", caption: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), color).save(path, "PNG")
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")
    return path


def test_create_and_open(tmp_path: Path) -> None:
    project = create_project(tmp_path, "Hakos 猫")
    assert project.root == tmp_path / "Hakos 猫"
    for folder in (project.imgs, project.dataset_imgs, project.set, project.metadata):
        assert folder.is_dir()
    assert {path.name for path in project.root.iterdir()} == {"IMGS", "DATASET_IMGS", "SET", ".dsm"}
    picture(project.imgs / "a.png")
    assert create_project(project.root) == open_project(project.root) == project
    assert (project.imgs / "a.png").exists()


@pytest.mark.parametrize("name", ["../evil", "a/b", "..", "", "C:\\x"])
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError):
        create_project(tmp_path / "here", name)
    with pytest.raises(InputError):
        create_project(tmp_path / "here").import_picture(picture(tmp_path / "a.png"), name + ".png/../../x.png")
    assert not (tmp_path / "evil").exists() and not (tmp_path / "x.png").exists()


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        open_project(tmp_path / "no")
    file = picture(tmp_path / "a.png")
    for act in (open_project, create_project):
        with pytest.raises(InputError, match="is a file"):
            act(file)


def test_which_folder_serves_which_step(tmp_path: Path) -> None:
    project = open_project(tmp_path)
    assert project.training_folder() == project.imgs
    picture(tmp_path / "a.png")
    assert project.source_folder() == project.tagging_folder() == project.training_folder() == tmp_path
    picture(project.imgs / "a.png")
    assert project.source_folder() == project.training_folder() == project.imgs
    picture(project.dataset_imgs / "a.png")
    assert project.source_folder() == project.imgs
    assert project.tagging_folder() == project.training_folder() == project.dataset_imgs
    picture(project.set / "a.png")
    assert project.training_folder() == project.set and project.tagging_folder() == project.dataset_imgs


def test_import_never_overwrites(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p")
    red = picture(tmp_path / "1" / "it's a.png", "red", "red thing")
    blue = picture(tmp_path / "2" / "it's a.png", "blue")
    other_format = tmp_path / "3" / "It's A.jpg"
    other_format.parent.mkdir()
    Image.new("RGB", (8, 8), "red").save(other_format)
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    report = project.import_pictures([red, blue, red, other_format, text, tmp_path / "gone.png"])
    names = ["it's a.png", "it's a-2.png", "It's A-3.jpg"]
    assert [path.name for path in report.copied] == names
    assert report.same == [project.imgs / "it's a.png"]
    assert [note.path.name for note in report.notes] == ["text.jpg", "gone.png"]
    assert (project.imgs / "it's a.txt").read_text() == "red thing" and not (project.imgs / "it's a-2.txt").exists()
    assert (project.imgs / names[1]).read_bytes() == blue.read_bytes()
    assert project.import_picture(red, 'a<b>:"c".png').name == "a_b___c_.png"


def test_fill_set(tmp_path: Path) -> None:
    project = create_project(tmp_path)
    with pytest.raises(InputError, match="no pictures"):
        project.fill_set()
    for name in "ab":
        picture(project.dataset_imgs / f"{name}.png", "red", f"tags of {name}")
    assert len(project.fill_set().copied) == 2
    assert TagIndex.read(project.set).counts == {"tags of a": 1, "tags of b": 1}
    (project.dataset_imgs / "a.txt").write_text("better")
    picture(project.dataset_imgs / "b.png", "blue", "other")
    report = project.fill_set()
    assert report.same == [project.set / "a.png"] and [note.path.name for note in report.notes] == ["b.png"]
    assert (project.set / "a.txt").read_text() == "better" and (project.set / "b.txt").read_text() == "tags of b"
    undo(project.set)
    assert (project.set / "a.txt").read_text() == "tags of a"


def test_a_set_that_was_left_behind_is_noticed(tmp_path):
    project = create_project(tmp_path / "p")
    for name in ("1", "2"):
        Image.new("RGB", (8, 8)).save(project.dataset_imgs / f"{name}.png")
        (project.dataset_imgs / f"{name}.txt").write_text("smile")
    project.fill_set()
    assert behind(project.set) == behind(project.dataset_imgs) == ""
    (project.dataset_imgs / "1.txt").write_text("frown")
    Image.new("RGB", (9, 9)).save(project.dataset_imgs / "3.png")
    assert "1 pictures are missing and 1 captions differ" in behind(project.set)
    project.fill_set()
    assert behind(project.set) == ""
