"""Guards on the places that a run writes to. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator

from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity


def unwritable(facts: RunFacts) -> Iterator[Finding]:
    """A folder that cannot be written loses the run at its first save."""
    for place in facts.storage:
        if place.problem:
            yield Finding(
                "output-unwritable",
                Severity.BLOCK,
                f"{place.folder} cannot be written: {place.problem}.",
                "Make the folder writable, or choose another one.",
            )


def disk_full(facts: RunFacts) -> Iterator[Finding]:
    """What the run will write does not fit."""
    for place in facts.storage:
        if not place.problem and place.needed > place.free:
            yield Finding(
                "disk-full",
                Severity.BLOCK,
                f"The run writes about {_bytes(place.needed)} to {place.folder}, and {_bytes(place.free)} are free.",
                "Free some space, choose another output folder, or save and preview less often.",
            )


def _bytes(count: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count // 1000} kB"
