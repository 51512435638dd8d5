import numpy as np
import torch

from lib_dsm.training import draws
from lib_dsm.training.captions import draw_tags, draw_template, fill

TAGS = ["solo", "red hair", "smile", "hat", "sky"]


def test_draws_depend_on_seed_purpose_and_place_alone():
    first = draws.normal(1, "noise", 5, (4, 8, 8))
    torch.manual_seed(0)
    np.random.seed(0)
    assert torch.equal(first, draws.normal(1, "noise", 5, (4, 8, 8)))
    for other in ((2, "noise", 5), (1, "latent", 5), (1, "noise", 6)):
        assert not torch.equal(first, draws.normal(*other, (4, 8, 8)))


def test_drawing_leaves_the_global_generators_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    draws.normal(1, "noise", 5, (4, 8, 8))
    draws.timestep(1, "timestep", 5, 1000)
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_the_numbers_stay_what_they_are():
    # A resumed run depends on it, also after an update of numpy.
    assert draws.timestep(0, "timestep", 0, 1000) == 50
    assert draws.epoch_order(0, 0, 6) == [5, 1, 0, 2, 4, 3]


def test_noise_is_standard_normal_and_timesteps_cover_the_range():
    noise = torch.stack([draws.normal(0, "noise", place, (4, 16, 16)) for place in range(50)])
    assert abs(float(noise.mean())) < 0.02 and abs(float(noise.std()) - 1) < 0.02
    steps = [draws.timestep(0, "timestep", place, 10) for place in range(400)]
    assert set(steps) == set(range(10))


def test_shuffled_tags_are_the_same_tags():
    drawn = {tuple(draw_tags(TAGS, 0, place, shuffle=True)) for place in range(50)}
    assert len(drawn) > 20 and all(sorted(tags) == sorted(TAGS) for tags in drawn)


def test_the_first_tags_stay_and_none_need_shuffling():
    assert all(draw_tags(TAGS, 0, place, shuffle=True, keep=2)[:2] == TAGS[:2] for place in range(20))
    assert draw_tags(TAGS, 0, 3, shuffle=False) == TAGS


def test_dropout_drops_about_its_share_and_spares_the_kept():
    drawn = [draw_tags(TAGS, 0, place, shuffle=False, keep=1, dropout=0.5) for place in range(400)]
    assert all(tags[0] == "solo" for tags in drawn)
    assert abs(sum(len(tags) - 1 for tags in drawn) / (400 * 4) - 0.5) < 0.05
    assert draw_tags(TAGS, 0, 0, shuffle=True, dropout=1.0) == []


def test_templates():
    assert fill("[filewords], [name]", "zorgle", "a, b") == "a, b, zorgle"
    assert {draw_template(("x", "y"), 0, place) for place in range(20)} == {"x", "y"}
