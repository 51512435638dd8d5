"""Stable Diffusion 2 in the studio: the numbers are those of ldm and open_clip."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from lib_dsm.diffusion.diffusers import _predicts
from lib_dsm.diffusion.ldm_layout import text_key_map, unet_config, unet_key_map
from lib_dsm.diffusion.sizes import SD2, Sizes, read_sizes, sizes_of
from lib_dsm.errors import ModelError
from lib_dsm.host.run import train
from lib_dsm.host.studio import load_model
from lib_dsm.jobs import Job
from lib_dsm.networks.embedding import load_embedding
from lib_dsm.training.loop import diffusion_losses
from tests.diffusion.sd2 import TEXT, description, reference_text, reference_unet, write_sd2

START, END = 49406, 49407
CLOSE = 1e-5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("sd2") / "second.safetensors"


@pytest.fixture(scope="module")
def state(checkpoint):
    return write_sd2(checkpoint)


@pytest.fixture(scope="module")
def model(checkpoint, state):
    return load_model(checkpoint)


def tokens(model, *texts: str) -> torch.Tensor:
    """Each text's 77 ids as open_clip pads them: zeros after the end."""
    ids = [[START, *model.tokenize(text), END] for text in texts]
    return torch.tensor([row + [0] * (77 - len(row)) for row in ids])


def difference(one: torch.Tensor, other: torch.Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).detach().abs().max())


def test_prompts_go_through_the_penultimate_block_and_the_last_norm(model, state):
    texts = ["solo, red hair, smile", "", "a hat"]
    vectors = state[f"{TEXT}token_embedding.weight"][tokens(model, *texts)]
    expected = reference_text(state, vectors, blocks=2)
    assert difference(model.encode_prompts(texts, {}, 1), expected) < CLOSE
    assert difference(expected, reference_text(state, vectors, blocks=3)) > 0.1


def test_the_yaml_may_ask_for_the_last_block(tmp_path):
    state = write_sd2(tmp_path / "last.safetensors", layer="last")
    model = load_model(tmp_path / "last.safetensors")
    expected = reference_text(state, state[f"{TEXT}token_embedding.weight"][tokens(model, "a hat")], blocks=3)
    assert difference(model.encode_prompts(["a hat"], {}, 1), expected) < CLOSE


def test_an_embedding_takes_the_place_of_its_name(model, state):
    vectors = 0.1 * torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    ids = tokens(model, "solo, hat")
    table = state[f"{TEXT}token_embedding.weight"]
    with_it = torch.cat([table[ids[0, :3]], vectors, table[ids[0, 3:74]]])[None]
    found = model.encode_prompts(["solo, zorgle hat"], {"zorgle": vectors}, 1)
    assert difference(found, reference_text(state, with_it, blocks=2)) < CLOSE


def test_emphasis_weighs_and_restores_the_mean(model, state):
    plain = reference_text(state, state[f"{TEXT}token_embedding.weight"][tokens(model, "solo, hat")], blocks=2)
    weighed = plain.clone()
    weighed[:, 3] *= 1.4
    weighed *= plain.mean() / weighed.mean()
    assert difference(model.encode_prompts(["solo, (hat:1.4)"], {}, 1), weighed) < CLOSE


def test_clip_skip_is_passed_over(model):
    assert not model.has_clip_skip
    assert torch.equal(model.encode_prompts(["hat"], {}, 1), model.encode_prompts(["hat"], {}, 2))


def test_the_tokenizer_reads_html_as_open_clips_does(model):
    assert model.tokenize("black &amp;amp; white") == model.tokenize("black & white")


def test_the_unet_gives_what_ldms_gives(model, state):
    generator = torch.Generator().manual_seed(1)
    noisy, context = torch.randn(2, 4, 8, 12, generator=generator), torch.randn(2, 77, 128, generator=generator)
    timesteps = torch.tensor([10, 900])
    expected = reference_unet(state, noisy, timesteps, context)
    with torch.no_grad():
        assert difference(model.predict(noisy, timesteps, context), expected) < CLOSE
    assert expected.std() > 0.1


def test_the_yaml_says_what_is_predicted(model, tmp_path):
    assert model.prediction_type == "v_prediction"
    write_sd2(tmp_path / "base.safetensors", parameterization="eps")
    assert load_model(tmp_path / "base.safetensors").prediction_type == "epsilon"


def test_the_loss_of_a_velocity_model_is_that_of_the_velocity(model, state):
    generator = torch.Generator().manual_seed(2)
    latents, noise = torch.randn(2, 1, 4, 8, 8, generator=generator)
    context, moment = torch.randn(1, 77, 128, generator=generator), torch.tensor([300])
    signal = model.alphas_cumprod[300]
    noisy = signal.sqrt() * latents + (1 - signal).sqrt() * noise
    velocity = signal.sqrt() * noise - (1 - signal).sqrt() * latents
    expected = (reference_unet(state, noisy, moment, context) - velocity).square().mean()
    with torch.no_grad():
        assert difference(diffusion_losses(model, latents, noise, moment, context)[0], expected) < CLOSE


def test_without_a_yaml_the_weights_tell(model, tmp_path):
    shapes = {f"{TEXT}ln_final.weight": (1024,)}
    assert sizes_of(tmp_path / "model.safetensors", shapes) == SD2
    assert sizes_of(tmp_path / "model.safetensors", {"model.diffusion_model.out.2.bias": (4,)}) == Sizes()
    bias = model.unet.conv_out.bias
    before = bias.detach().clone()
    found = {}
    with torch.no_grad():
        for shift in (-3.0, 3.0):
            bias.copy_(before + shift)
            found[shift] = _predicts(model.unet)
        bias.copy_(before)
    assert found == {-3.0: "v_prediction", 3.0: "epsilon"}


def test_the_usual_sizes_are_those_of_the_published_model():
    assert unet_config(SD2)["attention_head_dim"] == (5, 10, 20, 20)
    assert len(unet_key_map(SD2)) == 686
    assert f"{TEXT}transformer.resblocks.22.mlp.c_fc.weight" in text_key_map(SD2)
    assert f"{TEXT}transformer.resblocks.23.mlp.c_fc.weight" not in text_key_map(SD2)


def test_a_checkpoint_of_the_later_package_is_read_too(model, state):
    from lib_dsm.diffusion.ldm_layout import text_state

    other = {key.replace(TEXT, "conditioner.embedders.0.model."): tensor for key, tensor in state.items()}
    sizes = dataclasses.replace(SD2, context_dim=128, text_layers=2)
    one, two = text_state(state, sizes), text_state(other, sizes)
    assert len(one) == 2 + 2 + 2 * 16 and one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda params: params.update(conditioning_key="hybrid"), "hybrid"),
        (lambda params: params["unet_config"]["params"].update(num_classes="sequential"), "beside the prompt"),
        (lambda params: params["unet_config"]["params"].pop("num_head_channels"), "num_head"),
        (lambda params: params["cond_stage_config"]["params"].update(layer="first"), "first"),
    ],
)
def test_a_yaml_of_another_kind_is_refused(tmp_path, change, said):
    import yaml

    content = description("v", 128, "ViT-H-14", "penultimate")
    change(content["model"]["params"])
    (tmp_path / "model.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ModelError, match=said):
        read_sizes(tmp_path / "model.yaml")


def test_a_training_makes_an_embedding_of_its_width(studio, run_config, checkpoint, state):
    result = train(studio, run_config(checkpoint=str(checkpoint), max_steps=2, learning_rate="0.05"), Job("test"))
    saved = [load_embedding(path).vectors for path in result.files]
    start = state[f"{TEXT}token_embedding.weight"][load_model(checkpoint).tokenize("solo")[0]]
    for vectors in saved:
        assert vectors.shape == (4, 128) and torch.equal(vectors, saved[0])
        assert float((vectors - start).abs().min()) > 0
