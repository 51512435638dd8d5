"""What the pictures show and what their captions say."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lib_dsm.dataset.looks import look
from lib_dsm.guards.finding import Severity
from lib_dsm.training.config import RunConfig
from lib_dsm.training.pictures import Plan, plan_pictures
from tests.guards.known import facts, finding_of, found, picture, tagged


@pytest.mark.parametrize(
    ("tags", "missing"),
    [(["from_side"], "from behind"), (["from behind"], "from side"), (["smile"], "from side or from behind")],
)
def test_views_that_no_picture_has_are_named_beside_those_it_has(tags, missing):
    pictures = [picture(0, tags=[*tags, "portrait"]), picture(1, tags=["looking at viewer", "full body"])]
    finding = finding_of(facts(pictures), "one-angle")
    assert finding.severity is Severity.INFO and f"no picture is {missing};" in finding.problem
    assert "looking at viewer 1" in finding.problem and "portrait 1, upper body 0, full body 1" in finding.problem
    assert "one-angle" not in found(facts(tagged()))
    assert "say nothing of the view" in finding_of(facts([picture()]), "one-angle").problem
    assert "one-angle" not in found(facts([picture(tags=[])]))  # nothing is known of it


def test_ways_of_drawing_that_only_some_pictures_have_are_counted():
    finding = finding_of(facts(tagged("sketch", "Pixel_Art", r"photo \(medium\)")), "mixed-styles")
    assert finding.severity is Severity.INFO
    assert "Of 120 pictures" in finding.problem
    for told in ("sketch 1", "pixel art 1", "photo (medium) 1"):
        assert told in finding.problem
    assert "mixed-styles" not in found(facts([picture(number, tags=["sketch"]) for number in range(9)]))
    assert "mixed-styles" not in found(facts(tagged("sketchbook")))


@pytest.mark.parametrize("tag", ["2girls", "3boys", "6+others", "multiple_girls", "Multiple views"])
def test_several_characters_are_listed(tag):
    finding = finding_of(facts(tagged(tag)), "several-characters")
    assert finding.severity is Severity.WARN and "0.png" in finding.problem


@pytest.mark.parametrize("tag", ["1girl", "solo", "multiple tails", "multiple earrings"])
def test_one_character_is_one_whatever_it_has_several_of(tag):
    assert "several-characters" not in found(facts(tagged(tag)))


def test_hidden_faces_are_listed():
    finding = finding_of(facts(tagged("head out of frame")), "face-hidden")
    assert finding.severity is Severity.WARN and "1 pictures" in finding.problem and "0.png" in finding.problem
    assert "face-hidden" not in found(facts(tagged("from behind")))


def test_the_ratio_of_decent_pictures_is_measured():
    pictures = [picture(number, tags=["smile"]) for number in range(12)]
    pictures[0] = picture(0, tags=["completely_nude", "rating:explicit"])
    pictures[1] = picture(1, tags=["nipples"])
    finding = finding_of(facts(pictures), "sfw-ratio")
    assert finding.severity is Severity.INFO
    assert "1 pictures are explicit, 1 show nudity and 10 neither, 5.0 to one" in finding.problem
    assert "sfw-ratio" not in found(facts(pictures[2:]))


def test_huge_pictures_are_named():
    finding = finding_of(facts([picture(source=(5000, 4000)), picture(1, source=(4096, 4096))]), "huge-images")
    assert finding.severity is Severity.INFO
    assert "0.png (5000×4000)" in finding.problem and "1.png" not in finding.problem


def test_pictures_that_look_alike_are_named_in_pairs():
    random = np.random.default_rng(0)
    noise = [Image.fromarray(random.integers(0, 255, (8, 8, 3), dtype=np.uint8)).resize((200, 200)) for _ in range(2)]
    pictures = [picture(number) for number in range(3)]
    looks = dict(zip((item.path for item in pictures), map(look, (noise[0], noise[1], noise[0])), strict=True))
    finding = finding_of(facts(pictures, looks=looks), "dedupe")
    assert finding.severity is Severity.WARN
    assert finding.problem == "2 pictures look nearly like another one: 0.png and 2.png."
    del looks[Path("2.png")]
    run = facts(pictures, looks=looks)
    assert "dedupe" not in found(run) and found(run)["not-compared"] is Severity.INFO
    assert "not-compared" not in found(facts(pictures[:2], looks=looks))


@pytest.mark.parametrize(
    ("name", "tag", "held"),
    [
        ("hat", "straw hat", True), ("Hat", "hat", True), ("straw hat", "big straw hat", True), ("girl", "1girl", True),
        ("hat", "chat", False), ("straw hat", "hat, straw", False), ("red_eyes", "red_eyes", True),
        ("red_eyes", "red eyes", False), ("zorgle-one", "zorgle-one", False),
    ],
)  # fmt: skip
def test_captions_with_the_name_of_another_embedding_are_counted(name, tag, held):
    run = facts(tagged(tag), injected=frozenset([name, "unused"]))
    assert ("other-embedding-in-caption" in found(run)) is held
    if held:
        finding = finding_of(run, "other-embedding-in-caption")
        assert finding.severity is Severity.WARN and f"{name} (1)" in finding.problem


def test_a_caption_whose_encoding_was_guessed_is_named(tmp_path):
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    Image.new("RGB", (64, 64)).save(tmp_path / "b.png")
    (tmp_path / "a.txt").write_bytes("solo, 猫".encode("cp932"))
    (tmp_path / "b.txt").write_text("solo, 猫", encoding="utf-8-sig")
    plan = plan_pictures(RunConfig(name="zorgle-one", checkpoint="model", dataset=str(tmp_path)))
    finding = finding_of(facts(plan=plan), "caption-encoding")
    assert finding.severity is Severity.WARN
    assert finding.problem.startswith("a.txt: ") and "Shift-JIS" in finding.problem
    assert "caption-encoding" not in found(facts(plan=Plan(plan.pictures, ())))
