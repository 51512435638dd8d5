"""File names as captions, as the WebUI reads them."""

import pytest

from lib_dsm.training.captions import name_tags


@pytest.mark.parametrize(
    ("stem", "regex", "join", "tags"),
    [
        ("0001-a red car", "", " ", []),
        ("0001-a red car", ".+", " ", ["a red car"]),
        ("12 - 3 cats", ".+", " ", ["- 3 cats"]),  # the number and what follows it up to the first other sign
        ("12-34 cats, dogs", ".+", " ", ["cats", "dogs"]),
        ("00-red_car (new)", "[a-z]+", ", ", ["red", "car", "new"]),
        ("00-red_car (new)", "[a-z]+", " ", ["red car new"]),
        ("red-car", "([a-z])[a-z]+", ",", ["r", "c"]),  # a group stands for the whole
        ("123", ".+", " ", []),
        ("猫_ねこ", r"[^\W_]+", ", ", ["猫", "ねこ"]),
    ],
)
def test_a_name_is_read_as_in_the_webui(stem, regex, join, tags):
    assert name_tags(stem, regex, join) == tags
