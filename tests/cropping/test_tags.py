"""Which tags a frame makes untrue."""

import pytest

from lib_dsm.cropping.boxes import Box
from lib_dsm.cropping.tags import impossible_tags

SIZE = (600, 1000)
LOWER, UPPER, WAIST_UP = (0, 450, 600, 1000), (0, 0, 600, 350), (0, 0, 600, 600)
HEAD = ["portrait", "upper body", "face", "smile", "straw hat", "blue eyes", "long_hair", "hair-ribbon", "cat ears"]
LEGS = ["shoes", "black loafers", "mary janes", "garter_straps", "leggings", "bloomers", "high heels", "standing"]


def test_a_lower_crop_shows_no_head() -> None:
    tags = ["1girl", "full body", *HEAD, *LEGS, "navel", "outdoors"]
    assert impossible_tags(tags, LOWER, SIZE) == ["full body", *HEAD]
    # Without a full body nobody knows how far up the head is; only the framing cannot hold.
    assert impossible_tags(tags[:1] + HEAD, LOWER, SIZE) == ["portrait", "upper body", "face"]
    for part in ("portrait", "body", "person-2"):  # made around a head or a whole figure
        assert not set(HEAD) & set(impossible_tags(tags, LOWER, SIZE, part))


def test_an_upper_crop_shows_no_legs() -> None:
    tags = ["1girl", "full body", *HEAD, *LEGS, "navel", "lower body", "outdoors"]
    assert impossible_tags(tags, UPPER, SIZE) == ["full body", *LEGS, "navel", "lower body"]
    assert impossible_tags(tags, WAIST_UP, SIZE) == ["full body", *LEGS, "lower body"]
    assert impossible_tags(["navel", "loafers", "smile"], (0, 0, 600, 1000), SIZE, "portrait") == ["navel", "loafers"]


@pytest.mark.parametrize("tag", ["(full body:1.2)", "{{full body}}", "[full_body]", "Full-Body", "((full body))"])
def test_weights_and_brackets_are_no_part_of_a_tag(tag: str) -> None:
    assert impossible_tags(["1girl", tag, "shoes"], UPPER, SIZE) == [tag, "shoes"]


@pytest.mark.parametrize("box", [UPPER, LOWER])
def test_one_of_several_is_alone(box: Box) -> None:
    tags = ["2girls", "(3boys:1.1)", "multiple_girls", "6+girls", "1girl", "smile"]
    assert impossible_tags(tags, box, SIZE, "person-1") == tags[:4]
    assert impossible_tags(tags, box, SIZE) == []


def test_a_whole_picture_loses_nothing() -> None:
    assert impossible_tags([*HEAD, *LEGS, "full body", "2girls"], (0, 0, *SIZE), SIZE) == []
