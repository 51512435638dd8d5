"""A plan that a person works on: saved whenever something is decided, so that a crash or a closed page loses nothing.

It is a plan file as any other, so that `crop --plan` does the same without a page.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.cropping.plan import UNTOUCHED, CropItem, CropPlan, PlanPicture, check_item
from lib_dsm.errors import InputError
from lib_dsm.files import move_aside
from lib_dsm.options import to_json

DRAFT = "crop-plan.json"
_LOCK = threading.Lock()


@dataclass
class Decision:
    """What is saved on one picture."""

    picture: PlanPicture
    items: list[CropItem] = field(default_factory=list)

    @property
    def mark(self) -> str:
        """Changes whenever what is decided does; 16 hexadecimal digits."""
        content = [to_json(self.picture), [to_json(item) for item in self.items]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Changed:
    """The plan as it is now saved, the new marks by source, and what was left because something else is saved."""

    plan: CropPlan
    marks: dict[str, str]
    left: dict[str, Decision]


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

    def change(
        self,
        decided: Iterable[PlanPicture],
        items: Mapping[str, Iterable[CropItem]],
        known: Mapping[str, str] | None = None,
    ) -> Changed:
        """Save what was decided on some pictures, with the frames of each by its source.

        `known` has the marks of what the one who decides has seen, by source; a picture on which something else is
        saved by now, as from another window, is left as it is. Without a mark a picture is saved in any case.

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
            saved = _decisions(plan)
            left = {
                source for source, picture in changed.items() if known is not None and source in known
                and known[source] != (there := saved[source].mark if source in saved else "")
                and Decision(picture, list(frames[source])).mark != there  # a page may not have heard of its own save
            }  # fmt: skip
            for source in left:
                del changed[source]
            pictures = {picture.source: picture for picture in plan.pictures} | changed
            kept = tuple(item for item in plan.items if item.source not in changed)
            planned = kept + tuple(item for source in changed for item in frames[source])
            plan = dataclasses.replace(plan, items=planned, pictures=tuple(pictures.values()))
            if changed:
                plan.save(self.path)
            now = _decisions(plan)
            return Changed(plan, {source: now[source].mark for source in changed}, {one: now[one] for one in left})

    def states(self) -> dict[str, Decision]:
        """What is decided, with the frames, by source."""
        return _decisions(self.load())


def _decisions(plan: CropPlan) -> dict[str, Decision]:
    found = {picture.source: Decision(picture) for picture in plan.pictures}
    for item in plan.items:
        found.setdefault(item.source, Decision(PlanPicture(item.source, UNTOUCHED))).items.append(item)
    return found


def left_unreviewed(plan: CropPlan) -> int:
    """How many pictures have proposed frames that nobody has confirmed."""
    return len({item.source for item in plan.confirmed().due()} - {item.source for item in plan.due()})
