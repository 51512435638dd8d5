from pathlib import Path

import pytest

from lib_dsm.dataset import history, project_history
from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.history import apply, summaries
from lib_dsm.dataset.project import create_project
from lib_dsm.dataset.removing import removal
from lib_dsm.errors import InputError


def put(folder: Path, name: str, before: bytes | None, after: bytes) -> None:
    apply(folder, f"{name} {after.decode()}", [Change(name, before, after)])


def read(root: Path) -> dict[str, bytes]:
    found = (path for path in root.rglob("*.txt") if ".dsm" not in path.parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in found}


def test_the_folders_of_a_project_are_one_history(tmp_path: Path) -> None:
    project = create_project(tmp_path / "p")
    states = [read(project.root)]
    steps = [
        (project.imgs, "a.txt", None, b"1"), (project.dataset_imgs, "a.txt", None, b"2"),
        (project.imgs, "a.txt", b"1", b"3"), (project.set, "b.txt", None, b"4"),
    ]  # fmt: skip
    for step in steps:
        put(*step)
        states.append(read(project.root))
    titles = [entry.act.title for entry in project_history.entries(project.root)]
    assert titles == ["a.txt 1", "a.txt 2", "a.txt 3", "b.txt 4"]
    for state in reversed(states[:-1]):
        project_history.undo(project.root)
        assert read(project.root) == state
    with pytest.raises(InputError, match="nothing to undo"):
        project_history.undo(project.root)
    for state in states[1:]:
        project_history.redo(project.root)
        assert read(project.root) == state
    with pytest.raises(InputError, match="nothing to redo"):
        project_history.redo(project.root)
    for place in (1, 3, 0, 4, 2):
        at = project_history.entries(project.root)[place - 1] if place else None
        project_history.go_to(project.root, at.folder if at else None, at.act.id if at else 0)
        assert read(project.root) == states[place]
    put(project.imgs, "c.txt", None, b"5")
    with pytest.raises(InputError, match="overtaken"):
        project_history.go_to(project.root, project.imgs, 2)


def test_going_to_an_act_of_one_folder(tmp_path: Path) -> None:
    for number in range(4):
        put(tmp_path, "a.txt", str(number - 1).encode() if number else None, str(number).encode())
    for act in (2, 4, 0, 3):
        history.go_to(tmp_path, act)
        assert read(tmp_path) == ({"a.txt": str(act - 1).encode()} if act else {})
    with pytest.raises(InputError, match="cannot be gone back to"):
        history.go_to(tmp_path, 9)


def test_the_first_captions_are_gone_back_to_past_an_act_that_was_dropped(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"first")
    put(tmp_path, "a.txt", b"first", b"second")
    put(tmp_path, "b.txt", None, b"new")
    history.undo(tmp_path)
    put(tmp_path, "a.txt", b"second", b"third")
    history.go_to(tmp_path, 0)
    assert read(tmp_path) == {"a.txt": b"first"}


def test_a_picture_taken_out_goes_to_a_folder_and_comes_back(tmp_path: Path) -> None:
    for round_number in range(2):
        (tmp_path / "a.png").write_bytes(b"picture %d" % round_number)
        (tmp_path / "a.txt").write_bytes(b"hat")
        outcome = apply(
            tmp_path, "take out", [], moves=removal([tmp_path / "a.png", tmp_path / "a.txt"], tmp_path)
        )  # fmt: skip
        assert not (tmp_path / "a.png").exists() and not (tmp_path / "a.txt").exists() and len(outcome.moved) == 2
    removed = tmp_path / ".dsm" / "removed"
    assert (removed / "a.png").read_bytes() == b"picture 0" and (removed / "a-2.png").read_bytes() == b"picture 1"
    assert [act.moved for act in summaries(tmp_path)] == [2, 2]
    history.undo(tmp_path)
    assert (tmp_path / "a.png").read_bytes() == b"picture 1"
    # Its place is taken: both stay where they are, and that is told.
    outcome = history.undo(tmp_path)
    assert (tmp_path / "a.png").read_bytes() == b"picture 1" and (removed / "a.png").read_bytes() == b"picture 0"
    assert len(outcome.conflicts) == 2


@pytest.mark.parametrize("to", ["../x.png", "/x.png", "x.png", ".dsm/removed/../../x.png", ".dsm/removed/x.exe"])
def test_a_record_that_moves_files_elsewhere_is_refused(tmp_path: Path, to: str) -> None:
    (tmp_path / "a.png").touch()
    apply(tmp_path, "take out", [], moves=removal([tmp_path / "a.png", tmp_path / "a.txt"], tmp_path))
    file = tmp_path / ".dsm" / "history" / "000001.jsonl"
    file.write_text(file.read_text().replace(".dsm/removed/a.png", to))
    with pytest.raises(InputError, match="damaged"):
        history.undo(tmp_path)


def test_a_caption_that_lost_its_bytes_with_the_power_is_completed(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"old")
    put(tmp_path, "a.txt", b"old", b"new")
    file = tmp_path / ".dsm" / "history" / "000001.jsonl"
    file.write_bytes(b"\n".join(file.read_bytes().split(b"\n")[:2]) + b"\n")  # the end was never written
    (tmp_path / "a.txt").write_bytes(b"\0\0\0")
    assert "was cut off" in history.recover(tmp_path)[0] and (tmp_path / "a.txt").read_bytes() == b"new"
    assert summaries(tmp_path)[0].recovered and history.recover(tmp_path) == []
