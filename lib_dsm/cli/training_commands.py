"""What the commands of training do. Each returns its result as data and as text."""

from __future__ import annotations

import argparse
import json
import shlex
from typing import TYPE_CHECKING, Any

from lib_dsm.cli.main import FAILED, STOPPED, Result
from lib_dsm.cli.progress import run_job
from lib_dsm.cli.telling import names_of
from lib_dsm.errors import InputError

if TYPE_CHECKING:
    from lib_dsm.host.protocol import Host
    from lib_dsm.training.config import RunConfig


def create(arguments: argparse.Namespace) -> Result:
    """An embedding that is not trained yet."""
    from lib_dsm.host.create import create_network

    config, host = _run(arguments, dataset="")  # the pictures have no part in it
    made = run_job(f"Creating {config.name}", "", lambda job: create_network(host, config, job))
    return Result(
        {"published": str(made.published), "files": names_of(list(made.files)), "kept": names_of(list(made.kept))},
        "\n".join(map(str, [*made.files, made.published])),
    )


def check(arguments: argparse.Namespace) -> Result:
    """The guards."""
    from lib_dsm.guards.finding import Severity
    from lib_dsm.host.run import examine_run

    config, host = _run(arguments)
    findings, passed = examine_run(host, config, arguments.resume)
    blocked = [item for item in findings if item.severity is Severity.BLOCK and item.id not in config.override]
    lines = []
    for item in findings:
        lines.append(f"[{item.severity.value}] {item.id}: {item.problem} {item.remedy}".rstrip())
        data = item.to_json()
        if data["apply"]:
            lines.append(f"    to apply it: {' '.join(_flag(*pair) for pair in data['apply'].items())}")
    lines.append(f"{len(passed)} checks passed." if findings else f"Nothing to object to; {len(passed)} checks passed.")
    return Result(
        {
            "findings": [item.to_json() for item in findings],
            "passed": [guard.ids[0] for guard in passed],
            "may_start": not blocked,
        },
        "\n".join(lines),
        FAILED if blocked else 0,
    )


def train(arguments: argparse.Namespace) -> Result:
    """Train to the end, or until Ctrl-C, which saves."""
    from lib_dsm.host.run import train as run_training

    config, host = _run(arguments)
    result = run_job(f"Training {config.name}", "steps", lambda job: run_training(host, config, job, arguments.resume))
    state = "Stopped" if result.stopped else "Finished"
    lines = [f"{state} after step {result.step}; the run is in {result.folder}.", *map(str, result.files)]
    return Result(
        {
            "folder": str(result.folder),
            "step": result.step,
            "stopped": result.stopped,
            "files": names_of(result.files),
            "published": str(result.published) if result.published else None,
        },
        "\n".join(lines),
        STOPPED if result.stopped else 0,
    )


def tune(arguments: argparse.Namespace) -> Result:
    """Train every combination of some settings; Ctrl-C saves, and --resume goes on."""
    from lib_dsm.host.tune import table, tune

    config, host = _run(arguments)
    varied: dict[str, list[Any]] = {}
    for text in arguments.vary:
        key, sign, values = text.partition("=")
        if not sign:
            raise InputError(f'"{text}" is not of the form KEY=VALUE|VALUE.', "Write for example --vary vectors=4|16.")
        varied.setdefault(key.strip(), []).extend(_setting(f"{key}={value}")[1] for value in values.split("|"))
    made = run_job(f"Tuning {config.name}", "steps", lambda job: tune(host, config, varied, job, arguments.resume))
    lines = [table(made.rows), f"The grid is in {made.folder}."]
    if made.stopped:
        lines.append("Stopped; --resume goes on.")
    return Result(
        {"folder": str(made.folder), "trials": made.rows, "stopped": made.stopped},
        "\n".join(lines),
        STOPPED if made.stopped else FAILED if all(row["state"] == "failed" for row in made.rows) else 0,
    )


def _run(arguments: argparse.Namespace, **changes: Any) -> tuple[RunConfig, Host]:
    from lib_dsm.host.studio import StudioHost
    from lib_dsm.training.config import read_config

    changes = {**dict(map(_setting, arguments.set)), **changes}
    return read_config(arguments.settings, changes), StudioHost(arguments.data)


def _setting(text: str) -> tuple[str, Any]:
    from lib_dsm import options
    from lib_dsm.training.config import RunConfig

    key, sign, value = text.partition("=")
    if not sign:
        raise InputError(f'"{text}" is not of the form KEY=VALUE.', "Write for example --set max_steps=500.")
    key = key.strip()
    try:
        parsed = json.loads(value)
    except ValueError:
        return key, value
    # A text that looks like a number stays as it was typed.
    spec = options.specs(RunConfig).get(key)
    typed = spec is not None and spec.type is str and isinstance(parsed, (int, float))
    return key, value.strip() if typed else parsed


def _flag(key: str, value: Any) -> str:
    """The flag by which `_setting` reads this value."""
    text = f"{key}={value}"
    if not isinstance(value, str) or _setting(text) != (key, value):
        text = f"{key}={json.dumps(value, ensure_ascii=False)}"
    return f"--set {shlex.quote(text)}"
