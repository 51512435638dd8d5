"""What the micro diffusion model is trained on: characters as latents, and prompts drawn from their tags."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save

from lib_dsm.demo import world
from lib_dsm.files import read_json, write_bytes, write_text

_AT_ONCE = 32
_PROMPT_TOKENS = 77
# What people write before the tags; the world shows none of it, so a model has to learn that it means nothing here.
_OPENINGS = ("a photo of", "a picture of", "a drawing of", "a cropped photo of", "a portrait of", "a rendition of")
_OPENING_SHARE = 0.1
_STRAY_SHARE = 0.1
_TAG_DROPOUT = 0.08
_EMPTY_SHARE = 0.1


@dataclass(frozen=True)
class Corpus:
    """Characters of one size each: `latents[size]` N×4×h×w (scaled means), `tags[size]` their tags, `eyes[size]` N×h×w
    booleans, true where a latent shows a part of an eye."""

    latents: dict[tuple[int, int], torch.Tensor]
    tags: dict[tuple[int, int], list[list[str]]]
    eyes: dict[tuple[int, int], torch.Tensor]

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Read what `make_corpus` wrote."""
        stored = load_file(folder / "latents.safetensors")
        return cls(
            {size: stored[_name(size)].float() for size in world.SIZES},
            {size: read_json(folder / "tags.json")[_name(size)] for size in world.SIZES},
            {size: stored[f"{_name(size)} eyes"] for size in world.SIZES},
        )


def make_corpus(
    folder: Path, encode: Callable[[torch.Tensor], torch.Tensor], count: int, say: Callable[[str], None]
) -> Corpus:
    """Render `count` characters that are not held out, encode them, and write them to `folder`; or read what is there.

    `encode` takes pixels B×3×H×W in [-1, 1] to scaled latents B×4×H/8×W/8.
    """
    if (folder / "tags.json").exists():  # written last
        return Corpus.load(folder)
    each = count // len(world.SIZES)
    latents: dict[str, torch.Tensor] = {}
    tags: dict[str, list[list[str]]] = {}
    for width, height in world.SIZES:
        name = _name((width, height))
        encoded: list[torch.Tensor] = []
        eyes: list[torch.Tensor] = []
        tags[name] = []
        for start in range(0, each, _AT_ONCE):
            batch = []
            for index in range(start, min(start + _AT_ONCE, each)):
                rng = random.Random(f"{name}/{index}")
                character = world.sample_seen(rng)
                place = world.sample_place(rng, width, height)
                batch.append(_pixels(world.draw(character, width, height, place)))
                eyes.append(eye_cells(width, height, place))
                tags[name].append(world.tags(character))
            encoded.append(encode(torch.stack(batch)).half())
            if start % 1024 == 0:
                say(f"{name}: {start} characters drawn")
        latents[name] = torch.cat(encoded).contiguous()
        latents[f"{name} eyes"] = torch.stack(eyes)
    write_bytes(folder / "latents.safetensors", save(latents))
    write_text(folder / "tags.json", json.dumps(tags))
    return Corpus.load(folder)


def _name(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def eye_cells(width: int, height: int, place: world.Place) -> torch.Tensor:
    """Booleans height/8 × width/8, true in the two rows of four cells over which a figure's eyes extend."""
    cells = torch.zeros(height // 8, width // 8, dtype=torch.bool)
    down, right = height // 16 + place.down, width // 16 + place.right
    cells[down - 1 : down + 1, max(0, right - 2) : right + 2] = True
    return cells


def _pixels(picture: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 127.5 - 1


@dataclass(frozen=True)
class Prompt:
    """One prompt's token ids, padded to 77, and where in it each tag ends: (position, tag)."""

    ids: list[int]
    ends: list[tuple[int, str]]
    end: int


class PromptMaker:
    """Draws prompts as people write them: the tags in any order, some missing, now and then other words among them."""

    def __init__(self, tokenize: Callable[[str], list[int]], start: int, end: int) -> None:
        self._tags = {tag: tokenize(tag) for tag in world.all_tags()}
        self._openings = [tokenize(opening) for opening in _OPENINGS]
        self._comma = tokenize(",")
        self._start, self._end = start, end

    def draw(self, tags: Sequence[str], rng: random.Random) -> Prompt:
        """A prompt for a picture with these tags; one in ten is empty, for classifier-free guidance."""
        if rng.random() < _EMPTY_SHARE:
            return self._prompt([])
        chosen = [tag for tag in tags if rng.random() >= _TAG_DROPOUT]
        rng.shuffle(chosen)
        phrases: list[tuple[str, list[int]]] = [(tag, self._tags[tag]) for tag in chosen]
        if rng.random() < _STRAY_SHARE:
            phrases.insert(rng.randrange(len(phrases) + 1), ("", [rng.randrange(self._start)]))
        opening = rng.choice(self._openings) if rng.random() < _OPENING_SHARE else []
        return self._prompt(phrases, opening)

    def _prompt(self, phrases: Sequence[tuple[str, list[int]]], opening: Sequence[int] = ()) -> Prompt:
        ids = [self._start, *opening]
        ends: list[tuple[int, str]] = []
        for index, (tag, tokens) in enumerate(phrases):
            ids += [*(self._comma if index else []), *tokens]
            if tag:
                ends.append((len(ids) - 1, tag))
        if len(ids) >= _PROMPT_TOKENS:
            raise ValueError(f"{len(ids)} tokens do not fit into one prompt")
        return Prompt(ids + [self._end] * (_PROMPT_TOKENS - len(ids)), ends, len(ids))
