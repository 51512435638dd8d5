"""What the settings of a training come to, as plain data for the pages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lib_dsm.errors import InputError
from lib_dsm.training.buckets import Size, crop_box, lost_share, showings
from lib_dsm.training.captions import draw_prompt
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan, PlannedPicture
from lib_dsm.training.schedule import schedule_of
from lib_dsm.training.templates import with_template
from lib_dsm.training.validation import held_out_count


def describe_plan(config: RunConfig, plan: Plan, pictures: bool, begun: int = 0) -> dict[str, Any]:
    """The sizes with their pictures, and how often each picture is shown; `pictures` adds every one with its crop.

    `begun` is the step that the run goes on after. `steps` are those it makes from there to where its rate ends.
    Shares are of a picture's area, 0 to 1; boxes are left, top, right, bottom as shares of its sides.
    """
    held_out = held_out_count(config.validation_share, len(plan.pictures))
    each_epoch = (len(plan.pictures) - held_out) * config.repeats
    steps = max(0, _last_step(config) - begun)
    facts: dict[str, Any] = {
        "count": len(plan.pictures),
        "held_out": held_out,
        "skipped": [{"name": path.name, "problem": problem} for path, problem in plan.skipped],
        "notes": [*plan.notes, *(f"{path.name}: {sentence}" for path, sentence in plan.guessed)],
        "captioned": sum(bool(picture.tags) for picture in plan.pictures),
        "pictures_per_step": config.pictures_per_step,
        "steps_per_epoch": each_epoch / config.pictures_per_step,
        "steps": steps,
        "epochs": steps * config.pictures_per_step / each_epoch,
        "buckets": _buckets(plan.pictures),
    }
    if pictures:
        facts["pictures"] = [_describe(picture) for picture in plan.pictures]
    return facts


def _last_step(config: RunConfig) -> int:
    try:
        return schedule_of(config).last
    except InputError:  # the rate is half typed; what is wrong with it is said elsewhere
        return config.max_steps


def rate_curve(config: RunConfig, points: int) -> list[tuple[int, float]]:
    """The learning rates of up to `points` steps, evenly spread from the first to the last that is trained.

    Raises:
        InputError: the rate is not written as a rate.
    """
    rate = schedule_of(config)
    steps = sorted({1 + index * (rate.last - 1) // max(points - 1, 1) for index in range(points)})
    return [(step, value) for step in steps if (value := rate.at(step - 1)) is not None]


def first_prompts(config: RunConfig, plan: Plan, count: int, begun: int = 0) -> list[str]:
    """The first prompts that the training reads after step `begun`, as it draws them.

    Where pictures are held out these are only such prompts: which pictures those are is decided by the contents of all
    files, which takes too long to read for a plan.

    Raises:
        InputError: the template cannot be read.
    """
    config = with_template(config)
    if not config.template:
        return []
    sizes = [picture.size for picture in plan.pictures]
    begin = begun * config.pictures_per_step
    return [
        draw_prompt(config, config.name, plan.pictures[shown.index].tags, shown.place)
        for shown in showings(config.seed, sizes, config.repeats, begin, count, config.shown_together)
    ]


def _buckets(pictures: Sequence[PlannedPicture]) -> list[dict[str, Any]]:
    """The training sizes, the most used first."""
    groups: dict[Size, list[float]] = {}
    for picture in pictures:
        groups.setdefault(picture.size, []).append(lost_share(picture.source, picture.size))
    return [
        {
            "width": size[0],
            "height": size[1],
            "pictures": len(lost),
            "lost": sum(lost) / len(lost),
            "most_lost": max(lost),
        }
        for size, lost in sorted(groups.items(), key=lambda group: (-len(group[1]), group[0]))
    ]


def _describe(picture: PlannedPicture) -> dict[str, Any]:
    (width, height), box = picture.source, crop_box(picture.source, picture.size)
    return {
        "name": picture.path.name,
        "path": str(picture.path),
        "stamp": str(picture.path.stat().st_mtime_ns),
        "source": picture.source,
        "size": picture.size,
        "box": (box[0] / width, box[1] / height, box[2] / width, box[3] / height),
        "lost": lost_share(picture.source, picture.size),
        "tags": len(picture.tags),
    }
