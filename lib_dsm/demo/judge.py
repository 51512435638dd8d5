"""Which attributes of a character a picture shows, as the micro tagger reads it, which knows rendered pictures only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.demo import world
from lib_dsm.demo.install import TAGGER

if TYPE_CHECKING:
    from PIL import Image

    from lib_dsm.tagging.session import Tagger

_PRESENT = 0.5

Scores = Mapping[str, float]


@cache
def _tagger(folder: Path) -> Tagger:
    from lib_dsm.tagging.session import Tagger

    return Tagger(folder)


def read(pictures: Sequence[Image.Image], folder: Path = TAGGER) -> list[dict[str, float]]:
    """The tagger's score, 0 to 1, of every tag of the world (with spaces) and of its other labels, for each picture.

    Raises:
        ModelError: onnxruntime is missing or the folder holds no tagger.
    """
    import numpy as np

    from lib_dsm.tagging.preprocess import prepare

    tagger = _tagger(folder)
    names = [name.replace("_", " ") for name in tagger.labels.names]
    scores = tagger.scores(np.stack([prepare(picture.convert("RGB"), tagger.side) for picture in pictures]))
    return [dict(zip(names, row, strict=True)) for row in scores.tolist()]


def attributes_right(picture: Image.Image, character: world.Character) -> tuple[int, int]:
    """How many of a character's constant attributes the picture shows, and of how many; see `shown`."""
    found = [right for name, right in shown(picture, character).items() if name in world.CONSTANT]
    return sum(found), len(found)


def shown(picture: Image.Image, character: world.Character) -> dict[str, bool]:
    """Whether the picture shows each attribute of the character.

    An attribute is right if its true value is the likeliest of its values. Which eye has which colour is not looked at,
    and the colour of hair that is not there is left out.
    """
    scores = read([picture])[0]
    attributes = [name for name in world.ATTRIBUTES if not (name == "hair" and character.style == world.BALD)]
    return {name: _read(name, scores) == _truth(name, character) for name in attributes}


def _truth(attribute: str, character: world.Character) -> object:
    value = getattr(character, attribute)
    return frozenset(value) if attribute == "eyes" else value


def _read(attribute: str, scores: Scores) -> object:
    if attribute == "eyes":
        count = 2 if scores[world.HETEROCHROMIA] > _PRESENT else 1
        by_score = sorted(world.EYE_COLOURS, key=lambda colour: scores[f"{colour} eyes"], reverse=True)
        return frozenset(by_score[:count])
    if attribute in ("hair", "shirt"):
        colours = world.HAIR_COLOURS if attribute == "hair" else world.SHIRTS
        return max(colours, key=lambda colour: scores[f"{colour} {attribute}"])
    if attribute in ("hat", "prop"):
        things = (world.HATS if attribute == "hat" else world.PROPS)[1:]
        likeliest = max(things, key=scores.__getitem__)
        return likeliest if scores[likeliest] > _PRESENT else world.NONE
    choices = {"head": world.HEADS, "skin": tuple(world.SKINS), "style": world.STYLES, "mouth": world.MOUTHS}[attribute]
    return max(choices, key=scores.__getitem__)
