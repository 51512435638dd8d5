import sys
import types

import pytest
from PIL import Image

from lib_dsm.errors import StorageError
from lib_dsm.training.curves import BANDS, COLUMNS
from lib_dsm.training.tensorboard import open_tensorboard
from lib_dsm.training.verdict import Validation

ROW = tuple(float(number) for number in range(1, len(COLUMNS) + 1))


def fake(monkeypatch, writer) -> None:
    """A module in torch's place, so that importing it succeeds; what it writes is not looked at."""
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = writer
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


def test_without_the_package_there_is_no_writer(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    assert open_tensorboard(tmp_path, 0) is None
    assert not list(tmp_path.iterdir())


def test_with_it_there_is_one_that_goes_on_after_the_saved_step(tmp_path, monkeypatch):
    opened = []
    fake(monkeypatch, lambda folder, purge_step: opened.append((folder, purge_step)))
    assert open_tensorboard(tmp_path, 0) is not None and open_tensorboard(tmp_path, 20) is not None
    assert opened == [(str(tmp_path), None), (str(tmp_path), 21)]


def test_a_writer_that_fails_costs_no_training(tmp_path, monkeypatch):
    class Full:
        calls = 0

        def __init__(self, folder, purge_step):
            pass

        def add_scalar(self, *values):
            Full.calls += 1
            raise OSError(28, "No space left on device")

    fake(monkeypatch, Full)
    board = open_tensorboard(tmp_path, 0)
    board.step(ROW)
    board.preview(1, 0, Image.new("RGB", (8, 8)))
    board.close()
    assert Full.calls == 1


def test_a_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch):
    def refuse(folder, purge_step):
        raise PermissionError(13, "Permission denied")

    fake(monkeypatch, refuse)
    with pytest.raises(StorageError, match=r"TensorBoard.*Permission denied"):
        open_tensorboard(tmp_path, 0)


def test_what_it_writes_is_read_back(tmp_path):
    """With the real package, where it is installed."""
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = open_tensorboard(tmp_path, 0)
    for step in (1.0, 2.0):
        board.step((step, *ROW[1:]))
    board.validation(Validation(2, ((0.5,) * BANDS, (0.25,) * BANDS)))
    board.preview(2, 0, Image.new("RGB", (16, 8), "red"))
    board.close()
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0})
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("train/loss")] == [(1, 2.0), (2, 2.0)]
    assert [event.value for event in events.Scalars("validation/loss")] == [0.375]
    assert {f"train/loss of band {band}" for band in range(BANDS)} <= set(events.Tags()["scalars"])
    picture = events.Images("preview/1")[0]
    assert (picture.step, picture.width, picture.height) == (2, 16, 8)
