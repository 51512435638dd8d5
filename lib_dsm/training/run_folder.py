"""A run is a folder: `run.json`, `losses.csv`, `images/`, `checkpoints/step-000500/`. Every saved state is whole.

Step N in a name is N finished optimiser steps.
"""

from __future__ import annotations

import csv
import io
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lib_dsm.errors import BusyError, InputError, StorageError
from lib_dsm.files import read_json, write_bytes, write_json, write_text

_STEP = re.compile(r"step-(\d{6,})$")
_STATE = "state.safetensors"
COLUMNS = ("step", "loss", "learning_rate", "gradient_norm", "vector_norm")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = path / "images"
        self.checkpoints = path / "checkpoints"
        self._losses = path / "losses.csv"

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return (self.path / "run.json").is_file()

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the run for this process.

        Raises:
            BusyError: another window or program trains it.
        """
        parent = self.path.parent
        try:
            parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StorageError(
                f"{parent} cannot be made: {error.strerror}.", "Choose another output folder."
            ) from error
        # Beside the folder, not in it: it must hold while a run is moved aside.
        lock = FileLock(parent / f".{self.path.name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise BusyError(f"The run in {self.path} is being trained already.", "Stop it there first.") from None
        try:
            yield
        finally:
            lock.release()

    def state_file(self, step: int, name: str) -> Path:
        """A file in the folder of a saved state."""
        return self.checkpoints / f"step-{step:06d}" / name

    def write_record(self, record: dict[str, Any]) -> None:
        """Write `run.json`."""
        write_json(self.path / "run.json", record)

    def read_record(self) -> dict[str, Any]:
        """Read `run.json`.

        Raises:
            InputError: there is none, or it is damaged.
        """
        record = read_json(self.path / "run.json")
        if not isinstance(record, dict):
            raise InputError(f"{self.path / 'run.json'} is not the record of a run.", "Start a new run.")
        return record

    def save_state(self, step: int, tensors: dict[str, torch.Tensor], extra: Callable[[Path], object]) -> Path:
        """Save a state under `checkpoints/step-N/`; `extra` may write further files into the folder it is given.

        The folder appears under its name only when all of it is on the disk.

        Raises:
            StorageError: the disk did not take it; earlier states are whole.
        """
        target = self.checkpoints / f"step-{step:06d}"
        part = self.checkpoints / f".{target.name}.part"
        try:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir(parents=True)
            extra(part)
            write_bytes(part / _STATE, save(tensors, metadata={"step": str(step)}))
            if target.exists():
                # The same step again (saved twice in a row): the earlier one goes only when the new one is whole.
                old = self.checkpoints / f".{target.name}.old"
                shutil.rmtree(old, ignore_errors=True)
                target.rename(old)
                part.rename(target)
                shutil.rmtree(old, ignore_errors=True)
            else:
                part.rename(target)
        except OSError as error:
            raise StorageError(
                f"Step {step} could not be saved in {self.checkpoints}: {error.strerror or error}.",
                "Free some space and resume the run; the last saved state is whole.",
            ) from error
        return target

    def saved_steps(self) -> list[int]:
        """The steps of all saved states, rising."""
        if not self.checkpoints.is_dir():
            return []
        found = (_STEP.match(folder.name) for folder in self.checkpoints.iterdir() if (folder / _STATE).is_file())
        return sorted(int(match.group(1)) for match in found if match)

    def load_latest(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The newest state that can be read: its step and tensors. None if there is none."""
        for step in reversed(self.saved_steps()):
            path = self.checkpoints / f"step-{step:06d}" / _STATE
            try:
                with safe_open(path, framework="pt") as file:
                    return step, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            except (OSError, SafetensorError):
                continue  # damaged from outside: an earlier one will do
        return None

    def keep_losses_until(self, step: int) -> None:
        """Drop the rows after `step`, which a resumed run will write again; begin the file if there is none."""
        rows = [row for row in self.losses() if row[0] <= step]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows([int(row[0]), *map(repr, row[1:])] for row in rows)
        write_text(self._losses, text.getvalue())

    def add_loss(self, step: int, *values: float) -> None:
        """Append a row; see `COLUMNS`."""
        try:
            with self._losses.open("a", encoding="utf-8", newline="") as file:
                csv.writer(file, lineterminator="\n").writerow([step, *map(repr, values)])
        except OSError as error:
            raise StorageError(
                f"{self._losses} could not be written: {error.strerror}.", "Free some space and resume the run."
            ) from error

    def losses(self) -> list[tuple[float, ...]]:
        """All rows, oldest first; a row cut short by a crash is left out."""
        if not self._losses.is_file():
            return []
        rows = []
        with self._losses.open(encoding="utf-8", newline="") as file:
            for row in list(csv.reader(file))[1:]:
                try:
                    values = tuple(map(float, row))
                except ValueError:
                    continue
                if len(values) == len(COLUMNS):
                    rows.append(values)
        return rows
