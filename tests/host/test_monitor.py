import csv
import dataclasses
import json
import shutil
import sys
import types
from itertools import pairwise

import pytest
import torch

from lib_dsm.errors import GuardError
from lib_dsm.host.monitor import Monitor
from lib_dsm.host.past import past_run
from lib_dsm.host.run import train
from lib_dsm.host.steps import continue_from
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.curves import COLUMNS
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.validation import FixedDraws

TOLD = (
    "losses", "curves", "band_edges", "vocabulary", "speed", "validation", "verdict", "previews", "saved", "ended",
    "published", "published_step", "stopped", "name", "clip_skip", "kind", "run_folder",
)  # fmt: skip
TWO = (
    PreviewRequest(prompt="solo, [name]", width=64, height=64, steps=2, seed=5),
    PreviewRequest(prompt="[name], smile", width=64, height=64, steps=2, seed=6),
)


def watched(run_config, **changes):
    return run_config(**{"max_steps": 6, "validate_every": 2, "save_every": 2, **changes})


@pytest.fixture
def ran(studio, run_config):
    job = Job("test")
    result = train(studio, watched(run_config, preview_every=3, previews=TWO), job)
    return job, result


def test_a_run_tells_what_a_page_shows(ran):
    job, _ = ran
    data = job.data
    assert json.loads(json.dumps(data)) is not None  # nothing that JSON lacks
    told = data["curves"]
    assert told["step"] == [1, 2, 3, 4, 5, 6]
    assert set(told) - {"bands"} >= {"loss", "smoothed", "learning_rate", "gradient_norm", "mean_norm", "movement"}
    assert data["losses"] == [list(pair) for pair in zip(told["step"], told["loss"], strict=True)]
    assert all(0 < before < after for before, after in pairwise(told["movement"][:3]))
    assert all(value > 0 for name in ("mean_norm", "gradient_norm", "seconds") for value in told[name])
    # Two draws a step fall into one or two of the four bands.
    known = [[band[place] is not None for band in told["bands"]] for place in range(6)]
    assert all(1 <= sum(row) <= 2 for row in known)
    assert data["band_edges"] == [0, 250, 500, 750, 1000]
    assert data["vocabulary"]["low"] < data["vocabulary"]["median"] < data["vocabulary"]["high"]
    assert data["speed"]["pictures"] == pytest.approx(2 * data["speed"]["steps"])
    series = data["validation"]["series"]
    assert [made["step"] for made in series] == [0, 2, 4, 6]
    assert series[0]["change"] is None
    assert series[1]["change"] == pytest.approx(series[1]["loss"] - series[0]["loss"], rel=1e-6)
    assert series[1]["z"] == pytest.approx(series[1]["change"] / series[1]["error"])
    assert data["validation"]["held_out"] is False and "trained on" in data["validation"]["note"]
    assert 0 < data["validation"]["share"] < 1
    assert data["saved"] == [2, 4, 6] and data["published_step"] == 6 and data["stopped"] is False
    assert data["ended"] == ""


def test_previews_tell_where_they_belong(ran):
    job, _ = ran
    told = [(item["step"], item["index"], item["seed"], item["prompt"]) for item in job.data["previews"]]
    assert told == [
        (3, 0, 5, "solo, zorgle"),
        (3, 1, 6, "zorgle, smile"),
        (6, 0, 5, "solo, zorgle"),
        (6, 1, 6, "zorgle, smile"),
    ]
    assert {(item["width"], item["height"]) for item in job.data["previews"]} == {(64, 64)}


def test_a_past_run_tells_the_same(studio, ran):
    job, result = ran
    past = past_run(studio, result.folder)
    assert {key: past.data[key] for key in TOLD} == {key: job.data[key] for key in TOLD}


def test_a_resumed_run_goes_on_with_all_series(studio, run_config, tmp_path):
    whole = Job("test")
    train(studio, watched(run_config, output=str(tmp_path / "whole")), whole)
    config = watched(run_config, save_every=0, overwrite=True)
    cut = Job("test", watcher=lambda job: job.cancel() if job.done == 3 and job.text.startswith("loss") else None)
    assert train(studio, config, cut).stopped and cut.data["stopped"] is True
    resumed = Job("test")
    train(studio, config, resumed, resume=True)
    for name in ("step", "loss", "smoothed", "learning_rate", "gradient_norm", "mean_norm", "movement", "bands"):
        assert resumed.data["curves"][name] == whole.data["curves"][name], name
    assert resumed.data["validation"]["series"] == whole.data["validation"]["series"]
    without = [
        {key: value for key, value in (job.data["verdict"] or {}).items() if key != "best_saved"}
        for job in (resumed, whole)
    ]
    assert without[0] == without[1]


def test_validating_and_previewing_change_no_bit_of_the_result(studio, run_config, tmp_path):
    results = [
        train(studio, run_config(output=str(tmp_path / name), overwrite=True, max_steps=3, **more), Job("test"))
        for name, more in {
            "plain": {"validate_every": 0},
            "validated": {"validate_every": 1, "preview_every": 1},
        }.items()
    ]
    assert results[0].files[0].read_bytes() == results[1].files[0].read_bytes()
    assert not RunFolder(results[0].folder).validations()


def test_two_previews_of_one_step_are_the_same_bits(studio, run_config, tmp_path):
    config = run_config(max_steps=2, preview_every=2, previews=TWO[:1], overwrite=True)
    result = train(studio, config, Job("test"))
    path = RunFolder(result.folder).preview_file(2, 0)
    first = path.read_bytes()
    path.unlink()
    torch.manual_seed(3)
    again = Job("test")
    shutil.rmtree(result.folder / "checkpoints" / "step-000002", ignore_errors=True)
    train(studio, config, again, resume=True)
    assert path.read_bytes() == first


def test_held_out_pictures_are_never_trained_on(studio, run_config, monkeypatch):
    from lib_dsm.training.loop import Trainer

    shown = []

    def losses(self, batch, *rest, original=Trainer._losses):
        shown.extend(self.pictures.pictures[item.index].path.name for item in batch)
        return original(self, batch, *rest)

    monkeypatch.setattr(Trainer, "_losses", losses)
    job = Job("test")
    config = watched(run_config, validation_share=0.25, batch_size=3, validate_every=3)  # 9 of 12: 2 epochs in 6 steps
    result = train(studio, config, job)
    assert len(shown) == 18 and len(set(shown)) == 9 and all(shown.count(name) == 2 for name in shown)
    assert job.data["validation"]["held_out"] is True and job.data["validation"]["pictures"] == 3
    assert "3 pictures held out" in job.data["validation"]["note"]
    resumed = Job("test")
    train(studio, watched(run_config, validation_share=0.5, batch_size=3, max_steps=9), resumed, resume=True)
    assert "held-out-changed" in {finding["id"] for finding in resumed.data["findings"]}
    assert [made["step"] for made in resumed.data["validation"]["series"]] == [6, 8]
    assert past_run(studio, result.folder).data["validation"] == resumed.data["validation"]


def test_a_run_stops_by_itself_where_that_was_asked_for(studio, run_config):
    config = watched(run_config, learning_rate="1e-8", max_steps=20, validate_every=1, save_every=3, stop_when="flat")
    job = Job("test")
    result = job.run(lambda job: train(studio, config, job))
    assert 5 <= result.step < 20 and not result.stopped  # the sixth validation is the first that can tell
    assert job.state == "done" and job.data["verdict"]["state"] == "flat"
    assert (
        job.data["ended"].startswith(f"Stopped by itself after step {result.step}.")
        and "The best was step" in job.data["ended"]
    )
    assert load_embedding(result.published).step == result.step
    assert "plateau" in {finding["id"] for finding in job.data["findings"]}
    past = past_run(studio, result.folder)
    assert past.data["ended"] == job.data["ended"] and past.state == "done"
    # Whoever wants to go on can.
    on = Job("test")
    more = watched(run_config, learning_rate="0.01", max_steps=result.step + 2)
    assert train(studio, more, on, resume=True).step == result.step + 2
    assert on.data["ended"] == "" == past_run(studio, result.folder).data["ended"]


def test_a_run_killed_between_its_verdict_and_its_end_ends_there_too(studio, run_config, monkeypatch):
    class Killed(BaseException):
        pass

    def kill(self, made):
        found = validated(self, made)
        if self.ended:
            raise Killed
        return found

    def kill_now():
        raise Killed

    validated = Monitor.validated
    config = watched(run_config, learning_rate="1e-8", max_steps=12, validate_every=1, save_every=1, stop_when="flat")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Monitor, "validated", kill)
        train(studio, config, Job("test"))
    job = Job("test")
    result = train(studio, config, job, resume=True)
    whole = train(studio, dataclasses.replace(config, name="zorgwhole"), Job("test"))
    assert result.step == whole.step < 12 and not result.stopped
    assert job.data["ended"].startswith(f"Stopped by itself after step {result.step}.")
    assert past_run(studio, result.folder).data["ended"] == job.data["ended"]
    # Who goes on nevertheless can, also when that is cut short before the next verdict, and elsewhere.
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Monitor, "stepped", lambda self, row: kill_now())
        train(studio, config, Job("test"), resume=True)
    assert train(studio, config, Job("test"), resume=True).step > result.step
    other = continue_from(studio, whole.folder, whole.step)
    assert train(studio, other, Job("test"), resume=True).step > whole.step


def test_otherwise_it_only_suggests(studio, run_config):
    config = watched(run_config, learning_rate="1e-8", max_steps=8, validate_every=1, save_every=0)
    job = Job("test")
    assert train(studio, config, job).step == 8
    assert job.data["verdict"]["state"] == "flat" and job.data["ended"] == ""


def test_a_rate_that_only_jumps_about_is_told_at_the_first_step(studio, run_config):
    job = Job("test")
    train(studio, run_config(max_steps=1, learning_rate="5"), job)
    assert "lr-too-high" in {finding["id"] for finding in job.data["findings"]}


def test_a_validation_that_fails_costs_no_training(studio, run_config, monkeypatch):
    def out_of_memory(self, model, trainable):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lib_dsm.training.validation.FixedDraws.measure", out_of_memory)
    job = Job("test")
    assert train(studio, watched(run_config), job).step == 6
    assert "The validation of step 2 failed: RuntimeError: out of memory" in job.snapshot()["lines"]
    assert job.data["validation"]["series"] == [] and job.data["verdict"] is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_validation_that_is_no_number_ends_no_run_and_can_be_read(studio, run_config, monkeypatch, value):
    measure = FixedDraws.measure

    def poisoned(self, model, trainable):
        losses = measure(self, model, trainable)
        return ((value, *losses[0][1:]), *losses[1:]) if len(made) == 1 else losses

    made = []
    monkeypatch.setattr(FixedDraws, "measure", lambda *given: (poisoned(*given), made.append(None))[0])
    job = Job("test")
    result = train(studio, watched(run_config), job)
    assert result.step == 6 and any("not a number" in line for line in job.snapshot()["lines"])
    assert "broken" in {finding["id"] for finding in job.data["findings"]}
    series = job.data["validation"]["series"]
    assert [(told["step"], told["loss"] is None, told["z"] is None) for told in series] == [
        (0, False, True), (2, True, True), (4, False, True), (6, False, False),
    ]  # fmt: skip
    assert json.loads(json.dumps(job.data, allow_nan=False)) is not None
    assert past_run(studio, result.folder).data["validation"] == job.data["validation"]
    again = Job("test")
    assert train(studio, watched(run_config, max_steps=8), again, resume=True).step == 8
    assert again.data["validation"]["series"][:4] == series


def test_a_model_changed_under_the_trainer_stops_the_run_and_what_was_learned_is_kept(studio, run_config, monkeypatch):
    asked = []

    def moved(self):
        asked.append(1)
        return "The model was swapped." if len(asked) == 4 else ""

    monkeypatch.setattr("lib_dsm.host.studio.StudioSession.moved", moved)
    with pytest.raises(GuardError, match="The model was swapped"):
        train(studio, watched(run_config, save_every=0), Job("test"))
    assert RunFolder(studio.folders.logs.parent.parent / "runs" / "zorgle").saved_steps() == [3]


def test_latents_that_are_no_numbers_stop_the_run_and_are_not_remembered(studio, run_config, monkeypatch):
    from lib_dsm.diffusion.diffusers import DiffusersModel

    def overflowing(self, pixels, original=DiffusersModel.encode_images):
        mean, logvar = original(self, pixels)
        return mean * float("nan"), logvar

    with monkeypatch.context() as broken, pytest.raises(GuardError, match=r"latent of .*\.png"):
        broken.setattr(DiffusersModel, "encode_images", overflowing)
        train(studio, run_config(max_steps=1), Job("test"))
    assert train(studio, run_config(max_steps=1), Job("test")).step == 1


def test_a_run_of_an_earlier_version_still_opens_and_goes_on(studio, ran, run_config):
    _, result = ran
    folder = result.folder
    record = json.loads((folder / "run.json").read_text())
    for key in ("vocabulary", "validation", "timesteps", "version"):
        del record[key]
    for key in ("version", "validate_every", "validation_share", "stop_when", "tensorboard"):
        del record["config"][key]
    (folder / "run.json").write_text(json.dumps(record))
    with (folder / "losses.csv").open(newline="") as file:
        rows = [row[:5] for row in csv.reader(file)]
    with (folder / "losses.csv").open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)
    for name in ("validation.csv", "previews.csv"):
        (folder / name).unlink()
    past = past_run(studio, folder)
    assert past.state == "done" and past.done == 6
    assert past.data["curves"]["step"] == [1, 2, 3, 4, 5, 6] and past.data["curves"]["movement"] == [None] * 6
    assert past.data["curves"]["vector_norm"][0] > 0
    assert past.data["vocabulary"] is past.data["validation"] is past.data["verdict"] is None
    assert past.data["speed"] == {"steps": None, "pictures": None, "left": None}
    assert [(item["step"], item["index"], item["seed"]) for item in past.data["previews"]] == [
        (3, 0, None), (3, 1, None), (6, 0, None), (6, 1, None),
    ]  # fmt: skip
    job = Job("test")
    assert train(studio, watched(run_config, max_steps=8), job, resume=True).step == 8
    assert job.data["curves"]["movement"][:6] == [None] * 6 and job.data["curves"]["movement"][7] > 0
    assert [made["step"] for made in job.data["validation"]["series"]] == [6, 8]
    with (folder / "losses.csv").open(newline="") as file:
        assert next(csv.reader(file)) == list(COLUMNS)


def test_tensorboard_that_is_not_installed_is_one_line(studio, run_config, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    job = Job("test")
    result = train(studio, run_config(max_steps=1, tensorboard=True), job)
    assert [line for line in job.snapshot()["lines"] if "TensorBoard" in line] == [
        "Nothing is written for TensorBoard: it is not installed. `pip install tensorboard` adds it."
    ]
    assert not (result.folder / "tensorboard").exists()


def test_tensorboard_is_not_even_looked_for_unless_asked(studio, run_config, monkeypatch):
    used = []
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = lambda folder, purge_step: used.append(folder)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    train(studio, run_config(max_steps=1), Job("test"))
    assert not used
    result = train(studio, run_config(max_steps=1, tensorboard=True, overwrite=True), Job("test"))
    assert used == [str(result.folder / "tensorboard")]
