"""Names of LoRA files that are being written: no two jobs of a process write to one."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lib_dsm.errors import InputError
from lib_dsm.files import file_name
from lib_dsm.jobs import Job, Jobs

_WRITES = "writes"  # in a job's data
_lock = threading.Lock()


def start_writing(jobs: Jobs, out: Path, title: str, work: Callable[[Job], Any], unit: str) -> Job:
    """Start a job that writes `out`.

    Raises:
        InputError: another one that writes it is running.
    """
    with _lock:
        if str(out) in _written(jobs):
            raise InputError(f"{out} is being written just now.", "Wait for it, or choose another name.")
        job = jobs.start(title, work, unit)
        job.data[_WRITES] = str(out)
    return job


def free_name(jobs: Jobs, folder: Path, name: str, job: Job) -> Path:
    """A file of that name for `job` to write, with a number behind where one is there or is being written."""
    name = file_name(name, "LoRA's name")
    with _lock:
        taken = _written(jobs)
        found, number = folder / f"{name}.safetensors", 1
        while found.exists() or str(found) in taken:
            number += 1
            found = folder / f"{name}-{number}.safetensors"
        job.data[_WRITES] = str(found)
    return found


def _written(jobs: Jobs) -> set[str]:
    return {str(job.data[_WRITES]) for job in jobs.all() if job.state == "running" and _WRITES in job.data}
