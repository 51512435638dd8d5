"""What the settings of optimiser, loss and showings do to real steps of the micro model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file

from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training import draws
from lib_dsm.training.draws import chance
from lib_dsm.training.loop import Callbacks, Commands, Trainer, diffusion_losses
from lib_dsm.training.pictures import TrainingSet
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.schedule import schedule_of
from lib_dsm.training.timesteps import loss_weights
from tests.micro import training_set

NEVER = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)


class Watched(Trainer):
    """A trainer that keeps what each step gave, and the gradients that reached the optimiser."""

    def __init__(self, config, model, folder, pictures):
        self.reports, self.gradients, self.vectors = [], [], []
        callbacks = Callbacks(self.reports.append, lambda step: None, lambda step, folder: None, lambda s, p: None)
        start = initial_vectors(model, config.init_text, config.vectors)
        network = TextualInversion(config.name, start, model.device)
        super().__init__(config, model, network, pictures, RunFolder(folder), callbacks, NEVER)
        self.optimizer.register_step_pre_hook(self.keep)

    def keep(self, *_):
        self.gradients.append(self.trainable.vectors.grad.clone())
        self.vectors.append(self.trainable.state()["vectors"])

    def all_steps(self):
        self.resume()
        self.run()
        self.vectors.append(self.trainable.state()["vectors"])
        return self


@pytest.fixture(scope="module")
def set_of(micro, tmp_path_factory):
    """The pictures of a configuration, encoded, with mirror images and weights if its settings ask for them."""
    cache = tmp_path_factory.mktemp("latents")
    return lambda config: training_set(config, micro, cache)


@pytest.fixture
def small(run_config):
    return lambda **changes: run_config(
        **{"width": 64, "height": 64, "batch_size": 1, "max_steps": 1, "save_every": 0, "validate_every": 0, **changes}
    )


def test_gradients_are_clipped_as_they_are_and_not_as_they_are_scaled(small, micro, set_of, tmp_path):
    pictures = set_of(small())
    (plain,) = Watched(small(), micro, tmp_path / "plain", pictures).all_steps().gradients
    bound = float(plain.abs().median())
    for mode, expected in (("value", plain.clamp(-bound, bound)), ("norm", plain * bound / plain.norm())):
        for scale in (1.0, 1024.0):
            run = Watched(
                small(clip_gradient=mode, clip_bound=repr(bound)), micro, tmp_path / f"{mode}{scale}", pictures
            )
            run.loss_scale = scale
            (clipped,) = run.all_steps().gradients
            assert (clipped - expected).norm() < 1e-3 * expected.norm()
            assert run.reports[0].gradient_norm == pytest.approx(float(plain.norm()), rel=1e-3)
    loose = Watched(
        small(clip_gradient="norm", clip_bound=repr(2 * float(plain.norm()))), micro, tmp_path / "loose", pictures
    )
    assert torch.equal(loose.all_steps().gradients[0], plain)


def test_a_bound_of_clipping_changes_at_its_step(small, micro, set_of, tmp_path):
    config = small(max_steps=3, clip_gradient="norm", clip_bound="1e-9:1, 1e-10", clip_norm="inf")
    run = Watched(config, micro, tmp_path / "run", set_of(config)).all_steps()
    assert [float(gradient.abs().max()) for gradient in run.gradients] == pytest.approx([1e-9, 1e-10, 1e-10], rel=1e-4)


def test_the_optimiser_is_adamw_with_these_numbers_at_this_rate(small, micro, set_of, tmp_path):
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2019, algorithm 2, by hand."""
    config = small(
        max_steps=4, learning_rate="0.02", schedule="cosine", warmup_steps=1, adam_beta1=0.8, adam_beta2=0.95,
        adam_epsilon=1e-4, weight_decay=0.3,
    )  # fmt: skip
    run = Watched(config, micro, tmp_path / "run", set_of(config)).all_steps()
    mean, square, vectors = torch.zeros(4, 80), torch.zeros(4, 80), run.vectors[0]
    for step, gradient in enumerate(run.gradients):
        rate = schedule_of(config).at(step)
        assert run.reports[step].learning_rate == rate
        mean = 0.8 * mean + 0.2 * gradient
        square = 0.95 * square + 0.05 * gradient**2
        corrected, spread = mean / (1 - 0.8 ** (step + 1)), square / (1 - 0.95 ** (step + 1))
        vectors = vectors - rate * (corrected / (spread.sqrt() + 1e-4) + 0.3 * vectors)
        assert torch.allclose(vectors, run.vectors[step + 1], rtol=1e-4, atol=1e-6)


def test_a_new_rate_is_obeyed_when_a_run_goes_on(small, micro, set_of, tmp_path):
    config = small(max_steps=2, learning_rate="0.01", adam_beta1=0.9)
    Watched(config, micro, tmp_path / "run", set_of(config)).all_steps()
    changed = replace(config, max_steps=4, learning_rate="1e-7", adam_beta1=0.5)
    run = Watched(changed, micro, tmp_path / "run", set_of(config)).all_steps()
    assert [report.learning_rate for report in run.reports] == [1e-7, 1e-7]
    assert run.optimizer.param_groups[0]["betas"] == (0.5, 0.999)
    assert 0 < float((run.vectors[-1] - run.vectors[0]).abs().max()) < 1e-6


def test_weights_of_timesteps_scale_the_gradient_and_not_the_reported_loss(small, micro, set_of, tmp_path):
    pictures = set_of(small())
    plain = Watched(small(), micro, tmp_path / "plain", pictures).all_steps()
    config = small(loss_weighting="min-snr", snr_gamma=0.5)
    weighted = Watched(config, micro, tmp_path / "weighted", pictures).all_steps()
    # The very same noise, weighed at the one timestep that was drawn.
    ratio = float(weighted.gradients[0].norm() / plain.gradients[0].norm())
    weights = loss_weights("min-snr", 0.5, micro.prediction_type, micro.alphas_cumprod)

    assert ratio == pytest.approx(float(weights[draws.timestep(0, "timestep", 0, 1000)]), rel=1e-3)
    assert weighted.reports[0].loss == plain.reports[0].loss


def test_timesteps_of_a_range_are_all_that_is_seen(small, micro, set_of, tmp_path):
    seen = []

    class Seeing:
        def __getattr__(self, name):
            return getattr(micro, name)

        def predict(self, noisy, timesteps, conditioning):
            seen.extend(timesteps.tolist())
            return micro.predict(noisy, timesteps, conditioning)

    config = small(timestep_sampling="range", timestep_min=700, timestep_max=720, gradient_accumulation=4)
    Watched(config, Seeing(), tmp_path / "run", set_of(config)).all_steps()
    assert len(set(seen)) > 1 and all(700 <= step <= 720 for step in seen)


def test_always_flipped_is_training_on_the_mirrored_pictures(small, micro, set_of, tmp_path):
    folder = tmp_path / "mirrored"
    folder.mkdir()
    config = small(flip=1.0, max_steps=2)
    for picture in set_of(config).pictures:
        with Image.open(picture.path) as image:
            ImageOps.mirror(image.convert("RGB")).save(folder / f"{picture.path.stem}.png")
        (folder / f"{picture.path.stem}.txt").write_text(", ".join(picture.tags))
    flipped = Watched(config, micro, tmp_path / "a", set_of(config)).all_steps()
    other = small(dataset=str(folder), max_steps=2)
    mirrored = Watched(other, micro, tmp_path / "b", set_of(other)).all_steps()
    assert torch.equal(flipped.vectors[-1], mirrored.vectors[-1])
    never = Watched(small(max_steps=2), micro, tmp_path / "c", set_of(small())).all_steps()
    assert not torch.equal(flipped.vectors[-1], never.vectors[-1])


def test_a_factor_on_the_deviation_reaches_the_latents(small, micro, set_of, tmp_path):
    runs = {
        key: Watched(small(**settings), micro, tmp_path / key, set_of(small())).all_steps().reports[0].loss
        for key, settings in {
            "mean": {"latent_sampling": "deterministic"},
            "none": {"latent_sampling": "random", "latent_deviation": 0.0},
            "plain": {"latent_sampling": "random"},
            "least": {"latent_sampling": "random", "latent_deviation": 0.0, "latent_deviation_least": 0.5},
        }.items()
    }
    assert runs["none"] == runs["mean"] and len(set(runs.values())) == 3


def test_some_showings_are_flipped_and_always_the_same_ones():
    drawn = [chance(3, "flip", place, 0.3) for place in range(2000)]
    assert drawn == [chance(3, "flip", place, 0.3) for place in range(2000)]
    assert abs(sum(drawn) - 600) < 80
    assert not any(chance(3, "flip", place, 0.0) for place in range(100))
    assert all(chance(3, "flip", place, 1.0) for place in range(100))


@pytest.fixture
def with_alpha(run_config, tmp_path):
    """The character's pictures with an alpha channel whose left part has an opacity of 0 to 255."""

    def make(opacity):
        folder = tmp_path / f"alpha{opacity}"
        folder.mkdir()
        for path in sorted(Path(run_config().dataset).glob("*.txt")):
            with Image.open(path.with_suffix(".png")) as image:
                picture = image.convert("RGB")
            alpha = Image.new("L", picture.size, 255)
            alpha.paste(opacity, (0, 0, picture.width // 2, picture.height))
            picture.putalpha(alpha)
            picture.save(folder / f"{path.stem}.png")
            (folder / path.name).write_bytes(path.read_bytes())
        return str(folder)

    return make


def test_an_opaque_alpha_channel_changes_no_bit(small, micro, set_of, with_alpha, tmp_path):
    dataset = with_alpha(255)
    runs = [
        Watched(config, micro, tmp_path / f"{index}", set_of(config)).all_steps()
        for index, config in enumerate(
            (
                small(max_steps=2),
                small(dataset=dataset, max_steps=2),
                small(dataset=dataset, alpha_loss=True, max_steps=2),
            )
        )
    ]
    assert torch.equal(runs[0].vectors[-1], runs[1].vectors[-1])
    assert torch.equal(runs[0].vectors[-1], runs[2].vectors[-1])


def test_what_is_transparent_has_no_part_in_the_loss(small, micro, set_of, with_alpha, tmp_path):
    config = small(dataset=with_alpha(0), alpha_loss=True)
    pictures = set_of(config)
    assert all(picture.weights is not None for picture in pictures.pictures)
    masked = Watched(config, micro, tmp_path / "masked", pictures).all_steps()
    bare = TrainingSet(tuple(replace(picture, weights=None) for picture in pictures.pictures))
    whole = Watched(config, micro, tmp_path / "whole", bare).all_steps()
    assert masked.reports[0].loss != whole.reports[0].loss


def test_weights_of_cells_are_a_weighted_mean_and_ones_change_no_bit(micro):
    generator = torch.Generator().manual_seed(4)
    latents, noise = torch.randn(2, 2, 4, 8, 8, generator=generator)
    timesteps = torch.tensor([100, 800])
    conditioning = micro.encode_prompts(["solo", "smile"], {}, 1).detach()
    plain = diffusion_losses(micro, latents, noise, timesteps, conditioning)
    ones = diffusion_losses(micro, latents, noise, timesteps, conditioning, torch.ones(2, 1, 8, 8))
    assert torch.equal(plain, ones)
    left, right = torch.zeros(2, 1, 8, 8), torch.zeros(2, 1, 8, 8)
    left[..., :4], right[..., 4:] = 2.0, 2.0
    halves = [diffusion_losses(micro, latents, noise, timesteps, conditioning, half) for half in (left, right)]
    assert torch.allclose((halves[0] + halves[1]) / 2, plain, rtol=1e-5)
    assert not torch.allclose(halves[0], halves[1], rtol=1e-3)


@pytest.mark.parametrize("target", ["initial", "median"])
def test_fixed_lengths_stay_and_directions_move(small, micro, set_of, tmp_path, target):
    config = small(norm_control="fixed", norm_target=target, max_steps=4, learning_rate="0.05", save_every=2)
    run = Watched(config, micro, tmp_path / "whole", set_of(config)).all_steps()
    first = run.vectors[0].norm(dim=1)
    for vectors, gradient in zip(run.vectors, run.gradients, strict=False):
        assert torch.allclose(vectors.norm(dim=1), first, rtol=1e-5)
        assert float((gradient * vectors).sum(dim=1).abs().max()) < 1e-5 * float(gradient.norm() * first.max())
    if target == "initial":
        assert torch.equal(run.vectors[0], initial_vectors(micro, "solo", 4))
    cosines = torch.nn.functional.cosine_similarity(run.vectors[0], run.vectors[-1])
    assert float(cosines.max()) < 0.999
    # stopped and taken up again, it ends the same
    Watched(replace(config, max_steps=2), micro, tmp_path / "cut", set_of(config)).all_steps()
    resumed = Watched(config, micro, tmp_path / "cut", set_of(config)).all_steps()
    assert torch.equal(resumed.vectors[-1], run.vectors[-1])


def test_lengths_are_pulled_towards_the_words(small, micro, set_of, tmp_path):
    def lengths(**settings):
        config = small(max_steps=3, learning_rate="0.1", **settings)
        run = Watched(config, micro, tmp_path / f"{settings}", set_of(config)).all_steps()
        return run.vectors[-1].norm(dim=1)

    free, pulled = lengths(), lengths(norm_control="decay", norm_decay=0.9)
    median = float(micro.token_vectors(range(49406)).norm(dim=1).median())
    assert torch.all((pulled - median).abs() < 0.5 * (free - median).abs())


def test_states_of_earlier_versions_can_be_resumed(small, micro, set_of, tmp_path):
    config = small(max_steps=1)
    Watched(config, micro, tmp_path / "run", set_of(config)).all_steps()
    path = RunFolder(tmp_path / "run").state_file(1, "state.safetensors")
    old = {name: value for name, value in load_file(path).items() if not name.startswith("start.")}
    assert len(old) < len(load_file(path))
    save_file(old, path)
    run = Watched(replace(config, max_steps=2), micro, tmp_path / "run", set_of(config)).all_steps()
    assert run.step == 2 and torch.equal(run.start[0], initial_vectors(micro, "solo", 4))
