"""What any step of a run can become: the result ("use this one"), or a new run's start ("continue from here").

A step that was saved; or of an embedding one that has a preview, which holds its vectors too, though not the
optimizer's state.
`use_step(host, run, step)` → `UsedStep`; `continue_from(host, run, step, changes)` → the settings of the new run, to be
started by `start_training(host, config, resume=True)`. `run` is the run's folder. Neither needs the model.
"""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_dsm import options
from lib_dsm.errors import InputError, StorageError
from lib_dsm.files import move_aside, moved_aside, write_json
from lib_dsm.host.facts import TRAINED_WITH, foreign_networks
from lib_dsm.host.kinds import kind_of
from lib_dsm.host.protocol import Host
from lib_dsm.host.publish import announce, publish, published_file, step_files, step_network
from lib_dsm.host.run import run_folder
from lib_dsm.jobs import Job
from lib_dsm.training.config import RunConfig
from lib_dsm.training.schedule import schedule_of

if TYPE_CHECKING:
    from lib_dsm.training.run_folder import RunFolder


@dataclass(frozen=True)
class UsedStep:
    """`published` holds that step now; `kept` is where the file that was there before lies, if any."""

    step: int
    published: Path
    kept: Path | None


def use_step(host: Host, run: Path, step: int, job: Job | None = None) -> UsedStep:
    """Publish what the run had learned at `step` under the run's name, and put its files beside the run's folder.

    The file that was published before is renamed, unless it is the same; so is what another program put there under
    that name. In the WebUI this waits for a running training before the network can be used, so call it in a `job`;
    its `data` has `summary`, a sentence, as soon as the file is there.

    Raises:
        InputError: `run` is no run's folder, or has no such step; the message names those it has.
        BusyError: that run is being trained.
        StorageError: the disk does not take it.
    """
    folder, _, config = _open(run)
    with folder.locked():
        files = step_files(folder, config, step)
        published = published_file(host.folders, config)
        other = published.is_file() and published.read_bytes() != files.main
        with moved_aside([published] if other else []) as kept:
            publish(folder, host.folders, config, files)
        # A choice between the steps that there were; a run that goes on publishes its own end again.
        last = max(folder.saved_steps(), default=0)
        folder.write_record({**folder.read_record(), "used": {"step": step, "of": last}})
    used = UsedStep(step, published, kept[0] if kept else None)
    if job is not None:  # all that is left is to wait for the host
        told = f" The file that was there is kept as {used.kept.name}." if used.kept else ""
        job.data["summary"] = f"{published.name} holds step {step} now.{told}"
        job.say(job.data["summary"])
    announce(host, job, config)
    return used


def continue_from(host: Host, run: Path, step: int, changes: Mapping[str, Any] | None = None) -> RunConfig:
    """Make a new run that goes on after `step` of another one, and give its settings.

    The optimizer's state is taken over where the step was saved; after a step with a preview alone it begins anew.

    `changes` replace settings of the other run. Without a new `name` it is "<name>-from-<step>". The new run's folder
    has the other one's losses and validations up to there, and `continued` in its record says where it comes from. With
    the other's own name and `overwrite`, the other run is kept under another name.

    Raises:
        InputError: as `use_step`; a setting is wrong; the name is taken (unless `overwrite`); no steps are left.
        BusyError: the other run is being trained and would have to be renamed.
        StorageError: the disk does not take it.
    """
    folder, record, before = _open(run)
    step_network(folder, before, step)
    values = {**options.to_json(before), "name": f"{before.name}-from-{step}", **(changes or {})}
    config = options.from_json(RunConfig, values, "run settings")
    _demand_steps(config, step)
    target = run_folder(host, config)
    part = target.path.with_name(f".{config.name}.part")
    continued = {"run": before.name, "path": str(folder.path), "step": step, "begun": record.get("begun")}
    # What was allowed for making the new run is not allowed for good.
    going_on = dataclasses.replace(config, overwrite=False)
    try:
        with target.locked():
            if not config.overwrite:
                _demand_free(host, target, config)
            shutil.rmtree(part, ignore_errors=True)
            try:
                _copy_until(folder, part, step, before, config.name)
                kept = move_aside(target.path) if target.path.exists() else None
                if kept and folder.path == target.path:
                    continued["path"] = str(kept)
                new = {
                    **{key: value for key, value in record.items() if key not in ("used", "ended")},
                    "begun": time.strftime("%Y-%m-%dT%H:%M:%S"),
                    "config": options.to_json(going_on),
                    # The guards compare with what the other was trained with until the new one has passed them.
                    TRAINED_WITH: record.get(TRAINED_WITH, options.to_json(before)),
                    "continued": continued,
                    "went_on_after": step,  # whatever the verdict there was
                }
                write_json(part / "run.json", new)
                part.rename(target.path)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise StorageError(
            f"The new run could not be made in {target.path}: {error.strerror or error}.",
            "Free some space and try again; the run it comes from is whole.",
        ) from error
    return going_on


def _demand_free(host: Host, target: RunFolder, config: RunConfig) -> None:
    name, kind = config.name, kind_of(config)
    if target.exists():
        raise InputError(f'There is a run "{name}" in {target.path.parent} already.', "Choose another name.")
    if name.lower() in foreign_networks(host, kind):
        a = "an" if kind.word[0] in "aeiou" else "a"
        raise InputError(f'There is {a} {kind.word} "{name}" already.', "Choose another name.")


def _open(run: Path) -> tuple[RunFolder, dict[str, Any], RunConfig]:
    from lib_dsm.training.run_folder import RunFolder

    folder = RunFolder(run)
    record = folder.read_record()
    return folder, record, options.from_json(RunConfig, record.get("config"), "run settings")


def _demand_steps(config: RunConfig, step: int) -> None:
    last = schedule_of(config).last
    if last <= step:
        raise InputError(f"The new run would end at step {last} and begin after step {step}.", "Raise the steps.")


def _copy_until(source: RunFolder, part: Path, step: int, config: RunConfig, new_name: str) -> None:
    """A folder `part` with the state of `step` and what was measured up to there, under the new name."""
    from lib_dsm.training.loop import began_with
    from lib_dsm.training.run_folder import MEASURED, RunFolder

    kind, name = kind_of(config), config.name
    new, network = RunFolder(part), kind.renamed(step_network(source, config, step), new_name)

    def write(folder: Path) -> None:
        for suffix in kind.saved:
            kind.save(network, folder / f"{new_name}{suffix}")

    if step not in source.saved_steps():
        # The network alone; where the run began is the same in all that it saved.
        _, saved = source.load_latest() or (0, {})
        state = {f"network.{key}": tensor for key, tensor in kind.state(network).items()}
        new.save_state(step, {**state, **began_with(saved)}, write)
    else:
        copied = new.state_folder(step)
        shutil.copytree(source.state_folder(step), copied)
        if name != new_name:
            for suffix in kind.handed:
                (copied / f"{name}{suffix}").unlink(missing_ok=True)
            write(copied)
    for file in MEASURED:
        if (source.path / file).is_file():
            shutil.copy2(source.path / file, part / file)
    new.keep_until(step, abandon=False)
