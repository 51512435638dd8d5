import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dsm.dataset.acts import Change
from lib_dsm.dataset.history import apply, history, recording, recover, redo, undo
from lib_dsm.dataset.locks import writing_in
from lib_dsm.errors import BusyError, Cancelled, InputError, StorageError
from lib_dsm.jobs import Job

NAMES = ["a.txt", "b 猫.txt", "sub/c.txt"]
State = dict[str, bytes]


def state(folder: Path) -> State:
    files = (path for path in folder.rglob("*.txt") if ".dsm" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def put(folder: Path, files: State) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def change_all(folder: Path, after: dict[str, bytes | None]) -> None:
    now = state(folder)
    apply(folder, "change", [Change(name, now.get(name), content) for name, content in after.items()])


CONTENTS = st.one_of(st.none(), st.binary(max_size=8))
STATES = st.dictionaries(st.sampled_from(NAMES), CONTENTS, max_size=3)


@settings(max_examples=25, deadline=None)
@given(STATES, st.lists(STATES, min_size=1, max_size=4))
def test_undoing_everything_restores_every_byte_and_redoing_brings_it_back(
    start: dict[str, bytes | None], edits: list[dict[str, bytes | None]]
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        put(folder, {key: value for key, value in start.items() if value is not None})
        (folder / "sub").mkdir(exist_ok=True)
        states = [state(folder)]
        for edit in edits:
            change_all(folder, edit)
            states.append(state(folder))
        acts = [earlier != later for earlier, later in itertools.pairwise(states)]
        for changed, before in zip(reversed(acts), reversed(states[:-1]), strict=True):
            if changed:
                assert not undo(folder).conflicts
            assert state(folder) == before
        for changed, after in zip(acts, states[1:], strict=True):
            if changed:
                assert not redo(folder).conflicts
            assert state(folder) == after


def test_nothing_to_undo_or_redo(tmp_path: Path) -> None:
    for act in (undo, redo):
        with pytest.raises(InputError, match="nothing to"):
            act(tmp_path)
        with pytest.raises(InputError, match="does not exist"):
            act(tmp_path / "no")


def test_a_caption_changed_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"theirs", "b.txt": b"1"})
    outcome = apply(tmp_path, "edit", [Change("a.txt", b"as read", b"mine"), Change("b.txt", b"1", b"2")])
    assert state(tmp_path) == {"a.txt": b"theirs", "b.txt": b"2"}
    assert [note.path.name for note in outcome.conflicts] == ["a.txt"] and outcome.changed == [tmp_path / "b.txt"]
    assert [change.path for change in history(tmp_path)[0].changes] == ["b.txt"]


def test_undo_leaves_what_changed_since(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1", "b.txt": b"1"})
    change_all(tmp_path, {"a.txt": b"2", "b.txt": b"2"})
    (tmp_path / "a.txt").write_bytes(b"by hand")
    outcome = undo(tmp_path)
    assert state(tmp_path) == {"a.txt": b"by hand", "b.txt": b"1"}
    assert [note.path.name for note in outcome.conflicts] == ["a.txt"]


def test_a_new_act_ends_what_could_be_redone(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1"})
    change_all(tmp_path, {"a.txt": b"2"})
    undo(tmp_path)
    change_all(tmp_path, {"a.txt": b"3"})
    with pytest.raises(InputError, match="nothing to redo"):
        redo(tmp_path)
    undo(tmp_path)
    assert state(tmp_path) == {"a.txt": b"1"}
    redo(tmp_path)
    assert state(tmp_path) == {"a.txt": b"3"}
    assert [act.state for act in history(tmp_path)] == ["dropped", "done"]


def test_a_folder_in_place_of_a_caption_is_reported(tmp_path: Path) -> None:
    (tmp_path / "a.txt").mkdir()
    outcome = apply(tmp_path, "edit", [Change("a.txt", b"1", b"2"), Change("b.txt", None, b"2")])
    assert "cannot be read" in outcome.conflicts[0].text and (tmp_path / "b.txt").read_bytes() == b"2"


KILLED = """
import os, signal, sys
from pathlib import Path
from lib_dsm.dataset import acts, history
folder, act, after = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
put, done = history._put, 0
history._FEW = int(sys.argv[4])
def dying(*args):
    global done
    if done == after:
        os.kill(os.getpid(), signal.SIGKILL)
    put(*args)
    done += 1
history._put = dying
if act == "apply":
    names = sorted(p.name for p in folder.glob("*.txt"))
    history.apply(folder, "edit", [acts.Change(n, (folder / n).read_bytes(), b"new " + n.encode()) for n in names])
elif act == "record":
    with history.recording(folder, "edit") as recording:
        for path in sorted(folder.glob("*.txt")):
            recording.write(path, path.read_bytes(), b"new " + path.name.encode())
else:
    getattr(history, act)(folder)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("few", [64, 0], ids=["flushed", "quick"])
@pytest.mark.parametrize("act", ["apply", "record", "undo", "redo"])
def test_killed_between_two_captions(tmp_path: Path, act: str, few: int, after: int) -> None:
    before = {f"{name}.txt": name.encode() for name in "abc"}
    edited = {name: b"new " + name.encode() for name in before}
    put(tmp_path, before)
    if act in ("undo", "redo"):
        change_all(tmp_path, dict(edited))
    if act == "redo":
        undo(tmp_path)
    root = Path(__file__).parent.parent.parent
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), act, str(after), str(few)],
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -signal.SIGKILL
    if act == "undo":
        undo(tmp_path)
        assert state(tmp_path) == before
        redo(tmp_path)
        assert state(tmp_path) == edited
    else:
        if act == "redo":
            redo(tmp_path)
            assert state(tmp_path) == edited
        else:
            change_all(tmp_path, {"new.txt": b"later"})  # whoever writes next completes the act first
            written = after + 1 if act == "record" else 3
            expected = {**before, **dict(list(edited.items())[:written]), "new.txt": b"later"}
            assert state(tmp_path) == expected
            undo(tmp_path)
        undo(tmp_path)
        assert state(tmp_path) == before


def test_what_a_dead_program_of_the_same_number_left_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lib_dsm.dataset.history._FEW", 0)
    put(tmp_path, {"a.txt": b"old"})
    change_all(tmp_path, {"a.txt": b"new"})
    act = tmp_path / ".dsm" / "history" / "000001.jsonl"
    act.write_bytes(b"".join(act.read_bytes().splitlines(keepends=True)[:-1]))
    put(tmp_path, {"a.txt": b"old", f".dsm-{os.getpid()}-0.part": b"ne"})
    assert len(recover(tmp_path)) == 1
    assert state(tmp_path) == {"a.txt": b"new"} and not list(tmp_path.glob("*.part"))


def test_a_line_cut_off_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1"})
    change_all(tmp_path, {"a.txt": b"2"})
    file = tmp_path / ".dsm" / "history" / "000001.jsonl"
    with file.open("ab") as out:
        out.write(b'{"state": "undo')
    undo(tmp_path)
    assert state(tmp_path) == {"a.txt": b"1"}
    assert [json.loads(line)["state"] for line in file.read_text().splitlines()[-2:]] == ["undoing", "undone"]


@pytest.mark.parametrize("name", ["../evil.txt", "/etc/evil.txt", "evil.sh"])
def test_a_history_that_leads_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    put(folder, {"a.txt": b"1"})
    change_all(folder, {"a.txt": b"2"})
    file = folder / ".dsm" / "history" / "000001.jsonl"
    file.write_text(file.read_text().replace("a.txt", name))
    with pytest.raises(InputError, match="damaged"):
        undo(folder)
    assert not (tmp_path / "evil.txt").exists()


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("state_of_act", ["done", "open"])
def test_a_history_writes_and_moves_nothing_behind_a_link(tmp_path: Path, state_of_act: str) -> None:
    """A folder that came from elsewhere may hold both: a link to a folder, and an act that names what lies there."""
    folder, outside = tmp_path / "set", tmp_path / "outside"
    put(folder, {"a.txt": b"1"})
    put(outside, {"b.txt": b"theirs"})
    (outside / "c.png").write_bytes(b"theirs")
    change_all(folder, {"a.txt": b"2"})
    (folder / "sub").symlink_to(outside)
    file = folder / ".dsm" / "history" / "000001.jsonl"
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    texts = {"text": "new"}, {"text": "theirs"}
    before, after = texts if state_of_act == "done" else reversed(texts)
    extra = [
        {"path": "sub/new.txt", "before": texts[0], "after": None},
        {"path": "sub/b.txt", "before": before, "after": after},
        {"move": "sub/c.png", "to": ".dsm/removed/c.png"},
    ]
    end = lines[2:] if state_of_act == "done" else []
    file.write_text("".join(json.dumps(line) + "\n" for line in [*lines[:2], *extra, *end]))
    if state_of_act == "done":
        outcome = undo(folder)
        assert [note.path.name for note in outcome.conflicts] == ["c.png", "b.txt", "new.txt"]
    else:
        assert "3 had been changed" in recover(folder)[0]
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"b.txt": b"theirs", "c.png": b"theirs"}
    assert state(folder)["a.txt"] == (b"1" if state_of_act == "done" else b"2")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
@pytest.mark.parametrize("name", [".dsm", ".dsm/history", ".dsm/lock"])
def test_what_is_kept_is_never_behind_a_link(tmp_path: Path, name: str) -> None:
    folder, outside = tmp_path / "set", tmp_path / "outside"
    put(folder, {"a.txt": b"1"})
    outside.mkdir()
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).symlink_to(outside / ("lock" if name.endswith("lock") else ""))
    with pytest.raises(StorageError, match="is a link"):
        change_all(folder, {"a.txt": b"2"})
    assert not list(outside.iterdir())


def test_a_name_that_is_too_long_stops_no_act(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1"})
    change_all(tmp_path, {"a.txt": b"2"})
    file = tmp_path / ".dsm" / "history" / "000001.jsonl"
    lines = file.read_text().splitlines()
    move = {"move": "b" * 300 + ".png", "to": ".dsm/removed/" + "b" * 300 + ".png"}
    file.write_text("".join(f"{line}\n" for line in [*lines[:2], json.dumps(move), *lines[2:]]))
    outcome = undo(tmp_path)
    assert "no longer there" in outcome.conflicts[0].text
    assert state(tmp_path) == {"a.txt": b"1"}


def test_recording_shows_and_closes_its_act_when_stopped(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1", "b.txt": b"1"})
    with pytest.raises(Cancelled), recording(tmp_path, "tag") as act:
        assert act.write(tmp_path / "a.txt", b"1", b"2")
        assert not act.write(tmp_path / "b.txt", b"other", b"2")
        raise Cancelled
    assert history(tmp_path)[0].state == "done" and len(act.outcome.conflicts) == 1
    undo(tmp_path)
    assert state(tmp_path) == {"a.txt": b"1", "b.txt": b"1"}


def test_a_stopped_act_is_undone_as_far_as_it_went(tmp_path: Path) -> None:
    put(tmp_path, {"a.txt": b"1", "b.txt": b"1"})
    job = Job("edit", watcher=lambda job: job.cancel())
    with pytest.raises(Cancelled):
        apply(tmp_path, "edit", [Change("a.txt", b"1", b"2"), Change("b.txt", b"1", b"2")], job)
    assert state(tmp_path) == {"a.txt": b"2", "b.txt": b"1"}
    assert not undo(tmp_path).conflicts and state(tmp_path) == {"a.txt": b"1", "b.txt": b"1"}


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with writing_in(tmp_path), pytest.raises(BusyError, match="Another window"), writing_in(tmp_path, wait=0):
        pass
    with writing_in(tmp_path, wait=0):
        pass
