import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.errors import InputError
from lib_dsm.training.config import RunConfig
from lib_dsm.training.schedule import parse_learning_rate, schedule_of


def schedule(**changes):
    return schedule_of(RunConfig("zorgle", "model", "folder", **changes))


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


def test_as_written_it_is_what_it_was():
    text = "0.0005:5000, 0.0001:10000"
    plain = parse_learning_rate(text)
    shaped = schedule(learning_rate=text, max_steps=20000)
    assert [shaped.at(step) for step in range(0, 10001, 7)] == [plain.at(step) for step in range(0, 10001, 7)]
    assert shaped.end == 10000


def test_a_cosine_falls_from_the_rate_to_the_floor_over_the_whole_run():
    found = schedule(learning_rate="0.01", schedule="cosine", max_steps=100, rate_floor=0.2)
    for step in range(100):
        expected = 0.002 + (0.01 - 0.002) * (1 + math.cos(math.pi * step / 100)) / 2
        assert math.isclose(found.at(step), expected, rel_tol=1e-12)
    assert found.at(0) == 0.01 and math.isclose(found.at(100), 0.002)


def test_a_cosine_ends_where_the_written_rate_does():
    found = schedule(learning_rate="0.01:50", schedule="cosine", max_steps=100)
    assert math.isclose(found.at(25), 0.005) and found.at(50) is None and found.end == 50


def test_restarts_are_those_of_the_paper():
    # T_0 = 10, T_mult = 2: cycles begin at 0, 10, 30, 70.
    found = schedule(
        learning_rate="1", schedule="cosine restarts", cycle_length=10, cycle_multiplier=2, cycle_decay=0.5,
        rate_floor=0.1, max_steps=150,
    )  # fmt: skip
    for number, (begin, length) in enumerate(((0, 10), (10, 20), (30, 40), (70, 80))):
        for done in range(length):
            expected = 0.1 + (0.5**number - 0.1) * (1 + math.cos(math.pi * done / length)) / 2
            assert math.isclose(found.at(begin + done), expected, rel_tol=1e-12), (number, done)


def test_a_decayed_peak_never_lies_below_the_floor():
    found = schedule(
        learning_rate="1", schedule="cosine restarts", cycle_length=2, cycle_decay=0.1, rate_floor=0.5, max_steps=99
    )
    assert [found.at(step) for step in (0, 2, 4, 98)] == [1.0, 0.5, 0.5, 0.5]


@pytest.mark.parametrize("kind", ["steps", "cosine", "cosine restarts"])
def test_every_schedule_can_rise_first(kind):
    found = schedule(learning_rate="0.5", schedule=kind, warmup_steps=4, cycle_length=10, max_steps=50)
    assert [found.at(step) for step in range(5)] == [0.1, 0.2, pytest.approx(0.3), 0.4, 0.5]


settings = st.fixed_dictionaries(
    {
        "learning_rate": st.sampled_from(["0.01", "0.02:40, 0.005", "1e-3:30, 1e-4:300"]),
        "schedule": st.sampled_from(["steps", "cosine", "cosine restarts"]),
        "warmup_steps": st.integers(0, 60),
        "rate_floor": st.floats(0, 1),
        "cycle_length": st.integers(1, 50),
        "cycle_multiplier": st.floats(1, 4),
        "cycle_decay": st.floats(0.001, 1),
        "warmup_repeat": st.sampled_from(["once", "each cycle"]),
        "max_steps": st.integers(1, 500),
    }
).filter(lambda values: values["warmup_repeat"] == "once" or values["warmup_steps"] < values["cycle_length"])


@given(settings, st.integers(0, 499))
def test_a_rate_is_positive_at_most_what_is_written_and_depends_on_the_step_alone(values, step):
    found = schedule(**values)
    written = found.rate.at(step)
    rate = found.at(step)
    assert (rate is None) == (written is None)
    if written is None or step >= found.last:
        return
    assert 0 <= rate <= written * (1 + 1e-12)  # nothing, where hundreds of cycles decay
    if found.warm_each or (step >= found.warmup and found.kind != "steps"):
        assert rate >= written * found.floor * (1 - 1e-12)
    again = schedule(**values)  # asked in another order
    assert {other: again.at(other) for other in (step, 0, step + 1, step)}[step] == rate


@given(settings)
def test_cycles_follow_each_other_without_a_gap_rise_and_only_fall(values):
    found = schedule(**{**values, "schedule": "cosine restarts", "learning_rate": "0.01"})
    warmup = found.warmup if found.warm_each else 0
    length, begin, number = found.cycle_length, 0 if found.warm_each else found.warmup, 0
    ends = []
    while begin < found.last:
        inside = range(begin, min(begin + length, found.last))
        assert {found.cycle(step) for step in (inside[0], inside[-1])} == {found.cycle(begin)}
        assert (found.cycle(begin).begin, found.cycle(begin).length) == (begin, length)
        peak = 0.01 * max(found.cycle_decay**number, found.floor)
        rates = [found.at(step) for step in inside]
        assert all(later >= earlier for earlier, later in itertools.pairwise(rates[: warmup + 1]))
        assert all(later <= earlier for earlier, later in itertools.pairwise(rates[warmup:]))
        if len(rates) > warmup:
            assert math.isclose(rates[warmup], peak) and (peak == 0 or max(rates) <= peak * (1 + 1e-12))
        begin, number = begin + length, number + 1
        ends.append(begin)
        length = warmup + max(round((found.cycle_length - warmup) * found.cycle_multiplier**number), 1)
    assert [step for step in range(found.last + 1) if found.ends_cycle(step)] == [s for s in ends if s <= found.last]


def test_a_fraction_stretches_cycles_by_the_power_and_not_by_what_was_rounded():
    found = schedule(learning_rate="1", schedule="cosine restarts", cycle_length=1, cycle_multiplier=1.5, max_steps=40)
    # 1, 1.5, 2.25, 3.375, 5.0625, 7.59, 11.39, rounded
    assert [step for step in range(41) if found.ends_cycle(step)] == [1, 3, 5, 8, 13, 21, 32]


def test_a_warm_up_of_each_cycle_rises_from_the_floor_and_is_not_stretched():
    found = schedule(
        learning_rate="1", schedule="cosine restarts", cycle_length=6, cycle_multiplier=2, cycle_decay=0.5,
        rate_floor=0.1, warmup_steps=2, warmup_repeat="each cycle", max_steps=100,
    )  # fmt: skip
    for begin, length, peak in ((0, 6, 1.0), (6, 10, 0.5), (16, 18, 0.25)):
        rise = [0.1 + (peak - 0.1) / 3, 0.1 + (peak - 0.1) * 2 / 3, peak]
        assert [found.at(begin + step) for step in range(3)] == pytest.approx(rise)
        for done in range(length - 2):
            expected = 0.1 + (peak - 0.1) * (1 + math.cos(math.pi * done / (length - 2))) / 2
            assert math.isclose(found.at(begin + 2 + done), expected, rel_tol=1e-12)
    assert found.at(34) == pytest.approx(0.1 + (0.125 - 0.1) / 3)


@pytest.mark.parametrize("kind", ["steps", "cosine"])
def test_only_restarts_have_cycles_that_end_or_warm_up_again(kind):
    settings = {"learning_rate": "1", "schedule": kind, "warmup_steps": 3, "cycle_length": 2, "max_steps": 20}
    once, each = (schedule(**settings, warmup_repeat=repeat) for repeat in ("once", "each cycle"))
    assert [once.at(step) for step in range(20)] == [each.at(step) for step in range(20)]
    assert not any(each.ends_cycle(step) for step in range(21))


def test_many_short_cycles_are_found_at_once():
    found = schedule(
        learning_rate="1", schedule="cosine restarts", cycle_length=1, cycle_multiplier=1.000001, max_steps=300_000
    )
    assert [found.cycle(step).begin for step in (0, 1, 299_999)] == [0, 1, 299_999]
