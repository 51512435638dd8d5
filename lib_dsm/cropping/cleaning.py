"""What a set had better be without: pictures that are nearly another one, blurred, too small, too long, marked, or
mostly text.

All is measured on the pictures, or read in their captions, and is a proposal with its number; a person looks and
decides.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lib_dsm.cropping.duplicates import find_duplicates
from lib_dsm.cropping.marks import shared_marks, small
from lib_dsm.cropping.pool import PixelBudget, in_parallel
from lib_dsm.dataset.captions import caption_path, read_caption
from lib_dsm.dataset.history import Outcome, apply
from lib_dsm.dataset.listing import list_pictures
from lib_dsm.dataset.looks import look
from lib_dsm.dataset.one_sided import MARKS, plain
from lib_dsm.dataset.pictures import MAX_PIXELS, Picture, picture_size, read_picture
from lib_dsm.dataset.removing import removals
from lib_dsm.errors import DsmError, InputError
from lib_dsm.files import inside
from lib_dsm.jobs import Job
from lib_dsm.options import option

DUPLICATE, BLURRED, SMALL, LONG, MARKED, TEXT, BROKEN = KINDS = (
    "duplicate", "blurred", "small", "long", "marked", "text", "broken",
)  # fmt: skip
TOLD = {
    DUPLICATE: "nearly equal", BLURRED: "blurred", SMALL: "too small", LONG: "very long", MARKED: "watermark",
    TEXT: "mostly text", BROKEN: "unreadable",
}  # fmt: skip
"""What each kind is called."""

_MOSTLY = 0.8  # of the pictures of a size; a mark on more of them may be none
_LOOKED_AT = 512  # pixels of the longer side; blur is judged at one scale, whatever a camera's pixels are
_FAINT = 8.0  # levels of contrast that can be noise
_ROW = 8  # pixels of a block
_READABLE = 128  # pixels of the shorter side from which on small things can be told from writing
_EDGE = 60.0  # levels across a pixel that are as hard as printed letters have them
_INKED = (0.08, 0.6)  # shares of a block's pixels on hard edges that writing has


@dataclass(frozen=True)
class CleanOptions:
    """What counts as what."""

    small: int = option(384, "Shorter side in pixels below which a picture is too small", minimum=1, maximum=8192)
    long: float = option(3.0, "How many times longer than wide is extreme", minimum=1.1, maximum=100)
    sharpness: float = option(
        6.0,
        "A picture is blurred if even its hardest edges change by less than this much of its contrast in a pixel, in "
        "percent",
        minimum=0,
        maximum=100,
    )
    text: float = option(0.15, "Share that looks like writing from which on it is mostly text", minimum=0.01, maximum=1)


@dataclass(frozen=True)
class Flaw:
    """What is wrong with one picture: `kind` of `KINDS`, and a sentence with the number. `like` is the better one that
    a duplicate is nearly equal to."""

    path: Path
    kind: str
    text: str
    like: Path | None = None


@dataclass
class Findings:
    """The flaws, picture by picture in the set's order, and what each picture's size is."""

    flaws: list[Flaw] = field(default_factory=list)
    sizes: dict[Path, tuple[int, int]] = field(default_factory=dict)


def find_flaws(pictures: Sequence[Path], options: CleanOptions, job: Job | None = None) -> Findings:
    """Measure all pictures; each is read once, small, and again where it is nearly equal to another one or may have a
    mark. Memory does not grow with them but by their names and 300 bytes each.

    Raises:
        Cancelled: the job was stopped.
    """
    found = Findings()
    looks: dict[Path, bytes] = {}
    sharp: dict[Path, float] = {}
    measure = _Measure()
    for number, (path, measured) in enumerate(in_parallel(measure, pictures), 1):
        if isinstance(measured, DsmError):
            found.flaws.append(Flaw(path, BROKEN, measured.problem))
        else:
            found.sizes[path], looks[path], sharp[path] = measured.size, measured.look, measured.sharpness
            found.flaws += _of_one(path, measured, options)
        if job is not None:
            job.progress(number, len(pictures), path.name)
            job.check()
    copies = find_duplicates(looks, found.sizes, sharp, job)

    def read_small(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8] | None]:
        for _, seen in in_parallel(measure.small, paths):
            if job is not None:
                job.check()
            yield seen

    # Copies share everything, which is no mark.
    marks = shared_marks({path: size for path, size in found.sizes.items() if path not in copies}, read_small)
    found.flaws += _marked(pictures, marks)
    for path, (like, share) in copies.items():
        found.flaws.append(Flaw(path, DUPLICATE, f"{100 * share:.0f} % like {like.name}, which is kept.", like))
    order = {path: index for index, path in enumerate(pictures)}
    found.flaws.sort(key=lambda flaw: (order[flaw.path], KINDS.index(flaw.kind)))
    return found


def to_set_aside(flaws: Sequence[Flaw], kinds: Collection[str]) -> tuple[list[Path], list[Path]]:
    """The pictures that have flaws of these kinds, and those of them that stay all the same: a duplicate that leaves
    leaves a picture behind, whatever is wrong with that."""
    chosen = [flaw for flaw in flaws if flaw.kind in kinds]
    kept = {flaw.like for flaw in chosen}
    paths = dict.fromkeys(flaw.path for flaw in chosen)
    return [path for path in paths if path not in kept], [path for path in paths if path in kept]


def set_aside(folder: Path, names: Sequence[str], job: Job | None = None) -> Outcome:
    """Move pictures with their captions out of a set, as one act of the folder's history that can be undone.

    Raises:
        InputError: one of them is not there.
        BusyError, StorageError: as `history.apply`.
    """
    leaving: dict[Path, list[Path]] = {}
    for name in dict.fromkeys(names):
        path = folder / name
        inside(path.parent, folder)
        if not path.is_file():
            raise InputError(f"There is no picture {name} in {folder}.", "Look at the list again.")
        leaving.setdefault(caption_path(path), []).append(path)
    owners = Counter(map(caption_path, list_pictures(folder, recursive=True)[0]))
    count = sum(map(len, leaving.values()))
    moves = removals(leaving, owners, folder)
    return apply(folder, f"set {count} picture{'s' * (count != 1)} aside", [], job, moves)


def sharpness(image: Image.Image) -> float:
    """How hard the hardest edges of an RGB picture are: the 99.5th percentile of how much brightness changes in a
    pixel, in percent of the picture's contrast, 0 to 100.

    Only the hardest count, so that a sharp figure before a soft ground, or a drawing's plain areas, are not blurred;
    and by the picture's own contrast, so that a pale drawing is as sharp as one in black ink. At 512 pixels a
    side sharp photographs have 15 to 70 and drawings 70 to 100, and both 3 to 9 once blurred by 6 pixels.
    """
    grey = _grey(image)
    steps = np.maximum(np.abs(np.diff(grey, axis=1))[:-1], np.abs(np.diff(grey, axis=0))[:, :-1])
    if not steps.size:
        return 0.0
    dark, bright = np.percentile(grey, (0.5, 99.5))
    return min(100.0, 100 * float(np.percentile(steps, 99.5)) / max(float(bright - dark), _FAINT))


def text_share(image: Image.Image) -> float:
    """The share of an RGB picture that looks like rows of writing, 0 to 1.

    Writing is many hard edges close together on two levels only: blocks that have them, with such blocks beside them in
    their row. Hatching and foliage have them too, so it is a hint.
    """
    grey = _grey(image)
    hard = np.abs(np.diff(grey, axis=1)) > _EDGE
    rows, columns = hard.shape[0] // _ROW, hard.shape[1] // _ROW
    if not rows or not columns:
        return 0.0
    cut = hard[: rows * _ROW, : columns * _ROW].reshape(rows, _ROW, columns, _ROW)
    levels = grey[: rows * _ROW, : columns * _ROW].reshape(rows, _ROW, columns, _ROW)
    share = cut.mean(axis=(1, 3))
    low, high = levels.min(axis=(1, 3), keepdims=True), levels.max(axis=(1, 3), keepdims=True)
    middle = np.abs(levels - (low + high) / 2) < (high - low) / 6
    written = (share > _INKED[0]) & (share < _INKED[1]) & (middle.mean(axis=(1, 3)) < 0.3)
    beside = np.zeros_like(written)
    beside[:, 1:-1] = written[:, :-2] & written[:, 2:]
    return float((written & beside).mean())


@dataclass(frozen=True)
class _Measured:
    size: tuple[int, int]
    look: bytes
    sharpness: float
    text: float


class _Measure:
    """Reads pictures small and measures them; may be called by several threads, which hold so many pixels at most."""

    def __init__(self) -> None:
        self._budget = PixelBudget(MAX_PIXELS)

    def __call__(self, path: Path) -> _Measured | DsmError:
        try:
            picture = self._read(path)
        except DsmError as error:
            return error
        image = picture.image
        return _Measured(picture.size, look(image), sharpness(image), text_share(image))

    def small(self, path: Path) -> NDArray[np.uint8] | None:
        """What marks are looked for in; None where it cannot be read."""
        try:
            return small(self._read(path).image)
        except DsmError:
            return None

    def _read(self, path: Path) -> Picture:
        try:
            width, height = picture_size(path)
        except DsmError:  # it fails below as well, but for one that is so large that it is read reduced, alone
            width, height = MAX_PIXELS, 1
        with self._budget.holding(width * height):
            return read_picture(path, max_side=_LOOKED_AT)


def _of_one(path: Path, measured: _Measured, options: CleanOptions) -> list[Flaw]:
    width, height = measured.size
    flaws = []
    longer = max(measured.size) / min(measured.size)
    if measured.sharpness < options.sharpness:
        flaws.append(
            Flaw(path, BLURRED, f"Its hardest edges change by {measured.sharpness:.1f} % of its contrast in a pixel.")
        )
    if min(measured.size) < options.small:
        flaws.append(Flaw(path, SMALL, f"It has {width}×{height} pixels."))
    if longer >= options.long:
        flaws.append(Flaw(path, LONG, f"It is {longer:.1f} times as long as wide."))
    if measured.text >= options.text and min(measured.size) >= _READABLE:
        flaws.append(Flaw(path, TEXT, f"{100 * measured.text:.0f} % of it looks like writing."))
    return flaws


def _marked(pictures: Sequence[Path], marks: Mapping[Path, tuple[str, int, int]]) -> list[Flaw]:
    """What bears a mark: by what pictures share, and by what a tagger or a person wrote into the caption."""
    flaws = []
    for path in pictures:
        said = []
        if path in marks:
            place, bearing, count = marks[path]
            said.append(f"{bearing} of the {count} pictures of its size have the same mark, {place}.")
            if bearing > _MOSTLY * count:
                said.append("It is a hint: what nearly all have may be what they show.")
        tags = [tag for tag in _tags(path) if plain(tag) in MARKS]
        if tags:
            said.append(f"Its caption has {', '.join(tags)}.")
        if said:
            flaws.append(Flaw(path, MARKED, " ".join(said)))
    return flaws


def _tags(path: Path) -> list[str]:
    try:
        return read_caption(path).tags
    except InputError:
        return []  # said where captions are looked at


def _grey(image: Image.Image) -> NDArray[np.float32]:
    return np.asarray(image.convert("L"), dtype=np.float32)
