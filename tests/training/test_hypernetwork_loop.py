"""The loop on a hypernetwork, step by step against a trainer that knows nothing of ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lib_dsm.networks.hypernetwork_training import HypernetworkTraining, drawn_start
from lib_dsm.training import draws
from lib_dsm.training.buckets import showings
from lib_dsm.training.captions import draw_prompt
from lib_dsm.training.conditionings import Conditionings
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.run_folder import RunFolder
from tests.micro import training_set
from tests.networks.test_hypernetwork_training import PlainProcessor, plain_halves

NEVER = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)
STEPS = 20


def trained(config, model, folder, pictures, structure) -> tuple[Trainer, list[float]]:
    losses: list[float] = []
    callbacks = Callbacks(
        stepped=lambda report: losses.append(report.loss),
        preview=lambda step: None, write_network=lambda step, folder: None, saved=lambda step, path: None,
    )  # fmt: skip
    start = drawn_start(structure, config.weight_init, config.weight_init_deviation, config.weight_init_seed)
    network = HypernetworkTraining(config.name, structure, start.weights, model.device)
    run = Trainer(config, model, network, pictures, RunFolder(folder), callbacks, NEVER)
    run.resume()
    run.run()
    return run, losses


def plainly(config, model, pictures, structure) -> tuple[list[float], dict]:
    """The same batches, noise and timesteps through plain modules, torch's AdamW and the textbook's loss."""
    start = drawn_start(structure, config.weight_init, config.weight_init_deviation, config.weight_init_seed)
    halves = plain_halves(start.weights, structure)
    parameters = [p for pair in halves.values() for half in pair for p in half.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=float(config.learning_rate), weight_decay=config.weight_decay, eps=config.adam_epsilon
    )
    alphas = model.alphas_cumprod
    own = dict(model.unet.attn_processors)
    model.unet.set_attn_processor(PlainProcessor(halves, 1.0))
    found = []
    try:
        for step in range(STEPS):
            count = config.pictures_per_step
            shown = showings(config.seed, pictures.sizes, 1, step * count, count, config.shown_together)
            losses = []
            for item in shown:
                picture = pictures.pictures[item.index]
                latent = picture.posterior.mean * model.latent_scale
                noise = draws.normal(config.seed, "noise", item.place, tuple(latent.shape))
                at = draws.timestep(config.seed, "timestep", item.place, len(alphas))
                prompt = draw_prompt(config, config.name, picture.tags, item.place)
                with torch.no_grad():
                    conditioning = model.encode_prompts([prompt], {}, config.clip_skip)
                noisy = alphas[at].sqrt() * latent + (1 - alphas[at]).sqrt() * noise
                predicted = model.unet(noisy[None], torch.tensor([at]), conditioning, return_dict=False)[0]
                losses.append(torch.nn.functional.mse_loss(predicted[0], noise))
            loss = torch.stack(losses).mean()
            found.append(float(loss.detach()))
            optimizer.zero_grad()
            loss.backward(inputs=parameters)
            optimizer.step()
    finally:
        model.unet.set_attn_processor(own)
    return found, halves


@pytest.mark.parametrize(
    ("activation", "layer_norm"),
    [
        pytest.param("linear", False, marks=pytest.mark.long),
        pytest.param("swish", False, marks=pytest.mark.long),
        ("relu", True),
    ],
)
def test_twenty_steps_are_those_of_a_plain_trainer(run_config, micro, tmp_path, activation, layer_norm):
    config = run_config(
        kind="hypernetwork", template=("[filewords]",), learning_rate="0.0002", max_steps=STEPS, save_every=0,
        shuffle_tags=True, activation=activation, layer_norm=layer_norm, weight_init_deviation=0.02, batch_size=1,
        width=64, height=64, adam_epsilon=1e-4,
    )  # fmt: skip
    # With a smaller epsilon a gradient that is but rounding counts for a whole step.
    pictures = training_set(config, micro, tmp_path / "latents")
    structure = config.structure(tuple(micro.context_widths()))
    run, losses = trained(config, micro, tmp_path / "run", pictures, structure)
    expected, halves = plainly(config, micro, pictures, structure)
    assert np.allclose(losses, expected, rtol=1e-4), max(abs(a - b) / b for a, b in zip(losses, expected, strict=True))
    assert len(set(losses)) == STEPS
    moved = [float((new - old).abs().max()) for new, old in zip(run.trainable.parameters(), run.start, strict=True)]
    assert max(moved) > 1e-3
    # Softmax takes out what is added to all keys alike, so a keys' bias has no gradient but what rounding leaves.
    for width, pair in run.trainable.weights().items():
        tensors, plain = pair[1], halves[width][1].state_dict()
        for name, tensor in plain.items():
            assert torch.allclose(tensors[f"linear.{name}"], tensor, atol=1e-5), (width, name)


@pytest.mark.long
def test_the_loss_falls(run_config, micro, tmp_path):
    config = run_config(
        kind="hypernetwork", template=("[filewords]",), learning_rate="0.002", max_steps=40, batch_size=2, width=64,
        height=64, activation="swish", save_every=0, latent_sampling="deterministic",
    )  # fmt: skip
    pictures = training_set(config, micro, tmp_path / "latents")
    structure = config.structure(tuple(micro.context_widths()))
    from lib_dsm.training.validation import held_out_losses

    start = drawn_start(structure, "Normal", 0.01, 0)
    before = held_out_losses(micro, HypernetworkTraining("a", structure, start.weights, micro.device), pictures, config)
    run, _ = trained(config, micro, tmp_path / "run", pictures, structure)
    after = held_out_losses(micro, run.trainable, pictures, config)
    assert float(after.mean()) < 0.9 * float(before.mean())


class Counting:
    """A model that notes what it encodes."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_prompts(self, prompts, replacements, clip_skip):
        self.encoded += prompts
        return torch.stack([torch.full((77, 4), float(len(prompt) + clip_skip)) for prompt in prompts])


def test_a_prompt_is_encoded_once():
    model = Counting()
    kept = Conditionings(model, 2)
    first, again = kept.encode(["a", "bcd"], {}), kept.encode(["bcd", "a"], {})
    assert model.encoded == ["a", "bcd"]
    assert torch.equal(first, again.flip(0)) and float(first[1, 0, 0]) == 5
    assert not first.requires_grad


def test_what_does_not_fit_is_forgotten_from_the_oldest_on():
    model = Counting()
    kept = Conditionings(model, 1, kept_bytes=2 * 77 * 4 * 4)
    for prompt in ("a", "b", "a", "c", "a", "b"):
        kept.encode([prompt], {})
    assert model.encoded == ["a", "b", "c", "b"]


def test_prompts_with_vectors_in_training_are_encoded_each_time():
    model = Counting()
    kept = Conditionings(model, 1)
    for _ in range(2):
        kept.encode(["a", "b"], {"a": torch.zeros(1, 4)})
    assert model.encoded == ["a", "b", "a", "b"]


def test_the_step_does_not_depend_on_what_was_kept(run_config, micro, tmp_path):
    """Prompts come from memory or are encoded alone: the numbers are the same bits."""
    kept = Conditionings(micro, 1)
    whole = kept.encode(["solo", "red hair, smile"], {})
    for prompt, row in (("red hair, smile", 1), ("solo", 0)):
        assert torch.equal(Conditionings(micro, 1).encode([prompt], {})[0], whole[row])
