import json
from pathlib import Path

import pytest

from lib_dsm.dataset.history import undo
from lib_dsm.errors import InputError
from lib_dsm.pruning.metadata import export_metadata, import_metadata


def picture_set(folder: Path, **captions: str | None) -> Path:
    folder.mkdir(exist_ok=True)
    for name, text in captions.items():
        (folder / f"{name}.png").touch()
        if text is not None:
            (folder / f"{name}.txt").write_text(text)
    return folder


def test_out_and_in_again(tmp_path: Path) -> None:
    folder = picture_set(tmp_path / "set", a=r"1girl, a \(b\), (x, y:1.2)", b="hat", c=None)
    file = tmp_path / "meta.json"
    assert export_metadata(folder, file) == 2
    content = json.loads(file.read_text())
    assert content[str(folder / "a.png")] == {"tags": r"1girl, a \(b\), (x, y:1.2)"} and len(content) == 2
    other = picture_set(tmp_path / "other", a="old", b=None, c="kept")
    plan = import_metadata(other, file)
    assert plan.missing == ["c.png"] and not plan.notes
    assert len(plan.apply().changed) == 2
    assert (other / "a.txt").read_text() == r"1girl, a \(b\), (x, y:1.2)" and (other / "b.txt").read_text() == "hat"
    again = import_metadata(other, file)
    assert (again.changes, again.same) == ([], 2)
    undo(other)
    assert (other / "a.txt").read_text() == "old" and not (other / "b.txt").exists()


def test_a_file_keeps_what_else_it_has_and_how_it_names_pictures(tmp_path: Path) -> None:
    folder = picture_set(tmp_path / "set", a="hat", b="x")
    file = tmp_path / "meta.json"
    before = {"a": {"caption": "a hat", "train_resolution": [512, 768]}, "C:\\elsewhere\\gone.png": {"tags": "q"}}
    file.write_text(json.dumps(before))
    export_metadata(folder, file, full_path=False)
    assert json.loads(file.read_text()) == {
        "a": {"caption": "a hat", "train_resolution": [512, 768], "tags": "hat"},
        "C:\\elsewhere\\gone.png": {"tags": "q"}, "b": {"tags": "x"},
    }  # fmt: skip
    plan = import_metadata(folder, file)
    assert plan.same == 2 and "gone.png" in plan.notes[0].text


def test_captions_stand_in_for_tags_and_paths_of_windows_are_found(tmp_path: Path) -> None:
    folder = picture_set(tmp_path / "set", a="old", b="old")
    file = tmp_path / "meta.json"
    file.write_text(json.dumps({"D:\\train\\a.jpg": {"caption": "new, tags"}, "b": {"train_resolution": [1, 1]}}))
    plan = import_metadata(folder, file)
    assert plan.missing == ["b.png"]
    plan.apply()
    assert (folder / "a.txt").read_text() == "new, tags" and (folder / "b.txt").read_text() == "old"


def test_of_a_picture_that_is_named_twice_the_first_counts(tmp_path: Path) -> None:
    folder = picture_set(tmp_path / "set", a="old", b="old")
    file = tmp_path / "meta.json"
    file.write_text(json.dumps({"set/a.png": {"tags": "one"}, "a": {"tags": "two"}, "b": {}, "set/b": {"tags": "x"}}))
    plan = import_metadata(folder, file)
    assert [note.path.name for note in plan.notes] == ["a.png", "b.png"] and 'as "a"' in plan.notes[0].text
    assert plan.missing == ["b.png"]
    outcome = plan.apply()
    assert len(outcome.changed) == 1 and not outcome.conflicts
    assert (folder / "a.txt").read_text() == "one"


@pytest.mark.parametrize("content", ["[1]", '{"a": "text"}', "no"])
def test_other_files_are_refused(tmp_path: Path, content: str) -> None:
    folder = picture_set(tmp_path / "set", a="old")
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(InputError, match=r"x\.json"):
        import_metadata(folder, tmp_path / "x.json")
