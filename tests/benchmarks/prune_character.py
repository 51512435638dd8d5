"""How well the proposal of a character's tags meets what the character really is, on the demo world and elsewhere.

    python -m tests.benchmarks.prune_character [--characters 50] [--pictures 40] [--json]

The demo world's captions are exactly known: six attributes are the same in every picture, everything else is drawn anew
for each. Proposed are tags; right are those that the six attributes give. Beside the true captions the same is done
with captions as a tagger would leave them: every tag is lost in one picture of five and other tags of the world come in
by chance. The captions of imageboard characters in `tests/pruning/booru_characters.py` are judged as well, since the
table of kinds must not know the demo world alone.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from pathlib import Path
from typing import Any

from lib_dsm.dataset.matching import tag_key
from lib_dsm.dataset.tag_index import TagIndex
from lib_dsm.demo import world
from lib_dsm.pruning.character import character_tags
from tests.pruning.booru_characters import CHARACTERS, captions_of


def proposed(captions: list[list[str]]) -> set[str]:
    """What is proposed for a set with these captions."""
    with tempfile.TemporaryDirectory() as name:
        for number, tags in enumerate(captions):
            (Path(name) / f"{number}.png").touch()
            (Path(name) / f"{number}.txt").write_text(", ".join(tags), encoding="utf-8")
        return {tag_key(proposal.tag) for proposal in character_tags(TagIndex.read(Path(name)))}


def demo_character(seed: int, pictures: int, lost: float) -> tuple[set[str], list[list[str]]]:
    """The tags of a random character's constant attributes, and its captions, with this share of the tags lost."""
    rng = random.Random(f"prune/{seed}")
    character = world.sample(rng)
    constant = {tag for name in world.CONSTANT for tag in world.attribute_tags(character, name)}
    captions = []
    for _ in range(pictures):
        tags = [tag for tag in world.tags(world.vary(character, rng)) if rng.random() >= lost]
        tags += [rng.choice(world.all_tags()) for _ in range(2) if rng.random() < lost]
        captions.append(list(dict.fromkeys(tags)))
    return constant, captions


def judge(sets: list[tuple[set[str], list[list[str]]]]) -> dict[str, Any]:
    """Precision, recall, and how many sets were met exactly."""
    right = wrong = missed = exact = 0
    confused: dict[str, int] = {}
    for constant, captions in sets:
        found = proposed(captions)
        right += len(found & constant)
        wrong += len(found - constant)
        missed += len(constant - found)
        exact += found == constant
        for tag in found ^ constant:
            confused[tag] = confused.get(tag, 0) + 1
    return {
        "sets": len(sets), "precision": right / max(1, right + wrong), "recall": right / max(1, right + missed),
        "exactly": exact, "confused": confused,
    }  # fmt: skip


def measure(characters: int = 50, pictures: int = 40) -> dict[str, dict[str, Any]]:
    """All three judgements."""
    return {
        "demo world, true captions": judge([demo_character(seed, pictures, 0.0) for seed in range(characters)]),
        "demo world, as a tagger": judge([demo_character(seed, pictures, 0.2) for seed in range(characters)]),
        "imageboard characters": judge(
            [(set(map(tag_key, item.own)), captions_of(item, pictures, seed)) for seed, item in enumerate(CHARACTERS)]
        ),
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=50)
    parser.add_argument("--pictures", type=int, default=40)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.characters, arguments.pictures)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    for name, result in found.items():
        print(
            f"{name:28} {result['sets']:3} sets  precision {result['precision']:.3f}  recall {result['recall']:.3f}  "
            f"exactly {result['exactly']}  {result['confused'] or ''}"
        )


if __name__ == "__main__":
    main()
