"""An edit of many captions is killed at any moment: the next start has the old or the new state, and says which.

`DSM_KILLED_CAPTIONS` sets how many captions there are; `DSM_KILLS` how often an edit is killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lib_dsm.dataset.history import recover, redo, summaries, undo

CAPTIONS = int(os.environ.get("DSM_KILLED_CAPTIONS", "600"))
KILLS = int(os.environ.get("DSM_KILLS", "6"))
ROOT = Path(__file__).parents[2]
EDIT = """
import sys
from pathlib import Path
from lib_dsm.dataset.history import redo, undo
from lib_dsm.pruning.prune import PruneOptions, plan_prune
folder, act = Path(sys.argv[1]), sys.argv[2]
if act == "edit":
    plan = plan_prune(folder, PruneOptions(remove=("hat",)))
print("ready", flush=True)
plan.apply() if act == "edit" else {"undo": undo, "redo": redo}[act](folder)
print("done", flush=True)
"""


def state(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.glob("*.txt")}


def begin(folder: Path, act: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", EDIT, str(folder), act],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    return process


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
@pytest.mark.parametrize("act", ["edit", "undo", "redo"])
def test_killed_at_any_moment(tmp_path: Path, act: str, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(CAPTIONS):
        (tmp_path / f"{number}.png").touch()
        (tmp_path / f"{number}.txt").write_text(f"1girl, hat, tag {number}")
    old = state(tmp_path)
    new = {name: text.replace("hat, ", "") for name, text in old.items()}

    def prepare() -> None:
        """To the state that the act begins from."""
        while state(tmp_path) != (old if act in ("edit", "redo") else new):
            (undo if act in ("edit", "redo") else redo)(tmp_path)

    if act != "edit":
        process = begin(tmp_path, "edit")
        assert process.wait() == 0
    prepare()
    began = time.monotonic()
    assert begin(tmp_path, act).wait() == 0
    whole = time.monotonic() - began
    goal = new if act in ("edit", "redo") else old
    assert state(tmp_path) == goal
    rng = random.Random(1)
    cut_off = 0
    for _ in range(KILLS):
        prepare()
        process = begin(tmp_path, act)
        time.sleep(rng.random() * whole * 0.7)
        process.send_signal(signal.SIGKILL)
        process.wait()
        mixed = state(tmp_path)
        told = recover(tmp_path)
        now = state(tmp_path)
        assert now in (old, new) and recover(tmp_path) == []
        if mixed not in (old, new):
            assert told
        if told:
            cut_off += 1
            before_it = "before" in told[0].split("captions are as")[-1] or "as they were before" in told[0]
            assert now == (old if before_it else new), told
        assert {item.state for item in summaries(tmp_path)} <= {"done", "undone", "dropped"}
        assert not list(tmp_path.rglob("*.part"))
    with capsys.disabled():
        if CAPTIONS >= 10_000:
            print(f"\n{act} of {CAPTIONS} captions in {whole:.1f} s, killed {KILLS} times, cut off {cut_off} times")
