import pytest

from lib_dsm.errors import InputError
from lib_dsm.training.schedule import parse_learning_rate


def test_a_single_rate_holds_for_ever():
    schedule = parse_learning_rate("0.005")
    assert schedule.at(0) == schedule.at(10**9) == 0.005
    assert schedule.end is None


def test_the_guides_schedule():
    schedule = parse_learning_rate("0.0005:5000, 0.0001:10000")
    assert [schedule.at(step) for step in (0, 4999, 5000, 9999, 10000)] == [5e-4, 5e-4, 1e-4, 1e-4, None]
    assert schedule.end == 10000


def test_the_last_rate_may_be_open():
    for text in ("1e-3:10, 1e-4", "1e-3:10, 1e-4:-1"):
        assert parse_learning_rate(text).at(10**6) == 1e-4


@pytest.mark.parametrize(
    "text", ["", "abc", "0.1:x", "0.1:10, 0.2:10", "0.1, 0.2:5", "-1", "0:5", "nan", "inf:3", "0.1:0"]
)
def test_wrong_schedules_are_named(text):
    with pytest.raises(InputError) as error:
        parse_learning_rate(text)
    assert "0.0005:5000" in error.value.remedy
