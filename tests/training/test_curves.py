import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.curves import (
    BAND,
    BANDS,
    COLUMNS,
    LOSS,
    MOVEMENT,
    SECONDS,
    UNKNOWN,
    BandMean,
    Curves,
    Smoothed,
    band_edges,
    band_means,
    band_of,
)

NUMBERS = st.floats(0.001, 10, allow_nan=False)


def row(step: int, loss: float = 0.5, bands=(UNKNOWN,) * BANDS, movement: float = 0.1) -> tuple[float, ...]:
    return (step, loss, 0.01, 0.2, 0.3, 0.4, movement, *bands, 0.05)


def test_the_places_of_the_columns_are_what_they_are_called():
    named = {"loss": LOSS, "movement": MOVEMENT, "loss_band_0": BAND, "seconds": SECONDS}
    assert {name: COLUMNS.index(name) for name in named} == named
    assert len(row(1)) == len(COLUMNS)


@pytest.mark.parametrize("count", [1000, 997, 4])
def test_bands_are_quarters_of_the_timesteps(count):
    edges = band_edges(count)
    assert edges[0] == 0 and edges[-1] == count
    for timestep in range(count):
        assert edges[band_of(timestep, count)] <= timestep < edges[band_of(timestep, count) + 1]


def test_a_steps_losses_are_averaged_by_band():
    means = band_means([1.0, 3.0, 5.0], [0, 249, 999], 1000)
    assert means[0] == 2.0 and means[3] == 5.0 and math.isnan(means[1]) and math.isnan(means[2])


@given(st.lists(NUMBERS, min_size=1, max_size=60))
def test_the_smoothed_loss_has_no_pull_to_zero_and_forgets(values):
    constant = Smoothed()
    assert all(constant.add(0.7) == pytest.approx(0.7) for _ in values)
    weighted = sum(value * 0.98**age for age, value in enumerate(reversed(values)))
    expected = weighted / sum(0.98**age for age in range(len(values)))
    smoothed = Smoothed()
    assert [smoothed.add(value) for value in values][-1] == pytest.approx(expected)


@given(st.lists(NUMBERS, min_size=1, max_size=120), st.integers(1, 6))
def test_thinned_curves_keep_the_mean_and_stay_short(losses, half):
    curves = Curves(limit=2 * half)
    for step, loss in enumerate(losses, start=1):
        curves.add(row(step, loss, movement=step / 10))
    told = curves.to_json()
    length = len(told["step"])
    assert 1 <= length <= 2 * half
    assert {len(values) for name, values in told.items() if name != "bands"} == {length}
    assert [len(band) for band in told["bands"]] == [length] * BANDS
    assert told["step"][-1] == len(losses) and told["movement"][-1] == pytest.approx(len(losses) / 10)
    steps = [end - begin for begin, end in zip([0, *told["step"]], told["step"], strict=False)]
    assert len(set(steps[:-1])) <= 1 and steps[-1] <= max(steps)
    total = sum(count * loss for count, loss in zip(steps, told["loss"], strict=True))
    assert total == pytest.approx(sum(losses), rel=1e-4)
    assert curves.losses() == [list(pair) for pair in zip(told["step"], told["loss"], strict=True)]


def test_the_points_depend_on_the_rows_alone():
    looked_at, untouched = Curves(limit=10), Curves(limit=10)
    for step in range(1, 78):
        looked_at.add(row(step, step / 7))
        looked_at.to_json()
        untouched.add(row(step, step / 7))
    assert looked_at.to_json() == untouched.to_json()


def test_a_longer_run_costs_a_step_no_more(monkeypatch):
    """Counted in values that are rounded for the page, which is what costs."""
    counts, rounded = [], 0
    from lib_dsm.training import curves as module

    def counting(value, original=module._short):
        nonlocal rounded
        rounded += 1
        return original(value)

    monkeypatch.setattr(module, "_short", counting)
    curves = Curves(limit=20)
    for step in range(1, 4001):
        if curves.add(row(step)):
            curves.to_json()
        if step % 2000 == 0:
            counts.append(rounded)
    assert counts[1] - counts[0] < counts[0]


def test_what_is_not_known_is_none():
    curves = Curves()
    curves.add((1, 0.5, 0.01, *[UNKNOWN] * (len(COLUMNS) - 3)))
    told = curves.to_json()
    assert told["loss"] == [0.5] and told["movement"] == [None] and told["bands"] == [[None]] * BANDS


def test_band_means_weigh_each_band_the_same():
    mean = BandMean()
    for value in (1.0, 3.0):
        mean.add(row(1, bands=(value, 10.0, UNKNOWN, UNKNOWN)))
    assert math.isnan(mean.result()[0])
    for _ in range(9):
        mean.add(row(1, bands=(UNKNOWN, UNKNOWN, 20.0, 30.0)))
    average, error = mean.result()
    assert average == pytest.approx((2 + 10 + 20 + 30) / 4)
    assert error == pytest.approx(math.sqrt(2.0 / 2) / 4)  # only the first band varies: variance 2, two steps
