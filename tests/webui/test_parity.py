"""The studio's model and the WebUI's give the same numbers for the same checkpoint."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from lib_dsm.host.studio import load_model
from tests.webui.running import A1111

LONG = ", ".join(f"{colour} hair, {colour} shirt" for colour in ("red", "green", "blue", "black", "white") * 5)
PROMPTS = {
    "plain": "solo, red hair, smile",
    "empty": "",
    "emphasised": "solo, (red hair:1.4), [smile], ((hat))",
    "escaped": "character \\(series\\), (open",
    "long": LONG,
    "long and emphasised": LONG.replace("blue hair", "(blue hair:1.3)"),
    "BREAK": "hat BREAK red hair",
    "embedding": "solo, zorgle, hat",
    "embedding emphasised": "a (zorgle:1.3) and zor gle two, hat",
    "embedding that moves to the next chunk": f"{LONG[:330]}, zor gle two, {LONG}",
}
CLIP_SKIPS = [1, 2]


@pytest.fixture(scope="module", params=["Stable Diffusion 1", "Stable Diffusion 2"])
def checkpoint(request, webui):
    if request.param == "Stable Diffusion 2" and webui.kind != A1111:
        pytest.skip("it knows Stable Diffusion 2 by a text encoder of 1.4 GB alone")
    return webui.other_checkpoint if request.param == "Stable Diffusion 1" else webui.second_checkpoint


@pytest.fixture(scope="module")
def studio_model(checkpoint):
    return load_model(checkpoint)


@pytest.fixture(scope="module")
def vectors(studio_model):
    generator = torch.Generator().manual_seed(0)
    width = studio_model.hidden_size
    return {
        name: 0.05 * torch.randn(count, width, generator=generator)
        for name, count in (("zorgle", 3), ("zor gle two", 20))
    }


@pytest.fixture(scope="module")
def encoded(webui, checkpoint, vectors, tmp_path_factory):
    """By CLIP skip and prompt: the WebUI's encoding through our model, and whether its encoder alone gives the same."""
    folder = tmp_path_factory.mktemp("parity")
    save_file(vectors, folder / "vectors")
    same = webui.inside(
        "encode", checkpoint=checkpoint.name, prompts=list(PROMPTS.values()), clip_skips=CLIP_SKIPS,
        vectors=str(folder / "vectors"), out=str(folder / "encoded"),
    )  # fmt: skip
    tensors = [tensor for _, tensor in sorted(load_file(folder / "encoded").items())]
    keys = [(clip_skip, name) for clip_skip in CLIP_SKIPS for name in PROMPTS]
    return dict(zip(keys, zip(tensors, same, strict=True), strict=True))


@pytest.mark.parametrize("clip_skip", CLIP_SKIPS)
@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_mean_the_same_everywhere(studio_model, vectors, encoded, name, clip_skip):
    by_webui, same_as_encoder = encoded[clip_skip, name]
    assert same_as_encoder
    with torch.no_grad():
        by_studio = studio_model.encode_prompts([PROMPTS[name]], vectors, clip_skip)
    assert by_studio.shape == by_webui.shape
    assert close(by_studio, by_webui)


def test_embeddings_count(encoded):
    plain, replaced = encoded[1, "plain"][0], encoded[1, "embedding"][0]
    assert not close(plain, replaced)


def test_a_batch_is_filled_up_as_the_encoder_does(webui, checkpoint):
    assert webui.inside("encode_together", checkpoint=checkpoint.name, prompts=["hat", LONG, ""]) < 1e-5


def test_autoencoder_and_unet(webui, checkpoint, studio_model, vectors, tmp_path):
    generator = torch.Generator().manual_seed(1)
    pixels = torch.rand(1, 3, 64, 96, generator=generator) * 2 - 1
    noisy, timesteps = torch.randn(2, 4, 8, 12, generator=generator), torch.tensor([10, 900])
    with torch.no_grad():
        conditioning = studio_model.encode_prompts(["solo", "zorgle"], vectors, 1)
    given = {"pixels": pixels, "noisy": noisy, "timesteps": timesteps, "conditioning": conditioning}
    save_file(given, tmp_path / "in")
    webui.inside("run_model", checkpoint=checkpoint.name, inputs=str(tmp_path / "in"), out=str(tmp_path / "out"))
    theirs = load_file(tmp_path / "out")
    mean, logvar = studio_model.encode_images(pixels)
    with torch.no_grad():
        predicted = studio_model.predict(noisy, timesteps, conditioning)
    assert close(mean, theirs["mean"])
    assert close(logvar, theirs["logvar"])
    assert close(predicted, theirs["predicted"])
    assert close(studio_model.decode_latents(mean * studio_model.latent_scale), theirs["decoded"])
    assert torch.equal(studio_model.alphas_cumprod, theirs["alphas"])


def close(one: torch.Tensor, other: torch.Tensor) -> bool:
    return bool((one - other).abs().max() <= 1e-4)
