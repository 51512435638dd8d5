"""What is said in a WebUI where nothing can be trained, without one: its modules' names are all that is asked for."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lib_dsm.errors import ModelError
from lib_dsm.host.webui import WebUIHost
from lib_dsm.host.webui_kinds import is_reforge, why_no_training
from lib_dsm.training.config import RunConfig


@pytest.fixture
def modules(monkeypatch):
    """The WebUI's package `modules` with as little in it as is looked at."""
    package = ModuleType("modules")
    package.sd_models = SimpleNamespace(model_data=SimpleNamespace(sd_model=None))
    package.sd_vae = SimpleNamespace(get_loaded_vae_name=lambda: None)
    package.shared = SimpleNamespace(opts=SimpleNamespace(CLIP_stop_at_last_layers=2))
    monkeypatch.setitem(sys.modules, "modules", package)
    return package


@pytest.fixture
def forge(modules):
    """As Forge is before a model is loaded: a stand-in without a checkpoint."""
    modules.sd_models.forge_model_reload = lambda: None
    modules.sd_models.model_data.sd_model = SimpleNamespace(cond_stage_model=None)
    return modules


def test_forge_is_told_by_its_own_function(modules):
    assert why_no_training() is None
    modules.sd_models.forge_model_reload = lambda: None
    problem, remedy = why_no_training()
    assert problem.startswith("Forge") and "studio" in remedy


def test_the_status_line_says_why_in_a_sentence(forge):
    status = WebUIHost().status()
    assert status.checkpoint == "" and status.clip_skip == 2
    assert status.note.startswith("Forge keeps its model in a form that cannot be trained yet. Train in")


def test_training_there_is_refused_before_anything_is_touched(forge, tmp_path):
    config = RunConfig(name="zorgle", checkpoint="any.safetensors", dataset=str(tmp_path))
    with pytest.raises(ModelError, match="Forge"), WebUIHost().training_session(config):
        raise AssertionError("there is no session")


def test_tokens_are_counted_there_too(forge):
    assert WebUIHost().tokens("solo, red hair", "any.safetensors") == ["solo", ",", "red", "hair"]


def test_another_webui_without_weights_says_so_too(modules):
    modules.sd_models.model_data.sd_model = SimpleNamespace(cond_stage_model=None)
    assert "cannot be trained" in WebUIHost().status().note


def test_reforge_is_told_by_its_loader_and_applies_no_hypernetworks(modules):
    assert not is_reforge() and WebUIHost().applies_hypernetworks() and WebUIHost().reads_bundled_embeddings()
    modules.sd_models.forge_loader = SimpleNamespace()
    assert is_reforge() and why_no_training() is None
    assert not WebUIHost().applies_hypernetworks() and not WebUIHost().reads_bundled_embeddings()


def test_forge_knows_neither_hypernetworks_nor_a_loras_embeddings(forge):
    assert not WebUIHost().applies_hypernetworks() and not WebUIHost().reads_bundled_embeddings()


def test_a_model_that_reforge_is_taking_apart_counts_as_none(modules):
    torn = torch.nn.Module()
    torn.sd_checkpoint_info = SimpleNamespace(name="old.safetensors")
    torn._parameters = None
    modules.sd_models.model_data.sd_model = torn
    with pytest.raises(TypeError):
        WebUIHost().status()  # in another WebUI it is a fault to be seen
    modules.sd_models.forge_loader = SimpleNamespace()
    assert WebUIHost().status().checkpoint == ""
    assert WebUIHost().tokens("red hair", "any.safetensors") == ["red", "hair"]
