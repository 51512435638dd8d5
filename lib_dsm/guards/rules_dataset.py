"""Guards on the pictures. One rule, one function."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lib_dsm import options
from lib_dsm.dataset.looks import alike
from lib_dsm.guards.facts import RunFacts
from lib_dsm.guards.finding import Finding, Severity
from lib_dsm.guards.telling import some
from lib_dsm.training.buckets import lost_share
from lib_dsm.training.config import RunConfig

FEW_PICTURES = 100
EXTREME_RATIO = 4.0
MUCH_LOST = 0.15
HUGE = 4096  # pixels of the longer side


def few_pictures(facts: RunFacts) -> Iterator[Finding]:
    """Under a hundred pictures an embedding is less consistent."""
    count = len(facts.plan.pictures)
    if count < FEW_PICTURES:
        yield Finding(
            "few-images",
            Severity.INFO,
            f"{count} pictures; the guides find embeddings of fewer than {FEW_PICTURES} less consistent.",
            "More pictures from other angles help.",
        )


def unusable_pictures(facts: RunFacts) -> Iterator[Finding]:
    """Files that cannot be trained on are left out, by name."""
    for path, sentence in facts.plan.skipped:
        yield Finding("corrupt-image", Severity.WARN, f"Left out: {sentence}", f"Replace or remove {path.name}.")
    for note in facts.plan.notes:
        yield Finding("dataset-note", Severity.WARN, note)


def extreme_aspect(facts: RunFacts) -> Iterator[Finding]:
    """Very long pictures shrink to very little."""
    extreme = [
        f"{picture.path.name} ({picture.source[0]}×{picture.source[1]} → {picture.size[0]}×{picture.size[1]})"
        for picture in facts.plan.pictures
        if max(picture.source) > EXTREME_RATIO * min(picture.source)
    ]
    if extreme:
        yield Finding("extreme-aspect", Severity.WARN, f"Very long pictures: {some(extreme)}.", "Split or crop them.")


def much_cropped(facts: RunFacts) -> Iterator[Finding]:
    """Pictures whose training size cuts much of them away."""
    cut = [
        f"{picture.path.name} ({lost:.0%})"
        for picture in facts.plan.pictures
        if (lost := lost_share(picture.source, picture.size)) > MUCH_LOST
    ]
    if cut:
        yield Finding(
            "much-cropped",
            Severity.INFO,
            f"{len(cut)} pictures lose much at their edges: {some(cut)}.",
            "Use variable aspect with smaller multiples, or crop them by hand.",
            _less_cropped(facts),
        )


def _less_cropped(facts: RunFacts) -> dict[str, Any]:
    if not facts.config.variable_aspect:
        return {"variable_aspect": True}
    smaller = [step for step in options.specs(RunConfig)["size_step"].choices or () if step < facts.config.size_step]
    return {"size_step": max(smaller)} if smaller else {}


def huge_pictures(facts: RunFacts) -> Iterator[Finding]:
    """Pictures far larger than what is trained on only take time, and other tools crash on them."""
    huge = [
        f"{picture.path.name} ({picture.source[0]}×{picture.source[1]})"
        for picture in facts.plan.pictures
        if max(picture.source) > HUGE
    ]
    if huge:
        yield Finding(
            "huge-images",
            Severity.INFO,
            f"{len(huge)} pictures are over {HUGE} pixels long and are shrunk to at most "
            f"{facts.config.width}×{facts.config.height}: {some(huge)}.",
            "Smaller copies train the same and load faster.",
        )


def near_identical(facts: RunFacts) -> Iterator[Finding]:
    """Pictures that look nearly equal count several times over, and are learned by heart."""
    found = alike(facts.looks)
    if found.count:
        names = [f"{first.name} and {second.name}" for first, second, _ in found.pairs]
        yield Finding(
            "dedupe",
            Severity.WARN,
            f"{found.pictures} pictures look nearly like another one: {some(names, of=found.count)}.",
            "Leave out all but the best of each, or what they share is learned too well.",
        )
    left = len(facts.plan.pictures) - len(facts.looks)
    if facts.looks and left:
        yield Finding(
            "not-compared",
            Severity.INFO,
            f"{left} of {len(facts.plan.pictures)} pictures were not compared with the others: they are very large, or "
            "the time for it was over.",
            "Check once more to compare those that had no time.",
        )
