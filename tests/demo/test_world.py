from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.demo import world
from lib_dsm.errors import InputError

PIP = world.Character(
    head="round head",
    skin="dark skin",
    hair="red",
    style="twintails",
    eyes=("blue", "green"),
    hat="crown",
    mouth="smile",
    shirt="white",
    prop="moon",
)


def test_geometry_and_colours_are_those_the_weights_know() -> None:
    """world.png was drawn by the renderer that the weights were first trained with."""
    sheet = Image.open(Path(__file__).with_name("world.png")).convert("RGB")
    for seed in range(24):
        width, height = world.SIZES[seed % 3]
        right = (0, 1, -1)[seed // 3 % 3]
        down = 1 - seed % 2 * 2 if height > width else 0
        place = world.Place(right, down, (1, -1, 1)[seed // 3 % 3])
        drawn = np.asarray(world.draw(world.character_of(seed), width, height, place), np.int16)
        left, top = seed % 8 * 96, seed // 8 * 96
        known = np.asarray(sheet.crop((left, top, left + width, top + height)), np.int16)
        assert np.abs(drawn - known).max() <= 2, seed


@pytest.mark.parametrize("size", world.SIZES)
def test_the_same_seed_draws_the_same_picture(size: tuple[int, int]) -> None:
    first = world.render(PIP, *size, random.Random(7))
    assert first.size == size and first.mode == "RGB"
    assert first.tobytes() == world.render(PIP, *size, random.Random(7)).tobytes()
    places = {world.render(PIP, *size, random.Random(seed)).tobytes() for seed in range(20)}
    assert len(places) > 3


def test_every_attribute_is_to_be_seen() -> None:
    changes = [
        {"head": "square head"}, {"skin": "blue skin"}, {"hair": "pink"}, {"style": "short hair"}, {"hat": "none"},
        {"eyes": ("blue", "red")}, {"mouth": "frown"}, {"shirt": "black"}, {"prop": "heart"},
    ]  # fmt: skip
    pictures = [world.draw(PIP, 64, 64, world.Place())]
    pictures += [world.draw(replace(PIP, **change), 64, 64, world.Place()) for change in changes]
    assert len({picture.tobytes() for picture in pictures}) == len(world.ATTRIBUTES) + 1


def test_tags_are_exact() -> None:
    assert world.tags(PIP) == [
        "solo", "round head", "dark skin", "red hair", "twintails", "heterochromia", "blue eyes", "green eyes",
        "crown", "smile", "white shirt", "moon", "white background",
    ]  # fmt: skip
    plain = replace(PIP, style="bald", eyes=("red", "red"), hat="none", prop="none", mouth="open mouth")
    assert world.tags(plain) == [
        "solo", "round head", "dark skin", "bald", "red eyes", "open mouth", "white shirt", "white background",
    ]  # fmt: skip


def test_every_tag_of_a_character_is_listed_once_among_all() -> None:
    known = world.all_tags()
    seen = {tag for seed in range(400) for tag in world.tags(world.character_of(seed))}
    assert seen == set(known) and len(known) == len(seen)


def test_seeds_that_end_in_0_are_held_out_and_no_others() -> None:
    for seed in range(300):
        assert world.is_held_out(world.character_of(seed)) == (seed % 10 == 0), seed
    rng = random.Random(0)
    assert not any(world.is_held_out(world.sample_seen(rng)) for _ in range(500))
    share = sum(world.is_held_out(world.sample(rng)) for _ in range(4000)) / 4000
    assert 0.08 < share < 0.12


def test_a_held_out_character_stays_so_whatever_does_not_tell_it_apart() -> None:
    for seed in range(0, 500, 10):
        character = world.character_of(seed)
        left, right = character.eyes
        alike = [
            replace(character, eyes=(right, left)),
            world.vary(character, random.Random(seed)),
            replace(character, hair="pink") if character.style == world.BALD else character,
        ]
        assert all(map(world.is_held_out, alike))


def test_a_dataset_shows_one_character_on_many_days(tmp_path: Path) -> None:
    character = world.character_of(30)
    constant = world.draw_dataset(tmp_path / "a", character, 40, seed=5)
    assert constant == world.CONSTANT
    pictures = sorted((tmp_path / "a").glob("*.png"))
    assert len(pictures) == 40
    captions = [path.with_suffix(".txt").read_text().split(", ") for path in pictures]
    own = {tag for name in world.CONSTANT for tag in world.attribute_tags(character, name)}
    assert set.intersection(*map(set, captions)) == own | {"solo", "white background"}
    assert {Image.open(path).size for path in pictures} == set(world.SIZES)
    for varying in (world.MOUTHS, world.PROPS[1:], [f"{colour} shirt" for colour in world.SHIRTS]):
        assert set(varying) <= {tag for caption in captions for tag in caption}

    world.draw_dataset(tmp_path / "b", character, 40, seed=5)
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_a_mouth_can_be_part_of_the_character(tmp_path: Path) -> None:
    constant = world.draw_dataset(tmp_path, PIP, 12, seed=1, constant=[*world.CONSTANT, "mouth"])
    assert constant == (*world.CONSTANT, "mouth")
    assert all("smile" in path.read_text() for path in tmp_path.glob("*.txt"))


def test_what_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="0 pictures"):
        world.draw_dataset(tmp_path, PIP, 0, seed=1)
    with pytest.raises(InputError, match='"nose"'):
        world.draw_dataset(tmp_path, PIP, 1, seed=1, constant=["nose"])
