"""A world of cartoon characters whose tags are known exactly.

A character is a handful of attributes; `render` draws it in a place of its own on white ground, `tags` names what is to
be seen as an imageboard would. Six attributes make a character who it is, the others change from picture to picture.

About a tenth of the characters, told by a hash of those six, are held out: no model in models/ was trained further on
any of them. `character_of` enumerates the characters; a seed that ends in 0 gives one that is held out.
"""

from __future__ import annotations

import hashlib
import io
import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.errors import InputError
from lib_dsm.files import write_bytes, write_text

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

SIZES = ((64, 64), (64, 96), (96, 64))  # width × height in pixels
NONE = "none"
BALD = "bald"
HETEROCHROMIA = "heterochromia"
COLOURS: dict[str, Colour] = {
    "red": (214, 48, 49),
    "yellow": (245, 215, 60),
    "green": (60, 170, 75),
    "blue": (55, 100, 220),
    "purple": (140, 70, 190),
    "pink": (245, 150, 190),
    "brown": (130, 80, 45),
    "black": (35, 35, 40),
    "white": (245, 245, 245),
    "grey": (150, 150, 155),
    "aqua": (70, 205, 215),
}
SKINS: dict[str, Colour] = {
    "light skin": (250, 220, 190),
    "dark skin": (150, 95, 60),
    "green skin": (150, 205, 120),
    "blue skin": (140, 180, 235),
}
HEADS = ("round head", "square head", "triangle head")
HAIR_COLOURS = ("red", "yellow", "green", "blue", "purple", "black", "brown", "pink")
STYLES = ("short hair", "long hair", "spiked hair", "twintails", BALD)
EYE_COLOURS = ("red", "green", "blue", "yellow", "purple", "black")
HATS = (NONE, "top hat", "bow", "crown")
MOUTHS = ("smile", "open mouth", "frown")
SHIRTS = ("red", "blue", "green", "yellow", "black", "white", "purple")
PROPS = (NONE, "star", "moon", "heart", "cloud")
ATTRIBUTES = ("head", "skin", "hair", "style", "eyes", "hat", "mouth", "shirt", "prop")
CONSTANT = ("head", "skin", "hair", "style", "eyes", "hat")  # what makes a character who it is

_HETEROCHROMIA_SHARE = 0.12
_INK: Colour = (25, 25, 30)
_OPEN_MOUTH: Colour = (170, 40, 50)
_EYE_WHITE: Colour = (255, 255, 255)
_CELL = 8  # pixels the autoencoder makes one latent cell of; figures move by whole cells
_FIGURE = 44 / 64  # a figure's size as a share of the picture's shorter side


@dataclass(frozen=True)
class Character:
    """One character's attributes, each a value of the lists above; `eyes` are the colours of the left and right eye."""

    head: str
    skin: str
    hair: str
    style: str
    eyes: tuple[str, str]
    hat: str
    mouth: str
    shirt: str
    prop: str


@dataclass(frozen=True)
class Place:
    """Where things stand in a picture: the figure's distance from the middle in cells of 8 pixels, the prop's side."""

    right: int = 0
    down: int = 0
    prop_side: int = 1  # -1 left, 1 right


def sample(rng: random.Random) -> Character:
    """Draw any character, held out or not."""
    left = right = rng.choice(EYE_COLOURS)
    if rng.random() < _HETEROCHROMIA_SHARE:
        right = rng.choice([colour for colour in EYE_COLOURS if colour != left])
    return Character(
        head=rng.choice(HEADS),
        skin=rng.choice(list(SKINS)),
        hair=rng.choice(HAIR_COLOURS),
        style=rng.choice(STYLES),
        eyes=(left, right),
        hat=rng.choice((NONE, *HATS)),  # two in five go bareheaded
        mouth=rng.choice(MOUTHS),
        shirt=rng.choice(SHIRTS),
        prop=rng.choice(PROPS),
    )


def sample_seen(rng: random.Random) -> Character:
    """Draw a character that models may be trained on."""
    return _sample_where(rng, held_out=False)


def character_of(seed: int) -> Character:
    """The character of a number: one that is held out if the number ends in 0, else one that is not."""
    return _sample_where(random.Random(seed), held_out=seed % 10 == 0)


def _sample_where(rng: random.Random, held_out: bool) -> Character:
    while True:
        character = sample(rng)
        if is_held_out(character) == held_out:
            return character


def is_held_out(character: Character) -> bool:
    """Whether no model may be trained on this character; looks at its constant attributes alone.

    Characters that look alike but for their eyes changed over are held out together, and so are bald ones whatever the
    hair that they do not have.
    """
    hair = "" if character.style == BALD else character.hair
    parts = (character.head, character.skin, hair, character.style, *sorted(character.eyes), character.hat)
    return hashlib.sha256("/".join(parts).encode()).digest()[0] % 10 == 0


def attribute_tags(character: Character, attribute: str) -> tuple[str, ...]:
    """The tags that one attribute gives, in order; none for hair that is not there, "no hat" and "no prop"."""
    value = getattr(character, attribute)
    if attribute == "eyes":
        left, right = character.eyes
        return (f"{left} eyes",) if left == right else (HETEROCHROMIA, f"{left} eyes", f"{right} eyes")
    if attribute == "hair":
        return () if character.style == BALD else (f"{value} hair",)
    if attribute == "shirt":
        return (f"{value} shirt",)
    return () if value == NONE else (value,)


def tags(character: Character) -> list[str]:
    """Everything that is to be seen in a picture of the character, with spaces in the names."""
    described = (tag for attribute in ATTRIBUTES for tag in attribute_tags(character, attribute))
    return ["solo", *described, "white background"]


def all_tags() -> list[str]:
    """Every tag of the world."""
    return [
        "solo",
        *HEADS,
        *SKINS,
        *(f"{colour} hair" for colour in HAIR_COLOURS),
        *STYLES,
        HETEROCHROMIA,
        *(f"{colour} eyes" for colour in EYE_COLOURS),
        *HATS[1:],
        *MOUTHS,
        *(f"{colour} shirt" for colour in SHIRTS),
        *PROPS[1:],
        "white background",
    ]


def sample_place(rng: random.Random, width: int, height: int) -> Place:
    """Draw where things stand in a picture of that size: a figure moves along the longer side, and a little across."""
    right = rng.choice((-1, 0, 0, 1) if width <= height else (-2, -1, 0, 1, 2))
    down = rng.choice((-1, 0, 1)) if height > width else 0
    return Place(right, down, rng.choice((-1, 1)))


def render(character: Character, width: int, height: int, rng: random.Random, supersampling: int = 3) -> Image.Image:
    """Draw a character, its place drawn from `rng`; the same state of `rng` gives the same pixels. See `draw`."""
    return draw(character, width, height, sample_place(rng, width, height), supersampling)


def draw(character: Character, width: int, height: int, place: Place, supersampling: int = 3) -> Image.Image:
    """Draw a character as an RGB picture of width × height pixels, from `supersampling` times as many on each side.

    Geometry and colours are what the weights in models/ know: whoever changes them has to train anew.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width * supersampling, height * supersampling), COLOURS["white"])
    canvas = ImageDraw.Draw(picture)
    size = _FIGURE * supersampling * min(width, height)
    line = max(2, int(size * 0.018))
    if character.prop != NONE:
        corner = (width / 2 + place.prop_side * (width / 2 - 9)) * supersampling
        _draw_prop(_Pen(canvas, (corner, 9 * supersampling), 8 * supersampling, line), character.prop)
    cell = _CELL * supersampling
    middle = (width * supersampling / 2 + cell * place.right, height * supersampling / 2 + cell * place.down)
    pen = _Pen(canvas, middle, size / 2, line)
    pen.shape([(-0.75, 1.9), (-0.6, 0.95), (0.6, 0.95), (0.75, 1.9)], COLOURS[character.shirt])
    _draw_hair(pen, character.style, COLOURS[character.hair])
    _draw_head(pen, character.head, SKINS[character.skin])
    if character.style != BALD:
        fringe = [(-0.8, -0.62), (0.8, -0.62), (0.6, -0.3), (0.3, -0.42), (0, -0.25), (-0.3, -0.42), (-0.6, -0.3)]
        pen.shape(fringe, COLOURS[character.hair])
    for x, colour in zip((-0.36, 0.36), character.eyes, strict=True):
        pen.ellipse((x, 0.05), (0.26, 0.28), _EYE_WHITE)
        pen.ellipse((x, 0.07), (0.2, 0.22), COLOURS[colour])
    _draw_mouth(pen, character.mouth)
    _draw_hat(pen, character.hat)
    return picture.resize((width, height), Image.Resampling.LANCZOS)


class _Pen:
    """Draws in a figure's own units: its middle is the origin, y points down, `unit` is the pixels of 1."""

    def __init__(self, canvas: ImageDraw.ImageDraw, origin: Point, unit: float, line: int) -> None:
        self.canvas = canvas
        self.origin = origin
        self.unit = unit
        self.line = line

    def at(self, x: float, y: float) -> Point:
        return self.origin[0] + x * self.unit, self.origin[1] + y * self.unit

    def box(self, left: float, top: float, right: float, bottom: float) -> list[Point]:
        return [self.at(left, top), self.at(right, bottom)]

    def ellipse(self, centre: Point, radii: Point, fill: Colour) -> None:
        (x, y), (rx, ry) = centre, radii
        self.canvas.ellipse(self.box(x - rx, y - ry, x + rx, y + ry), fill=fill, outline=_INK, width=self.line)

    def shape(self, points: Iterable[Point], fill: Colour) -> None:
        corners = [self.at(x, y) for x, y in points]
        self.canvas.polygon(corners, fill=fill)
        self.canvas.line([*corners, corners[0]], fill=_INK, width=self.line, joint="curve")

    def token(self, points: Iterable[Point], fill: Colour) -> None:
        """A shape whose outline stays within it."""
        self.canvas.polygon([self.at(x, y) for x, y in points], fill=fill, outline=_INK, width=self.line)

    def arc(self, box: Sequence[float], start: float, end: float) -> None:
        """A curve from `start` to `end`, degrees clockwise from three o'clock."""
        self.canvas.arc(self.box(*box), start, end, fill=_INK, width=self.line * 2)


def _draw_prop(pen: _Pen, prop: str) -> None:
    if prop == "star":
        radii = [1 if corner % 2 == 0 else 0.45 for corner in range(10)]
        turns = [corner * math.pi / 5 for corner in range(10)]
        star = [(math.sin(turn) * radius, -math.cos(turn) * radius) for turn, radius in zip(turns, radii, strict=True)]
        pen.token(star, COLOURS["yellow"])
    elif prop == "moon":
        pen.ellipse((0, 0), (0.9, 0.9), COLOURS["grey"])
    elif prop == "heart":
        left = [(0, 0.9), (-0.95, -0.1), (-0.7, -0.8), (-0.25, -0.8), (0, -0.4)]
        pen.token([*left, (0.25, -0.8), (0.7, -0.8), (0.95, -0.1)], COLOURS["red"])
    else:
        pen.token([(-1, 0.5), (-1, 0), (-0.5, -0.5), (0.3, -0.6), (1, 0), (1, 0.5)], COLOURS["aqua"])


def _draw_hair(pen: _Pen, style: str, colour: Colour) -> None:
    """The hair behind the head."""
    if style == BALD:
        return
    if style == "long hair":
        pen.ellipse((0, 0.25), (0.98, 1.25), colour)
    elif style == "twintails":
        pen.ellipse((-1.12, 0.25), (0.3, 0.75), colour)
        pen.ellipse((1.12, 0.25), (0.3, 0.75), colour)
    pen.ellipse((0, -0.28), (0.92, 0.85), colour)
    if style == "spiked hair":
        left = [(-0.95, -0.2), (-1.05, -1.05), (-0.62, -0.8), (-0.5, -1.45), (-0.15, -1.0)]
        pen.shape([*left, (0, -1.6), *((-x, y) for x, y in reversed(left))], colour)


def _draw_head(pen: _Pen, head: str, colour: Colour) -> None:
    if head == "round head":
        pen.ellipse((0, 0.15), (0.8, 0.82), colour)
    elif head == "square head":
        pen.shape([(-0.75, -0.6), (0.75, -0.6), (0.75, 0.92), (-0.75, 0.92)], colour)
    else:
        pen.shape([(-0.85, -0.6), (0.85, -0.6), (0, 1.08)], colour)


def _draw_mouth(pen: _Pen, mouth: str) -> None:
    if mouth == "smile":
        pen.arc((-0.25, 0.3, 0.25, 0.62), 20, 160)
    elif mouth == "open mouth":
        pen.ellipse((0, 0.52), (0.14, 0.14), _OPEN_MOUTH)
    else:
        pen.arc((-0.22, 0.48, 0.22, 0.8), 200, 340)


def _draw_hat(pen: _Pen, hat: str) -> None:
    if hat == "top hat":
        left = [(-0.95, -0.72), (-0.95, -0.9), (-0.6, -0.9), (-0.6, -1.6)]
        pen.shape([*left, *((-x, y) for x, y in reversed(left))], COLOURS["black"])
    elif hat == "crown":
        left = [(-0.7, -0.7), (-0.8, -1.4), (-0.4, -1.05)]
        pen.shape([*left, (0, -1.5), *((-x, y) for x, y in reversed(left))], COLOURS["yellow"])
    elif hat == "bow":
        for side in (-1, 1):
            pen.shape([(0, -0.95), (side * 0.65, -1.3), (side * 0.65, -0.65)], COLOURS["red"])


def vary(character: Character, rng: random.Random, constant: Sequence[str] = CONSTANT) -> Character:
    """The same character on another day: every attribute but the `constant` ones is drawn anew."""
    other = asdict(sample(rng))
    return replace(character, **{name: other[name] for name in ATTRIBUTES if name not in constant})


def draw_dataset(
    folder: Path, character: Character, count: int, seed: int, constant: Sequence[str] = CONSTANT
) -> tuple[str, ...]:
    """Write `count` pictures of one character and their true tags: 001.png beside 001.txt, and so on.

    Place, size and all attributes that are not `constant` vary; the same arguments give the same files. Returns the
    names of the attributes that are the same in every picture.

    Raises:
        InputError: the count is not positive, or `constant` names no attribute.
        StorageError: the folder cannot be written.
    """
    if count < 1:
        raise InputError(f"{count} pictures cannot be drawn.", "Ask for one or more.")
    unknown = sorted(set(constant) - set(ATTRIBUTES))
    if unknown:
        raise InputError(f'"{unknown[0]}" is no attribute.', f"The attributes are {', '.join(ATTRIBUTES)}.")
    for index in range(count):
        rng = random.Random(f"{seed}/{index}")
        today = vary(character, rng, constant)
        width, height = rng.choice(SIZES)
        content = io.BytesIO()
        render(today, width, height, rng).save(content, "PNG")
        write_bytes(folder / f"{index + 1:03d}.png", content.getvalue())
        write_text(folder / f"{index + 1:03d}.txt", ", ".join(tags(today)))
    return tuple(name for name in ATTRIBUTES if name in constant)
