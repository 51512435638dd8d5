import pytest
import torch

from lib_dsm.errors import BusyError, StorageError
from lib_dsm.files import move_aside
from lib_dsm.training.run_folder import RunFolder


def state(value: float) -> dict[str, torch.Tensor]:
    return {"network.vectors": torch.full((2, 3), value)}


def test_a_damaged_state_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.save_state(10, state(1), lambda path: None)
    folder.save_state(20, state(2), lambda path: None)
    (folder.checkpoints / "step-000020" / "state.safetensors").write_bytes(b"cut short")
    step, tensors = folder.load_latest()
    assert step == 10 and torch.equal(tensors["network.vectors"], state(1)["network.vectors"])


def test_a_state_that_could_not_be_completed_leaves_no_trace_under_its_name(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.save_state(10, state(1), lambda path: None)

    def full_disk(path):
        (path / "half").write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="No space left"):
        folder.save_state(20, state(2), full_disk)
    assert folder.saved_steps() == [10] and folder.load_latest()[0] == 10
    folder.save_state(20, state(2), lambda path: None)
    assert folder.load_latest()[0] == 20


def test_the_same_step_can_be_saved_again(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for value in (1, 2):
        folder.save_state(10, state(value), lambda path: None)
    assert float(folder.load_latest()[1]["network.vectors"][0, 0]) == 2


def test_losses_after_the_saved_step_are_dropped_and_a_cut_row_is_passed_over(tmp_path):
    folder = RunFolder(tmp_path)
    folder.keep_until(0)
    for step in range(1, 6):
        folder.add_loss(step, step / 3, 0.1, 0.2, 0.3)
    with (tmp_path / "losses.csv").open("a") as file:
        file.write("6,0.1")
    assert [row[0] for row in folder.losses()] == [1, 2, 3, 4, 5]
    folder.keep_until(3)
    assert [row[:2] for row in folder.losses()] == [(1, 1 / 3), (2, 2 / 3), (3, 1.0)]


def test_pictures_after_the_saved_step_are_dropped_and_others_stay(tmp_path):
    folder = RunFolder(tmp_path)
    folder.images.mkdir()
    for step in (250, 500, 613):
        for index in range(2):
            folder.add_preview(
                step, {"path": folder.preview_file(step, index), "prompt": "p", "seed": 1, "width": 64, "height": 64}
            )
            folder.preview_file(step, index).write_bytes(b"picture")
    (folder.images / "my notes.png").write_bytes(b"precious")
    folder.keep_until(500)
    assert [(item["step"], item["index"]) for item in folder.previews()] == [(250, 0), (250, 1), (500, 0), (500, 1)]
    assert sorted(path.name for path in folder.images.iterdir())[0] == "my notes.png"
    assert len(list(folder.images.iterdir())) == 5
    assert [path.name for path in folder.previews_of(500)] == ["step-000500-1.png", "step-000500-2.png"]


def test_what_is_taken_away_is_kept_aside_and_not_listed(tmp_path):
    folder = RunFolder(tmp_path)
    folder.images.mkdir()
    for step in (1, 2):
        folder.add_loss(step, step / 3)
        folder.add_validation(step, "key", 0.1, [[step, 0.2, 0.3, 0.4]])
        preview = {"path": folder.preview_file(step, 0), "prompt": "p", "seed": 1, "width": 64, "height": 64}
        folder.add_preview(step, preview)
        folder.preview_file(step, 0).write_bytes(b"picture %d" % step)
    folder.keep_until(2)
    assert not (tmp_path / "abandoned").exists()
    for number in (1, 2):
        folder.keep_until(1)
        kept = RunFolder(tmp_path / "abandoned" / str(number))
        assert [row[0] for row in kept.losses()] == [2] == [made.step for made in kept.validations("key")]
        told = [(preview["step"], preview["prompt"]) for preview in kept.previews()]
        assert told == [(2, "p")] and kept.preview_file(2, 0).read_bytes() == b"picture 2"
        assert [preview["step"] for preview in folder.previews()] == [1] == [int(row[0]) for row in folder.losses()]
        folder.add_loss(2, 0.5)
        folder.add_validation(2, "key", 0.1, [[0.1, 0.2, 0.3, 0.4]])
        folder.add_preview(2, preview)
        folder.preview_file(2, 0).write_bytes(b"picture 2")
    folder.keep_until(0, abandon=False)
    assert not list(folder.losses()) and len(list((tmp_path / "abandoned").iterdir())) == 2


@pytest.mark.parametrize("content", [b"", b"cut short", b"\0" * 100])
def test_a_state_that_cannot_be_read_is_not_taken_for_a_damaged_one(tmp_path, monkeypatch, content):
    folder = RunFolder(tmp_path / "run")
    for step in (10, 20):
        folder.save_state(step, state(step), lambda path: None)

    def broken_off(path, **how):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, pytest.raises(StorageError, match=r"step 20 cannot be read.*Input/output"):
        patch.setattr("lib_dsm.training.run_folder.safe_open", broken_off)
        folder.load_latest()
    folder.state_file(20, "state.safetensors").write_bytes(content)
    assert folder.load_latest()[0] == 10


def test_a_run_is_trained_in_one_place_only(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.locked(), pytest.raises(BusyError), RunFolder(tmp_path / "run").locked():
        pass
    with folder.locked():
        pass


def test_an_old_run_is_kept(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for _ in range(2):
        folder.save_state(1, state(1), lambda path: None)
        move_aside(folder.path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.old-1", "run.old-2"]
