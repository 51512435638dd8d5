import numpy as np
import pytest
import torch
from PIL import Image

from lib_dsm.demo import world
from lib_dsm.diffusion.sampling import generate
from lib_dsm.host.studio import SAMPLERS
from lib_dsm.training.config import PreviewRequest
from lib_dsm.training.latents import prepare_pixels

PROMPT = "solo, red hair, smile"


def test_an_embedding_of_known_words_is_the_words(micro):
    vectors = micro.token_vectors(micro.tokenize("red hair"))
    replaced = micro.encode_prompts(["solo, zorgle, smile"], {"zorgle": vectors}, 1)
    assert torch.allclose(replaced, micro.encode_prompts([PROMPT], {}, 1), atol=1e-6)


def test_a_gradient_reaches_the_vectors_through_the_whole_model(micro):
    vectors = micro.token_vectors(micro.tokenize("red hair")).requires_grad_()
    conditioning = micro.encode_prompts(["solo, zorgle"], {"zorgle": vectors}, 2)
    micro.predict(torch.randn(1, 4, 8, 12), torch.tensor([500]), conditioning).square().mean().backward()
    assert vectors.grad is not None and float(vectors.grad.norm()) > 0


def test_the_hook_is_gone_afterwards(micro):
    plain = micro.encode_prompts(["solo, zorgle"], {}, 1)
    micro.encode_prompts(["solo, zorgle"], {"zorgle": torch.zeros(2, micro.hidden_size)}, 1)
    assert torch.equal(micro.encode_prompts(["solo, zorgle"], {}, 1), plain)


def test_emphasis_weighs_tokens_and_keeps_the_mean(micro):
    plain = micro.encode_prompts(["solo, red hair"], {}, 1)
    weighed = micro.encode_prompts(["solo, (red hair:1.5)"], {}, 1)
    assert not torch.allclose(plain, weighed, atol=1e-3)
    assert torch.allclose(plain.mean(), weighed.mean(), atol=1e-5)


def test_long_prompts_have_a_chunk_for_each_75_tokens(micro):
    long = ", ".join(["red hair"] * 40)
    assert micro.encode_prompts([long], {}, 1).shape == (1, 2 * 77, micro.hidden_size)
    both = micro.encode_prompts([long, "solo"], {}, 1)
    assert both.shape == (2, 2 * 77, micro.hidden_size)
    assert micro.chunk_counts([long, "solo"], {}) == [2, 1]
    assert micro.chunk_counts(["zorgle, zorgle"], {"zorgle": torch.zeros(40, micro.hidden_size)}) == [2]
    assert torch.allclose(both[1, 77:], micro.encode_prompts([""], {}, 1)[0], atol=1e-6)


def test_clip_skip_uses_another_layer(micro):
    outputs = [micro.encode_prompts([PROMPT], {}, skip) for skip in (1, 2, 3)]
    assert not torch.allclose(outputs[0], outputs[1]) and not torch.allclose(outputs[1], outputs[2])


def test_a_prompt_does_not_depend_on_its_neighbours(micro):
    together = micro.encode_prompts(["(solo:1.4)", PROMPT], {}, 1)
    assert torch.allclose(together[0], micro.encode_prompts(["(solo:1.4)"], {}, 1)[0], atol=1e-6)


def test_the_autoencoder_gives_a_picture_back(micro):
    character = world.character_of(10)
    folder_picture = world.draw(character, 64, 96, world.Place())
    pixels = prepare_pixels(folder_picture, (64, 96))[None]
    mean, logvar = micro.encode_images(pixels)
    assert mean.shape == logvar.shape == (1, 4, 12, 8)
    back = micro.decode_latents(mean * micro.latent_scale)
    assert float((back - pixels).abs().mean()) < 0.08


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_gives_the_same_picture_for_the_same_seed(micro, sampler):
    request = PreviewRequest(prompt=PROMPT, width=64, height=96, steps=6, cfg=4.0, sampler=sampler, seed=3)
    before = torch.get_rng_state()
    first = generate(micro, request, {}, 1)
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert first.size == (64, 96)
    assert np.array_equal(np.asarray(first), np.asarray(generate(micro, request, {}, 1)))
    # a white ground with a figure on it, not noise and not nothing
    array = np.asarray(first.convert("L"), dtype=float)
    assert array[:4].mean() > 180 and array.std() > 20


def test_pixels_are_cropped_not_squashed():
    stripes = Image.new("RGB", (200, 100), "black")
    stripes.paste("white", (50, 0, 150, 100))
    pixels = prepare_pixels(stripes, (64, 64))
    assert pixels.shape == (3, 64, 64)
    assert float(pixels[:, :, 4:-4].mean()) > 0.99
