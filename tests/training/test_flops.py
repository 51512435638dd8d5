"""A step computes hardly more than it must."""

from __future__ import annotations

import pytest

from lib_dsm.networks.textual_inversion import TextualInversion, initial_vectors
from lib_dsm.training.loop import Callbacks, Commands, Trainer
from lib_dsm.training.run_folder import RunFolder
from tests.benchmarks import step_flops
from tests.micro import training_set

MOST = 1.05


@pytest.mark.parametrize("clip_skip", [1, 2])
@pytest.mark.parametrize("prompts", step_flops.PROMPTS.values(), ids=step_flops.PROMPTS)
def test_a_step_through_the_model(micro, prompts, clip_skip):
    least = step_flops.floor(micro, 8, 12, step_flops.Chunks.of(micro, prompts), clip_skip)
    taken = step_flops.ours(micro, 8, 12, prompts, clip_skip)
    print(f"{taken / least:.3f} of the least")
    assert least <= taken * 1.001 and taken <= MOST * least


def test_a_whole_step_of_the_trainer(micro, run_config, tmp_path):
    config = run_config(max_steps=2, batch_size=4, variable_aspect=False, save_every=0, validate_every=0)
    pictures = training_set(config, micro, tmp_path / "latents")
    network = TextualInversion(config.name, initial_vectors(micro, config.init_text, config.vectors), micro.device)
    nothing = Callbacks(lambda report: None, lambda step: None, lambda step, folder: None, lambda step, path: None)
    commands = Commands(stop=lambda: False, save=lambda: False, preview=lambda: False)
    run = Trainer(config, micro, network, pictures, RunFolder(tmp_path / "run"), nothing, commands)
    run.resume()
    taken = step_flops.counted(run.run)
    least = 2 * step_flops.floor(micro, 8, 12, step_flops.Chunks(each=(1,) * 4, with_embedding=4, plain=0))
    assert least <= taken * 1.001 and taken <= MOST * least


def test_the_least_is_that_of_the_published_sizes():
    """The figures known for Stable Diffusion 1.5 at 512×512: U-Net 0.803 + 0.866, text encoder 0.0133 + 0.0135."""
    model = step_flops.on_paper()
    least = step_flops.floor(model, 64, 64, step_flops.Chunks(each=(1,), with_embedding=1, plain=0))
    assert least == pytest.approx(0.803 + 0.866 + 0.0133 + 0.0135, abs=0.002)
    assert step_flops.ours(model, 64, 64, step_flops.PROMPTS["one caption"]) <= MOST * least
