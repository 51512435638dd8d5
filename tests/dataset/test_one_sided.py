"""Which tags a mirrored picture contradicts."""

import pytest

from lib_dsm.dataset.one_sided import not_mirrored, one_sided, plain

ONE_SIDED = [
    "heterochromia", "different colored eyes", "odd eyes", "arm tattoo", "asymmetric bangs", "asymmetrical hair",
    "side braid", "side ponytail", "split-color hair", "single earring", "mole under eye", "hair over one eye",
]  # fmt: skip
WRITTEN = [
    "watermark", "signature", "artist name", "web address", "twitter username", "dated", "subtitled",
    "text on clothing", "jersey number", "barcode", "english text", "speech bubble", "patreon logo",
]  # fmt: skip


@pytest.mark.parametrize("tag", ONE_SIDED)
def test_one_sided_things(tag: str) -> None:
    assert one_sided([tag]) == not_mirrored([tag]) == [plain(tag)]


@pytest.mark.parametrize("tag", WRITTEN)
def test_writing_is_not_mirrored_but_on_no_side(tag: str) -> None:
    assert not_mirrored([tag]) == [tag] and one_sided([tag]) == []


@pytest.mark.parametrize(
    "tag", ["(heterochromia:1.2)", "{heterochromia}", "[[Heterochromia]]", "(heterochromia)", "heterochromia:0.8"]
)
def test_weights_and_brackets_are_no_part_of_a_tag(tag: str) -> None:
    assert one_sided([tag]) == ["heterochromia"]


def test_what_looks_the_same_in_a_mirror() -> None:
    tags = [
        "1girl",
        "blue eyes",
        "twin braids",
        "looking to the side",
        "sidelocks",
        "inside",
        "bright",
        ":3",
        "(smile)",
    ]
    assert not_mirrored(tags) == []
    assert [plain(tag) for tag in ("fate_(series)", ":3", "long-hair")] == ["fate (series)", ":3", "long hair"]
