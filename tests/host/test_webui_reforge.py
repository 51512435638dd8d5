"""What is asked of reForge's own records, without one."""

from __future__ import annotations

import functools
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lib_dsm.diffusion.patched_ldm import make_ordinary
from lib_dsm.errors import ModelError
from lib_dsm.host.webui_reforge import foreign_text_encoder, forget_read_loras, is_reforges, own_autoencoder


@pytest.fixture
def sd_model():
    clip = object()
    parts = SimpleNamespace(clip=clip)
    info = SimpleNamespace(filename="/models/one.safetensors")
    return SimpleNamespace(forge_objects_original=parts, sd_checkpoint_info=info, current_lora_hash="['a', 1.0]")


def encoder(clip, filename: str) -> SimpleNamespace:
    """reForge's record of a text encoder that was loaded from a file."""
    option = SimpleNamespace(label="TE: other")
    return SimpleNamespace(clip_model=clip, te_info=SimpleNamespace(filename=filename), option=option)


def test_a_model_of_reforge_is_told_by_its_parts(sd_model):
    assert is_reforges(sd_model) and not is_reforges(SimpleNamespace()) and not is_reforges(None)


def test_a_text_encoder_of_another_file_is_named(sd_model, monkeypatch):
    assert foreign_text_encoder(sd_model) == ""  # an older reForge has no choice of them
    records = SimpleNamespace(current_text_encoder=None)
    monkeypatch.setitem(sys.modules, "modules.sd_text_encoder", records)
    assert foreign_text_encoder(sd_model) == ""
    clip = sd_model.forge_objects_original.clip
    records.current_text_encoder = encoder(clip, "/models/other.safetensors")
    assert foreign_text_encoder(sd_model) == "TE: other"
    records.current_text_encoder = encoder(clip, "/models/one.safetensors")  # its own, loaded apart
    assert foreign_text_encoder(sd_model) == ""
    records.current_text_encoder = encoder(object(), "/models/other.safetensors")  # chosen, but not in this model
    assert foreign_text_encoder(sd_model) == ""


def test_lora_files_are_read_and_put_on_again(sd_model, monkeypatch):
    read = []

    @functools.lru_cache
    def load(name: str) -> str:
        read.append(name)
        return name

    monkeypatch.setitem(sys.modules, "networks", SimpleNamespace(load_lora_state_dict=load))
    load("a")
    forget_read_loras(sd_model)
    load("a")
    assert read == ["a", "a"] and sd_model.current_lora_hash == ""
    forget_read_loras(None)  # no model is loaded yet


def test_parameters_made_in_inference_mode_become_ordinary_and_stay_shared():
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.Linear(3, 3)).requires_grad_(False)
    with torch.inference_mode():
        module.to(torch.float64)  # as a move to another device, it makes new tensors
        module[1].weight = module[0].weight
    before = [parameter.clone() for parameter in module.parameters()]
    untouched = torch.nn.Linear(2, 2)
    weight = untouched.weight
    inputs = torch.ones(2, 3, dtype=torch.float64, requires_grad=True)
    with pytest.raises(RuntimeError, match=r"[Ii]nference"):
        module(inputs).sum().backward()
    make_ordinary(module)
    make_ordinary(untouched)
    module(inputs).sum().backward()
    assert inputs.grad is not None
    assert module[0].weight is module[1].weight and untouched.weight is weight
    assert all(torch.equal(one, other) for one, other in zip(before, module.parameters(), strict=True))


@pytest.fixture
def autoencoder(sd_model, monkeypatch):
    """The model's autoencoder, whose weights are those of its file."""
    sd_model.first_stage_model = torch.nn.Linear(2, 2)
    own = {f"first_stage_model.{key}": value.clone() for key, value in sd_model.first_stage_model.state_dict().items()}
    info = sd_model.sd_checkpoint_info
    info.name = "one.safetensors"
    package = ModuleType("modules")
    files = {info.filename: own, "/models/bare.safetensors": {}}
    package.sd_models = SimpleNamespace(read_state_dict=lambda file, map_location: files[file])
    monkeypatch.setitem(sys.modules, "modules", package)
    return sd_model.first_stage_model


@pytest.mark.parametrize("external", [False, True])
def test_weights_that_were_left_in_place_are_set_aside(sd_model, autoencoder, external):
    own = autoencoder.weight.detach().clone()
    with own_autoencoder(sd_model, external) as foreign:
        assert not foreign
    with torch.no_grad():
        autoencoder.weight += 1
    with own_autoencoder(sd_model, external) as foreign:
        assert foreign and torch.equal(autoencoder.weight, own)
    # The WebUI reads an external one again from its file.
    assert torch.equal(autoencoder.weight, own if external else own + 1)


def test_a_checkpoint_without_an_autoencoder_is_refused(sd_model, autoencoder):
    sd_model.sd_checkpoint_info.filename = "/models/bare.safetensors"
    with pytest.raises(ModelError, match=r"one\.safetensors"), own_autoencoder(sd_model, False):
        raise AssertionError("nothing is trained")
