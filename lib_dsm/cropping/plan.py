"""What to crop and how: a plan that can be looked at, changed, saved, and written later."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from lib_dsm.cropping.boxes import (
    Box,
    Size,
    center_box,
    elongation,
    output_size,
    padded_box,
    split_boxes,
)
from lib_dsm.cropping.colors import AUTO, parse_color
from lib_dsm.dataset.training_sizes import training_size
from lib_dsm.errors import InputError
from lib_dsm.files import file_name, read_json, write_json
from lib_dsm.options import from_json, option, to_json

_VERSION = 1
MODES = ("auto", "subject", "portrait", "people", "center", "pad", "split", "bucket", "keep")
LOOKING = ("auto", "subject", "portrait", "people")
"""Modes that must see the pictures; the others need only their sizes."""
UNTOUCHED, PROPOSED, CONFIRMED, SKIPPED = STATES = ("untouched", "proposed", "confirmed", "skipped")
"""What is decided on a picture; only what is confirmed is written."""
FLIPPED = "flipped"
_PART_LIMIT_BYTES = 40  # with the source's name and a number it must still be a file name


@dataclass(frozen=True)
class CropOptions:
    """How pictures are cropped."""

    mode: str = option(
        "center",
        "center keeps the middle, pad adds ground at the sides, split makes two of the ends of a long picture, subject "
        "finds what it shows, portrait its head and its whole, people each of several, bucket the nearest training "
        "size, auto the best of these, keep copies",
        choices=MODES,
    )
    width: int = option(512, "Width of the finished pictures in pixels", minimum=16, maximum=8192, step=64)
    height: int = option(512, "Height of the finished pictures in pixels", minimum=16, maximum=8192, step=64)
    shrink: bool = option(True, "Shrink to width × height; otherwise they only give the proportions")
    enlarge: bool = option(False, "Enlarge pictures that have fewer pixels")
    split_from: float = option(
        1.5, "Split pictures at least this many times longer than wanted; of others the middle is kept", minimum=1.05
    )
    bucket_step: int = option(64, "Training sizes are multiples of this", choices=(8, 16, 32, 64))
    color: str = option(
        AUTO, "Padding: a name, #rrggbb, blur, transparent, or auto for the colour of a uniform edge (else white)"
    )
    flip: bool = option(False, "Add a mirrored copy of each crop, unless its caption names something one-sided")
    drop_tags: bool = option(True, "Leave tags out of the caption that cannot be in the crop, such as full body")
    format: str = option("png", "File format of the finished pictures", choices=("png", "jpeg", "webp"))
    quality: int = option(95, "Quality of JPEG and WebP", minimum=1, maximum=100)
    detector: str = option(
        "",
        "Finds faces or heads: yunet (photographs), anime-head (drawings), or an ONNX file of either's layout; "
        "without one, figures and what catches the eye are looked for",
    )
    recursive: bool = option(False, "Include the folders inside")

    @property
    def exact(self) -> bool:
        """Whether a padded picture may get some more ground to be of width × height."""
        return self.shrink and not self.enlarge


@dataclass(frozen=True)
class CropItem:
    """One finished picture to be: a box of a source, or with mode "keep" the source's file as it is, in its own format.

    `source` is the path in the source folder, with `/`. `box` is (left, top, right, bottom) in the upright source, and
    is padded with `color` where it reaches beyond it. `width` and `height` are the finished size in pixels. `part`
    becomes part of the name, such as "left". `drop` are tags that its caption shall not have; `why` says in words what
    made the frame. Where `sha256` is given, a source that has changed since is refused.
    """

    source: str = option(help="Path in the source folder")
    mode: str = option(help="What made the box", choices=(*MODES, "free"))
    box: tuple[int, ...] = option(help="Left, top, right, bottom in pixels")
    width: int = option(help="Finished width", minimum=1, maximum=32768)
    height: int = option(help="Finished height", minimum=1, maximum=32768)
    color: str = option(AUTO, "Padding")
    part: str = option("", "What to add to the name")
    sha256: str = option("", "The source's SHA-256 when the plan was made")
    flip: bool = option(False, "Mirrored")
    drop: tuple[str, ...] = option((), "Tags that its caption shall not have")
    why: str = option("", "What made the frame, in words")


@dataclass(frozen=True)
class PlanPicture:
    """What is decided on one source; `stamp` is its file's time of change in nanoseconds, or ""."""

    source: str = option(help="Path in the source folder")
    state: str = option(UNTOUCHED, "What is decided", choices=STATES)
    stamp: str = option("", "The state of the file when it was decided")


@dataclass(frozen=True)
class PlanNote:
    """Why a picture could not be planned; `source` is the path in the source folder, with `/`."""

    source: str = option(help="Path in the source folder")
    text: str = option(help="What is wrong with it")


@dataclass(frozen=True)
class CropPlan:
    """What a folder's crops shall be. `notes` are on pictures that could not be planned.

    `pictures` are those that a person has looked at; a plan without any is one whose items all shall be.
    """

    version: int = option(_VERSION, minimum=_VERSION, maximum=_VERSION)
    items: tuple[CropItem, ...] = option(())
    notes: tuple[PlanNote, ...] = option(())
    pictures: tuple[PlanPicture, ...] = option(())

    def due(self) -> tuple[CropItem, ...]:
        """The items that are to be written: those of confirmed pictures, or all where nothing says who looked."""
        if not self.pictures:
            return self.items
        confirmed = {picture.source for picture in self.pictures if picture.state == CONFIRMED}
        return tuple(item for item in self.items if item.source in confirmed)

    def confirmed(self) -> CropPlan:
        """The plan with every proposal accepted."""
        planned = {item.source for item in self.items}
        pictures = tuple(
            dataclasses.replace(picture, state=CONFIRMED)
            if picture.state in (UNTOUCHED, PROPOSED) and picture.source in planned
            else picture
            for picture in self.pictures
        )
        return dataclasses.replace(self, pictures=pictures)

    def save(self, path: Path) -> None:
        """Write the plan as JSON.

        Raises:
            StorageError: the disk does not take it.
        """
        write_json(path, to_json(self))

    @classmethod
    def load(cls, path: Path) -> CropPlan:
        """Read a plan from JSON; whether its items can be done shows when they are.

        Raises:
            InputError: it is not one; the key at fault is named.
        """
        return from_json(cls, read_json(path), "crop plan")


def stamp_of(path: Path) -> str:
    """A `PlanPicture`'s stamp for the file as it is now.

    Raises:
        OSError: there is no such file.
    """
    return str(path.stat().st_mtime_ns)


def shown(source: str) -> str:
    """A source's path as text that can be printed: JSON can hold halves of characters, which nothing else takes."""
    return source.encode("utf-8", "replace").decode("utf-8")


def check_item(item: CropItem) -> Box:
    """The item's box, if the item can be done at all.

    Raises:
        InputError: the source or the part leads elsewhere, the box is not four numbers or is empty, or the colour is
            none.
    """
    path = PurePosixPath(item.source)
    is_text = "\0" not in item.source and item.source == shown(item.source)
    if not path.name or path.is_absolute() or ".." in path.parts or not is_text:
        raise InputError(
            f"The source {item.source!r} is not a path in the source folder.", "Write it from there, such as sub/a.png."
        )
    if item.part:
        file_name(item.part, "part of the name")
        if len(item.part.encode("utf-8")) > _PART_LIMIT_BYTES:
            raise InputError(
                f'The part of the name "{item.part}" is too long.', f"Use at most {_PART_LIMIT_BYTES} bytes."
            )
    if len(item.box) != 4 or item.box[0] >= item.box[2] or item.box[1] >= item.box[3]:
        raise InputError(
            f"The box {list(item.box)} of {item.source} is not a box.", "It is left, top, right, bottom in pixels."
        )
    parse_color(item.color)
    left, top, right, bottom = item.box
    return left, top, right, bottom


def plan_picture(name: str, size: tuple[int, int], options: CropOptions, digest: str = "") -> list[CropItem]:
    """The crops of one picture of that upright size, in a mode that need not see it."""
    shape = options.width, options.height
    mode = options.mode
    if mode == "split" and elongation(size, shape) < options.split_from:
        mode = "center"
    boxes: dict[str, Box]
    if mode == "keep":
        boxes = {"": (0, 0, *size)}
    elif mode == "pad":
        boxes = {"": padded_box(size, shape, options.exact)}
    elif mode == "split":
        boxes = split_boxes(size, shape)
    elif mode == "bucket":
        shape = bucket_of(size, options) or size
        boxes = {"": center_box(size, shape)}
    else:
        boxes = {"": center_box(size, shape)}
    return [make_item(name, size, box, options, mode, part, digest, shape) for part, box in boxes.items()]


def bucket_of(size: Size, options: CropOptions) -> Size | None:
    """The size that variable-aspect training gives a picture of that size; None where it has too few pixels."""
    return training_size(size, (options.width, options.height), options.bucket_step, True, options.enlarge)


def make_item(
    name: str,
    size: Size,
    box: Box,
    options: CropOptions,
    mode: str,
    part: str = "",
    digest: str = "",
    shape: Size | None = None,
    why: str = "",
) -> CropItem:
    """One crop of a picture of that upright size; `shape` is the finished size wanted, the options' if not given."""
    shape = shape or (options.width, options.height)
    own = box[2] - box[0], box[3] - box[1]
    width, height = output_size(box, shape, options.enlarge) if options.shrink and mode != "keep" else own
    return CropItem(
        source=name,
        mode=mode,
        box=box,
        width=width,
        height=height,
        color=options.color,
        part=part,
        sha256=digest,
        why=why,
    )
