from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from PIL import Image

from lib_dsm.demo import contact_sheet as sheets
from lib_dsm.demo import prove as proving
from lib_dsm.demo.trial_run import Outcome, read_outcome
from lib_dsm.demo.trials import CHARACTERS, Trial
from lib_dsm.errors import Cancelled, InputError
from lib_dsm.jobs import Job

TRIALS = [Trial(character, name="short", pictures=4, settings={"max_steps": 2}) for character in CHARACTERS[:2]]


def test_trials_run_beside_each_other_and_are_taken_up_after_a_cancel(tmp_path: Path) -> None:
    cancelled = Job("proof")
    cancelled.cancel()
    with pytest.raises(Cancelled):
        cancelled.run(lambda job: proving.carry_out_all(TRIALS, tmp_path, job, 2))
    job = Job("proof")
    outcomes = job.run(lambda job: proving.carry_out_all(TRIALS, tmp_path, job, 2))
    assert outcomes == [read_outcome(tmp_path, trial) for trial in TRIALS]
    assert job.snapshot()["text"] == "2 of 2 trials done"
    # On one thread each: the same as one after the other.
    (alone,) = proving.carry_out_all(TRIALS[:1], tmp_path / "alone", Job("proof"), 1)
    assert (alone.before, alone.after) == (outcomes[0].before, outcomes[0].after)


def test_workers_end_when_the_program_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "lib_dsm", "demo", "--prove", "--out", str(tmp_path)]
    program = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    workers: list[psutil.Process] = []
    while not any(tmp_path.glob("proof/trials/*/trial.json")):  # written by a worker that has begun
        assert program.poll() is None
        workers = psutil.Process(program.pid).children(recursive=True)
        time.sleep(0.2)
    program.kill()
    program.wait()
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert workers and not alive


def test_what_is_wrong_with_a_trial_reaches_the_person(tmp_path: Path) -> None:
    broken = [Trial(CHARACTERS[0], name="broken", pictures=0)]
    with pytest.raises(InputError, match="0 pictures"):
        proving.carry_out_all(broken, tmp_path, Job("proof"), 1)


def test_shares_are_means_over_those_that_have_the_attribute() -> None:
    assert proving._mean([{"head": 1.0, "hair": 0.5}, {"head": 0.0}]) == {"head": 0.5, "hair": 0.5}


def test_the_table_and_the_sheet_hold_every_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def carried_out(trials: list[Trial], folder: Path, job: Job, workers: int) -> list[Outcome]:
        for trial in trials:
            (folder / trial.folder).mkdir(parents=True)
            for title in ("before", "after"):
                for number in range(1, sheets.SHOWN + 1):
                    Image.new("RGB", (64, 64), "red").save(folder / trial.folder / f"{title}-{number}.png")
        return [
            Outcome({"constant": 0.25}, {"constant": 1.0 if trial.name == "usual" else 0.5}, 1.0) for trial in trials
        ]

    monkeypatch.setattr(proving, "carry_out_all", carried_out)
    proof = proving.prove(tmp_path, Job("proof"))
    table = proof.table.read_text()
    assert "| all of them | 25% | 100% |" in table
    assert "| Captions not pruned | 50% | 100% |" in table and "| 8 pictures | 50% | 100% |" in table
    assert "| Init text cut off at 4 vectors | 50% | 50% |" in table
    with Image.open(proof.sheet) as sheet:
        assert sheet.width > 900 and sheet.height > 1000
