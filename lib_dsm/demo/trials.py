"""The trials that prove what training does in the demo world: which embeddings are trained, and what is compared.

The claims are those that guides for training embeddings make; here each is a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from lib_dsm.dataset.pruned import fitting_tags
from lib_dsm.demo import world
from lib_dsm.demo.install import CHECKPOINT
from lib_dsm.training.config import PreviewRequest, RunConfig

NAME = "zorgle"
PROMPT = "solo, [name], white background"
STEPS = 150
LEARNING_RATE = 0.1
PICTURES = 40
VECTORS = 8
FEW_VECTORS = 4  # fewer than a character's own tags have tokens
ENOUGH_VECTORS = 24
CHARACTERS = (10, 20, 30, 40, 50)  # the first that are held out from every model's training
CLAIMS_ON = CHARACTERS[:2]


@dataclass(frozen=True)
class Trial:
    """One embedding: whose, from what pictures and captions, with which settings changed."""

    character: int
    name: str = "usual"
    pictures: int = PICTURES
    named: bool = False  # whether the captions name what makes the character who it is
    # "tags": all the character's own tags; "cut": as many of their tokens as there are vectors; "pruned": whole tags,
    # as many as fit, as the Train tab takes them from what was pruned.
    init: str = "solo"
    foreign_vae: bool = False
    clip_skip_resumed: int = 1  # the CLIP skip of the second half
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> str:
        """The name of the trial's folder."""
        return f"{self.name}-{self.character}"

    def config(self, dataset: Path, checkpoint: Path = CHECKPOINT) -> RunConfig:
        """The settings of the run."""
        config = RunConfig(
            name=NAME,
            checkpoint=str(checkpoint),
            dataset=str(dataset),
            vectors=VECTORS,
            init_text=self.init,
            learning_rate=learning_rate(),
            max_steps=STEPS,
            batch_size=4,
            gradient_accumulation=1,
            width=96,
            height=64,
            size_step=8,
            timestep_sampling="logit-normal",
            save_every=0,
            preview_every=0,
        )
        config = replace(config, **self.settings)
        if self.init == "pruned":
            words = own_tags(world.character_of(self.character))
            return replace(config, init_text=fitting_tags(words, config.vectors, _tokens))
        if self.init in ("tags", "cut"):
            config = replace(config, init_text=self._own_tags(config.vectors if self.init == "cut" else None))
        return config

    def request(self, number: int) -> PreviewRequest:
        """The picture of that number by which the embedding is judged."""
        prompt = PROMPT.replace("[name]", NAME)
        return PreviewRequest(prompt=prompt, seed=1000 + number, steps=20, cfg=3.0, width=64, height=64)

    def draw(self, folder: Path) -> None:
        """Write the pictures and their captions."""
        person = world.character_of(self.character)
        world.draw_dataset(folder, person, self.pictures, seed=self.character)
        if not self.named:
            own = set(own_tags(person))
            for caption in folder.glob("*.txt"):
                kept = [tag for tag in caption.read_text(encoding="utf-8").split(", ") if tag not in own]
                caption.write_text(", ".join(kept), encoding="utf-8")

    def _own_tags(self, tokens: int | None) -> str:
        text = ", ".join(own_tags(world.character_of(self.character)))
        # Each of the first words is one token of CLIP's vocabulary, and so is a comma.
        return text if tokens is None else " ".join(re.findall(r"\w+|,", text)[:tokens])


def _tokens(text: str) -> list[str]:
    # The few words of the world are one token each, but for these.
    return text.replace("twintails", "twin tails").replace("heterochromia", "he ter o chromia").split()


def learning_rate(factor: float = 1.0) -> str:
    """The schedule of the rate, times `factor`: less in the last third."""
    rate = LEARNING_RATE * factor
    return f"{rate:g}:{STEPS * 2 // 3}, {rate / 5:g}"


def own_tags(character: world.Character) -> list[str]:
    """The tags of what makes a character who it is."""
    return [tag for name in world.CONSTANT for tag in world.attribute_tags(character, name)]


@dataclass(frozen=True)
class Claim:
    """A claim, how it is tried, and how it is done right: on the same characters, everything else the same."""

    title: str
    tried: Trial
    right: Trial

    def pairs(self) -> list[tuple[Trial, Trial]]:
        """What is tried and what it is compared with, for each of the characters."""
        return [
            (replace(self.tried, character=character), replace(self.right, character=character))
            for character in CLAIMS_ON
        ]


def usual(character: int) -> Trial:
    """Everything as it should be."""
    return Trial(character)


def claims() -> list[Claim]:
    """What the guides say, each to be tried."""
    some = usual(CLAIMS_ON[0])
    told = replace(some, name="init-whole", init="tags", settings={"vectors": ENOUGH_VECTORS})
    return [
        Claim("Captions not pruned", replace(some, name="unpruned", named=True), some),
        Claim("A foreign VAE while training", replace(some, name="foreign-vae", foreign_vae=True), some),
        Claim("CLIP skip 2 from the middle on", replace(some, name="clip-skip", clip_skip_resumed=2), some),
        Claim(
            f"Init text cut off at {FEW_VECTORS} vectors",
            replace(some, name="init-cut", init="cut", settings={"vectors": FEW_VECTORS}),
            told,
        ),
        Claim("8 pictures", replace(some, name="pictures-8", pictures=8), some),
        Claim(
            "Ten times the learning rate",
            replace(some, name="rate-times-10", settings={"learning_rate": learning_rate(10)}),
            some,
        ),
        Claim(
            "A tenth of the learning rate",
            replace(some, name="rate-by-10", settings={"learning_rate": learning_rate(0.1)}),
            some,
        ),
    ]


def every_trial() -> list[Trial]:
    """All trials that a proof needs, each once; those that most depends on come first."""
    found = [usual(character) for character in CHARACTERS]
    for claim in claims():
        found += [trial for pair in claim.pairs() for trial in pair if trial not in found]
    return found
