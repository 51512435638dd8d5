"""The places that a run writes to: whether they can be written, how much they will get, and how much is free there."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from pathlib import Path

from lib_dsm.guards.facts import Storage
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.protocol import Folders
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan

# Bytes, rather too many than too few.
_NUMBER = 4  # a float32
_STATE_NUMBERS = 6  # the network in three files, where it began, and the optimiser's two moments
_STATE_FILES = 32_000  # what the files of a saved state take beside their numbers
_PIXEL = 3  # of a PNG
_NUMBER_AS_TEXT = 30  # in a PNG that holds the embedding
_STEP = 400  # a line of the losses
_LATENT = 2 * 4 * _NUMBER / 64  # mean and variance of a cell's four channels, for each pixel of the picture


def storage_of(
    folders: Folders,
    output: Path,
    config: RunConfig,
    plan: Plan,
    numbers: int,
    done: int,
) -> list[Storage]:
    """The places that the run of these settings writes to, each disk once, and those that cannot be written.

    `numbers` is how many numbers are trained, `done` the steps that are saved already.
    """
    needs = {
        output: _run_bytes(config, numbers, max(0, config.max_steps - done)),
        kind_of(config).folder(folders): numbers * _NUMBER + _STATE_FILES,
        folders.data: _latent_bytes(config, plan),
    }
    disks: dict[int, Storage] = {}
    closed: list[Storage] = []
    for folder, needed in needs.items():
        there = _existing(folder)
        problem = _why_not_writable(there) if there else f"{folder.absolute().anchor} is not there"
        if there is None or problem:
            closed.append(Storage(folder, problem=problem))
            continue
        disk = there.stat().st_dev
        before = disks.get(disk)
        if before is None:
            disks[disk] = Storage(folder, needed, shutil.disk_usage(there).free)
        else:
            disks[disk] = Storage(before.folder, before.needed + needed, before.free)
    return [*closed, *disks.values()]


def _run_bytes(config: RunConfig, numbers: int, steps: int) -> int:
    saves = math.ceil(steps / config.save_every) if config.save_every else 1
    previews = math.ceil(steps / config.preview_every) if config.preview_every else 0
    held = _NUMBER_AS_TEXT * numbers if kind_of(config).in_previews else 0
    pictures = sum(_PIXEL * request.width * request.height + held for request in config.previews)
    state = _STATE_NUMBERS * _NUMBER * numbers + _STATE_FILES
    # The finished files lie beside the run's folder once more.
    return (saves + 1) * state + (previews + 1) * pictures * (1 + config.tensorboard) + steps * _STEP


def _latent_bytes(config: RunConfig, plan: Plan) -> int:
    pixels = sum(picture.size[0] * picture.size[1] for picture in plan.pictures)
    return int(_LATENT * pixels) * (1 + (config.flip > 0)) + 1000 * len(plan.pictures)


def _existing(folder: Path) -> Path | None:
    """The folder, or what there is of the way to it; None where not even its drive is there."""
    folder = folder.absolute()
    return next((path for path in (folder, *folder.parents) if os.path.lexists(path)), None)


def _why_not_writable(folder: Path) -> str:
    """Why nothing can be written to a folder that is there, "" if it can. Leaves nothing there."""
    if not folder.is_dir():
        return f"{folder} is no folder"
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
            file.flush()
    except OSError as error:
        return error.strerror or str(error)
    return ""
