from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch

from lib_dsm.demo import train_autoencoder, world
from lib_dsm.demo.train_autoencoder import Training
from lib_dsm.host.studio import load_model


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_autoencoder, "STEPS", 10)
    monkeypatch.setattr(train_autoencoder, "CROPS", 2)
    monkeypatch.setattr(train_autoencoder, "WHOLE", 1)
    monkeypatch.setattr(train_autoencoder, "DEVIATION_SAMPLES", 4)


def test_a_run_that_was_killed_ends_with_the_same_bits_and_never_draws_a_held_out_character(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[world.Character] = []
    draw = world.draw
    monkeypatch.setattr(world, "draw", lambda character, *rest: drawn.append(character) or draw(character, *rest))
    whole = Training(tmp_path)
    whole.one_step()
    whole.save()
    expected = [whole.one_step() for _ in range(8)]  # crops, then whole pictures
    resumed = Training(tmp_path)
    assert [resumed.one_step() for _ in range(8)] == expected
    assert len(drawn) > 16 and not any(map(world.is_held_out, drawn))


def test_the_exported_latents_have_the_deviation_that_the_scale_wants(tmp_path: Path) -> None:
    training = Training(tmp_path)
    training.one_step()
    training.export(tmp_path / "new.safetensors")
    model = load_model(tmp_path / "new.safetensors")
    pictures = train_autoencoder._whole(random.Random("some"))
    mean, logvar = model.encode_images(pictures)
    ours = training.autoencoder.encode(pictures).latent_dist
    change = mean.std() / ours.mean.std()
    assert torch.allclose(mean, ours.mean.detach() * change, rtol=0.02, atol=0.02)
    assert torch.allclose(logvar, ours.logvar.detach() + 2 * change.log(), rtol=0.02, atol=0.02)
    assert torch.allclose(
        model.decode_latents(mean * model.latent_scale),
        training.autoencoder.decode(ours.mean).sample.detach(),
        atol=0.05,
    )
    assert 0.5 < float(mean.std()) * model.latent_scale < 2
