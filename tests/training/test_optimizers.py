import importlib.util

import pytest
import torch

from lib_dsm.errors import ModelError
from lib_dsm.training import optimizers
from lib_dsm.training.optimizers import PACKAGES, load_state_tensors, make_optimizer, missing_package, state_tensors


def there(name: str) -> bool:
    return name == "adamw" or importlib.util.find_spec(PACKAGES[name]) is not None


each_optimizer = pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.skipif(not there(name), reason=f"{name}'s package is not installed"))
        for name in ("adamw", *PACKAGES)
    ],
)


def parameters() -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [torch.nn.Parameter(torch.randn(3, 4, generator=generator)), torch.nn.Parameter(torch.zeros(4))]


def stepped(optimizer, own, steps, first=0) -> None:
    """Steps towards a bowl's middle, with gradients that differ from step to step."""
    for step in range(first, first + steps):
        for parameter in own:
            parameter.grad = (parameter.detach() - 2.0) * (1 + 0.1 * step)
        for group in optimizer.param_groups:
            group["lr"] = 0.5 if "d" in group else 0.01
        optimizer.step()


@each_optimizer
def test_a_state_that_went_through_tensors_goes_on_with_the_same_bits(run_config, name):
    config = run_config(optimizer=name, weight_decay=0.1)
    whole = parameters()
    stepped(make_optimizer(config, whole), whole, 8)

    half = parameters()
    first = make_optimizer(config, half)
    stepped(first, half, 4)
    state = state_tensors(first)
    assert all(torch.is_tensor(tensor) for tensor in state.values())
    rest = [torch.nn.Parameter(parameter.detach().clone()) for parameter in half]
    second = make_optimizer(config, rest)
    load_state_tensors(second, state)
    again = state_tensors(second)
    assert again.keys() == state.keys() and all(torch.equal(again[key], state[key]) for key in state)
    stepped(second, rest, 4, first=4)
    assert all(torch.equal(*pair) for pair in zip(whole, rest, strict=True))
    anew = [torch.nn.Parameter(parameter.detach().clone()) for parameter in half]
    stepped(make_optimizer(config, anew), anew, 4, first=4)
    assert not torch.equal(anew[0], whole[0])


@each_optimizer
def test_it_comes_nearer(run_config, name, capsys):
    own = parameters()
    before = float((own[0].detach() - 2.0).square().sum())
    stepped(make_optimizer(run_config(optimizer=name), own), own, 100)
    assert float((own[0].detach() - 2.0).square().sum()) < before
    assert capsys.readouterr().out == ""


def test_adamw_has_the_settings_of_the_run(run_config):
    config = run_config(weight_decay=0.3, adam_beta1=0.8, adam_beta2=0.95, adam_epsilon=1e-6)
    group = make_optimizer(config, parameters()).param_groups[0]
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.3, (0.8, 0.95), 1e-6)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_package_that_is_not_there_is_named(run_config, monkeypatch, name):
    monkeypatch.setattr(optimizers.importlib.util, "find_spec", lambda package: None)
    assert missing_package(run_config(optimizer=name)) == PACKAGES[name]
    with pytest.raises(ModelError, match=f"pip install {PACKAGES[name]}"):
        make_optimizer(run_config(optimizer=name), parameters())
    assert missing_package(run_config()) == ""
