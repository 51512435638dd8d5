import hashlib
import shutil

import pytest
import torch

from lib_dsm.errors import GuardError
from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.pictures import TrainingSet
from lib_dsm.training.run_folder import RunFolder
from lib_dsm.training.validation import held_out_losses
from tests.micro import training_set

NEVER = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)
QUIET = Callbacks(
    stepped=lambda report: None,
    preview=lambda step: None,
    write_network=lambda step, folder: None,
    saved=lambda step, path: None,
)


def trainer(config, model, folder, pictures, callbacks=QUIET, commands=NEVER) -> Trainer:
    vectors = initial_vectors(model, config.init_text, config.vectors)
    network = TextualInversion(config.name, vectors, model.device)
    return Trainer(config, model, network, pictures, RunFolder(folder), callbacks, commands)


def trained(config, model, folder, pictures, **more) -> Trainer:
    run = trainer(config, model, folder, pictures, **more)
    run.resume()
    run.run()
    return run


def weights(model) -> str:
    digest = hashlib.sha256()
    for module in (model.unet, model.text_encoder, model.autoencoder):
        for tensor in module.state_dict().values():
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


@pytest.fixture
def pictures(run_config, micro, tmp_path):
    return training_set(run_config(), micro, tmp_path / "latents")


def test_the_vectors_change_and_nothing_else(run_config, micro, pictures, tmp_path):
    before = weights(micro)
    config = run_config(max_steps=2)
    run = trained(config, micro, tmp_path / "run", pictures)
    assert weights(micro) == before
    assert not torch.equal(run.trainable.state()["vectors"], initial_vectors(micro, "solo", 4))
    assert all(p.grad is None for m in (micro.unet, micro.text_encoder, micro.autoencoder) for p in m.parameters())


@pytest.mark.parametrize(
    ("count", "rate", "batch", "steps"),
    [
        pytest.param(1, "0.02", 8, 80, id="one picture", marks=pytest.mark.long),
        pytest.param(12, "0.03", 4, 100, id="a character"),
    ],
)
def test_the_held_out_loss_falls_clearly(run_config, micro, pictures, tmp_path, count, rate, batch, steps):
    shown = TrainingSet(pictures.pictures[:count])
    config = run_config(
        max_steps=steps, batch_size=batch, learning_rate=rate, vectors=16, save_every=0, template=("[name]",)
    )
    run = trainer(config, micro, tmp_path / "run", shown)
    before = held_out_losses(micro, run.trainable, shown, config)
    run.resume()
    run.run()
    after = held_out_losses(micro, run.trainable, shown, config)
    print(f"held-out loss, {count} pictures: {before.mean():.4f} before, {after.mean():.4f} after")
    assert after.mean() < 0.95 * before.mean()
    assert torch.all(after.mean(dim=1) < before.mean(dim=1))


def test_a_stopped_and_resumed_run_has_the_same_bits(run_config, micro, pictures, tmp_path):
    config = run_config(max_steps=5, latent_sampling="random", tag_dropout=0.2)
    whole = trained(config, micro, tmp_path / "whole", pictures)
    reports = []
    stop_after_three = Commands(stop=lambda: len(reports) == 3, save=lambda: False, preview=lambda: False)
    listening = Callbacks(reports.append, lambda step: torch.manual_seed(0), lambda s, f: None, lambda s, f: None)
    stopped = trained(config, micro, tmp_path / "cut", pictures, callbacks=listening, commands=stop_after_three)
    assert stopped.step == 3
    torch.manual_seed(123)
    resumed = trained(config, micro, tmp_path / "cut", pictures)
    assert resumed.step == 5
    assert torch.equal(whole.trainable.state()["vectors"], resumed.trainable.state()["vectors"])
    rows = [[row.rsplit(",", 1)[0] for row in (tmp_path / name / "losses.csv").open()] for name in ("whole", "cut")]
    assert rows[0] == rows[1]  # all but the seconds


def test_previews_do_not_disturb_the_run(run_config, micro, pictures, tmp_path):
    config = run_config(max_steps=3, preview_every=1)

    def preview(step):
        torch.manual_seed(7)
        torch.randn(3)

    disturbing = Callbacks(lambda report: None, preview, lambda s, f: None, lambda s, f: None)
    first = trained(config, micro, tmp_path / "a", pictures, callbacks=disturbing)
    second = trained(config, micro, tmp_path / "b", pictures)
    assert torch.equal(first.trainable.state()["vectors"], second.trainable.state()["vectors"])


def test_a_step_averages_over_the_same_pictures_however_they_are_batched(run_config, micro, pictures, tmp_path):
    gradients = []
    for batch, accumulation in ((4, 1), (1, 4)):
        config = run_config(batch_size=batch, gradient_accumulation=accumulation, max_steps=1, batch_by_size=False)
        run = trainer(config, micro, tmp_path / f"{batch}", pictures)
        seen = []
        run.optimizer.register_step_pre_hook(
            lambda optimizer, args, kwargs, run=run, seen=seen: seen.append(run.trainable.vectors.grad.clone())
        )
        run.resume()
        run.run()
        gradients.append(seen[0])
    assert torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=1e-9)


def test_saves_and_previews_come_when_asked_and_when_due(run_config, micro, pictures, tmp_path):
    previews, wishes = [], iter([False, True, False, False, False])
    commands = Commands(stop=lambda: False, save=lambda: next(wishes), preview=lambda: False)
    callbacks = Callbacks(lambda report: None, previews.append, lambda s, f: None, lambda s, f: None)
    config = run_config(max_steps=5, save_every=4, preview_every=3)
    run = trained(config, micro, tmp_path / "run", pictures, callbacks=callbacks, commands=commands)
    assert run.folder.saved_steps() == [2, 4, 5]
    assert previews == [3, 5]


def test_the_end_of_a_cycle_is_saved_and_previewed_where_asked(run_config, micro, pictures, tmp_path):
    settings = {"schedule": "cosine restarts", "cycle_length": 2, "cycle_multiplier": 1.5, "max_steps": 6}
    every = {"save_every": 0, "preview_every": 0, "validate_every": 0}
    for name, switches, saved, previewed in (
        ("both", {"cycle_save": True, "cycle_preview": True}, [2, 5, 6], [2, 5, 6]),
        ("save", {"cycle_save": True}, [2, 5, 6], []),
        ("none", {}, [6], []),
    ):
        previews = []
        callbacks = Callbacks(lambda report: None, previews.append, lambda s, f: None, lambda s, f: None)
        config = run_config(**settings, **every, **switches)
        run = trained(config, micro, tmp_path / name, pictures, callbacks=callbacks)
        assert (run.folder.saved_steps(), previews) == (saved, previewed)


def test_neither_saving_nor_previewing_in_between_works(run_config, micro, pictures, tmp_path):
    run = trained(run_config(max_steps=2, save_every=0, preview_every=0), micro, tmp_path / "run", pictures)
    assert run.folder.saved_steps() == [2]


def test_a_loss_that_is_no_number_keeps_the_last_good_state(run_config, micro, pictures, tmp_path):
    config = run_config(max_steps=4, save_every=0)
    run = trainer(config, micro, tmp_path / "run", pictures)
    run.resume()
    good = []

    def poison(report):
        if report.step == 2:
            good.append(run.trainable.state()["vectors"])
            run.model = Poisoned(micro)

    run.callbacks = Callbacks(poison, lambda step: None, lambda s, f: None, lambda s, f: None)
    with pytest.raises(GuardError, match="not a number"):
        run.run()
    step, tensors = run.folder.load_latest()
    assert step == 2 and torch.equal(tensors["network.vectors"], good[0])


class Halved:
    """The model with a backward pass in which numbers above half precision's largest become infinite."""

    def __init__(self, model, dtype=torch.float16, enlarged=1.0):
        self._model = model
        self.dtype = dtype
        self._enlarged = enlarged  # as if gradients were that much larger

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, *arguments):
        output = self._model.predict(*arguments)
        output.register_hook(lambda gradient: self._rounded(gradient))
        return output

    def _rounded(self, gradient):
        too_large = gradient.abs().max() * self._enlarged > torch.finfo(torch.float16).max
        return gradient * float("inf") if too_large else gradient


def test_a_gradient_that_half_precision_cannot_hold_is_computed_again_at_a_smaller_scale(
    run_config, micro, pictures, tmp_path
):
    config = run_config(max_steps=4)
    plain = trained(config, micro, tmp_path / "plain", pictures)
    halved = trained(config, Halved(micro, enlarged=3e4), tmp_path / "halved", pictures)
    assert 1.0 <= halved.loss_scale < 1024.0
    # A power of two changes no digit.
    assert torch.equal(plain.trainable.state()["vectors"], halved.trainable.state()["vectors"])
    rows = [list(RunFolder(tmp_path / name).losses()) for name in ("plain", "halved")]
    assert [row[:8] for row in rows[0]] == [row[:8] for row in rows[1]]


def test_the_scale_is_a_part_of_the_saved_state(run_config, micro, pictures, tmp_path):
    model = Halved(micro, enlarged=3e4)
    first = trained(run_config(max_steps=2), model, tmp_path / "run", pictures)
    again = trainer(run_config(max_steps=4), model, tmp_path / "run", pictures)
    assert again.loss_scale == 1024.0
    again.resume()
    assert again.loss_scale == first.loss_scale < 1024.0
    again.model = micro
    for step, larger in ((499, 1), (500, 2), (501, 2)):  # now and then it is tried whether a larger one will do
        again.step = step
        again._gradients()
        assert again.loss_scale == larger * first.loss_scale


def test_a_gradient_that_is_infinite_at_every_scale_ends_the_run(run_config, micro, pictures, tmp_path):
    run = trainer(run_config(max_steps=4), Halved(micro, enlarged=float("inf")), tmp_path / "run", pictures)
    run.resume()
    with pytest.raises(GuardError, match="gradient after step 0 is not a number"):
        run.run()
    assert run.loss_scale == 1.0 and run.folder.saved_steps() == []


def drawn(folder, *steps):
    """Previews of these steps, one request each."""
    folder.images.mkdir(parents=True, exist_ok=True)
    for step in steps:
        folder.preview_file(step, 0).write_bytes(b"picture")


@pytest.mark.parametrize(
    ("saved", "every", "there", "expected"),
    [
        (2, 2, [], [2, 4, 5]),  # it was killed after it had saved and before it had drawn
        (2, 2, [2], [2, 4, 5]),  # those that are there are left out by whoever draws
        (3, 2, [2], [4, 5]),
        (3, 0, [3], [3]),  # asked for, and stopped before all of them were there
        (3, 0, [], []),
        (5, 2, [], [5]),  # nothing is left to train
    ],
)
def test_a_resumed_run_draws_what_is_missing_of_its_step(
    run_config, micro, pictures, tmp_path, saved, every, there, expected
):
    trained(run_config(max_steps=saved, save_every=0), micro, tmp_path / "run", pictures)
    drawn(RunFolder(tmp_path / "run"), *there)
    asked = []
    callbacks = Callbacks(lambda report: None, asked.append, lambda s, f: None, lambda s, f: None)
    config = run_config(max_steps=5, save_every=0, preview_every=every)
    trained(config, micro, tmp_path / "run", pictures, callbacks=callbacks)
    assert asked == expected


def test_a_template_that_cuts_the_gradient_is_noticed_at_once(run_config, micro, pictures, tmp_path):
    run = trainer(run_config(template=("[filewords]",)), micro, tmp_path / "run", pictures)
    run.resume()
    with pytest.raises(GuardError, match="no gradient"):
        run.run()


@pytest.mark.parametrize("accumulation", [1, 2])
def test_prompts_without_the_name_add_no_gradient_and_end_no_run(run_config, micro, pictures, tmp_path, accumulation):
    """Where that was allowed, a part or a whole step may be without the name, also the first after resuming."""
    named = []
    for seed in range(99):  # the first step has the name in one batch of several
        settings = {"template": ("[name]", "[filewords]"), "seed": seed, "batch_size": 1}
        config = run_config(max_steps=3, save_every=1, gradient_accumulation=accumulation, **settings)
        run = trainer(config, micro, tmp_path / f"{seed}", pictures)
        named = ["zorgle" in run._prompt((), place) for place in range(3 * accumulation)]
        if any(named[:accumulation]) and not any(named[-accumulation:]):
            break
    run.resume()
    run.run()
    rows = list(run.folder.losses())
    assert rows[0][3] > 0 and rows[2][3] == 0 and all(row[1] > 0 for row in rows)
    shutil.rmtree(run.folder.state_folder(3))
    resumed = trained(config, micro, run.folder.path, pictures)
    assert torch.equal(resumed.trainable.state()["vectors"], run.trainable.state()["vectors"])


class Poisoned:
    """The model with a U-Net that overflows."""

    def __init__(self, model):
        self._model = model

    def __getattr__(self, name):
        return getattr(self._model, name)

    def predict(self, *arguments):
        return self._model.predict(*arguments) * float("inf")


@pytest.mark.parametrize("sampling", ["once", "random"])
def test_drawn_latents_follow_the_posterior(micro, pictures, sampling):
    from lib_dsm.training.latents import draw_latent

    posterior = pictures.pictures[0].posterior
    drawn = torch.stack([draw_latent(posterior, sampling, 0, index, index) for index in range(200)])
    deviation = torch.exp(0.5 * posterior.logvar)
    assert float(((drawn.mean(0) - posterior.mean) / deviation).abs().mean()) < 0.1
    same_picture = [draw_latent(posterior, sampling, 0, 1, place) for place in (1, 2)]
    assert torch.equal(*same_picture) == (sampling == "once")


@pytest.mark.parametrize("sampling", ["once", "random"])
def test_the_deviation_of_a_drawn_latent_can_be_set(micro, pictures, sampling):
    from lib_dsm.training.latents import draw_latent

    posterior = pictures.pictures[0].posterior
    plain = draw_latent(posterior, sampling, 0, 1, 1) - posterior.mean
    tripled = draw_latent(posterior, sampling, 0, 1, 1, factor=3.0) - posterior.mean
    assert torch.allclose(tripled, 3 * plain, atol=1e-5)
    assert torch.equal(draw_latent(posterior, sampling, 0, 1, 1, factor=0.0), posterior.mean)
    least = 2 * float(torch.exp(0.5 * posterior.logvar).max())
    raised = draw_latent(posterior, sampling, 0, 1, 1, least=least) - posterior.mean
    assert torch.allclose(raised, plain / torch.exp(0.5 * posterior.logvar) * least, rtol=1e-3, atol=1e-4)
    assert torch.equal(draw_latent(posterior, "deterministic", 0, 1, 1, factor=3.0, least=1.0), posterior.mean)


def test_an_error_on_the_way_loses_no_finished_step(run_config, micro, pictures, tmp_path):
    def fail(step):
        raise RuntimeError("out of memory")

    config = run_config(max_steps=5, save_every=0, preview_every=3)
    run = trainer(config, micro, tmp_path / "run", pictures)
    run.callbacks = Callbacks(lambda report: None, fail, lambda s, f: None, lambda s, f: None)
    run.resume()
    with pytest.raises(RuntimeError):
        run.run()
    assert run.folder.saved_steps() == [3]
