"""Parts that the WebUI moves about stay on the card for a training and are away afterwards, whatever happens."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from lib_dsm.host.webui_offloading import Offloading

CARD = torch.device("cuda")


class Weight:
    """As a tensor, on a card with room for so many."""

    def __init__(self, card: dict[str, int]) -> None:
        self.device = torch.device("cpu")
        self._card = card

    @property
    def data(self) -> Weight:
        return self

    @data.setter
    def data(self, moved: Weight) -> None:
        assert moved is self

    def to(self, device: torch.device) -> Weight:
        change = (device.type == "cuda") - (self.device.type == "cuda")
        if self._card["room"] < change:
            raise torch.cuda.OutOfMemoryError("the card is full")
        self._card["room"] -= change
        self.device = device
        return self


class Part:
    def __init__(self, card: dict[str, int], count: int) -> None:
        self.weights = [Weight(card) for _ in range(count)]

    def parameters(self) -> list[Weight]:
        return self.weights

    def buffers(self) -> list[Weight]:
        return []

    def to(self, device: torch.device) -> None:
        for weight in self.weights:
            weight.to(device)

    @property
    def present(self) -> int:
        return sum(weight.device.type == "cuda" for weight in self.weights)


@pytest.fixture
def lowvram(monkeypatch):
    """The part of the WebUI that notes what is on the card."""
    package, module = ModuleType("modules"), SimpleNamespace(module_in_gpu=None)

    def send_everything_to_cpu() -> None:
        if module.module_in_gpu is not None:
            module.module_in_gpu.to(torch.device("cpu"))
        module.module_in_gpu = None

    module.send_everything_to_cpu = send_everything_to_cpu
    package.lowvram, package.devices = module, SimpleNamespace(device=CARD)
    monkeypatch.setitem(sys.modules, "modules", package)
    return module


def model(room: int) -> tuple[SimpleNamespace, dict[str, int]]:
    card = {"room": room}
    return SimpleNamespace(lowvram=True, model=Part(card, 4), cond_stage_model=Part(card, 2)), card


def test_both_parts_are_there_for_the_training_and_none_for_a_picture(lowvram):
    sd_model, card = model(room=6)
    sd_model.cond_stage_model.to(CARD)
    lowvram.module_in_gpu = sd_model.cond_stage_model
    offloading = Offloading(sd_model)
    with pytest.raises(KeyError), offloading:
        assert (sd_model.model.present, sd_model.cond_stage_model.present) == (4, 2)
        assert lowvram.module_in_gpu == sd_model.model  # no hook moves any
        with offloading.resumed():
            assert card["room"] == 6 and lowvram.module_in_gpu is None
        assert card["room"] == 0
        raise KeyError
    assert card["room"] == 6 and lowvram.module_in_gpu is None


def test_a_card_without_room_for_both_is_left_empty(lowvram):
    sd_model, card = model(room=5)
    with pytest.raises(torch.cuda.OutOfMemoryError), Offloading(sd_model):
        raise AssertionError("they were all taken in")
    assert card["room"] == 5 and lowvram.module_in_gpu is None


def test_a_card_that_is_full_after_a_picture_is_left_empty_too(lowvram):
    sd_model, card = model(room=6)
    offloading = Offloading(sd_model)
    with pytest.raises(torch.cuda.OutOfMemoryError), offloading, offloading.resumed():
        card["room"] = 5
    assert card["room"] == 5 and lowvram.module_in_gpu is None


def test_a_model_that_is_not_offloaded_is_left_alone(lowvram):
    sd_model, card = model(room=6)
    sd_model.lowvram = False
    with Offloading(sd_model):
        assert card["room"] == 6 and lowvram.module_in_gpu is None
