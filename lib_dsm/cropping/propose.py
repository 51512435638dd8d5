"""Proposals: the frames that a picture probably wants, each with its reason. A person decides; nothing is written."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from lib_dsm.cropping.boxes import Box, Size, center_box, elongation, padded_box, split_boxes
from lib_dsm.cropping.colors import parse_color
from lib_dsm.cropping.detect import detector_of
from lib_dsm.cropping.plan import FLIPPED, LOOKING, CropItem, CropOptions, CropPlan, PlanNote, make_item, plan_picture
from lib_dsm.cropping.scene import EYE, LOOKED_AT, Scene, look_at
from lib_dsm.cropping.tags import BODY, PERSON, PORTRAIT, impossible_tags
from lib_dsm.dataset.captions import read_caption
from lib_dsm.dataset.listing import require_folder, require_pictures
from lib_dsm.dataset.one_sided import not_mirrored
from lib_dsm.dataset.pictures import Picture, picture_size, read_picture
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import sha256
from lib_dsm.jobs import Job

_MARGIN = 0.06  # of a figure's longer side, left free around it
_LONG = 2.0  # pictures from here on are kept in two parts even where one place catches the eye
_MOST_FIGURES = 5  # more things on a plain ground than this are no persons
_SQUARE = 1.03  # pictures no longer than this times the shape need hardly be cut
_HEADS_WIDE, _HEADS_HIGH = 3.2, 7.5  # a person in heads, arms included
_PORTRAIT = 2.4  # a portrait's side in heads
_PORTRAIT_SHARE = 0.42  # of a figure without a known head, seen from its top
_UPRIGHT = 1.3  # a figure this many times as high as wide is one of whom a portrait can be cut
_STANDING = 1.1  # times as high as wide, and a figure may be one of several persons
_GROWN = 1.6  # a portrait, or one of several persons, is widened at most so much for the sake of its pixels


@dataclass
class Proposal:
    """The frames proposed for one picture, and what there is to say about it."""

    size: Size
    items: list[CropItem]
    notes: list[str] = field(default_factory=list)


class Proposer:
    """Proposes frames as the options say; `read` gives a picture in which details of `LOOKED_AT` can be seen."""

    def __init__(self, options: CropOptions, read: Callable[[Path], Picture] | None = None) -> None:
        self._options = options
        self._read = read or functools.partial(read_picture, max_side=LOOKED_AT)

    def propose(self, path: Path, name: str, digest: str = "") -> Proposal:
        """The frames of one picture, called `name` in the plan.

        Raises:
            PictureError: it cannot be read.
            ModelError: the detector cannot be used.
        """
        chosen = self._options
        if chosen.mode in LOOKING:
            detector = detector_of(Path(chosen.detector)) if chosen.detector else None
            picture = self._read(path)
            size = picture.size
            picture.image.thumbnail((LOOKED_AT, LOOKED_AT))
            items = propose_frames(look_at(picture.image, size, detector), name, chosen, digest)
        else:
            size = picture_size(path)
            items = plan_picture(name, size, chosen, digest)
        proposal = Proposal(size, items)
        _by_caption(proposal, path, chosen)
        return proposal


def plan_crops(
    source: Path, options: CropOptions, out: Path | None = None, hashes: bool = False, job: Job | None = None
) -> CropPlan:
    """Plan the crops of a folder's pictures. What lies in `out` is passed over.

    Modes that look for something read the pictures small, the others only their headers. With `hashes` the plan knows
    its sources by content.

    Raises:
        InputError: there is no such folder, it holds no pictures, or the colour is none.
        ModelError: the detector cannot be used.
        Cancelled: the job was stopped.
    """
    parse_color(options.color)
    require_folder(source)
    notes: list[PlanNote] = []
    items: list[CropItem] = []
    pictures = require_pictures(source, options.recursive)
    if out is not None:
        pictures = [path for path in pictures if out.resolve() not in path.resolve().parents]
    if options.mode in LOOKING and options.detector:
        detector_of(Path(options.detector))  # one that cannot be used is no fault of each picture
    proposer = Proposer(options)
    for number, picture in enumerate(pictures, 1):
        if job is not None:
            job.check()
        name = picture.relative_to(source).as_posix()
        try:
            proposal = proposer.propose(picture, name, sha256(picture) if hashes else "")
            items += proposal.items
            notes += [PlanNote(name, note) for note in proposal.notes]
        except DsmError as error:
            notes.append(PlanNote(name, str(error)))
        if job is not None:
            job.progress(number, len(pictures), name)
    return CropPlan(items=tuple(items), notes=tuple(notes))


def propose_frames(scene: Scene, name: str, options: CropOptions, digest: str = "") -> list[CropItem]:
    """The frames for what a picture shows, in a mode of `LOOKING`."""
    frames = _frames(scene, options.mode, options)
    return [
        make_item(name, scene.size, box, options, mode, part, digest, why=why)
        for part, (mode, box, why) in frames.items()
    ]


_Frames = dict[str, tuple[str, Box, str]]  # by part of the name: mode, box, reason


def _frames(scene: Scene, mode: str, options: CropOptions) -> _Frames:
    size, shape = scene.size, (options.width, options.height)
    if mode == "auto":
        return _automatic(scene, options)
    if mode == "people":
        people = _people(scene, shape)
        if len(people) > 1:
            each = dict.fromkeys(around(person, size, shape, _blends(scene, shape), _GROWN) for person in people)
            return {f"{PERSON}-{number}": (mode, box, "one of several") for number, box in enumerate(each, 1)}
    subject, why = _subject(scene, shape)
    if subject is None:
        return {"": ("center", center_box(size, shape), why)}
    whole = around(subject, size, shape, _blends(scene, shape))
    if mode == "portrait":
        portrait = _portrait(scene, subject, shape)
        if portrait is not None:
            return {PORTRAIT: (mode, portrait, "head and shoulders"), BODY: (mode, whole, why)}
    return {"": ("subject", whole, why)}


def _automatic(scene: Scene, options: CropOptions) -> _Frames:
    """What the guides would do: pad where the ground blends, else keep both sides of what is long, else the subject."""
    size, shape = scene.size, (options.width, options.height)
    longer = elongation(size, shape)
    people = _people(scene, shape)
    if len(people) > 1:
        return _frames(scene, "people", options)
    if longer <= _SQUARE:
        return {"": ("center", center_box(size, shape), "nearly of the shape")}
    if _blends(scene, shape):
        return {"": ("pad", padded_box(size, shape, options.exact), "plain border: padded, nothing is lost")}
    subject, _ = _subject(scene, shape)
    most = center_box(size, shape)
    fits = (
        subject is not None
        and subject[2] - subject[0] <= most[2] - most[0]
        and subject[3] - subject[1] <= most[3] - most[1]
    )
    if longer >= options.split_from and not (scene.heads or (fits and longer < _LONG)):
        parts = split_boxes(size, shape)
        return {part: ("split", box, "long: both sides") for part, box in parts.items()}
    return _frames(scene, "subject", options)


def _blends(scene: Scene, shape: Size) -> bool:
    """Whether the ground blends where a picture of this size is padded to the shape."""
    wide = scene.size[0] * shape[1] > scene.size[1] * shape[0]
    return scene.blends[1 if wide else 0]


def _subject(scene: Scene, shape: Size) -> tuple[Box | None, str]:
    """The one thing that the picture is about, and how it is known."""
    if scene.heads:
        return _around_all(_people(scene, shape)), "by the detector" if len(scene.heads) == 1 else "all persons"
    if scene.figures:
        return _around_all(scene.figures), "what catches the eye" if scene.how == EYE else "the figure on its ground"
    return None, "nothing stands out: the middle"


def _around_all(boxes: tuple[Box, ...] | list[Box]) -> Box:
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return min(lefts), min(tops), max(rights), max(bottoms)


def _people(scene: Scene, shape: Size) -> list[Box]:
    """A box for each person: the figure that a head is on, else as much as a person usually has below a head."""
    if not scene.heads:
        figures = list(scene.figures) if scene.how != EYE else []
        highest = max((bottom - top for _, top, _, bottom in figures), default=0)
        people = [box for box in figures if box[3] - box[1] >= max(highest / 2, _STANDING * (box[2] - box[0]))]
        return people if len(people) <= _MOST_FIGURES else []
    people = []
    for index, head in enumerate(scene.heads):
        owners = [figure for figure in scene.figures if scene.how != EYE and _holds(figure, head)]
        alone = [figure for figure in owners if sum(_holds(figure, other) for other in scene.heads) == 1]
        people.append(alone[0] if alone else _body(scene, index, shape))
    return people


def _holds(figure: Box, head: Box) -> bool:
    x, y = (head[0] + head[2]) / 2, (head[1] + head[3]) / 2
    return figure[0] <= x < figure[2] and figure[1] <= y < figure[3]


def _body(scene: Scene, index: int, shape: Size) -> Box:
    """A person below a head, as far as half-way to the next heads beside it, and with such not further down than a
    frame of the shape goes that does not show them."""
    left, top, right, bottom = scene.heads[index]
    width, height, middle = right - left, bottom - top, (left + right) / 2
    west, east = middle - width * _HEADS_WIDE / 2, middle + width * _HEADS_WIDE / 2
    for other in scene.heads[:index] + scene.heads[index + 1 :]:
        theirs = (other[0] + other[2]) / 2
        if theirs < middle:
            west = max(west, min((theirs + middle) / 2, left))
        elif theirs > middle:
            east = min(east, max((theirs + middle) / 2, right))
    high = height * _HEADS_HIGH
    if len(scene.heads) > 1:
        high = max(1.5 * height, min(high, (east - west) * shape[1] / shape[0]))
    return (
        max(0, round(west)), max(0, round(top - 0.3 * height)),
        min(scene.size[0], round(east)), min(scene.size[1], round(top + high)),
    )  # fmt: skip


def _portrait(scene: Scene, subject: Box, shape: Size) -> Box | None:
    """Head and shoulders of one subject; None where it is hardly more than that, or is not one person."""
    size = scene.size
    if len(scene.heads) == 1:
        left, top, right, bottom = scene.heads[0]
        side = max(right - left, bottom - top) * _PORTRAIT
        x, y = (left + right) / 2, (top + bottom) / 2 + 0.25 * (bottom - top)
    elif not scene.heads and scene.how != EYE and len(scene.figures) == 1:
        width, height = subject[2] - subject[0], subject[3] - subject[1]
        if height < _UPRIGHT * width:
            return None
        side = max(height * _PORTRAIT_SHARE, width * 0.6)
        x, y = (subject[0] + subject[2]) / 2, subject[1] + side * 0.46
    else:
        return None
    ratio = shape[0] / shape[1]
    wide, high = (side * ratio, side) if ratio < 1 else (side, side / ratio)
    most = center_box(size, shape)
    largest = most[2] - most[0]
    factor = max(1.0, min(_GROWN, shape[0] / wide, 0.75 * largest / wide))
    wide, high = wide * factor, high * factor
    if wide >= 0.9 * largest:
        return None  # the whole of it is a portrait already
    return _placed(x - wide / 2, y - high / 2, round(wide), max(1, round(round(wide) / ratio)), size)


def around(subject: Box, size: Size, shape: Size, padded: bool, grown: float = math.inf) -> Box:
    """The smallest frame of a shape that holds a box with some air, not smaller than the shape's pixels if it can be
    without being `grown` more than so many times.

    It lies in the picture. Where the subject is larger than any such frame it reaches beyond the picture if that may be
    `padded`, else it shows as much as fits, from the subject's top.
    """
    left, top, right, bottom = subject
    air = _MARGIN * max(right - left, bottom - top)
    ratio = shape[0] / shape[1]
    wide = max(right - left + 2 * air, (bottom - top + 2 * air) * ratio)
    most = center_box(size, shape)
    largest = most[2] - most[0]
    wide = max(wide, min(shape[0], largest, grown * wide))
    if wide > largest:
        if padded and max(right - left, (bottom - top) * ratio) > largest:
            return _placed_around(subject, round(wide), ratio, size)
        wide = largest
    width = round(wide)
    height = most[3] - most[1] if width == largest else max(1, round(width / ratio))
    y = (top + bottom) / 2 - height / 2 if bottom - top <= height else top - min(air, height * 0.04)
    return _placed((left + right) / 2 - width / 2, y, width, height, size)


def _placed(left: float, top: float, width: int, height: int, size: Size) -> Box:
    """A box moved into the picture, as far as it fits."""
    x = min(max(0, round(left)), max(0, size[0] - width))
    y = min(max(0, round(top)), max(0, size[1] - height))
    return x, y, x + width, y + height


def _placed_around(subject: Box, width: int, ratio: float, size: Size) -> Box:
    """A box with the subject in its middle, beyond the picture only where it is larger than that."""
    height = max(1, round(width / ratio))
    box = []
    for length, limit, low, high in (
        (width, size[0], subject[0], subject[2]),
        (height, size[1], subject[1], subject[3]),
    ):
        start = round((low + high) / 2 - length / 2)
        box.append((limit - length) // 2 if length > limit else min(max(0, start), limit - length))
    return box[0], box[1], box[0] + width, box[1] + height


def _by_caption(proposal: Proposal, path: Path, options: CropOptions) -> None:
    """What the caption says to the frames: tags to drop, and whether they may be mirrored."""
    try:
        tags = read_caption(path).tags
    except InputError:
        tags = []  # said when it is to be carried along
    items = proposal.items
    if options.drop_tags and tags:
        items = [
            dataclasses.replace(item, drop=tuple(impossible_tags(tags, _box(item), proposal.size, item.part)))
            for item in items
        ]
    if options.flip:
        against = not_mirrored(tags)
        if against:
            proposal.notes.append(f"{path.name} gets no mirrored copy: its caption has {', '.join(against)}.")
        else:
            items = [twin for item in items for twin in (item, mirrored(item, proposal.size))]
    proposal.items = items


def mirrored(item: CropItem, size: Size) -> CropItem:
    """The mirrored copy of a crop of a picture of that upright size."""
    part = f"{item.part}-{FLIPPED}" if item.part else FLIPPED
    mode = "free" if item.mode == "keep" else item.mode
    box = (0, 0, *size) if item.mode == "keep" else item.box
    return dataclasses.replace(item, part=part, flip=True, mode=mode, box=box)


def _box(item: CropItem) -> Box:
    left, top, right, bottom = item.box
    return left, top, right, bottom
