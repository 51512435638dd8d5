"""A run is a folder: `run.json`, `losses.csv`, `images/`, `checkpoints/step-000500/`. Every saved state is whole.

Step N in a name is N finished optimiser steps. Beside the losses lie `validation.csv` and `previews.csv`; runs of
earlier versions lack these two and some columns of the losses. Where a run went on from an earlier step than it had
come to, what it had measured and drawn after that lies in `abandoned/1/`, `abandoned/2/`, …
"""

from __future__ import annotations

import contextlib
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lib_dsm.errors import BusyError, InputError, StorageError
from lib_dsm.files import is_file, read_json, write_bytes, write_json
from lib_dsm.training.curves import BANDS, COLUMNS
from lib_dsm.training.step_table import StepTable
from lib_dsm.training.verdict import Validation

_STEP = re.compile(r"step-(\d{6,})$")
_PREVIEW = re.compile(r"step-(\d{6,})-(\d+)\.png$")
_STATE = "state.safetensors"
PREVIEW_COLUMNS = ("step", "file", "prompt", "seed", "width", "height")
_REQUESTED = PREVIEW_COLUMNS[3:]
_LOSSES, _VALIDATIONS = MEASURED = ("losses.csv", "validation.csv")
VALIDATION_COLUMNS = ("step", "draws", "seconds", "losses")


class RunFolder:
    """The files of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.images = path / "images"
        self.checkpoints = path / "checkpoints"
        self._losses = StepTable(path / _LOSSES, COLUMNS)
        self._validations = StepTable(path / _VALIDATIONS, VALIDATION_COLUMNS)
        self._previews = StepTable(path / "previews.csv", PREVIEW_COLUMNS)

    def exists(self) -> bool:
        """Whether a run was begun here."""
        return is_file(self.path / "run.json")

    @contextlib.contextmanager
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
        except OSError as error:
            raise StorageError(
                f"{parent} cannot be written: {error.strerror or error}.", "Choose another output folder."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def state_folder(self, step: int) -> Path:
        """Where the state of a step is saved."""
        return self.checkpoints / f"step-{step:06d}"

    def state_file(self, step: int, name: str) -> Path:
        """A file in the folder of a saved state."""
        return self.state_folder(step) / name

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
        """The newest state that is whole: its step and tensors. None if there is none.

        Raises:
            StorageError: the disk does not let it be read, which is no reason to go on from an earlier one.
        """
        for step in reversed(self.saved_steps()):
            path = self.checkpoints / f"step-{step:06d}" / _STATE
            try:
                with safe_open(path, framework="pt") as file:
                    return step, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
            except SafetensorError:
                continue  # damaged from outside: an earlier one will do
            except OSError as error:
                raise StorageError(
                    f"The state of step {step} cannot be read from {path}: {error.strerror or error}.",
                    "Make the file readable and resume the run again.",
                ) from error
        return None

    def state_of(self, step: int) -> dict[str, torch.Tensor]:
        """The tensors of one saved state, empty where it is not there or cannot be read."""
        try:
            with safe_open(self.state_file(step, _STATE), framework="pt") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        except (SafetensorError, OSError):
            return {}

    def keep_until(self, step: int, abandon: bool = True) -> None:
        """Take away what was noted and drawn after `step`, which a resumed run will note and draw again.

        It goes into a new folder in `abandoned/`, because more may be lost than the last steps: the states after `step`
        may have been damaged or deleted. Without `abandon` the notes are dropped (where they are only a copy).

        Raises:
            StorageError: the disk does not take it, or a picture cannot be moved.
        """
        tables = (self._losses, self._validations, self._previews)
        pictures = [Path(preview["path"]) for preview in self.previews() if preview["step"] > step]
        if abandon and (pictures or any(table.has_after(step) for table in tables)):
            aside = self._new_abandoned()
            # The pictures first: what is noted of them goes only when they have gone.
            for path in pictures:
                _move(path, aside / self.images.name / path.name)
            for table in tables:
                table.keep_until(step, aside / table.path.name)
        else:
            for table in tables:
                table.keep_until(step)

    def _new_abandoned(self) -> Path:
        number = 1
        while (folder := self.path / "abandoned" / str(number)).exists():
            number += 1
        return folder

    def add_loss(self, step: float, *values: float) -> None:
        """Append a row to `losses.csv`; see `curves.COLUMNS`."""
        self._losses.append(int(step), [repr(value) if math.isfinite(value) else "" for value in values])

    def losses(self) -> Iterator[tuple[float, ...]]:
        """The rows of `losses.csv`, oldest first, NaN where a file of an earlier version lacks a column."""
        for step, cells in self._losses.rows():
            with contextlib.suppress(ValueError):
                yield (step, *(float(cell) if cell else math.nan for cell in cells))

    def add_validation(self, step: int, key: str, seconds: float, losses: Sequence[Sequence[float]]) -> None:
        """Append what a validation measured (units × bands) to `validation.csv`; `key` identifies its draws."""
        self._validations.append(step, [key, repr(seconds), " ".join(repr(loss) for unit in losses for loss in unit)])

    def validations(self, key: str | None = None) -> list[Validation]:
        """The validations made with the draws of `key` (None: those that the last one was made with), oldest first."""
        found: list[tuple[str, Validation]] = []
        for step, (its_key, seconds, text) in self._validations.rows():
            with contextlib.suppress(ValueError):
                numbers = [float(number) for number in text.split()]
                units = tuple(tuple(numbers[start : start + BANDS]) for start in range(0, len(numbers), BANDS))
                if units:
                    found.append((its_key, Validation(step, units, seconds=float(seconds))))
        wanted = found[-1][0] if key is None and found else key
        return [validation for its_key, validation in found if its_key == wanted]

    def add_preview(self, step: int, preview: Mapping[str, Any]) -> None:
        """Note in `previews.csv` what a picture in `images/` shows; `preview` is as `previews` gives it.

        To be noted before the picture is written, so that no picture is there without its note.
        """
        name = Path(preview["path"]).name
        self._previews.append(step, [name, *(preview[column] for column in PREVIEW_COLUMNS[2:])])

    def previews(self) -> list[dict[str, Any]]:
        """The previews that are there, by step and `index` (of the request, from 0): `path`, `prompt` and numbers.

        The numbers `seed`, `width` and `height` are None where a run of an earlier version did not note them.
        """
        noted = {cells[0]: dict(zip(PREVIEW_COLUMNS[1:], cells, strict=True)) for _, cells in self._previews.rows()}
        found = []
        for path in sorted(self.images.glob("step-*.png")) if self.images.is_dir() else []:
            match = _PREVIEW.match(path.name)
            if match is None:
                continue
            note = noted.get(path.name, {})
            numbers = {name: int(note[name]) if note.get(name, "").isdecimal() else None for name in _REQUESTED}
            place = {"step": int(match[1]), "path": str(path), "index": int(match[2]) - 1}
            found.append({**place, "prompt": note.get("prompt", ""), **numbers})
        return sorted(found, key=lambda preview: (preview["step"], preview["index"]))

    def preview_file(self, step: int, index: int) -> Path:
        """Where the preview of the request `index` (from 0) goes."""
        return self.images / f"step-{step:06d}-{index + 1}.png"

    def previews_of(self, step: int) -> list[Path]:
        """The previews of a step, in the order of their requests."""
        return [Path(preview["path"]) for preview in self.previews() if preview["step"] == step]


def _move(path: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    except OSError as error:
        raise StorageError(
            f"{path}, a picture of a step that is trained anew, cannot be moved to {target.parent}: "
            f"{error.strerror or error}.",
            "Close programs that show it and resume the run again.",
        ) from error
