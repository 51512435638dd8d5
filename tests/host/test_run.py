import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file

from lib_dsm.errors import BusyError, GuardError, InputError, ModelError, StorageError
from lib_dsm.host.past import past_run
from lib_dsm.host.run import examine_run, start_training, train
from lib_dsm.host.studio import load_model
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.run_folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_leaves_files_that_can_be_used(studio, run_config, tmp_path):
    job = Job("test")
    result = train(studio, run_config(preview_every=2), job)
    assert result.step == 4 and not result.stopped
    assert sorted(path.name for path in result.files) == ["zorgle.png", "zorgle.pt", "zorgle.safetensors"]
    embeddings = [load_embedding(path) for path in result.files]
    for embedding in embeddings:
        assert embedding.vectors.shape == (4, 80) and embedding.name == "zorgle"
        assert (embedding.vectors == embeddings[0].vectors).all()
    assert result.published == studio.folders.embeddings / "zorgle.safetensors"
    assert load_file(result.published)["emb_params"].shape == (4, 80)
    record = json.loads((result.folder / "run.json").read_text())
    assert record["config"]["clip_skip"] == 1 and len(record["checkpoint"]["sha256"]) == 64
    assert [preview["step"] for preview in job.data["previews"]] == [2, 4]
    with Image.open(job.data["previews"][0]["path"]) as preview:
        assert preview.size == (64, 64)
    assert load_embedding(Path(job.data["previews"][0]["path"])).step == 2
    assert (result.folder / "checkpoints" / "step-000002" / "zorgle.pt").is_file()
    assert len((result.folder / "losses.csv").read_text().splitlines()) == 5


def test_a_stopped_run_is_saved_resumed_and_equal_to_one_that_was_not(studio, run_config, tmp_path):
    whole = train(studio, run_config(output=str(tmp_path / "whole"), save_every=0), Job("test"))
    job = Job("test")
    job._watcher = lambda job: job.cancel() if job.done == 2 and job.text.startswith("loss") else None
    config = run_config(save_every=0, overwrite=True)
    stopped = train(studio, config, job)
    assert stopped.stopped and stopped.step == 2
    resumed = train(studio, config, Job("test"), resume=True)
    assert resumed.step == 4 and not resumed.stopped
    assert resumed.files[0].read_bytes() == whole.files[0].read_bytes()


@pytest.mark.parametrize("save_every", [2, 0], ids=["after a save", "before the first save"])
def test_a_run_killed_in_the_middle_goes_on_with_the_same_bits(studio, run_config, tmp_path, save_every):
    whole = train(studio, run_config(output=str(tmp_path / "whole"), max_steps=6, save_every=save_every), Job("test"))
    config = run_config(max_steps=6, overwrite=True, save_every=save_every)
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from lib_dsm import options
from lib_dsm.host.run import train
from lib_dsm.host.studio import StudioHost
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig
import json
config = options.from_json(RunConfig, json.loads(sys.argv[1]))
def watch(job):
    if job.done == 5 and job.text.startswith("loss"):
        os.kill(os.getpid(), signal.SIGKILL)
train(StudioHost(Path(sys.argv[2])), config, Job("test", watcher=watch))
"""
    from lib_dsm import options

    arguments = [sys.executable, "-c", script, json.dumps(options.to_json(config)), str(tmp_path / "studio")]
    assert subprocess.run(arguments, capture_output=True).returncode == -9
    resumed = train(studio, config, Job("test"), resume=True)
    assert resumed.step == 6
    assert resumed.files[0].read_bytes() == whole.files[0].read_bytes()


def test_an_existing_run_or_embedding_is_never_overwritten_silently(studio, run_config, tmp_path):
    train(studio, run_config(max_steps=1), Job("test"))
    with pytest.raises(InputError, match="already"):
        train(studio, run_config(max_steps=1), Job("test"))
    first = (studio.folders.embeddings / "zorgle.safetensors").read_bytes()
    train(studio, run_config(max_steps=2, overwrite=True), Job("test"))
    assert (tmp_path / "runs" / "zorgle.old-1" / "run.json").is_file()
    assert (studio.folders.embeddings / "zorgle.safetensors.old-1").read_bytes() == first
    # going on with one's own run replaces what it published itself
    train(studio, run_config(max_steps=3), Job("test"), resume=True)
    assert not (studio.folders.embeddings / "zorgle.safetensors.old-2").exists()


def test_another_clip_skip_on_resume_is_blocked(studio, run_config):
    train(studio, run_config(max_steps=1), Job("test"))
    with pytest.raises(GuardError, match="CLIP skip 1"):
        train(studio, run_config(max_steps=2, clip_skip=2), Job("test"), resume=True)


def test_check_says_what_blocks_and_trains_nothing(studio, run_config, tmp_path):
    config = run_config(init_text="solo smile red hair blue eyes", template=("[filewords]",), name="smile")
    ids = {finding.id for finding in examine_run(studio, config)[0]}
    assert {"init-too-long", "template-without-name", "name-is-a-word"} <= ids
    assert not (tmp_path / "runs").exists()
    with pytest.raises(GuardError):
        train(studio, config, Job("test"))


def test_only_one_training_holds_the_model(studio, run_config):
    with studio.training_session(run_config()), pytest.raises(BusyError):
        train(studio, run_config(name="other"), Job("test"))


def test_a_training_in_the_background_can_be_asked_for_a_preview_and_a_copy(studio, run_config):
    requests = (PreviewRequest(prompt="[name]", width=64, height=64, steps=1),)
    job = start_training(studio, run_config(max_steps=2, save_every=0, previews=requests))
    job.ask("preview")
    job.ask("save")
    assert job.wait(120) and job.state == "done", job.error
    assert [preview["step"] for preview in job.data["previews"]] == [1]
    assert (job.result.folder / "checkpoints" / "step-000001").is_dir()


def test_what_is_no_checkpoint_is_named(studio, run_config, tmp_path):
    text = tmp_path / "model.safetensors"
    text.write_text("hello")
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        load_model(text)
    with pytest.raises(InputError, match="nowhere"):
        train(studio, run_config(checkpoint="nowhere"), Job("test"))


def test_a_folder_without_pictures_is_named(studio, run_config, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        with pytest.raises(InputError, match=folder):
            train(studio, run_config(dataset=str(tmp_path / folder)), Job("test"))


def test_bad_pictures_are_left_out_by_name_and_the_rest_is_trained(studio, run_config, character_folder, tmp_path):
    import shutil

    folder = tmp_path / "mixed"
    shutil.copytree(character_folder, folder)
    (folder / "text.png").write_text("not a picture")
    picture = next(folder.glob("*.png"))
    (folder / "cut short.png").write_bytes(picture.read_bytes()[:900])
    job = Job("test")
    result = train(studio, run_config(dataset=str(folder), max_steps=1), job)
    assert result.step == 1
    log = "\n".join(job.snapshot()["lines"])
    assert "text.png" in log and "cut short.png" in log


@pytest.mark.parametrize("name", ["../evil", "a/b", "a,b", "(a)", "", "a.b", "CON"])
def test_names_that_cannot_be_used_are_refused(run_config, name):
    with pytest.raises(InputError):
        run_config(name=name)


def test_an_earlier_run_can_be_looked_at(studio, run_config):
    job = Job("test")
    result = train(studio, run_config(preview_every=2), job)
    past = past_run(studio, result.folder)
    assert past.state == "done" and past.done == 4
    assert past.data["losses"] == job.data["losses"]
    assert [item["path"] for item in past.data["previews"]] == [item["path"] for item in job.data["previews"]]
    assert past.data["published"] == str(result.published)
    with pytest.raises(InputError):
        past_run(studio, result.folder.parent)


def test_files_that_are_not_the_runs_own_are_kept(studio, run_config, tmp_path):
    foreign = tmp_path / "runs" / "zorgle.pt"
    foreign.parent.mkdir()
    foreign.write_bytes(b"precious")
    train(studio, run_config(max_steps=1), Job("test"))
    assert (tmp_path / "runs" / "zorgle.pt.old-1").read_bytes() == b"precious"
    train(studio, run_config(max_steps=2), Job("test"), resume=True)
    assert not (tmp_path / "runs" / "zorgle.pt.old-2").exists()
    assert load_embedding(foreign).step == 2


def test_the_output_may_be_the_embeddings_folder(studio, run_config):
    folder = studio.folders.embeddings
    result = train(studio, run_config(max_steps=1, output=str(folder)), Job("test"))
    assert load_embedding(result.published).step == 1
    assert sorted(path.name for path in folder.glob("zorgle.*")) == ["zorgle.png", "zorgle.pt", "zorgle.safetensors"]


def test_a_run_that_ended_before_it_was_published_is_published_when_resumed(studio, run_config, monkeypatch):
    def full_disk(self, target, content):
        raise StorageError("The disk is full.")

    with monkeypatch.context() as broken, pytest.raises(StorageError):
        broken.setattr("lib_dsm.host.outputs.Outputs.put", full_disk)
        train(studio, run_config(max_steps=2), Job("test"))
    result = train(studio, run_config(max_steps=2), Job("test"), resume=True)
    assert load_embedding(result.published).step == 2
    with pytest.raises(GuardError, match="finished 2 of 2"):
        train(studio, run_config(max_steps=2), Job("test"), resume=True)


def test_a_failed_preview_costs_no_training(studio, run_config, monkeypatch):
    def out_of_memory(self, request, replacements, clip_skip, check):
        raise RuntimeError("out of memory")

    monkeypatch.setattr("lib_dsm.host.studio.StudioSession.preview", out_of_memory)
    job = Job("test")
    assert train(studio, run_config(max_steps=2, preview_every=1), job).step == 2
    assert "Preview 1 of step 1 failed: RuntimeError: out of memory" in job.snapshot()["lines"]


def test_a_run_that_may_not_start_leaves_the_earlier_one_alone(studio, run_config, tmp_path):
    result = train(studio, run_config(max_steps=1), Job("test"))
    with pytest.raises(GuardError):
        train(studio, run_config(overwrite=True, template=("[filewords]",)), Job("test"))
    with RunFolder(result.folder).locked(), pytest.raises(BusyError):
        train(studio, run_config(overwrite=True), Job("test"))
    assert result.folder.is_dir() and not list((tmp_path / "runs").glob("*.old-*"))


def test_an_empty_template_is_refused_whatever_is_overridden(studio, run_config):
    with pytest.raises(InputError, match="template is empty"):
        train(studio, run_config(template=(), override=("template-without-name",)), Job("test"))


def test_the_record_follows_the_settings_of_a_resumed_run(studio, run_config):
    result = train(studio, run_config(max_steps=1), Job("test"))
    train(studio, run_config(max_steps=2), Job("test"), resume=True)
    assert json.loads((result.folder / "run.json").read_text())["config"]["max_steps"] == 2
    assert past_run(studio, result.folder).total == 2


def test_spaces_around_a_name_are_not_part_of_it(run_config):
    assert run_config(name=" zorgle ").name == "zorgle"
