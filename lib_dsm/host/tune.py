"""Tuning: a few settings in every combination, trained one after another from the same seed, and compared.

A grid is a folder, `<name>.tune` where the run itself would lie: `grid.json` has the settings and the trials, and each
trial is an ordinary run in a folder of its own, `01/<name>`, with the bits that it would have as a run of its own.
Nothing of it is put where the host looks for networks until somebody chooses one (`steps.use_step`). What was stopped
or killed goes on: finished trials are left as they are, a half-finished one is resumed, and values may be added.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm import options
from lib_dsm.errors import BusyError, Cancelled, DsmError, InputError, StorageError
from lib_dsm.files import move_aside, read_json, write_json
from lib_dsm.host.protocol import Folders, Host
from lib_dsm.host.run import train
from lib_dsm.host.starting import find_embedding, find_hypernetwork
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig
from lib_dsm.training.schedule import schedule_of

if TYPE_CHECKING:
    from lib_dsm.training.run_folder import RunFolder

VERSION = 1
MOST = 64  # trials
# They say where a trial lies and what it is called, or what it is judged by.
NOT_VARIED = frozenset({"version", "kind", "name", "dataset", "output", "overwrite", "override", "previews"})
_FILE = "grid.json"


@dataclass(frozen=True)
class Trial:
    """One combination; `number` counts from 1, `config` is the run with it."""

    number: int
    changes: dict[str, Any]
    config: RunConfig


@dataclass(frozen=True)
class Tuned:
    """A grid as far as it has come; `rows` are as `rows_of` gives them."""

    folder: Path
    rows: list[dict[str, Any]]
    stopped: bool


def grid_folder(host: Host, config: RunConfig) -> Path:
    """Where the grid around these settings keeps its trials."""
    output = Path(config.output) if config.output else host.folders.logs
    return output / f"{config.name}.tune"


def combinations(config: RunConfig, varied: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the values of `varied` (by option) as plain data; the last option changes fastest.

    Raises:
        InputError: nothing is varied, an option is unknown or not one to vary, a value is wrong, or there are too many.
    """
    specs = options.specs(RunConfig)
    checked: dict[str, list[Any]] = {}
    for key, values in varied.items():
        if key not in specs or key in NOT_VARIED:
            known = ", ".join(sorted(specs.keys() - NOT_VARIED))
            raise InputError(f'"{key}" is no setting that can be varied.', f"Vary one of: {known}.")
        found = [_plain(options.check(specs[key], value, "grid")) for value in values]
        checked[key] = [value for index, value in enumerate(found) if value not in found[:index]]
        if not checked[key]:
            raise InputError(f"No value is given for {specs[key].label}.", "Give two or more.")
    count = math.prod(map(len, checked.values()))
    if count < 2:
        raise InputError("There is nothing to compare: one combination of settings.", "Give an option several values.")
    if count > MOST:
        raise InputError(f"These are {count} combinations.", f"Vary fewer settings at once; {MOST} are the most.")
    return [dict(zip(checked, values, strict=True)) for values in itertools.product(*checked.values())]


def trials(host: Host, config: RunConfig, found: Sequence[Mapping[str, Any]]) -> list[Trial]:
    """The runs of the combinations `found`, in order.

    Each is validated at its end, and draws its previews there at the latest, so that there is something to compare.

    Raises:
        InputError: a combination makes no run.
    """
    folder = grid_folder(host, config)
    made = []
    for number, changes in enumerate(found, 1):
        values = {**options.to_json(config), **changes, "output": str(folder / f"{number:02}"), "overwrite": False}
        trial = options.from_json(RunConfig, values, f"settings of trial {number}")
        last = schedule_of(trial).last
        every = trial.validate_every
        trial = dataclasses.replace(
            trial,
            validate_every=every if every and last % every == 0 else last,
            preview_every=trial.preview_every or last,
            init_embedding=str(find_embedding(host, trial.init_embedding)) if trial.init_embedding else "",
            init_hypernetwork=str(find_hypernetwork(host, trial.init_hypernetwork)) if trial.init_hypernetwork else "",
        )
        made.append(Trial(number, dict(changes), trial))
    return made


def start_tuning(
    host: Host, config: RunConfig, varied: Mapping[str, Sequence[Any]] | None, resume: bool = False
) -> Job:
    """Tune in the background; see `tune`."""
    if varied is not None:
        combinations(config, varied)  # what is wrong is said at once
    return host.jobs.start(f"Tuning {config.name}", lambda job: tune(host, config, varied, job, resume), unit="steps")


def tune(
    host: Host, config: RunConfig, varied: Mapping[str, Sequence[Any]] | None, job: Job, resume: bool = False
) -> Tuned:
    """Train every combination of `varied` around `config`, one after another. A stop ends it after a whole step.

    Meanwhile `job.data` has `kind` "tuning", `name`, `grid` (its folder) and `trials` (see `rows_of`). A trial that
    fails by its own settings is noted, and the next one begins.

    With `resume` the grid of this name goes on: `varied` may have more values than it had, and what it had stays; None
    adds nothing.

    Raises:
        InputError: the grid is wrong (see `combinations`), is there already, or is another than the one to go on with.
        BusyError, StorageError: as `train`; a later `resume` goes on from there.
    """
    folder = grid_folder(host, config)
    job.data.update(kind="tuning", name=config.name, grid=str(folder))
    if any(
        other is not job and other.state == "running" and other.data.get("grid") == str(folder)
        for other in host.jobs.all()
    ):
        raise BusyError(f'The grid "{config.name}" is being tuned already.', "Wait for it to end, or stop it.")
    found = [] if varied is None and resume else combinations(config, varied or {})
    before = _read(folder)
    if before is not None and resume:
        found = _joined(before, found, config)
    elif before is not None:
        if not config.overwrite:
            raise InputError(
                f'There is a grid "{config.name}" in {folder.parent} already.',
                "Go on with it, choose another name, or allow overwriting: the old one is kept under another name.",
            )
        job.say(f"The earlier grid is kept as {move_aside(folder).name}.")
    elif resume:
        raise InputError(f'There is no grid "{config.name}" in {folder.parent} to go on with.', "Start it anew.")
    made = trials(host, config, found)
    content = {"version": VERSION, "config": options.to_json(config), "trials": found}
    write_json(folder / _FILE, content)
    total = sum(schedule_of(trial.config).last for trial in made)
    problems: dict[int, str] = {}  # why trials failed; each is tried again
    done = 0
    job.begin(0, total, f"{len(made)} trials")
    for trial in made:
        _tell(job, made, problems)
        if job.cancel_requested:
            break
        try:
            _train(host, trial, job, done, lambda: _tell(job, made, problems))
        except (BusyError, StorageError):
            raise
        except Cancelled:
            break
        except DsmError as error:
            problems[trial.number] = str(error)
            write_json(folder / _FILE, {**content, "problems": problems})
            job.say(f"Trial {trial.number} failed: {error}")
        done += schedule_of(trial.config).last
    rows = _tell(job, made, problems)
    stopped = any(row["state"] in ("waiting", "stopped") for row in rows)
    job.data["stopped"] = stopped
    return Tuned(folder, rows, stopped)


def read_grid(folder: Path) -> tuple[RunConfig, list[dict[str, Any]]]:
    """The settings around which a grid was tuned, and its rows.

    Raises:
        InputError: there is no grid, or its file is damaged.
    """
    content = _read(folder)
    if content is None:
        raise InputError(f"There is no grid in {folder}.", "Start one.")
    config = options.from_json(RunConfig, content.get("config"), "grid")
    problems = content.get("problems", {})
    values = options.to_json(config)
    made = []
    for number, changes in enumerate(content["trials"], 1):
        its = {**values, **changes, "output": str(folder / f"{number:02}")}
        made.append(Trial(number, changes, options.from_json(RunConfig, its, "grid")))
    return config, rows_of(made, {number: problems.get(str(number), "") for number in range(1, len(made) + 1)})


def grids(host: Host) -> list[Path]:
    """The folders of all grids in the host's folder for runs, the newest first; those moved aside are left out."""
    found = [path for path in host.folders.logs.glob(f"*.tune/{_FILE}") if ".old-" not in path.parent.name]
    return [path.parent for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True)]


def rows_of(made: Sequence[Trial], problems: Mapping[int, str]) -> list[dict[str, Any]]:
    """What came of each trial, in order, as plain data:

    - `number`, `changes` (by option), `run` (its folder);
    - `state` "waiting", "stopped" (or running), "done" or "failed", and `problem`, the sentence with which it failed;
    - `step` and `last`, finished steps and where it ends; `seconds` that its steps took;
    - `first`, `loss`, `best`, `best_step`: the validation loss before the first step, at the last one, and the lowest,
      None where there is none; `key`, which draws it was measured on: losses compare only under the same key;
    - `previews` of its last step, as `RunFolder.previews` gives them.
    """
    return [_row(trial, problems.get(trial.number, "")) for trial in made]


def _row(trial: Trial, problem: str) -> dict[str, Any]:
    from lib_dsm.training.run_folder import RunFolder

    folder = RunFolder(Path(trial.config.output) / trial.config.name)
    last = schedule_of(trial.config).last
    record = folder.read_record() if folder.exists() else {}
    measured = folder.validations()
    finite = [each for each in measured if math.isfinite(each.mean)]
    best = min(finite, key=lambda each: each.mean, default=None)
    previews = folder.previews()
    newest = max((preview["step"] for preview in previews), default=None)
    step = max(folder.saved_steps(), default=0)
    state = "done" if is_done(folder, trial.config) else "stopped" if folder.exists() else "waiting"
    return {
        "number": trial.number,
        "changes": trial.changes,
        "run": str(folder.path),
        "state": "failed" if problem and state != "done" else state,
        "problem": problem,
        "step": step,
        "last": last,
        "seconds": sum(row[-1] for row in folder.losses() if math.isfinite(row[-1])),
        "first": measured[0].mean if measured and measured[0].step == 0 else None,
        "loss": measured[-1].mean if measured and measured[-1] in finite else None,
        "best": best.mean if best else None,
        "best_step": best.step if best else None,
        "key": record.get("validation", {}).get("draws"),
        "previews": [preview for preview in previews if preview["step"] == newest],
    }


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as text in columns, the lowest loss marked; losses measured on other draws than most are in brackets."""
    keys = [row["key"] for row in rows if row["key"]]
    usual = max(set(keys), key=keys.count, default=None)
    compared = [row["loss"] for row in rows if row["loss"] is not None and row["key"] == usual]
    lowest = min(compared, default=None)
    lines = [["trial", *rows[0]["changes"], "state", "steps", "seconds", "loss", "lowest, at step"]]
    for row in rows:
        loss = "" if row["loss"] is None else f"{row['loss']:.5f}"
        best = "" if row["best"] is None else f"{row['best']:.5f}, {row['best_step']}"
        mark = " *" if row["loss"] == lowest and row["key"] == usual and loss else ""
        told = f"({loss})" if loss and row["key"] != usual else f"{loss}{mark}"
        cells = [str(row["number"]), *map(_short, row["changes"].values()), row["state"]]
        lines.append([*cells, f"{row['step']}/{row['last']}", f"{row['seconds']:.0f}", told, best])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    return "\n".join([*text, *(f"Trial {row['number']}: {row['problem']}" for row in rows if row["problem"])])


def is_done(folder: RunFolder, config: RunConfig) -> bool:
    """Whether the run has come to its end, the last of its previews included."""
    if not folder.exists():
        return False
    if folder.read_record().get("ended"):
        return True
    last = schedule_of(config).last
    return last in folder.saved_steps() and len(folder.previews_of(last)) >= len(config.previews)


class _Apart:
    """A host whose folders for networks are a trial's own, so that no trial is taken for a finished network."""

    def __init__(self, host: Host, folder: Path) -> None:
        self._host = host
        self.folders: Folders = dataclasses.replace(
            host.folders, embeddings=folder / "network", hypernetworks=folder / "network"
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._host, name)

    def networks_changed(self) -> None:
        """Nothing that the host looks at has changed."""


def _train(host: Host, trial: Trial, job: Job, before: int, tell: Callable[[], object]) -> None:
    """Train a trial, or go on with it; its steps count from `before` in the grid's `job`."""
    from lib_dsm.training.run_folder import RunFolder

    folder = RunFolder(Path(trial.config.output) / trial.config.name)
    if is_done(folder, trial.config):
        return
    told = ", ".join(f"{key} {_short(value)}" for key, value in trial.changes.items())
    job.say(f"Trial {trial.number}: {told}.")
    shown: list[int] = []  # how much was measured and drawn when the rows were told last

    def watch(inner: Job) -> None:
        if job.cancel_requested:
            inner.cancel()
        job.progress(before + inner.done, text=f"trial {trial.number}, {told}: {inner.text}")
        if inner.picture is not None:
            job.picture = inner.picture
        now = [len(inner.data.get("previews", ())), len((inner.data.get("validation") or {}).get("series", ()))]
        if now != shown:
            shown[:] = now
            tell()

    inner = Job(f"Trial {trial.number} of {trial.config.name}", "steps", watch)
    apart: Any = _Apart(host, Path(trial.config.output))
    inner.run(lambda inner: train(apart, trial.config, inner, folder.exists()))


def _tell(job: Job, made: Sequence[Trial], problems: Mapping[int, str]) -> list[dict[str, Any]]:
    rows = rows_of(made, problems)
    job.data["trials"] = rows
    job.progress(job.done)
    return rows


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / _FILE
    if not path.is_file():
        return None
    content = read_json(path)
    trials = content.get("trials") if isinstance(content, dict) else None
    sound = isinstance(trials, list) and all(isinstance(changes, dict) for changes in trials)
    if not sound or not isinstance(content.get("problems", {}), dict):
        raise InputError(f"{path} is no grid.", "Move the folder away and start the grid anew.")
    found: dict[str, Any] = content
    return found


def _joined(before: Mapping[str, Any], found: Sequence[dict[str, Any]], config: RunConfig) -> list[dict[str, Any]]:
    """The trials that there are, and those of `found` that are new, provided that all else is the same."""
    had, has = before.get("config", {}), options.to_json(config)
    varied = set(before["trials"][0]) if before["trials"] else set()
    if found and set(found[0]) != varied:
        raise InputError(
            f'The grid "{config.name}" varies {" and ".join(sorted(varied))}.',
            "Go on with values of these, or start another grid.",
        )
    other = sorted(key for key in has if had.get(key) != has[key] and key not in (varied | {"overwrite"}))
    if other:
        raise InputError(
            f'The grid "{config.name}" was begun with another {", ".join(other)}.',
            "Go on with the settings that it was begun with, or start another grid.",
        )
    trials: list[dict[str, Any]] = list(before["trials"])
    return trials + [changes for changes in found if changes not in trials]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
