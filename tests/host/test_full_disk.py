"""A disk that fills up in mid-run costs no state that was saved."""

import contextlib
import dataclasses
import errno
import os
import subprocess

import pytest
import torch

from lib_dsm.errors import GuardError, StorageError
from lib_dsm.host.run import train
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import Embedding, load_embedding, save_pt, save_safetensors
from lib_dsm.training.run_folder import RunFolder

# All by which a save changes the disk; what a full one refuses may be any of them.
CALLS = ("open", "fsync", "replace", "rename", "mkdir")


class FullAfter:
    """Lets a number of file operations pass and refuses the rest, as a full disk does."""

    def __init__(self, monkeypatch, passing: int):
        self.refused, self._left = False, passing
        for name in CALLS:
            monkeypatch.setattr(os, name, self._limited(getattr(os, name)))

    def _limited(self, original):
        def function(*arguments, **named):
            writes = original.__name__ != "open" or arguments[1] & (os.O_WRONLY | os.O_RDWR)
            if writes:
                self._left -= 1
                if self._left < 0:
                    self.refused = True
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **named)

        return function


def save(folder: RunFolder, step: int) -> None:
    vectors = torch.full((4, 80), float(step))
    embedding = Embedding("zorgle", vectors, step)

    def write_network(path):
        save_safetensors(embedding, path / "zorgle.safetensors")
        save_pt(embedding, path / "zorgle.pt")

    folder.save_state(step, {"network.vectors": vectors}, write_network)


def whole(folder: RunFolder, step: int) -> bool:
    found, state = folder.load_latest()
    networks = [load_embedding(folder.state_file(found, f"zorgle{suffix}")) for suffix in (".pt", ".safetensors")]
    return found == step and all(
        torch.equal(vectors, torch.full((4, 80), float(step)))
        for vectors in (state["network.vectors"], *(network.vectors for network in networks))
    )


def test_whatever_operation_of_a_save_fails_the_last_good_state_is_whole(tmp_path):
    passing, refused = 0, True
    while refused:
        folder = RunFolder(tmp_path / f"{passing}")
        save(folder, 1)
        with pytest.MonkeyPatch.context() as patch:
            disk = FullAfter(patch, passing)
            try:
                save(folder, 2)
                saved = True
            except StorageError as error:
                assert "No space left on device" in str(error) and "Free some space" in str(error)
                saved = False
        refused = disk.refused
        # A refusal after the state had its name (of what is only tidied up) leaves the new one, whole as well.
        assert saved or refused
        assert whole(folder, 2 if 2 in folder.saved_steps() else 1)
        save(folder, 3)
        assert whole(folder, 3) and 1 in folder.saved_steps()
        passing += 1
    assert passing > 8


def test_the_same_step_saved_again_is_never_lost(tmp_path):
    passing, refused = 0, True
    while refused:
        folder = RunFolder(tmp_path / f"{passing}")
        save(folder, 1)
        save(folder, 2)
        with pytest.MonkeyPatch.context() as patch:
            disk = FullAfter(patch, passing)
            with contextlib.suppress(StorageError):
                save(folder, 2)
        refused = disk.refused
        assert folder.load_latest() is not None and whole(folder, folder.load_latest()[0])
        passing += 1


def test_a_run_on_a_disk_that_fills_up_goes_on_when_there_is_room_again(studio, run_config, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount(*options: str) -> bool:
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "tmpfs", str(disk)]
        try:
            return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
        except OSError:
            return False

    settings = {
        "max_steps": 8, "save_every": 1, "validate_every": 0, "width": 64, "height": 64, "overwrite": True,
        "override": ("disk-full",),
    }  # fmt: skip
    train(studio, run_config(output=str(tmp_path / "whole"), **settings), Job("test"))
    if not mount("size=128k"):
        pytest.skip("a small disk can only be mounted by root")
    try:
        config = run_config(output=str(disk), **settings)
        with pytest.raises(GuardError, match=f"writes about .* to {disk}"):
            train(studio, dataclasses.replace(config, override=()), Job("test"))
        with pytest.raises(StorageError, match="No space left on device"):
            train(studio, config, Job("test"))
        folder = RunFolder(disk / "zorgle")
        last, _ = folder.load_latest()
        assert 1 <= last < 8 and folder.saved_steps() == list(range(1, last + 1))
        for step in folder.saved_steps():
            assert load_embedding(folder.state_file(step, "zorgle.pt")).step == step
        assert mount("remount", "size=8m")
        assert train(studio, config, Job("test"), resume=True).step == 8
        for name in ("zorgle.pt", "zorgle.safetensors"):
            assert (disk / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True, timeout=30)  # files may be mapped still
