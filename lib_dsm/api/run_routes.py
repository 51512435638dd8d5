"""Runs: what there are, one as it was, and what can be made of its steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_dsm import options
from lib_dsm.api.http import Call, Route
from lib_dsm.api.plain import plain
from lib_dsm.api.service import MissingError, Service
from lib_dsm.api.train_routes import runs, start_job
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import file_name, read_json
from lib_dsm.jobs import Job
from lib_dsm.training.config import STARTS
from lib_dsm.training.presets import settings_of_run
from lib_dsm.training.schedule import parse_learning_rate

LISTED = 200
MOST_STEPS = 1_000_000
PLACES = frozenset({"dataset", "checkpoint", "output", "template_file", "kind", *STARTS})


def list_runs(service: Service, call: Call) -> Any:
    """The runs in the host's folder for logs, the newest first, each with its newest preview.

    `aside` true lists, in `aside`, also those that a later run of their name moved aside; they can only be shown.
    """
    running = {job.data.get("name"): job for job in service.host.jobs.all() if _trains(job)}
    found = {"runs": [plain(_brief(folder, running.get(folder.name))) for folder in runs(service)[:LISTED]]}
    if call.flag("aside"):
        found["aside"] = [plain(_brief(folder, None)) for folder in runs(service, aside=True)[:LISTED]]
    return found


def show_run(service: Service, call: Call) -> Any:
    """The run `run` as a job that has ended, with its settings; curves, previews and saved steps are in its data."""
    from lib_dsm.host.past import past_run

    folder = _folder(service, call, aside=True)
    job = past_run(service.host, folder)
    record = folder / "run.json"
    facts = {
        "config": options.to_json(settings_of_run(folder)),
        "begun": str(read_json(record).get("begun", "")),
        "stamp": str(record.stat().st_mtime_ns),  # pictures of a run that was begun anew are not the same
    }
    return plain({"job": job.snapshot(), **facts})


def resume(service: Service, call: Call) -> Any:
    """Go on with the run `run` in the background, up to step `max_steps` and at `learning_rate` if they are given."""
    config = settings_of_run(_folder(service, call))
    steps = call.whole("max_steps", 0, 0, MOST_STEPS) or config.max_steps
    rate = call.text("learning_rate", "").strip() or config.learning_rate
    parse_learning_rate(rate)
    override = tuple({**dict.fromkeys(config.override), **dict.fromkeys(call.texts("override", []))})
    return start_job(service, replace(config, max_steps=steps, learning_rate=rate, override=override), resume=True)


def show_parameters(service: Service, call: Call) -> Any:
    """What the preview `path` was made with, as the WebUI reads it: prompt, negative prompt and a line of settings."""
    from lib_dsm.host.infotext import read_infotext

    path = service.picture(call.text("path"))
    text = read_infotext(path)
    if not text:
        raise InputError(f"{path.name} does not hold what it was made with.", "Previews of newer runs do.")
    return {"parameters": text}


def use(service: Service, call: Call) -> Any:
    """Publish what the run `run` had learned at `step` under its name; answers with the job's id."""
    from lib_dsm.host.steps import use_step

    folder, step = _folder(service, call), call.whole("step", 0, 1, MOST_STEPS)

    job = service.host.jobs.start(
        f"Using step {step} of {folder.name}", lambda job: use_step(service.host, folder, step, job)
    )
    return {"job": job.id}


def make_lora(service: Service, call: Call) -> Any:
    """Make a LoRA file of the run `run` in the background, called `name` if it is given; answers with the job's id.

    `force` takes a hypernetwork's LoRA even where it fits badly.
    """
    from lib_dsm.host.lora_of_run import lora_of_run

    folder, name, force = _folder(service, call), call.text("name", "").strip(), call.flag("force")
    job = service.host.jobs.start(
        f"LoRA of {folder.name}", lambda job: lora_of_run(service.host, folder, job, name, force)
    )
    job.data["tab"] = "lora"
    return {"job": job.id}


def go_on(service: Service, call: Call) -> Any:
    """Start a new run that goes on after `step` of `run`; `changes` replace its settings."""
    from lib_dsm.host.steps import continue_from

    folder, step = _folder(service, call), call.whole("step", 0, 1, MOST_STEPS)
    changes = call.object("changes", {})
    for name in PLACES & changes.keys():
        raise InputError(f'"{name}" of a run that goes on stays as it was.', "Start a new run to change it.")
    return start_job(service, continue_from(service.host, folder, step, changes), resume=True)


def _folder(service: Service, call: Call, aside: bool = False) -> Path:
    """The folder of a run that is named; only names of the list lead anywhere, those moved aside if `aside`."""
    name = file_name(call.text("run"), "run's name")
    for folder in [*runs(service), *(runs(service, aside=True) if aside else [])]:
        if folder.name == name:
            return folder
    raise MissingError(f'There is no run "{name}".', "It may have been renamed or moved; look at the list.")


def _trains(job: Job) -> bool:
    return job.state == "running" and job.data.get("kind") == "training"


def _brief(folder: Path, job: Job | None) -> dict[str, Any]:
    from lib_dsm.training.run_folder import RunFolder

    facts: dict[str, Any] = {"name": folder.name, "path": folder, "job": job.id if job else None, "problem": ""}
    try:
        record = read_json(folder / "run.json")
        steps = RunFolder(folder).saved_steps()
        pictures = sorted((folder / "images").glob("step-*.png")) if (folder / "images").is_dir() else []
        newest = pictures[-1].name.rpartition("-")[0] if pictures else ""
        first = next((picture for picture in pictures if picture.name.startswith(newest)), None)
        facts |= {
            "begun": record.get("begun", ""),
            "network": record["config"].get("kind", "embedding"),
            "max_steps": record["config"]["max_steps"],
            "step": job.done if job else max(steps, default=0),
            "picture": first,
            "stamp": str(first.stat().st_mtime_ns) if first else "",
        }
    except (DsmError, OSError, KeyError, TypeError, AttributeError) as error:
        facts["problem"] = f"Its record is damaged: {error}"
    return facts


ROUTES = (
    Route("GET", "train/runs", list_runs),
    Route("GET", "train/run", show_run),
    Route("GET", "train/parameters", show_parameters),
    Route("POST", "train/resume", resume),
    Route("POST", "train/use", use),
    Route("POST", "train/continue", go_on),
    Route("POST", "train/lora", make_lora),
)
