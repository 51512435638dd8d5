import os
import sys
from pathlib import Path

import pytest

from lib_dsm.dataset.listing import list_pictures, require_pictures
from lib_dsm.errors import InputError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_order_cases_and_what_is_passed_over(tmp_path: Path) -> None:
    touch(tmp_path, "10.png", "2.JPG", "1.WebP", "b 猫.jpeg", "A.gif", ".hidden.png", ".dsm/x.png", "Thumbs.db")
    touch(tmp_path, "2.txt", "lonely.txt", "notes.json", "sub/3.png")
    pictures, notes = list_pictures(tmp_path)
    assert [path.name for path in pictures] == ["1.WebP", "2.JPG", "10.png", "A.gif", "b 猫.jpeg"]
    assert [(note.path.name, "caption" in note.text) for note in notes] == [("lonely.txt", True), ("notes.json", False)]


def test_recursive(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "sub 10/a.png", "sub 2/a.png", ".dsm/t.png", "sub 2/.cache/x.png")
    pictures, _ = list_pictures(tmp_path, recursive=True)
    assert [path.relative_to(tmp_path).as_posix() for path in pictures] == ["b.png", "sub 2/a.png", "sub 10/a.png"]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names")
def test_a_name_that_is_no_text_is_noted(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    pictures, notes = list_pictures(tmp_path)
    assert pictures == [] and "rename" in notes[0].text


def test_bad_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        list_pictures(tmp_path / "no")
    touch(tmp_path, "file")
    with pytest.raises(InputError, match="is a file"):
        list_pictures(tmp_path / "file")
    assert list_pictures(tmp_path)[0] == []
    with pytest.raises(InputError, match="holds no pictures"):
        require_pictures(tmp_path)
