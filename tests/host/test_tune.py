"""A grid trains every combination, can be stopped and continued, and leaves the host's folders alone."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest

from lib_dsm.errors import BusyError, Cancelled, InputError
from lib_dsm.host.run import train
from lib_dsm.host.steps import use_step
from lib_dsm.host.tune import MOST, combinations, grid_folder, read_grid, tune
from lib_dsm.jobs import Job
from lib_dsm.training import validation
from lib_dsm.training.config import PreviewRequest

RATES = ["0.01", "0.05"]


@pytest.fixture(autouse=True)
def short_validations(monkeypatch):
    """What they measure is exact enough with a quarter of the draws."""
    monkeypatch.setattr(validation, "UNITS", 4)


@pytest.fixture
def config(run_config):
    """A run of four steps on one size, with a preview."""
    return run_config(
        variable_aspect=False, save_every=0, validate_every=0, max_steps=4, batch_size=1, width=64,
        previews=(PreviewRequest(prompt="solo, [name]", width=64, height=64, steps=1, cfg=1.0),),
    )  # fmt: skip


def steps_of(result):
    return [(row["number"], row["state"], row["step"]) for row in result.rows]


def network(row) -> Path:
    """The file of what a trial learned."""
    return max(Path(row["run"]).rglob("step-*/zorgle.safetensors"))


def test_every_combination_is_trained_and_compared(config, studio):
    job = Job("grid")
    result = tune(studio, config, {"learning_rate": RATES, "vectors": [2]}, job)
    assert not result.stopped
    assert [row["changes"] for row in result.rows] == [{"learning_rate": rate, "vectors": 2} for rate in RATES]
    for row in result.rows:
        assert row["state"] == "done" and row["step"] == row["last"] == 4 and row["seconds"] > 0
        assert row["loss"] is not None and row["first"] is not None and row["best"] <= min(row["loss"], row["first"])
        assert [preview["step"] for preview in row["previews"]] == [4]
    assert len({row["loss"] for row in result.rows}) == 2
    assert len({row["key"] for row in result.rows}) == 1
    assert job.data["trials"] == result.rows and job.done == job.total == 8
    saved, rows = read_grid(result.folder)
    assert saved == config and rows == result.rows
    # A trial is what the run would have been, and can be chosen; before that the host has none of it.
    assert not studio.folders.embeddings.exists()
    alone = dataclasses.replace(config, name="zorgle", learning_rate=RATES[1], vectors=2, output="")
    assert train(studio, alone, Job("alone")).files[0].read_bytes() == network(result.rows[1]).read_bytes()
    used = use_step(studio, Path(result.rows[0]["run"]), 4)
    assert used.published.read_bytes() == network(result.rows[0]).read_bytes()


@pytest.mark.long
def test_a_stopped_grid_goes_on_where_it_was_and_ends_as_if_it_had_not_been(config, studio, tmp_path):
    varied = {"learning_rate": RATES}
    whole = tune(studio, dataclasses.replace(config, output=str(tmp_path / "whole")), varied, Job("whole"))
    job = Job("stopped", watcher=lambda job: job.cancel() if job.done >= 2 else None)
    stopped = tune(studio, config, varied, job)
    assert stopped.stopped and job.data["stopped"]
    assert steps_of(stopped)[1] == (2, "waiting", 0) and stopped.rows[0]["state"] == "stopped"
    with pytest.raises(InputError, match="already"):
        tune(studio, config, varied, Job("again"))
    with pytest.raises(InputError, match="another batch_size"):
        tune(studio, dataclasses.replace(config, batch_size=2), varied, Job("other"), resume=True)
    done = tune(studio, config, varied, Job("resumed"), resume=True)
    assert [row["state"] for row in done.rows] == ["done", "done"]
    for row, expected in zip(done.rows, whole.rows, strict=True):
        assert network(row).read_bytes() == network(expected).read_bytes()
        assert row["loss"] == expected["loss"]
    times = [network(row).stat().st_mtime_ns for row in done.rows]
    more = tune(studio, config, {"learning_rate": [RATES[0], "0.2"]}, Job("more"), resume=True)
    assert [row["changes"]["learning_rate"] for row in more.rows] == [*RATES, "0.2"]
    assert [network(row).stat().st_mtime_ns for row in more.rows[:2]] == times
    anew = Job("anew")
    anew.cancel()
    kept = tune(studio, dataclasses.replace(config, overwrite=True), {"seed": [1, 2]}, anew)
    assert len(kept.rows) == 2 and len(list(kept.folder.parent.glob("*.old-*"))) == 1


def test_a_trial_that_fails_does_not_end_the_others(config, studio):
    job = Job("grid")
    result = tune(studio, config, {"vectors": [1, 4], "init_text": ["red hair"]}, job)
    assert [row["state"] for row in result.rows] == ["failed", "done"]
    assert "red hair" in result.rows[0]["problem"] and "vectors" in result.rows[0]["problem"]
    assert any("Trial 1 failed" in line for line in job.snapshot()["lines"])
    assert read_grid(result.folder)[1] == result.rows  # the sentence is still there later
    with pytest.raises(InputError, match="varies init_text and vectors"):
        tune(studio, config, {"seed": [1, 2]}, Job("other"), resume=True)


def test_a_grid_that_is_being_tuned_is_left_alone(config, studio):
    running = studio.jobs.start(
        "tuning", lambda job: job.data.update(grid=str(grid_folder(studio, config))) or wait(job)
    )
    while "grid" not in running.data:
        time.sleep(0.01)
    folder = grid_folder(studio, config)
    folder.mkdir(parents=True)
    (folder / "grid.json").write_text('{"trials": []}', encoding="utf-8")
    try:
        with pytest.raises(BusyError, match="already"):
            tune(studio, dataclasses.replace(config, overwrite=True), {"seed": [1, 2]}, Job("second"))
    finally:
        running.cancel()
    assert running.wait(10) and (folder / "grid.json").is_file()


def wait(job):
    """Until the job is cancelled."""
    while not job.cancel_requested:
        time.sleep(0.01)


@pytest.mark.parametrize(
    ("varied", "said"),
    [
        ({"nothing": [1, 2]}, "nothing"),
        ({"name": ["a", "b"]}, "name"),
        ({"vectors": [1, 99]}, "99"),
        ({"vectors": []}, "Vectors"),
        ({"vectors": [4, 4]}, "one combination"),
        ({"vectors": [*range(1, 10)], "seed": [*range(9)]}, f"{MOST}"),
    ],
)
def test_what_makes_no_grid_is_refused_by_name_before_anything_begins(config, studio, varied, said):
    with pytest.raises(InputError, match=said):
        combinations(config, varied)
    with pytest.raises(InputError, match=said):
        tune(studio, config, varied, Job("grid"))
    assert not grid_folder(studio, config).exists()


def test_a_damaged_grid_is_refused_in_a_sentence(config, studio):
    folder = grid_folder(studio, config)
    folder.mkdir(parents=True)
    (folder / "grid.json").write_text(json.dumps({"trials": 5}), encoding="utf-8")
    with pytest.raises(InputError, match="no grid"):
        read_grid(folder)


def test_a_cancelled_preparation_is_a_stop(config, studio):
    job = Job("grid")
    job.cancel()
    try:
        result = tune(studio, config, {"vectors": [1, 2]}, job)
    except Cancelled:
        pytest.fail("a grid that is stopped tells what it has")
    assert [row["state"] for row in result.rows] == ["waiting", "waiting"] and result.stopped
