"""A plan that a person works on: saved whenever something is decided, so that a crash or a closed page loses nothing.

It is a plan file as any other, so that `crop --plan` does the same without a page.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

from lib_dsm.cropping.plan import UNTOUCHED, CropItem, CropPlan, PlanPicture, check_item
from lib_dsm.errors import InputError
from lib_dsm.files import move_aside

DRAFT = "crop-plan.json"
_LOCK = threading.Lock()


class Draft:
    """The plan in a file, a picture at a time; every change is on the disk when the call returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.note = ""

    def load(self) -> CropPlan:
        """The plan as it is saved, an empty one where there is none. A damaged file is kept under another name, which
        `note` then tells."""
        if not self.path.is_file():
            return CropPlan()
        try:
            return CropPlan.load(self.path)
        except InputError as error:
            self.note = f"{error} It was kept as {move_aside(self.path).name}, and a new plan was begun."
            return CropPlan()

    def change(self, decided: Iterable[PlanPicture], items: Mapping[str, Iterable[CropItem]]) -> CropPlan:
        """Save what was decided on some pictures, with the frames of each by its source.

        Raises:
            InputError: a frame is none, or is of another picture.
            StorageError: the disk does not take it; the plan is as it was.
        """
        changed = {picture.source: picture for picture in decided}
        frames = {source: tuple(items.get(source, ())) for source in changed}
        for source, own in frames.items():
            for item in own:
                check_item(item)
                if item.source != source:
                    raise InputError(f"A frame of {item.source!r} was given for {source!r}.", "Give each its own.")
        with _LOCK:
            plan = self.load()
            pictures = {picture.source: picture for picture in plan.pictures} | changed
            kept = tuple(item for item in plan.items if item.source not in changed)
            planned = kept + tuple(item for own in frames.values() for item in own)
            changed_plan = dataclasses.replace(plan, items=planned, pictures=tuple(pictures.values()))
            changed_plan.save(self.path)
        return changed_plan

    def states(self) -> dict[str, tuple[PlanPicture, list[CropItem]]]:
        """What is decided, with the frames, by source."""
        plan = self.load()
        found: dict[str, tuple[PlanPicture, list[CropItem]]] = {
            picture.source: (picture, []) for picture in plan.pictures
        }
        for item in plan.items:
            found.setdefault(item.source, (PlanPicture(item.source, UNTOUCHED), []))[1].append(item)
        return found


def left_unreviewed(plan: CropPlan) -> int:
    """How many pictures have proposed frames that nobody has confirmed."""
    return len({item.source for item in plan.confirmed().due()} - {item.source for item in plan.due()})
