import math
from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.errors import InputError
from lib_dsm.training import draws
from lib_dsm.training.config import LOSS_WEIGHTINGS, TIMESTEPS, RunConfig
from lib_dsm.training.timesteps import draw_timestep, loss_weights

# The schedule of Stable Diffusion: betas linear in their square roots.
ALPHAS = torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, TIMESTEPS, dtype=torch.float64) ** 2, 0).float()


def config(**changes):
    return RunConfig("zorgle", "model", "folder", **changes)


def test_the_default_draws_what_it_always_drew():
    assert [draw_timestep(config(seed=3), place, 1000) for place in range(50)] == [
        draws.timestep(3, "timestep", place, 1000) for place in range(50)
    ]


@given(st.integers(0, 999), st.integers(0, 999), st.integers(0, 10**6), st.sampled_from([1000, 400]))
def test_a_range_is_kept_as_far_as_the_model_has_it(one, other, place, count):
    low, high = min(one, other), max(one, other)
    drawn = draw_timestep(config(timestep_sampling="range", timestep_min=low, timestep_max=high), place, count)
    assert min(low, count - 1) <= drawn <= min(high, count - 1)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 10**5), st.sampled_from([1000, 400]), st.integers(0, 99))
def test_a_steps_pictures_share_the_timesteps_out(batch, parts, step, count, seed):
    settings = config(timestep_sampling="stratified", batch_size=batch, gradient_accumulation=parts, seed=seed)
    each = batch * parts
    drawn = sorted(draw_timestep(settings, step * each + index, count) for index in range(each))
    assert all(part * count // each <= found <= (part + 1) * count / each for part, found in enumerate(drawn))


def test_shared_out_timesteps_are_drawn_evenly():
    settings = config(timestep_sampling="stratified", batch_size=4, gradient_accumulation=1)
    counts = Counter(draw_timestep(settings, place, 10) for place in range(10000))
    assert sorted(counts) == list(range(10)) and all(abs(found - 1000) < 120 for found in counts.values())


def test_a_range_is_drawn_evenly_and_to_its_ends():
    settings = config(timestep_sampling="range", timestep_min=100, timestep_max=103)
    counts = Counter(draw_timestep(settings, place, 1000) for place in range(4000))
    assert sorted(counts) == [100, 101, 102, 103]
    assert all(abs(count - 1000) < 150 for count in counts.values())


@given(st.integers(0, 999), st.integers(0, 999))
def test_a_range_upside_down_is_refused(one, other):
    if one == other:
        return
    high, low = min(one, other), max(one, other)
    with pytest.raises(InputError, match=f"{low}, lies above the highest, {high}"):
        config(timestep_sampling="range", timestep_min=low, timestep_max=high)
    assert config(timestep_min=low, timestep_max=high).timestep_min == low  # it matters for a range alone


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (-1.0, 0.5), (2.0, 2.0)])
def test_logit_normal_has_the_quantiles_it_is_named_for(mean, spread):
    settings = config(timestep_sampling="logit-normal", logit_mean=mean, logit_spread=spread)
    drawn = sorted(draw_timestep(settings, place, 1000) for place in range(4000))
    assert drawn[0] >= 0 and drawn[-1] <= 999
    for share, normal in ((0.16, -1.0), (0.5, 0.0), (0.84, 1.0)):
        expected = 1000 / (1 + math.exp(-(mean + spread * normal)))
        assert abs(drawn[int(share * 4000)] - expected) < 25


def test_extreme_draws_stay_inside():
    settings = config(timestep_sampling="logit-normal", logit_mean=5.0, logit_spread=5.0)
    drawn = [draw_timestep(settings, place, 10) for place in range(2000)]
    assert (min(drawn), max(drawn)) == (0, 9)


FORMULAS = {  # of the loss on epsilon and on v, as the papers (or their code) give them
    "min-snr": (lambda snr: min(snr, 5) / snr, lambda snr: min(snr, 5) / (snr + 1)),
    "soft-min-snr": (lambda snr: 5 / (snr + 5), lambda snr: 5 * snr / ((snr + 5) * (snr + 1))),
    "debiased": (lambda snr: 1 / math.sqrt(snr), lambda snr: math.sqrt(snr) / (snr + 1)),
    "p2": (lambda snr: 1 / (1 + snr), lambda snr: snr / (1 + snr) ** 2),
}


@pytest.mark.parametrize("kind", FORMULAS)
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_weights_are_those_of_the_papers(kind, prediction):
    weights = loss_weights(kind, 5.0, prediction, ALPHAS)
    assert weights.shape == (TIMESTEPS,) and weights.dtype == torch.float32
    formula = FORMULAS[kind][prediction != "epsilon"]
    for step in (0, 1, 100, 250, 500, 750, 998, 999):
        snr = float(ALPHAS[step]) / (1 - float(ALPHAS[step]))
        assert math.isclose(float(weights[step]), formula(snr), rel_tol=1e-4), step


def test_no_weighting_is_none_and_every_choice_has_weights():
    assert loss_weights("none", 5.0, "epsilon", ALPHAS) is None
    assert set(FORMULAS) | {"none"} == set(LOSS_WEIGHTINGS)


@pytest.mark.parametrize("kind", FORMULAS)
def test_epsilon_and_v_weigh_the_same_error_of_the_clean_latent_the_same(kind):
    """Squared errors of one and the same prediction: of epsilon SNR times, of v SNR + 1 times that of x0."""
    snr = ALPHAS.double() / (1 - ALPHAS.double())
    epsilon = loss_weights(kind, 2.0, "epsilon", ALPHAS).double() * snr
    velocity = loss_weights(kind, 2.0, "v_prediction", ALPHAS).double() * (snr + 1)
    torch.testing.assert_close(epsilon, velocity, rtol=1e-5, atol=0)


@pytest.mark.parametrize("kind", FORMULAS)
def test_a_schedule_that_ends_in_pure_noise_gives_numbers(kind):
    alphas = torch.linspace(0.99, 0.0, 10)
    for prediction in ("epsilon", "v_prediction"):
        assert torch.isfinite(loss_weights(kind, 5.0, prediction, alphas)).all()
