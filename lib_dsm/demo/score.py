"""How good the demo world's models are: `python -m lib_dsm.demo.score [CHECKPOINT]`.

Held-out characters are drawn from their tags in every size of the world, taken through the autoencoder, and read by the
tagger; what is printed are the shares of attributes that come out right.
"""

from __future__ import annotations

import argparse
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from lib_dsm.demo import judge, world
from lib_dsm.demo.install import CHECKPOINT

if TYPE_CHECKING:
    from PIL import Image

    from lib_dsm.diffusion.protocol import DiffusionModel

F1_THRESHOLD = 0.35  # the taggers' usual one
_AT_ONCE = 20
_CFG = 3.0
_STEPS = 20


def held_out(count: int) -> list[world.Character]:
    """The first `count` characters that are held out."""
    return [world.character_of(10 * index) for index in range(count)]


def shares(judged: Iterable[Mapping[str, bool]]) -> dict[str, float]:
    """The share, 0 to 1, of pictures in which each attribute is right; "all": of all attributes, "constant": of those
    that make a character who it is."""
    rights: dict[str, list[bool]] = defaultdict(list)
    for shown in judged:
        for name, right in shown.items():
            for key in (name, "all", *(["constant"] if name in world.CONSTANT else [])):
                rights[key].append(right)
    return {name: sum(found) / len(found) for name, found in sorted(rights.items(), key=_place)}


def _place(share: tuple[str, object]) -> int:
    return (*world.ATTRIBUTES, "constant", "all").index(share[0])


def drawn_from_tags(
    model: DiffusionModel, count: int, size: tuple[int, int], cfg: float = _CFG, clip_skip: int = 1
) -> dict[str, float]:
    """The `shares` when held-out characters are generated from all their tags: 20 steps of Euler a."""
    from lib_dsm.diffusion.sampling import decode, sample

    def judged() -> Iterator[Mapping[str, bool]]:
        unconditional = model.encode_prompts([""], {}, clip_skip)
        characters = held_out(count)
        for start in range(0, count, _AT_ONCE):
            some = characters[start : start + _AT_ONCE]
            conditioning = model.encode_prompts([", ".join(world.tags(one)) for one in some], {}, clip_skip)
            seeds = range(start, start + len(some))
            latents = sample(
                model, conditioning, unconditional, width=size[0], height=size[1], steps=_STEPS, cfg=cfg,
                sampler="Euler a", seeds=seeds,
            )  # fmt: skip
            yield from map(judge.shown, decode(model, latents), some)

    return shares(judged())


def through_autoencoder(model: DiffusionModel, count: int) -> dict[str, float]:
    """The `shares` when rendered held-out characters are encoded and decoded, a third of them in each size."""
    import numpy as np
    import torch

    from lib_dsm.diffusion.sampling import decode

    def judged() -> Iterator[Mapping[str, bool]]:
        for character, picture in _rendered(count):
            pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 127.5 - 1.0
            mean, _ = model.encode_images(pixels)
            yield judge.shown(decode(model, mean * model.latent_scale)[0], character)

    return shares(judged())


def tagger_f1(count: int) -> float:
    """The tagger's F1, 0 to 1, as the mean over all tags of the world, on rendered held-out characters."""
    characters, pictures = zip(*_rendered(count), strict=True)
    truths = [set(world.tags(character)) for character in characters]
    found = [{tag for tag, score in row.items() if score > F1_THRESHOLD} for row in judge.read(pictures)]
    f1 = []
    for tag in world.all_tags():
        true = {index for index, tags in enumerate(truths) if tag in tags}
        claimed = {index for index, tags in enumerate(found) if tag in tags}
        f1.append(2 * len(true & claimed) / max(1, len(true) + len(claimed)))
    return sum(f1) / len(f1)


def _rendered(count: int) -> Iterator[tuple[world.Character, Image.Image]]:
    for index, character in enumerate(held_out(count)):
        size = world.SIZES[index % len(world.SIZES)]
        yield character, world.render(character, *size, random.Random(index))


def main() -> None:
    """The command line."""
    from lib_dsm.host.studio import load_model

    parser = argparse.ArgumentParser(description="Count what the demo world's models get right.")
    parser.add_argument("checkpoint", type=Path, nargs="?", default=CHECKPOINT)
    parser.add_argument("--count", type=int, default=100, help="characters (100)")
    parser.add_argument("--cfg", type=float, default=_CFG, help="guidance scale")
    parser.add_argument("--clip-skip", type=int, default=1, help="1 uses the text encoder's last layer")
    options = parser.parse_args()
    model = load_model(options.checkpoint)
    columns = {
        f"{size[0]}x{size[1]}": drawn_from_tags(model, options.count, size, options.cfg, options.clip_skip)
        for size in world.SIZES
    }
    columns["autoencoder"] = through_autoencoder(model, options.count)
    print(f"{options.count} held-out characters: drawn from tags in three sizes, and through the autoencoder")
    print("          " + "".join(f"{name:>12}" for name in columns))
    for name in columns["autoencoder"]:
        print(f"{name:10}" + "".join(f"{column[name]:12.1%}" for column in columns.values()))
    print(f"the tagger's macro F1 {tagger_f1(options.count):.3f}")


if __name__ == "__main__":
    main()
