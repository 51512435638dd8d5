from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from lib_dsm.dataset.pictures import read_picture
from lib_dsm.errors import InputError
from lib_dsm.training import pictures
from lib_dsm.training.config import RunConfig
from lib_dsm.training.latents import LatentCache
from lib_dsm.training.pictures import cell_weights, load_pictures, plan_pictures


class Pooling:
    """An autoencoder in form: a latent cell is the mean colour of its 8×8 pixels and their mean brightness."""

    vae_hash = "pooling"

    def __init__(self):
        self.encoded = 0

    def encode_images(self, pixels):
        self.encoded += 1
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        return torch.cat([mean, mean.mean(1, keepdim=True)], dim=1), torch.full_like(mean[:, :1], -9.0).repeat(
            1, 4, 1, 1
        )


@pytest.fixture
def folder(tmp_path):
    """One opaque picture, one whose left half is transparent, one that is transparent everywhere."""
    made = tmp_path / "set"
    made.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (3, 64, 96, 3), dtype=np.uint8)
    Image.fromarray(noise[0]).save(made / "a.png")
    for name, index, columns in (("b.png", 1, 48), ("c.png", 2, 96)):
        alpha = np.full((64, 96, 1), 255, dtype=np.uint8)
        alpha[:, :columns] = 0
        Image.fromarray(np.concatenate([noise[index], alpha], axis=2), "RGBA").save(made / name)
    return made


def load(folder, cache, **how):
    config = RunConfig("zorgle", "model", str(folder), width=96, height=64, size_step=8)
    return load_pictures(plan_pictures(config).pictures, cache, lambda done, total: None, **how)


def test_mirrored_is_what_a_mirrored_file_would_be(folder, tmp_path):
    pictures, _ = load(folder, LatentCache(tmp_path / "cache", Pooling()), mirror=True)
    mirrored = tmp_path / "mirrored"
    mirrored.mkdir()
    with Image.open(folder / "a.png") as image:
        ImageOps.mirror(image).save(mirrored / "a.png")
    others, _ = load(mirrored, LatentCache(tmp_path / "cache", Pooling()))
    picture, other = pictures.pictures[0], others.pictures[0]
    assert torch.equal(picture.posterior_of(True).mean, other.posterior.mean)
    assert not torch.equal(picture.posterior_of(True).mean, picture.posterior_of(False).mean)
    assert other.mirrored is None


def test_both_sides_are_kept_on_the_disk_apart(folder, tmp_path):
    first = Pooling()
    (plain, _), (both, _) = (load(folder, LatentCache(tmp_path, first), mirror=mirror) for mirror in (False, True))
    assert first.encoded == 6  # three, and then only their mirror images
    again = Pooling()
    cached, _ = load(folder, LatentCache(tmp_path, again), mirror=True)
    assert again.encoded == 0
    for one, other, third in zip(plain.pictures, both.pictures, cached.pictures, strict=True):
        assert torch.equal(one.posterior.mean, other.posterior.mean)
        assert torch.equal(other.mirrored.mean, third.mirrored.mean)


def test_pictures_that_are_known_are_not_decoded_again(folder, tmp_path, monkeypatch):
    first, _ = load(folder, LatentCache(tmp_path, Pooling()), mirror=True)
    decoded = []
    monkeypatch.setattr(
        pictures, "read_picture", lambda path, **how: decoded.append(path.name) or read_picture(path, **how)
    )
    second, _ = load(folder, LatentCache(tmp_path, Pooling()), mirror=True)
    assert decoded == [] and second.fingerprint() == first.fingerprint()
    with Image.open(folder / "b.png") as image:
        image.rotate(180).save(folder / "b.png")
    load(folder, LatentCache(tmp_path, Pooling()), mirror=True)
    assert decoded == ["b.png"]


def test_transparency_becomes_weights_and_the_colours_under_it_stay(folder, tmp_path):
    pictures, unusable = load(folder, LatentCache(tmp_path / "cache", Pooling()), alpha=True)
    opaque, half = pictures.pictures
    assert opaque.weights is None
    assert torch.equal(half.weights, torch.cat([torch.zeros(8, 6), torch.full((8, 6), 2.0)], dim=1))
    ((path, sentence),) = unusable
    assert path.name == "c.png" and "c.png is transparent everywhere" in sentence
    with Image.open(folder / "b.png") as image:
        pixels = torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 127.5 - 1).permute(2, 0, 1)
    expected = torch.nn.functional.avg_pool2d(pixels[None], 8)[0]
    assert torch.allclose(half.posterior.mean[:3], expected, atol=1e-5)


def test_without_it_transparent_pictures_lie_over_white_and_weigh_nothing(folder, tmp_path):
    cache = LatentCache(tmp_path / "cache", Pooling())
    with_alpha, _ = load(folder, cache, alpha=True)
    pictures, unusable = load(folder, cache)
    assert len(pictures.pictures) == 3 and not unusable
    assert all(picture.weights is None for picture in pictures.pictures)
    half = pictures.pictures[1].posterior.mean
    assert torch.all(half[:, :, :6] == 1) and not torch.all(half[:, :, 6:] == 1)
    # the same file in two ways, under two keys; an opaque one is one and the same
    assert not torch.equal(with_alpha.pictures[1].posterior.mean, half)
    assert torch.equal(with_alpha.pictures[0].posterior.mean, pictures.pictures[0].posterior.mean)


def test_nothing_but_transparent_pictures_is_refused(folder, tmp_path):
    for name in ("a.png", "b.png"):
        (folder / name).unlink()
    with pytest.raises(InputError, match=r"c\.png is transparent everywhere"):
        load(folder, LatentCache(tmp_path / "cache", Pooling()), alpha=True)


def test_the_weights_of_a_batch_turn_with_their_pictures(folder, tmp_path):
    pictures, _ = load(folder, LatentCache(tmp_path / "cache", Pooling()), alpha=True, mirror=True)
    opaque, half = pictures.pictures
    assert cell_weights([opaque, opaque], [True, False]) is None
    weights = cell_weights([opaque, half, half], [True, False, True])
    assert weights.shape == (3, 1, 8, 12)
    assert torch.equal(weights[0, 0], torch.ones(8, 12))
    assert torch.equal(weights[1, 0], half.weights)
    assert torch.equal(weights[2, 0], torch.cat([half.weights[:, 6:], half.weights[:, :6]], dim=1))


def test_names_stand_for_captions_where_there_is_no_file_and_that_is_asked_for(folder):
    (folder / "a.png").rename(folder / "0012-3 red hair, smile.png")
    (folder / "b.txt").write_text("blue eyes")
    (folder / "c.txt").write_text("")
    config = RunConfig("zorgle", "model", str(folder), width=96, height=64, size_step=8)
    off = plan_pictures(config).pictures
    assert [picture.tags for picture in off] == [(), ("blue eyes",), ()]
    on = plan_pictures(replace(config, filename_regex=".+")).pictures
    assert [picture.tags for picture in on] == [("red hair", "smile"), ("blue eyes",), ()]
    joined = plan_pictures(replace(config, filename_regex=r"[a-z]+", filename_join=", ")).pictures
    assert joined[0].tags == ("red", "hair", "smile")


def test_a_fixed_size_needs_no_coarse_multiples(folder):
    config = RunConfig("zorgle", "model", str(folder), width=72, height=56, size_step=64, variable_aspect=False)
    assert {picture.size for picture in plan_pictures(config).pictures} == {(72, 56)}
