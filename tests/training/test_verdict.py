import dataclasses
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.verdict import PATIENCE, Validation, Vocabulary, best_of, change, judge, wobble

UNITS = 16
LEARNED = (1.0, 0.7, 0.6, 0.55, 0.52, 0.5)
WORDS = Vocabulary(0.3, 0.4, 0.5)


def validation(step, level, noise=0.001, seed=None, **more) -> Validation:
    """Draws that differ much from each other, each at `level` times its own loss, and a little of its own."""
    own = np.random.default_rng(0).uniform(0.2, 2.0, (UNITS, 4))
    wobble = np.random.default_rng(step if seed is None else seed).normal(0, noise, (UNITS, 4))
    return Validation(step, tuple(map(tuple, (own * level + wobble).tolist())), **more)


def run(*levels, noise=0.001, **more) -> list[Validation]:
    return [validation(100 * place, level, noise, **more) for place, level in enumerate(levels)]


def test_pairs_show_what_the_means_alone_hide():
    before, after = validation(0, 1.0), validation(100, 0.99)
    spread = statistics.stdev(map(statistics.fmean, before.losses)) / math.sqrt(UNITS)
    assert abs(after.mean - before.mean) < 0.3 * spread  # unpaired: nothing to be seen
    assert change(before, after).z < -5


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=30))
def test_the_standard_error_is_that_of_the_mean_of_the_pairs(differences):
    before = Validation(0, tuple((1.0, 2.0) for _ in differences))
    after = Validation(1, tuple((1.0 + d, 2.0 + d) for d in differences))
    found = change(before, after)
    assert found.mean == pytest.approx(statistics.fmean(differences), abs=1e-9)
    assert found.error == pytest.approx(statistics.stdev(differences) / math.sqrt(len(differences)), abs=1e-9)


def test_nothing_that_moved_is_no_change_and_one_pair_proves_nothing():
    same = Validation(0, ((1.0,), (2.0,)))
    assert change(same, same).z == 0
    assert change(Validation(0, ((1.0,),)), Validation(1, ((0.1,),))).z == 0


def test_it_is_too_early_at_first():
    assert judge([]) is None
    assert judge(run(1.0)) is None
    assert judge(run(1.0, 1.0, 1.0, 1.0, 1.0)) is None


def test_improving():
    verdict = judge(run(1.0, 0.9))
    assert verdict.state == "improving" and verdict.best == 100 and verdict.number < -2
    assert "from step 0 to 100" in verdict.reason and "standard errors" in verdict.reason


def test_improving_slowly_is_seen_over_several_validations():
    levels = [1 - 0.0009 * place for place in range(PATIENCE + 1)]
    series = run(*levels, noise=0.004)
    assert change(series[-2], series[-1]).z > -2
    verdict = judge(series)
    assert verdict.state == "improving" and "from step 0 to 300" in verdict.reason


def test_a_slow_fall_is_seen_through_the_wobble():
    generator = np.random.default_rng(3)
    levels = [0.5 - 0.004 * place + generator.normal(0, 0.004) for place in range(40)]
    series = [validation(100 * place, level) for place, level in enumerate([1.0, 0.7, 0.55, *levels])]
    verdicts = [judge(series[:count]) for count in range(6, len(series) + 1)]
    assert [verdict.state for verdict in verdicts].count("improving") > 0.8 * len(verdicts)


def test_flat():
    verdict = judge(run(1.0, 0.7, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
    assert verdict.state == "flat" and abs(verdict.number) < 2
    assert "chance" in verdict.reason and f"step {verdict.best}" in verdict.advice


def test_single_bad_validations_are_not_overtraining_and_a_row_of_them_is():
    assert judge(run(*LEARNED, 0.55, 0.6)).state != "overtrained"
    verdict = judge(run(*LEARNED, 0.55, 0.6, 0.65, 0.7))
    assert verdict.state == "overtrained" and verdict.best == 500 and verdict.number > 2
    assert "above that of step 500" in verdict.reason and "step 500" in verdict.advice


@pytest.mark.parametrize(
    ("training", "said"), [(0.1, "by heart"), (0.9, "rate is too high"), (0.5, "did not rise"), (math.nan, "")]
)
def test_overtraining_says_what_the_training_loss_did(training, said):
    series = run(*LEARNED, training=0.5, training_error=0.01)
    late = ((600, 0.55), (700, 0.6), (800, 0.65), (900, 0.7))
    series += [validation(step, level, training=training, training_error=0.01) for step, level in late]
    verdict = judge(series)
    assert verdict.state == "overtrained" and said in verdict.reason


def test_vectors_much_longer_than_words_are_overtrained_unless_it_helps():
    flat = run(1.0, 0.7, 0.5, 0.5, 0.5, 0.5, 0.5)
    assert judge([*flat, validation(700, 0.5, mean_norm=9.9)], WORDS).state == "flat"
    verdict = judge([*flat, validation(700, 0.5, mean_norm=11)], WORDS)
    assert verdict.state == "overtrained" and verdict.number == pytest.approx(22) and "22 times" in verdict.reason
    assert judge([*flat, validation(700, 0.2, mean_norm=11)], WORDS).state == "improving"


def test_broken():
    poisoned = Validation(200, ((math.nan,) * 4,) * UNITS)
    verdict = judge([*run(1.0, 0.9), poisoned])
    assert verdict.state == "broken" and verdict.best == 100 and "not a number" in verdict.reason
    exploded = judge(run(1.0, 2.5))
    assert exploded.state == "broken" and exploded.number == pytest.approx(2.5, rel=0.01)
    worse = judge(run(1.0, 1.2, 1.3, 1.3))
    assert worse.state == "broken" and worse.best == 0 and "lower learning rate" in worse.advice


def test_the_best_is_never_one_that_is_no_number():
    poisoned = Validation(0, ((math.nan,),))
    assert best_of([poisoned, Validation(1, ((0.5,),)), Validation(2, ((0.5,),))]).step == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_losses_that_are_no_numbers_break_nothing(value):
    """Wherever they are in a series, and whether one draw or all; only the last validation alone makes it broken."""
    good = run(*LEARNED, 0.5, 0.5, 0.5)
    for losses in (((value,) * 4,) * UNITS, (((value, *good[0].losses[0][1:]), *good[0].losses[1:]))):
        poisoned = Validation(150, losses)
        for before, after in ((poisoned, good[0]), (good[0], poisoned), (poisoned, poisoned)):
            found = change(before, after)
            assert math.isnan(found.mean) and math.isnan(found.error) and math.isnan(found.z)
        for place in range(len(good)):
            series = [*good[:place], dataclasses.replace(poisoned, step=good[place].step), *good[place + 1 :]]
            verdict = judge(series)
            assert (verdict is not None and verdict.state == "broken") is (place == len(good) - 1)
            assert verdict is None or "nan" not in verdict.reason
    # Two of three above the best are no proof where the third is no number.
    rising = [*run(*LEARNED), dataclasses.replace(poisoned, step=600), *run(*LEARNED, 0.5, 0.9, 0.9)[-2:]]
    assert judge(rising) is None or judge(rising).state != "overtrained"


@pytest.mark.parametrize("together", [False, True], ids=["each draw for itself", "all draws together"])
def test_a_run_that_stands_still_is_hardly_ever_called_overtrained(together):
    """A network that wobbles around its end: no trend, and and yet any two validations differ."""
    generator = np.random.default_rng(0)
    called = []
    for _ in range(10):
        series = run(1.0)
        for place in range(1, 60):
            level = 0.5 + (generator.normal(0, 0.005) if together else 0)
            noise = 0.001 if together else 0.02
            series.append(validation(100 * place, level, noise=noise, seed=int(generator.integers(1 << 30))))
            verdict = judge(series)
            called.append(verdict.state if verdict else None)
    assert called.count("overtrained") <= 0.02 * len(called)
    assert called.count("flat") > 0.8 * len(called)
    assert "broken" not in called


def test_a_slow_rise_is_seen_through_the_wobble():
    generator = np.random.default_rng(1)
    levels = [1.0, 0.7, 0.55, *(0.5 + 0.005 * place for place in range(20))]
    series, called = [], []
    for place, level in enumerate(levels):
        series.append(validation(100 * place, level + generator.normal(0, 0.003)))
        verdict = judge(series)
        called.append(verdict.state if verdict else None)
    assert called[1:3] == ["improving", "improving"]
    assert called[-1] == "overtrained" and called.index("overtrained") <= 14
    assert judge(series).best in (300, 400, 500)


def test_the_wobble_is_what_a_smooth_course_lacks():
    assert wobble(run(1.0, 0.9, 0.8, 0.7, 0.75, 0.7)) == 0  # too early
    assert wobble(run(1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, noise=0)) == pytest.approx(0, abs=1e-12)
    generator = np.random.default_rng(2)
    found = []
    for _ in range(200):
        values = [2.0 + 0.1 * place + generator.normal(0, 0.01) for place in range(9)]
        found.append(wobble([Validation(place, ((value,),)) for place, value in enumerate(values)]))
    assert statistics.median(found) == pytest.approx(0.01, rel=0.2)
