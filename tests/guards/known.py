"""Facts of a run that no guard objects to, to be changed by a test in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lib_dsm.guards.check import check
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan, PlannedPicture

VIEWS = ("from side", "from behind", "looking at viewer")


def picture(number=0, source=(512, 512), size=(512, 512), tags=("smile",)) -> PlannedPicture:
    return PlannedPicture(Path(f"{number}.png"), source, size, tuple(tags), bool(tags))


def tagged(*tags: str) -> list[PlannedPicture]:
    """A hundred and twenty pictures from all sides, of which the first has these tags too."""
    return [picture(number, tags=("smile", VIEWS[number % 3], *tags * (number == 0))) for number in range(120)]


def facts(pictures: Sequence[PlannedPicture] = (), config: dict[str, Any] | None = None, **changes: Any) -> RunFacts:
    settings = {"name": "zorgle-one", "checkpoint": "model", "dataset": "folder", "max_steps": 1000, **(config or {})}
    known = {"plan": Plan(tuple(pictures or tagged()), ()), **changes}
    return RunFacts(config=RunConfig(**settings), **known)


def found(run: RunFacts) -> dict[str, Severity]:
    return {finding.id: finding.severity for finding in check(run)}


def finding_of(run: RunFacts, wanted: str) -> Finding:
    """The only finding of this id."""
    (finding,) = (finding for finding in check(run) if finding.id == wanted)
    return finding
