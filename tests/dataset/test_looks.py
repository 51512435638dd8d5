import io
import time

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lib_dsm.dataset import looks as module
from lib_dsm.dataset.looks import MOST_PAIRS, Alike, alike, look, looks


def drawing(seed: int, size=(480, 640), ground="white") -> Image.Image:
    """Some ellipses and boxes in the middle of a plain ground."""
    random = np.random.default_rng(seed)
    image = Image.new("RGB", size, ground)
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        x, y = random.integers(60, size[0] - 160), random.integers(60, size[1] - 160)
        box = (x, y, x + random.integers(40, 150), y + random.integers(40, 150))
        (pen.ellipse if random.random() < 0.5 else pen.rectangle)(box, tuple(random.integers(0, 255, 3)))
    return image


def as_jpeg(image: Image.Image, quality: int) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return Image.open(file).convert("RGB")


def pairs(images: dict) -> set:
    return {(first, second) for first, second, _ in alike({name: look(image) for name, image in images.items()}).pairs}


@pytest.mark.parametrize("seed", range(5))
def test_copies_that_were_saved_anew_shrunk_or_trimmed_are_found(seed):
    image = drawing(seed)
    trimmed = image.crop((3, 3, image.width - 3, image.height - 3))
    copies = {
        "whole": image,
        "jpeg": as_jpeg(image, 40),
        "small": image.resize((240, 320), Image.Resampling.LANCZOS),
        "trimmed": trimmed,
    }
    assert {("whole", name) for name in list(copies)[1:]} <= pairs(copies)


def test_figures_on_the_same_plain_ground_are_not_alike_because_of_it():
    assert pairs({seed: drawing(seed) for seed in range(40)}) == set()


def test_plain_pictures_are_told_apart_by_their_colour():
    grounds = {name: Image.new("RGB", (64, 64), name) for name in ("white", "red", "navy", "snow")}
    assert pairs(grounds) == {("white", "snow")}


def test_the_same_shapes_in_other_colours_are_another_picture():
    image = drawing(0)
    red, green, blue = image.split()
    assert pairs({"one": image, "turned": Image.merge("RGB", (blue, red, green))}) == set()
    assert pairs({"one": image, "again": image.copy()}) == {("one", "again")}


def test_looks_are_kept_until_the_file_changes(tmp_path, monkeypatch):
    for name in "ab":
        drawing(1).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no picture", encoding="utf-8")
    paths, cache = sorted(tmp_path.glob("*.png")), tmp_path / "data" / "looks.json"
    first = looks(paths, cache, 60)
    assert list(first) == paths[:2] and alike(first).count == 1
    read = []
    original = module.read_picture
    monkeypatch.setattr(module, "read_picture", lambda path, **how: read.append(path.name) or original(path, **how))
    assert looks(paths, cache, 60) == first and read == []
    drawing(2).save(paths[1])
    assert alike(looks(paths, cache, 60)) == Alike(0, 0, ()) and read == ["b.png"]


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 1, "looks": {"a": "xyz"}}', '{"version": 1, "looks": []}'])
def test_a_damaged_cache_is_made_anew(tmp_path, content):
    drawing(1).save(tmp_path / "a.png")
    cache = tmp_path / "looks.json"
    cache.write_text(content, encoding="utf-8")
    assert looks([tmp_path / "a.png"], cache, 60) == looks([tmp_path / "a.png"], cache, 0)


def test_the_time_is_bounded_and_the_next_call_goes_on(tmp_path):
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for path in paths:
        drawing(1).save(path)
    cache = tmp_path / "looks.json"
    assert looks(paths, cache, -1) == {}
    assert len(looks(paths[:2], cache, 60)) == 2
    assert len(looks(paths, cache, -1)) == 2


def test_huge_pictures_are_decoded_only_where_that_is_cheap(tmp_path):
    image = drawing(1).resize((6000, 4500))
    image.save(tmp_path / "huge.png")
    image.save(tmp_path / "huge.jpg", quality=80)
    begun = time.monotonic()
    found = looks([tmp_path / "huge.png", tmp_path / "huge.jpg"], tmp_path / "looks.json", 60)
    assert [path.name for path in found] == ["huge.jpg"]
    assert time.monotonic() - begun < 5


def test_many_pictures_are_compared_quickly():
    random = np.random.default_rng(0)
    many = {number: random.bytes(len(look(drawing(0)))) for number in range(1500)}
    many[1500] = many[17]
    begun = time.monotonic()
    assert [pair[:2] for pair in alike(many).pairs] == [(17, 1500)]
    assert time.monotonic() - begun < 20


def test_many_copies_are_counted_quickly_and_some_named():
    own, colourful = look(drawing(0)), look(drawing(0, ground="red"))
    many = dict.fromkeys(range(2000), own)
    many[2000] = colourful
    begun = time.monotonic()
    found = alike(many)
    assert time.monotonic() - begun < 2
    assert (found.pictures, found.count, len(found.pairs)) == (2000, 1999 * 1000, MOST_PAIRS)
    assert found.pairs[:2] == ((0, 1, 1.0), (0, 2, 1.0))
