"""HyperTile, which comes with the WebUI: it cuts attention into tiles, by wrappers that it never takes off again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_PARAMETERS = "__webui_hypertile_params"


def is_tiled(model: torch.nn.Module) -> bool:
    """Whether HyperTile cuts some of the model's attention into tiles."""
    return any(vars(module)[_PARAMETERS].enabled for module in wrapped_parts(model))


def wrapped_parts(model: torch.nn.Module) -> list[torch.nn.Module]:
    """The modules that HyperTile has wrapped, whether it is at work or not."""
    return [module for module in model.modules() if vars(module).get(_PARAMETERS)]


class WithoutHyperTile:
    """While the context lasts HyperTile's wrappers are off the model and cut nothing.

    Tiles depend on the last picture's size and on chance. A wrapper that cuts nothing still computes attention by the
    function that was chosen when HyperTile was first used, whatever has been chosen since.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        parts = wrapped_parts(model)
        self._working = [parameters for part in parts if (parameters := vars(part)[_PARAMETERS]).enabled]
        self._wrappers = [(part, vars(part)["forward"]) for part in parts if _is_wrapper(part)]

    def __enter__(self) -> None:
        for parameters in self._working:
            parameters.enabled = False
        self._take_off()

    def __exit__(self, *_: object) -> None:
        self._put_on()
        for parameters in self._working:
            parameters.enabled = True

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """While this lasts the wrappers are on, as in the WebUI's own pictures, but still cut nothing."""
        self._put_on()
        try:
            yield
        finally:
            self._take_off()

    def _take_off(self) -> None:
        for part, _ in self._wrappers:
            del part.forward

    def _put_on(self) -> None:
        for part, wrapper in self._wrappers:
            part.forward = wrapper


def _is_wrapper(part: torch.nn.Module) -> bool:
    """Whether the part's own function is HyperTile's and nobody's who came after it."""
    function: Any = vars(part).get("forward")
    return function is not None and getattr(function, "__wrapped__", None) == vars(part)[_PARAMETERS].forward
