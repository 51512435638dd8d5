"""What a run writes is known before it begins."""

import dataclasses
import os
from pathlib import Path

import pytest

from lib_dsm.errors import GuardError
from lib_dsm.guards.rules_storage import unwritable
from lib_dsm.host import storage
from lib_dsm.host.run import examine_run, train
from lib_dsm.host.storage import storage_of
from lib_dsm.jobs import Job
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.pictures import plan_pictures
from tests.guards.known import facts


def written(*folders: Path) -> int:
    return sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file())


def test_the_estimate_holds_what_a_run_writes_and_not_much_more(studio, run_config, tmp_path):
    requests = (PreviewRequest(prompt="[name]", width=64, height=64, steps=1),) * 2
    how = {"max_steps": 4, "batch_size": 1, "save_every": 1, "preview_every": 2, "vectors": 40, "flip": 0.5}
    config = run_config(previews=requests, **how)
    output = Path(config.output)
    (place,) = storage_of(studio.folders, output, config, plan_pictures(config), config.vectors * 80, 0)
    train(studio, config, Job("test"))
    size = written(output, studio.folders.embeddings, studio.folders.data)
    assert size <= place.needed <= 4 * size
    (resumed,) = storage_of(studio.folders, output, config, plan_pictures(config), config.vectors * 80, 4)
    assert resumed.needed < place.needed


def test_a_large_disk_has_room_and_a_probe_leaves_nothing(studio, run_config, tmp_path):
    config = run_config()
    before = sorted(tmp_path.rglob("*"))
    (place,) = storage_of(studio.folders, Path(config.output), config, plan_pictures(config), config.vectors * 80, 0)
    assert not place.problem and 0 < place.needed < place.free
    assert sorted(tmp_path.rglob("*")) == before


def test_folders_that_cannot_be_written_are_named(studio, run_config, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    config = run_config(output=str(tmp_path / "file" / "runs"))
    assert {finding.id for finding in examine_run(studio, config)[0]} >= {"output-unwritable"}
    system = Path("/proc/nowhere")  # nobody can write there, not even root
    if not system.parent.is_dir():
        return
    folders = dataclasses.replace(studio.folders, embeddings=system)
    places = storage_of(folders, tmp_path, config, plan_pictures(config), config.vectors * 80, 0)
    assert [place.folder for place in places if place.problem] == [system]


def test_a_drive_that_is_not_there_is_named(studio, run_config, monkeypatch):
    config, output = run_config(), Path("/unplugged/runs")
    plan = plan_pictures(config)
    exists = os.path.lexists
    monkeypatch.setattr(storage.os.path, "lexists", lambda path: path != Path("/") and exists(path))
    places = storage_of(studio.folders, output, config, plan, config.vectors * 80, 0)
    (finding,) = unwritable(facts(storage=tuple(places)))
    assert finding.problem == f"{output} cannot be written: / is not there."


def test_a_run_that_does_not_fit_does_not_begin(studio, run_config, tmp_path):
    # A million steps, each saved and previewed, fit on no disk.
    config = run_config(
        max_steps=1_000_000, save_every=1, vectors=75, previews=(PreviewRequest(),) * 9, preview_every=1
    )
    with pytest.raises(GuardError, match=r"The run writes about \d"):
        train(studio, config, Job("test"))
    assert not list((tmp_path / "runs").glob("*/run.json"))


def test_what_was_found_in_order_is_told_too(studio, run_config):
    findings, fine = examine_run(studio, run_config())
    assert {"output-unwritable", "disk-full", "hypertile"} <= {guard.ids[0] for guard in fine}
    assert not {finding.id for finding in findings} & {name for guard in fine for name in guard.ids}
