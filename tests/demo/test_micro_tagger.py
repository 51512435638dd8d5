from __future__ import annotations

import random

import onnx
import pytest
from PIL import Image

from lib_dsm.demo import judge, score, world
from lib_dsm.demo.install import TAGGER
from lib_dsm.demo.tagger_labels import NAMED, labels, labels_of
from lib_dsm.demo.train_tagger import draw_training_picture


@pytest.fixture(scope="module")
def held_out() -> tuple[list[world.Character], list[Image.Image]]:
    """60 held-out characters in pictures of every size."""
    characters = [world.character_of(10 * index) for index in range(60)]
    pictures = [
        world.render(character, *world.SIZES[index % 3], random.Random(index))
        for index, character in enumerate(characters)
    ]
    return characters, pictures


def test_macro_f1_on_held_out_characters() -> None:
    assert score.tagger_f1(200) >= 0.95


def test_the_world_is_rated_general(held_out: tuple[list[world.Character], list[Image.Image]]) -> None:
    ratings = ("general", "sensitive", "questionable", "explicit")
    assert all(max(ratings, key=row.__getitem__) == "general" for row in judge.read(held_out[1][:10]))


def test_it_knows_the_named_characters_and_takes_no_other_for_them() -> None:
    named = [world.render(world.character_of(seed), 64, 64, random.Random(seed)) for seed in NAMED.values()]
    names = [name.replace("_", " ") for name in NAMED]
    for name, row in zip(names, judge.read(named), strict=True):
        assert max(names, key=row.__getitem__) == name and row[name] > 0.5
    others = [world.render(world.character_of(seed), 64, 64, random.Random(seed)) for seed in range(100, 140)]
    assert all(row[name] < 0.5 for row in judge.read(others) for name in names)


def test_attributes_are_read_right_from_a_true_picture_and_wrong_from_another(
    held_out: tuple[list[world.Character], list[Image.Image]],
) -> None:
    characters, pictures = held_out
    true = [judge.attributes_right(picture, character) for picture, character in zip(pictures, characters, strict=True)]
    assert {total for _, total in true} == {5, 6}
    assert sum(right for right, _ in true) / sum(total for _, total in true) > 0.93
    moved = zip(pictures, characters[1:] + characters[:1], strict=True)
    other = [judge.attributes_right(picture, character) for picture, character in moved]
    assert sum(right for right, _ in other) / sum(total for _, total in other) < 0.5


def test_the_file_is_of_the_wd14_layout_and_old_enough_for_every_onnxruntime() -> None:
    model = onnx.load(TAGGER / "model.onnx")
    assert model.ir_version <= 9
    assert [(opset.domain, opset.version <= 17) for opset in model.opset_import] == [("", True)]
    (source,) = model.graph.input
    batch, height, width, channels = source.type.tensor_type.shape.dim
    assert batch.dim_param and (height.dim_value, width.dim_value, channels.dim_value) == (64, 64, 3)
    rows = (TAGGER / "selected_tags.csv").read_text().splitlines()
    assert rows[0] == "tag_id,name,category,count"
    listed = [tuple(row.split(",")[1:3]) for row in rows[1:]]
    assert listed == [(name, str(category)) for name, category in labels()]


def test_no_held_out_character_is_in_its_training_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[world.Character] = []
    render = world.render

    def note(character: world.Character, width: int, height: int, rng: random.Random) -> Image.Image:
        drawn.append(character)
        return render(character, width, height, rng)

    monkeypatch.setattr(world, "render", note)
    found = [draw_training_picture(index)[1] for index in range(800)]
    assert len(drawn) == 800 and not any(map(world.is_held_out, drawn))
    assert all(labels_of(character) == labels for character, labels in zip(drawn, found, strict=True))
    assert any(set(NAMED) & labels for labels in found)
