import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lib_dsm import files, options
from lib_dsm.errors import BusyError, GuardError, InputError, ModelError, StorageError
from lib_dsm.host import steps
from lib_dsm.host.create import create_network
from lib_dsm.host.past import past_run
from lib_dsm.host.run import run_folder, train
from lib_dsm.host.steps import continue_from, use_step
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding, save_pt
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.presets import settings_of_run
from lib_dsm.training.run_folder import RunFolder


@pytest.fixture
def ran(studio, run_config):
    """A finished run of four steps with the second saved as well."""
    return train(studio, run_config(validate_every=0), Job("test")).folder


@pytest.fixture
def validated(studio, run_config):
    """The same, validated at every step."""
    return train(studio, run_config(validate_every=1), Job("test")).folder


def published(studio) -> Path:
    return studio.folders.embeddings / "zorgle.safetensors"


def test_an_earlier_step_can_be_used_and_the_last_is_kept(studio, ran):
    last = published(studio).read_bytes()
    used = use_step(studio, ran, 2)
    assert used.published == published(studio) and used.step == 2
    assert load_embedding(used.published).step == 2
    assert used.kept is not None and used.kept.read_bytes() == last
    assert past_run(studio, ran).data["published_step"] == 2
    assert use_step(studio, ran, 2).kept is None  # it is the same file already
    assert load_embedding(use_step(studio, ran, 4).published).step == 4
    assert not list(studio.folders.embeddings.glob("*.old-3*"))


def test_a_step_that_was_chosen_counts_as_published_until_the_run_goes_on(studio, ran, run_config):
    use_step(studio, ran, 2)
    with pytest.raises(GuardError, match="finished 4 of 4"):
        train(studio, run_config(), Job("test"), resume=True)
    assert load_embedding(published(studio)).step == 2
    train(studio, run_config(max_steps=5), Job("test"), resume=True)
    assert load_embedding(published(studio)).step == 5
    assert published(studio).read_bytes() == (ran / "checkpoints" / "step-000005" / "zorgle.safetensors").read_bytes()


@pytest.mark.parametrize("act", [use_step, continue_from])
def test_a_step_that_is_not_saved_is_refused_with_those_that_are(studio, ran, act):
    with pytest.raises(InputError, match=r"no saved step 3.*2, 4"):
        act(studio, ran, 3)
    with pytest.raises(InputError):
        act(studio, ran.parent, 2)


def test_a_run_in_training_is_not_touched(studio, ran):
    with RunFolder(ran).locked(), pytest.raises(BusyError):
        use_step(studio, ran, 2)


def test_going_on_elsewhere_gives_the_bits_of_going_on_here(studio, validated, tmp_path):
    """From step 2 with the same settings the new run ends with the same vectors as the old one: nothing was lost."""
    config = continue_from(studio, validated, 2)
    assert config.name == "zorgle-from-2" and config.max_steps == 4
    job = Job("test")
    result = train(studio, config, job, resume=True)
    assert result.step == 4 and "Going on after step 2." in job.snapshot()["lines"]
    old, new = (load_file(RunFolder(path).state_file(4, "state.safetensors")) for path in (validated, result.folder))
    assert old.keys() == new.keys() and all(torch.equal(old[key], new[key]) for key in old)
    assert any(key.startswith("optimizer.") for key in new)
    assert load_embedding(result.published).name == "zorgle-from-2"
    assert load_embedding(published(studio)).step == 4  # the old one stays what it was
    record = json.loads((result.folder / "run.json").read_text())
    assert record["continued"]["run"] == "zorgle" and record["continued"]["step"] == 2
    assert Path(record["continued"]["path"]) == validated
    # The whole course is told, from the first step of the old run.
    assert job.data["curves"]["step"] == [1, 2, 3, 4]
    assert [made["step"] for made in job.data["validation"]["series"]] == [0, 1, 2, 3, 4]
    assert job.data["saved"] == [2, 4]


def test_the_new_run_may_have_other_settings(studio, ran):
    config = continue_from(studio, ran, 2, {"name": "zorgle-gentle", "learning_rate": "0.0001", "max_steps": 3})
    result = train(studio, config, Job("test"), resume=True)
    rates = {int(row[0]): row[2] for row in RunFolder(result.folder).losses()}
    assert rates == {1: 0.01, 2: 0.01, 3: 0.0001}
    for file in (result.folder / "checkpoints" / "step-000002").glob("zorgle-gentle.*"):
        embedding = load_embedding(file)
        assert embedding.name == "zorgle-gentle" and embedding.step == 2
    assert not list((result.folder / "checkpoints").rglob("zorgle.*"))


def test_the_guards_of_a_resumed_run_hold_for_it(studio, ran):
    with pytest.raises(GuardError, match="CLIP skip 1"):
        train(studio, continue_from(studio, ran, 2, {"name": "zorgle-other", "clip_skip": 2}), Job("test"), resume=True)
    with pytest.raises(ModelError, match="has 4 vectors"):
        train(studio, continue_from(studio, ran, 2, {"name": "zorgle-more", "vectors": 5}), Job("test"), resume=True)


def test_names_that_are_taken_and_runs_without_steps_are_refused(studio, ran):
    (studio.folders.embeddings / "known.pt").write_bytes(b"precious")
    for changes, said in [
        ({"name": "zorgle"}, "a run"),
        ({"name": "known"}, "an embedding"),
        ({"name": "a/b"}, "a/b"),
        ({"max_steps": 2}, "begin after step 2"),
        ({"no_such": 1}, "no_such"),
    ]:
        with pytest.raises(InputError, match=said):
            continue_from(studio, ran, 2, changes)
    assert sorted(path.name for path in ran.parent.iterdir() if path.is_dir()) == ["zorgle"]


def test_with_the_same_name_the_old_run_is_kept_under_another(studio, ran, tmp_path):
    config = continue_from(studio, ran, 2, {"name": "zorgle", "overwrite": True, "max_steps": 3})
    assert config.overwrite is False and options.to_json(config)["max_steps"] == 3
    kept = ran.with_name("zorgle.old-1")
    assert RunFolder(kept).saved_steps() == [2, 4] and RunFolder(ran).saved_steps() == [2]
    before = published(studio).read_bytes()
    result = train(studio, config, Job("test"), resume=True)
    assert result.folder == ran and load_embedding(result.published).step == 3
    assert (studio.folders.embeddings / "zorgle.safetensors.old-1").read_bytes() == before
    assert json.loads((ran / "run.json").read_text())["continued"]["path"] == str(kept)


def test_a_disk_that_does_not_take_it_leaves_no_half_run(studio, ran, monkeypatch):
    def full(*arguments, **named):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lib_dsm.host.steps.shutil.copytree", full)
    with pytest.raises(StorageError, match="No space left"):
        continue_from(studio, ran, 2)
    assert not [path for path in ran.parent.iterdir() if path.is_dir() and path != ran]


def test_changed_settings_outlive_a_start_that_fails(studio, ran):
    """And the guards look at what the vectors were trained with all the same, until the new run has begun."""
    changes = {"name": "zorgle-other", "learning_rate": "0.0001", "max_steps": 3, "clip_skip": 2}
    config = continue_from(studio, ran, 2, changes)
    for _ in range(2):
        with pytest.raises(GuardError, match="CLIP skip 1"):
            train(studio, config, Job("test"), resume=True)
        assert settings_of_run(ran.with_name("zorgle-other")) == config
    assert (config.learning_rate, config.max_steps, config.clip_skip) == ("0.0001", 3, 2)
    # A run made from it before it begins is compared with the same.
    again = continue_from(studio, ran.with_name("zorgle-other"), 2, {"name": "zorgle-third"})
    with pytest.raises(GuardError, match="CLIP skip 1"):
        train(studio, again, Job("test"), resume=True)
    train(studio, dataclasses.replace(config, clip_skip=1), Job("test"), resume=True)
    assert "trained_with" not in RunFolder(ran.with_name("zorgle-other")).read_record()


def test_a_second_one_of_the_name_waits_for_no_one_and_destroys_nothing(studio, ran, monkeypatch):
    def meanwhile(*arguments):
        with pytest.raises(BusyError):
            continue_from(studio, ran, 2)
        return demand(*arguments)

    demand = steps._demand_free
    copy = steps._copy_until

    def copied(source, part, *others):
        copy(source, part, *others)
        with pytest.raises(BusyError):
            continue_from(studio, ran, 2)
        assert RunFolder(part).saved_steps() == [2]

    monkeypatch.setattr(steps, "_copy_until", copied)
    monkeypatch.setattr(steps, "_demand_free", meanwhile)
    assert RunFolder(run_folder(studio, continue_from(studio, ran, 2)).path).saved_steps() == [2]


def test_what_is_used_is_told_before_the_host_is_waited_for(studio, ran, monkeypatch):
    job, seen = Job("test"), []

    def busy():
        seen.append(job.data.get("summary"))
        raise RuntimeError("no model")

    monkeypatch.setattr(studio, "networks_changed", busy)
    assert use_step(studio, ran, 2, job).step == 2
    assert seen == [job.data["summary"]] and "zorgle.safetensors holds step 2 now" in seen[0]
    assert "did not take notice" in job.snapshot()["lines"][-1]
    made = Job("test")
    create_network(studio, run_config_of(ran), made)
    assert seen[1:] == [job.data["summary"]] and "did not take notice" in made.snapshot()["lines"][-1]


def run_config_of(folder: Path):
    """The settings of a run, for an untrained embedding of another name."""
    return dataclasses.replace(settings_of_run(folder), name="zorgnew", output="")


def full_disk(monkeypatch, file: str) -> None:
    """No room for `file` any more."""
    write = files.write_atomically

    def full(path, content):
        if path.name == file and "embeddings" in path.parts:
            raise StorageError("No space left.")
        write(path, content)

    monkeypatch.setattr("lib_dsm.files.write_atomically", full)


def test_a_disk_that_does_not_take_a_step_leaves_what_was_published(studio, ran, monkeypatch):
    """Also what another program had put there."""
    other = published(studio).with_suffix(".pt")
    save_pt(load_embedding(published(studio)), other)
    before = {path.name: path.read_bytes() for path in studio.folders.embeddings.iterdir()}
    full_disk(monkeypatch, "zorgle.safetensors")
    with pytest.raises(StorageError):
        use_step(studio, ran, 2)
    assert {path.name: path.read_bytes() for path in studio.folders.embeddings.iterdir()} == before


def test_a_disk_that_does_not_take_a_new_embedding_leaves_the_old_one(studio, ran, run_config, monkeypatch):
    before = {path.name: path.read_bytes() for path in studio.folders.embeddings.iterdir()}
    full_disk(monkeypatch, "zorgle.safetensors")
    with pytest.raises(StorageError):
        create_network(studio, run_config(overwrite=True, output=""), Job("test"))
    assert {path.name: path.read_bytes() for path in studio.folders.embeddings.iterdir()} == before


PREVIEW = (PreviewRequest(prompt="[name]", width=64, height=64, steps=1),)


@pytest.fixture
def drew(studio, run_config):
    """A finished run of four steps: all have a preview, and the last alone is saved."""
    config = run_config(save_every=0, preview_every=1, previews=PREVIEW, width=64, height=64, validate_every=0)
    return train(studio, config, Job("test")).folder


def test_all_published_files_are_those_of_the_step_that_is_used(studio, ran):
    beside = [ran.parent / f"zorgle{suffix}" for suffix in (".safetensors", ".pt", ".png")]
    foreign = studio.folders.embeddings / "zorgle.pt"
    save_pt(load_embedding(published(studio)), foreign)
    precious = foreign.read_bytes()
    use_step(studio, ran, 2)
    vectors = load_embedding(RunFolder(ran).state_file(2, "zorgle.pt")).vectors
    for file in (*beside, published(studio)):
        found = load_embedding(file)
        assert found.step == 2 and found.vectors.equal(vectors), file
    # The WebUI would have to choose between the two.
    assert not foreign.exists() and foreign.with_name("zorgle.pt.old-1").read_bytes() == precious
    assert not list(ran.parent.glob("*.old-*"))  # those were the run's own
    use_step(studio, ran, 4)
    assert {load_embedding(file).step for file in (*beside, published(studio))} == {4}


def test_a_step_that_has_a_preview_alone_can_be_used(studio, drew, run_config):
    preview = drew / "images" / "step-000002-1.png"
    used = use_step(studio, drew, 2)
    vectors = load_embedding(preview).vectors
    assert not vectors.equal(load_embedding(RunFolder(drew).state_file(4, "zorgle.pt")).vectors)
    for file in (used.published, *(drew.parent / f"zorgle{suffix}" for suffix in (".safetensors", ".pt", ".png"))):
        found = load_embedding(file)
        assert found.step == 2 and found.vectors.equal(vectors) and found.clip_skip == 1
    assert (drew.parent / "zorgle.png").read_bytes() == preview.read_bytes()
    assert past_run(studio, drew).data["published_step"] == 2
    assert use_step(studio, drew, 2).kept is None
    # It counts as published, as a saved one does.
    config = run_config(save_every=0, preview_every=1, previews=PREVIEW, width=64, height=64, validate_every=0)
    with pytest.raises(GuardError, match="finished 4 of 4"):
        train(studio, config, Job("test"), resume=True)
    with pytest.raises(InputError, match=r"no saved step 9 and no preview.*Saved steps: 4.*preview alone: 1, 2, 3"):
        use_step(studio, drew, 9)


def test_a_step_that_has_a_preview_alone_can_be_continued_from(studio, drew):
    config = continue_from(studio, drew, 2)
    result = train(studio, config, Job("test"), resume=True)
    new = RunFolder(result.folder)
    assert result.step == 4 and new.saved_steps() == [2, 4]
    vectors = load_embedding(drew / "images" / "step-000002-1.png").vectors
    state = load_file(new.state_file(2, "state.safetensors"))
    assert state["network.vectors"].equal(vectors) and not any(key.startswith("optimizer.") for key in state)
    assert state["start.0"].equal(load_file(RunFolder(drew).state_file(4, "state.safetensors"))["start.0"])
    for file in new.state_folder(2).glob("zorgle-from-2.*"):
        assert load_embedding(file).step == 2 and load_embedding(file).vectors.equal(vectors)
    steps = [row[0] for row in new.losses()]
    assert steps == [1, 2, 3, 4]
    rows = [list(RunFolder(path).losses()) for path in (drew, result.folder)]
    assert rows[0][2][1] == rows[1][2][1]  # the loss of step 3: the very same vectors
