"""Putting the routes into a FastAPI or Starlette app."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping
from typing import Any

from starlette.routing import Route as StarletteRoute

from lib_dsm.api import (
    crop_routes,
    history_routes,
    job_routes,
    lora_routes,
    picture_routes,
    preset_routes,
    project_routes,
    prune_routes,
    run_routes,
    structure_routes,
    system_routes,
    tag_routes,
    train_routes,
    tune_routes,
)
from lib_dsm.api.http import Route, endpoint
from lib_dsm.api.parameters import parameters
from lib_dsm.api.security import Gate
from lib_dsm.api.service import Service

PREFIX = "/dsm/v1/"
_MODULES = (
    system_routes, job_routes, project_routes, picture_routes, tag_routes, prune_routes, history_routes, crop_routes,
    train_routes, run_routes, preset_routes, structure_routes, tune_routes, lora_routes,
)  # fmt: skip


def routes() -> list[Route]:
    """All routes, the list of them included."""

    def schema(service: Service, call: Any) -> Any:
        """The list of all routes, with what each reads from the address's query or from the JSON body."""
        return {"prefix": PREFIX, "routes": [_described(route) for route in found]}

    found = [route for module in _MODULES for route in module.ROUTES]
    found.append(Route("GET", "schema", schema))
    return found


def _described(route: Route) -> dict[str, Any]:
    return {
        "method": route.method,
        "path": route.path,
        "summary": route.summary,
        "help": inspect.cleandoc(route.handler.__doc__ or ""),
        "parameters": [dataclasses.asdict(parameter) for parameter in parameters(route.handler)],
    }


def mount(app: Any, service: Service, token: str, credentials: Mapping[str, str] | None = None) -> None:
    """Add the routes to `app`: pages are let in by `token`, programs by HTTP Basic with `credentials` (by user)."""
    gate = Gate(token, dict(credentials or {}))
    for route in routes():
        app.router.routes.append(
            StarletteRoute(PREFIX + route.path, endpoint(route, service, gate), methods=[route.method])
        )
