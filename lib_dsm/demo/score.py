"""How well a picture shows a character, as the micro tagger reads it.

`python -m lib_dsm.demo.score [CHECKPOINT]` has a checkpoint draw characters that are held out from their tags, and says
what share of each attribute comes out right.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.demo import world
from lib_dsm.demo.install import CHECKPOINT, TAGGER

if TYPE_CHECKING:
    from PIL import Image

    from lib_dsm.diffusion.protocol import DiffusionModel
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


def drawn_right(model: DiffusionModel, count: int, cfg: float = 5.0, clip_skip: int = 1) -> dict[str, float]:
    """The share, 0 to 1, of each attribute that comes out right when `count` held-out characters are drawn from tags.

    64×64 pixels, 20 steps of Euler a; "constant" is the share over all attributes that make a character who it is.
    """
    from PIL import Image

    from lib_dsm.diffusion.sampling import sample

    found: dict[str, list[bool]] = {name: [] for name in (*world.ATTRIBUTES, "constant")}
    unconditional = model.encode_prompts([""], {}, clip_skip)
    for index in range(count):
        character = world.character_of(10 * index)
        conditioning = model.encode_prompts([", ".join(world.tags(character))], {}, clip_skip)
        latents = sample(
            model, conditioning, unconditional, width=64, height=64, steps=20, cfg=cfg, sampler="Euler a", seed=index
        )
        pixels = ((model.decode_latents(latents)[0] + 1) * 127.5).round().clamp(0, 255).byte()
        for name, right in shown(Image.fromarray(pixels.permute(1, 2, 0).numpy()), character).items():
            found[name].append(right)
            if name in world.CONSTANT:
                found["constant"].append(right)
    return {name: sum(rights) / len(rights) for name, rights in found.items() if rights}


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


def main() -> None:
    """The command line."""
    from lib_dsm.host.studio import load_model

    parser = argparse.ArgumentParser(description="Count the attributes that a checkpoint draws right from tags.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=60, help="characters")
    parser.add_argument("--cfg", type=float, default=5.0, help="guidance scale")
    parser.add_argument("--clip-skip", type=int, default=1, help="1 uses the text encoder's last layer")
    options = parser.parse_args()
    for name, share in drawn_right(
        load_model(options.checkpoint), options.count, options.cfg, options.clip_skip
    ).items():
        print(f"{name:8} {share:.0%}")


if __name__ == "__main__":
    main()
