"""Training: check, start, the runs there are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.service import Service
from lib_dsm.errors import InputError
from lib_dsm.files import read_json
from lib_dsm.training.config import RunConfig


def check(service: Service, call: Call) -> Any:
    """What the guards say of the settings in `config`, without training."""
    from lib_dsm.host.run import check_run

    findings = check_run(service.host, _config(service, call), call.flag("resume"))
    return {"findings": [finding.to_json() for finding in findings]}


def start(service: Service, call: Call) -> Any:
    """Start the training of `config` (as in RUN.json) in the background; answers with the job's id."""
    from lib_dsm.host.run import start_training

    job = start_training(service.host, _config(service, call), call.flag("resume"))
    job.data["tab"] = "train"
    return {"job": job.id}


def list_runs(service: Service, call: Call) -> Any:
    """The runs in the host's folder for logs, the newest first."""
    return {"runs": [{"name": folder.name, "path": str(folder)} for folder in runs(service)]}


def runs(service: Service) -> list[Path]:
    """The folders of all runs that can be resumed, the newest first."""
    records = [path for path in service.host.folders.logs.glob("*/run.json") if ".old-" not in path.parent.name]
    return [path.parent for path in sorted(records, key=lambda path: path.stat().st_mtime, reverse=True)]


def run_config(folder: Path, changes: dict[str, Any]) -> RunConfig:
    """The settings that a run was started with, some of them changed.

    Raises:
        InputError: the folder is no run's.
    """
    record = read_json(folder / "run.json")
    if not isinstance(record, dict) or not isinstance(record.get("config"), dict):
        raise InputError(f"{folder} is not the folder of a run.", "Choose one from the list.")
    return options.from_json(RunConfig, {**record["config"], **changes}, "run settings")


def _config(service: Service, call: Call) -> RunConfig:
    config = options.from_json(RunConfig, call.object("config"), "run settings")
    service.folder(config.dataset)
    if config.output:
        service.folder(config.output)
    if all(config.checkpoint != known.name for known in service.host.checkpoints()):
        service.path(config.checkpoint)
    return config


ROUTES = (
    Route("POST", "train/check", check),
    Route("POST", "train/start", start),
    Route("GET", "train/runs", list_runs),
)
