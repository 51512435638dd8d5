"""HyperTile's wrappers come off for the training and are there again afterwards; what is around them stays."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import pytest
import torch

from lib_dsm.diffusion.hypertile import WithoutHyperTile, is_tiled, wrapped_parts


class Attention(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def wrap(part: torch.nn.Module, enabled: bool) -> SimpleNamespace:
    """As HyperTile does: what was there is called by the wrapper from then on."""
    parameters = SimpleNamespace(forward=part.forward, enabled=enabled)

    @functools.wraps(parameters.forward)
    def tiled(x: torch.Tensor) -> torch.Tensor:
        return parameters.forward(x) + (100 if parameters.enabled else 0)

    vars(part)["__webui_hypertile_params"] = parameters
    part.forward = tiled
    return parameters


@pytest.fixture
def model() -> torch.nn.Module:
    return torch.nn.Sequential(Attention(), Attention())


@pytest.mark.parametrize("enabled", [False, True])
def test_the_function_of_the_class_counts_inside_and_the_wrapper_again_afterwards(model, monkeypatch, enabled):
    parameters, one = wrap(model[0], enabled), torch.ones(1)
    monkeypatch.setattr(Attention, "forward", lambda self, x: x + 1)  # chosen after HyperTile was first used
    assert model(one) == (102 if enabled else 2)  # the wrapper's function is the old one
    with pytest.raises(KeyError), WithoutHyperTile(model):
        assert model(one) == 3 and not is_tiled(model)
        raise KeyError
    assert model(one) == (102 if enabled else 2) and parameters.enabled is is_tiled(model) is enabled


def test_for_a_picture_the_wrapper_is_there_and_cuts_nothing(model, monkeypatch):
    wrap(model[0], True)
    monkeypatch.setattr(Attention, "forward", lambda self, x: x + 1)
    without = WithoutHyperTile(model)
    with without:
        with without.suspended():
            assert model(torch.ones(1)) == 2
        assert model(torch.ones(1)) == 3


def test_what_was_wrapped_around_it_later_is_left_alone(model):
    wrap(model[0], True)
    inner = model[0].forward
    model[0].forward = lambda x: inner(x) + 5
    with WithoutHyperTile(model):
        assert model(torch.ones(1)) == 6  # HyperTile cuts nothing, and the other one is still there
    assert model(torch.ones(1)) == 106
    assert wrapped_parts(model) == [model[0]]
