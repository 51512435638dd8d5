"""Jobs: what runs, how far it is, and how to stop it."""

from __future__ import annotations

from typing import Any

from lib_dsm.api.http import Call, Route, wrong
from lib_dsm.api.plain import plain
from lib_dsm.api.service import MissingError, Service
from lib_dsm.errors import InputError
from lib_dsm.jobs import Job

WISHES = ("save", "preview")


def list_jobs(service: Service, call: Call) -> Any:
    """All jobs of this process, the oldest first, without their data; `tab` picks those a tab started."""
    tab = call.text("tab", "")
    jobs = [job for job in service.host.jobs.all() if not tab or job.data.get("tab") == tab]
    return {"jobs": [_brief(job) for job in jobs]}


def show_job(service: Service, call: Call) -> Any:
    """One job: title, done, total, rate, time left, log, picture, data, and its result when it is done."""
    job = _find(service, call)
    return plain({**job.snapshot(), "result": job.result})


def cancel_job(service: Service, call: Call) -> Any:
    """Ask a job to stop at its next safe point; a training saves its state first."""
    job = _find(service, call)
    job.cancel()
    return _brief(job)


def ask_job(service: Service, call: Call) -> Any:
    """Leave a wish for a training: "save" or "preview"."""
    wish = call.text("wish")
    if wish not in WISHES:
        raise wrong("wish", wish, f"one of {', '.join(WISHES)}")
    job = _find(service, call)
    if job.state != "running":
        raise InputError(f"{job.title} does not run any more.", "Resume it first.")
    if wish == "preview" and job.data.get("requests") == 0:
        raise InputError(f"{job.title} has no preview prompt.", "Give the next run one.")
    job.ask(wish)
    return _brief(job)


def _find(service: Service, call: Call) -> Job:
    try:
        return service.host.jobs.get(call.text("id"))
    except InputError as error:
        raise MissingError(error.problem, error.remedy) from None


def _brief(job: Job) -> dict[str, Any]:
    snapshot = job.snapshot()
    brief = {key: snapshot[key] for key in ("id", "title", "state", "done", "total", "unit", "text", "error")}
    return plain({**brief, "tab": job.data.get("tab", ""), "kind": job.data.get("kind", "")})  # type: ignore[no-any-return]


ROUTES = (
    Route("GET", "jobs", list_jobs),
    Route("GET", "jobs/{id}", show_job),
    Route("POST", "jobs/{id}/cancel", cancel_job),
    Route("POST", "jobs/{id}/ask", ask_job),
)
