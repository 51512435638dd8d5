"""Previews that are interrupted, missing or not wanted, and the PNG with the embedding inside that is always there."""

import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from lib_dsm.host.past import past_run
from lib_dsm.host.run import train
from lib_dsm.host.studio import StudioSession
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.run_folder import RunFolder

SMALL = {"width": 64, "height": 64, "validate_every": 0}
REQUESTS = tuple(PreviewRequest(prompt="solo, [name]", width=64, height=64, steps=3, seed=seed) for seed in (1, 2, 3))


def drawn(folder: Path) -> dict[str, bytes]:
    return {Path(item["path"]).name: Path(item["path"]).read_bytes() for item in RunFolder(folder).previews()}


def same_vectors(files: list[Path]) -> bool:
    embeddings = [load_embedding(file) for file in files]
    return all(item.vectors.equal(embeddings[0].vectors) and item.step == embeddings[0].step for item in embeddings)


def lines(job: Job) -> str:
    return "\n".join(job.snapshot()["lines"])


@pytest.fixture
def whole(studio, run_config, tmp_path):
    """The previews of a run that was left alone."""
    config = run_config(output=str(tmp_path / "whole"), preview_every=2, previews=REQUESTS, **SMALL)
    return drawn(train(studio, config, Job("test")).folder)


def test_stop_ends_previews_between_two_pictures_and_resuming_draws_the_rest(studio, run_config, whole):
    config = run_config(preview_every=2, previews=REQUESTS, overwrite=True, **SMALL)
    job = Job("test", watcher=lambda job: job.cancel() if job.picture is not None else None)
    stopped = train(studio, config, job)
    assert stopped.stopped and stopped.step == 2 and RunFolder(stopped.folder).saved_steps() == [2]
    assert list(drawn(stopped.folder)) == ["step-000002-1.png"]
    assert "Stopped before preview 2 of step 2" in lines(job)
    assert train(studio, config, Job("test"), resume=True).step == 4
    assert drawn(stopped.folder) == whole and len(whole) == 6
    assert all(item["prompt"] == "solo, zorgle" for item in RunFolder(stopped.folder).previews())


def test_stop_ends_a_picture_between_two_sampling_steps(studio, run_config, whole, monkeypatch):
    job, made = Job("test"), []
    original = StudioSession.preview

    def preview(self, request, replacements, clip_skip, check):
        calls = []

        def counted():
            calls.append(request.seed)
            if request.seed == 2 and len(calls) == 2:
                job.cancel()
            check()

        try:
            return original(self, request, replacements, clip_skip, counted)
        finally:
            made.append(len(calls))

    monkeypatch.setattr(StudioSession, "preview", preview)
    config = run_config(preview_every=2, previews=REQUESTS, overwrite=True, **SMALL)
    stopped = train(studio, config, job)
    assert made == [3, 2] and stopped.stopped and stopped.step == 2
    assert list(drawn(stopped.folder)) == ["step-000002-1.png"]
    assert same_vectors([*stopped.files, stopped.folder / "images" / "step-000002-1.png"])
    monkeypatch.undo()
    train(studio, config, Job("test"), resume=True)
    assert drawn(stopped.folder) == whole


def test_the_hosts_own_interrupt_ends_them_too_and_is_not_forgotten(studio, run_config, monkeypatch):
    """As the WebUI's button, which the session forgets as soon as it was asked for it."""
    pressed = []
    monkeypatch.setattr(StudioSession, "stop_requested", lambda self: bool(pressed) and pressed.pop())
    config = run_config(preview_every=1, previews=REQUESTS, **SMALL)
    job = Job("test", watcher=lambda job: pressed.append(True) if job.picture is not None and not pressed else None)
    stopped = train(studio, config, job)
    assert stopped.stopped and stopped.step == 1 and list(drawn(stopped.folder)) == ["step-000001-1.png"]


def test_pictures_of_an_abandoned_course_are_not_listed(studio, run_config, tmp_path):
    config = run_config(preview_every=1, save_every=2, max_steps=3, **SMALL)
    folder = RunFolder(train(studio, config, Job("test")).folder)
    for file in folder.state_folder(3).iterdir():  # as if it had been killed before it could save
        file.unlink()
    folder.state_folder(3).rmdir()
    (folder.path.parent / "zorgle.safetensors").unlink()
    (studio.folders.embeddings / "zorgle.safetensors").unlink()
    job = Job("test", watcher=lambda job: job.cancel() if "training" in job.text else None)
    stopped = train(studio, config, job, resume=True)
    assert stopped.step == 2 and list(drawn(stopped.folder)) == ["step-000001-1.png", "step-000002-1.png"]
    assert [item["step"] for item in past_run(studio, stopped.folder).data["previews"]] == [1, 2]


@pytest.mark.parametrize("previews_before", [False, True], ids=["no previews", "an earlier preview"])
def test_the_png_is_there_without_a_preview_of_the_step(studio, run_config, character_folder, previews_before):
    every = 1 if previews_before else 0
    job = Job("test", watcher=lambda job: job.cancel() if job.done == 2 and job.text.startswith("loss") else None)
    made = train(studio, run_config(preview_every=every, **SMALL), job)
    assert made.stopped and made.step == 2
    assert [file.suffix for file in made.files] == [".safetensors", ".pt", ".png"]
    assert same_vectors([*made.files, made.published]) and load_embedding(made.files[2]).step == 2
    with Image.open(made.files[2]) as png:
        if previews_before:
            with Image.open(made.folder / "images" / "step-000001-1.png") as preview:
                assert png.tobytes() == preview.tobytes()
        else:
            with Image.open(min(character_folder.glob("*.png"))) as picture:
                assert png.size == picture.size or max(png.size) == 512
            assert drawn(made.folder) == {}


def test_a_run_that_stops_by_itself_has_its_last_picture(studio, run_config, monkeypatch):
    from lib_dsm.host.monitor import Monitor

    original = Monitor.stepped

    def ends(self, row):
        self.ended = "It is flat." if row[0] == 3 else ""
        return original(self, row)

    monkeypatch.setattr(Monitor, "stepped", ends)
    made = train(studio, run_config(preview_every=2, save_every=0, **SMALL), Job("test"))
    assert made.step == 3 and not made.stopped
    assert list(drawn(made.folder)) == ["step-000002-1.png", "step-000003-1.png"]
    assert made.files[2].read_bytes() == (made.folder / "images" / "step-000003-1.png").read_bytes()


def test_a_preview_asked_for_without_a_prompt_is_answered_with_a_sentence(studio, run_config):
    job = Job("test")
    job.ask("preview")
    train(studio, run_config(max_steps=1, previews=(), **SMALL), job)
    assert "no preview prompt" in lines(job) and job.data["requests"] == 0
    quiet = Job("test")
    train(studio, run_config(name="zorgletwo", max_steps=1, preview_every=1, previews=(), **SMALL), quiet)
    assert "no preview prompt" not in lines(quiet)


def test_a_folder_that_tensorboard_cannot_write_ends_no_run(studio, run_config, monkeypatch):
    def refuse(folder, purge_step):
        raise PermissionError(13, "Permission denied")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = refuse
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    job = Job("test")
    assert train(studio, run_config(max_steps=1, tensorboard=True, **SMALL), job).step == 1
    assert "Nothing is written for TensorBoard" in lines(job) and "Permission denied" in lines(job)
