import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training import draws
from lib_dsm.training.buckets import showings
from lib_dsm.training.curves import BANDS, band_of
from lib_dsm.training.latents import Posterior
from lib_dsm.training.pictures import TrainingPicture, TrainingSet
from lib_dsm.training.validation import UNITS, FixedDraws, split, vocabulary
from lib_dsm.training.verdict import Validation, change
from tests.micro import training_set


def named(*contents: str) -> TrainingSet:
    """Pictures of which only the content's hash matters."""
    latent = Posterior(torch.zeros(4, 8, 8), torch.zeros(4, 8, 8))
    return TrainingSet(tuple(TrainingPicture(None, (64, 64), (), content, latent) for content in contents))


def contents(pictures: TrainingSet) -> list[str]:
    return [picture.content_hash for picture in pictures.pictures]


@given(st.lists(st.text("abc", min_size=1, max_size=3), min_size=2, max_size=30), st.floats(0, 0.5), st.integers(0, 99))
def test_every_picture_is_on_one_side_and_copies_stay_together(names, share, seed):
    parts = split(named(*names), share, seed)
    trained, held_out = contents(parts.training), contents(parts.held_out)
    assert sorted(trained + held_out) == sorted(names)
    assert not set(trained) & set(held_out)
    assert trained
    different = len(set(names))
    assert len(set(held_out)) == (min(max(1, round(share * different)), different - 1) if share > 0 else 0)


def test_who_is_held_out_depends_on_the_seed_and_the_pictures_alone():
    names = [f"picture {number}" for number in range(20)]
    chosen = contents(split(named(*names), 0.25, 1).held_out)
    assert sorted(contents(split(named(*reversed(names)), 0.25, 1).held_out)) == sorted(chosen)
    assert contents(split(named(*names), 0.25, 2).held_out) != chosen
    # Further pictures may push some back to training, but bring none of the old ones over.
    more = contents(split(named(*names, "one", "two", "three"), 0.2, 1).held_out)
    assert set(more) & set(names) <= set(chosen)


def test_the_rest_is_still_shown_once_an_epoch():
    parts = split(named(*(f"picture {number}" for number in range(13))), 0.3, 0)
    length = len(parts.training.pictures)
    assert length == 9
    shown = showings(0, [(64, 64)] * length, 1, 2 * length, length)
    assert sorted(item.index for item in shown) == list(range(length))


def test_one_picture_cannot_be_held_out():
    parts = split(named("only", "only"), 0.5, 0)
    assert contents(parts.training) == ["only", "only"] and not parts.held_out.pictures


@pytest.fixture(scope="module")
def pictures(micro, character_folder, tmp_path_factory):
    from lib_dsm.host.studio import MICRO
    from lib_dsm.training.config import RunConfig

    config = RunConfig("zorgle", str(MICRO), str(character_folder), vectors=4, width=96, height=64, size_step=8)
    return config, training_set(config, micro, tmp_path_factory.mktemp("latents"))


def network(model, config) -> TextualInversion:
    return TextualInversion(config.name, initial_vectors(model, "solo", config.vectors), model.device)


@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_validation_gives_the_same_bits_whatever_else_is_drawn(micro, pictures, count):
    config, everything = pictures
    fixed = FixedDraws(everything.pictures[:count], config, micro)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = fixed.measure(micro, network(micro, config))
    assert torch.equal(torch.get_rng_state(), state)
    torch.randn(7)
    assert FixedDraws(everything.pictures[:count], config, micro).measure(micro, network(micro, config)) == first
    assert len(first) == UNITS and all(len(unit) == BANDS for unit in first)
    assert len({loss for unit in first for loss in unit}) == UNITS * BANDS  # no draw is made twice
    assert all(math.isfinite(loss) and loss > 0 for unit in first for loss in unit)


def test_measuring_needs_no_gradient_and_leaves_none(micro, pictures):
    config, everything = pictures
    network_ = network(micro, config)
    FixedDraws(everything.pictures[:2], config, micro).measure(micro, network_)
    assert network_.vectors.grad is None


def test_each_unit_has_one_timestep_in_each_band_and_together_they_cover_all(micro, pictures):
    config, everything = pictures
    timesteps = FixedDraws(everything.pictures, config, micro)._timesteps
    count = len(micro.alphas_cumprod)
    assert [[band_of(timestep, count) for timestep in unit] for unit in timesteps] == [list(range(BANDS))] * UNITS
    together = sorted(timestep for unit in timesteps for timestep in unit)
    gaps = {after - before for before, after in pairwise(together)}
    assert gaps <= {count // (UNITS * BANDS), count // (UNITS * BANDS) + 1}


def test_training_never_draws_the_noise_of_a_validation():
    shape = (BANDS, 4, 8, 8)
    used = draws.normal(0, "validation", 0, shape)
    for purpose in ("noise", "latent", "latent once"):
        assert not torch.equal(draws.normal(0, purpose, 0, shape), used)


def test_the_key_tells_other_draws_apart(micro, pictures):
    config, everything = pictures
    key = FixedDraws(everything.pictures, config, micro).key()
    assert FixedDraws(tuple(reversed(everything.pictures)), config, micro).key() == key
    retagged = replace(everything.pictures[0], tags=("other",))
    for shown, settings in [
        (everything.pictures[:5], config),
        ((retagged, *everything.pictures[1:]), config),
        (everything.pictures, replace(config, seed=1)),
        (everything.pictures, replace(config, template=("[name]",))),
        (everything.pictures, replace(config, clip_skip=2)),
    ]:
        assert FixedDraws(shown, settings, micro).key() != key


def test_a_network_that_knows_the_tags_is_told_from_one_that_does_not(micro, pictures):
    config, everything = pictures
    config = replace(config, template=("[name]",))
    fixed = FixedDraws(everything.pictures[:1], config, micro)
    tags = ", ".join(everything.pictures[0].tags)
    vectors = initial_vectors(micro, tags, len(micro.tokenize(tags)))
    ignorant = Validation(0, fixed.measure(micro, network(micro, config)))
    knowing = Validation(1, fixed.measure(micro, TextualInversion(config.name, vectors, micro.device)))
    assert change(ignorant, knowing).z < -3
    assert all(after < before for before, after in zip(ignorant.bands[:3], knowing.bands[:3], strict=True))


def test_the_vocabulary_is_that_of_the_model(micro):
    words = vocabulary(micro)
    lengths = micro.token_vectors(range(49406)).norm(dim=1)
    assert float((lengths < words.low).float().mean()) == pytest.approx(0.05, abs=0.001)
    assert float((lengths < words.high).float().mean()) == pytest.approx(0.95, abs=0.001)
    assert words.low < words.median < words.high
