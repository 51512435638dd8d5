"""Grids: several values of some settings, trained one after another and compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route, wrong
from lib_dsm.api.plain import plain
from lib_dsm.api.run_routes import PLACES
from lib_dsm.api.service import MissingError, Service
from lib_dsm.api.train_routes import demand_readable, read_settings
from lib_dsm.errors import DsmError, InputError
from lib_dsm.jobs import Job

TAB = "tune"


def start(service: Service, call: Call) -> Any:
    """Train every combination of `vary` (values by option) around `config`, as in RUN.json; answers with the job's id.

    With `resume` the grid of that name goes on, and takes new values up.
    """
    from lib_dsm.host.tune import start_tuning

    varied = call.object("vary")
    for key, values in varied.items():
        if key in PLACES:
            raise InputError(f'"{key}" names a file or a place and cannot be varied.', "Make a grid for each.")
        if not isinstance(values, list):
            raise InputError(f'The values of "{key}" are no list.', "Give a list of values.")
    return _started(start_tuning(service.host, read_settings(service, call), varied, call.flag("resume")))


def list_grids(service: Service, call: Call) -> Any:
    """The grids in the host's folder for runs, the newest first: name, trials, how many are done, the running job."""
    from lib_dsm.host.tune import read_grid

    found = []
    for folder in _grids(service):
        name = folder.name.removesuffix(".tune")
        try:
            config, rows = read_grid(folder)
            done = sum(row["state"] == "done" for row in rows)
            facts: dict[str, Any] = {"trials": len(rows), "done": done, "network": config.kind, "problem": ""}
        except DsmError as error:
            facts = {"problem": str(error)}
        found.append({"name": name, "job": _running(service, folder), **facts})
    return plain({"grids": found})


def show(service: Service, call: Call) -> Any:
    """The grid `grid`: the settings around which it was tuned, and its trials (see `host/tune.py`)."""
    from lib_dsm.host.tune import read_grid

    folder = _folder(service, call)
    config, rows = read_grid(folder)
    return plain({"config": options.to_json(config), "trials": rows, "job": _running(service, folder)})


def go_on(service: Service, call: Call) -> Any:
    """Go on with the grid `grid` in the background."""
    from lib_dsm.host.tune import read_grid, start_tuning

    config, _ = read_grid(_folder(service, call))
    demand_readable(service, config)
    return _started(start_tuning(service.host, config, None, resume=True))


def use(service: Service, call: Call) -> Any:
    """Publish what trial `trial` of the grid `grid` had learned, under its name; answers with the job's id."""
    from lib_dsm.host.steps import use_step
    from lib_dsm.host.tune import read_grid

    _, rows = read_grid(_folder(service, call))
    number = call.whole("trial", 0, 0, len(rows))
    if not number:
        raise wrong("trial", None, f"a number from 1 to {len(rows)}")
    row = rows[number - 1]
    if not row["step"]:
        raise InputError(f"Trial {number} has no saved step yet.", "Let it train first.")
    title = f"Using trial {number} of {Path(row['run']).name}"
    return {
        "job": service.host.jobs.start(title, lambda job: use_step(service.host, Path(row["run"]), row["step"], job)).id
    }


def _grids(service: Service) -> list[Path]:
    from lib_dsm.host.tune import grids

    return [folder for folder in grids(service.host) if service.may_read(folder)]


def _folder(service: Service, call: Call) -> Path:
    name = call.text("grid")
    for folder in _grids(service):
        if folder.name == f"{name}.tune":
            return folder
    raise MissingError(f'There is no grid "{name}".', "It may have been moved; look at the list.")


def _started(job: Job) -> dict[str, Any]:
    job.data["tab"] = TAB
    return {"job": job.id}


def _running(service: Service, folder: Path) -> str | None:
    for job in service.host.jobs.all():
        if job.state == "running" and job.data.get("grid") == str(folder):
            return job.id
    return None


ROUTES = (
    Route("POST", "train/tune", start),
    Route("GET", "train/grids", list_grids),
    Route("GET", "train/grid", show),
    Route("POST", "train/grid/resume", go_on),
    Route("POST", "train/grid/use", use),
)
