"""The optimizers that a run can choose, and their states as tensors by name.

AdamW is torch's. Prodigy (Mishchenko and Defazio, "Prodigy: An Expeditiously Adaptive Parameter-Free Learner", 2023)
and D-Adaptation (Defazio and Mishchenko, "Learning-Rate-Free Learning by D-Adaptation", 2023) find the size of their
steps by themselves and take the rate for a factor; they come from their authors' packages, which are imported only
where one of them is chosen.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from lib_dsm.errors import ModelError
from lib_dsm.training.config import RunConfig

PACKAGES: Mapping[str, str] = {"prodigy": "prodigyopt", "dadapt": "dadaptation"}
"""What has to be installed for an optimizer, by the option's value."""
_STATE, _GROUP = "optimizer.", "optimizer_group."
_ESTIMATES = ("d", "d_max", "d_numerator", "numerator_weighted", "k")  # in a group of Prodigy's or D-Adaptation's
_NUMBER = torch.float64  # what is no tensor in a state is saved as one of these


def missing_package(config: RunConfig) -> str:
    """The package that the run's optimizer needs and that is not installed, "" if none is missing."""
    package = PACKAGES.get(config.optimizer, "")
    return package if package and importlib.util.find_spec(package) is None else ""


def make_optimizer(config: RunConfig, parameters: Sequence[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimizer of a run; its rate is set before each step.

    Raises:
        ModelError: its package is not installed.
    """
    shared: dict[str, Any] = {
        "betas": (config.adam_beta1, config.adam_beta2),
        "eps": config.adam_epsilon,
        "weight_decay": config.weight_decay,
    }
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=0.0, **shared)
    if package := missing_package(config):
        raise ModelError(
            f'The optimizer "{config.optimizer}" needs the package {package}, which is not installed.',
            f"`pip install {package}` adds it; or choose adamw.",
        )
    module: Any = importlib.import_module(PACKAGES[config.optimizer])
    kind = module.Prodigy if config.optimizer == "prodigy" else module.DAdaptAdam
    with contextlib.redirect_stdout(io.StringIO()):  # they greet on the standard output, which is a program's to read
        made: torch.optim.Optimizer = kind(parameters, lr=1.0, decouple=True, **shared)
    return made


def state_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """All that the optimizer has to remember, detached copies on the CPU; numbers as tensors of float64."""
    found: dict[str, torch.Tensor] = {}
    content = optimizer.state_dict()
    for index, state in content["state"].items():
        for key, value in state.items():
            found[f"{_STATE}{index}.{key}"] = _tensor(value)
    for index, group in enumerate(content["param_groups"]):
        for key in _learned(optimizer, group):
            found[f"{_GROUP}{index}.{key}"] = _tensor(group[key])
    return found


def load_state_tensors(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Take up what `state_tensors` gave. Rates, betas and the like are the settings', which may have changed."""
    content = optimizer.state_dict()
    state: dict[int, dict[str, Any]] = {}
    for name, tensor in tensors.items():
        if name.startswith(_STATE):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = _value(key, tensor)
        elif name.startswith(_GROUP):
            _, index, key = name.split(".", 2)
            group = content["param_groups"][int(index)]
            group[key] = type(group.get(key, 0.0))(tensor.item())
    optimizer.load_state_dict({**content, "state": state})


def _learned(optimizer: torch.optim.Optimizer, group: Mapping[str, Any]) -> list[str]:
    """The numbers of a group that the optimizer itself changes from step to step."""
    if isinstance(optimizer, torch.optim.AdamW):
        return []
    return [key for key in _ESTIMATES if key in group]


def _tensor(value: Any) -> torch.Tensor:
    if torch.is_tensor(value):
        return value.detach().cpu().clone().contiguous()
    return torch.tensor(float(value), dtype=_NUMBER)


def _value(key: str, tensor: torch.Tensor) -> Any:
    """A number again where `_tensor` was given one."""
    if tensor.dim() or tensor.dtype != _NUMBER:
        return tensor
    return int(tensor.item()) if key == "step" else tensor.item()
