"""What a U-Net's attention layers compute their keys and values from, and how a network changes it.

Both hosts' attention, whichever way it is computed, takes keys and values from a context (the prompt's, or the layer's
own input) by two linear layers called `to_k` and `to_v`. What these are given is changed there, so that it holds for
every way to attend, and nothing of the host's own is replaced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple, TypeAlias

import torch

ContextMap: TypeAlias = Callable[[torch.Tensor, int], torch.Tensor]
"""Gives what keys (or values) are computed from, B×N×W float32, for a context and its attention layer's number."""


class Attention(NamedTuple):
    """One attention layer; `width` is that of its context. `number` counts all of the U-Net from 0."""

    number: int
    width: int
    to_k: torch.nn.Linear
    to_v: torch.nn.Linear


def attention_layers(unet: torch.nn.Module) -> list[Attention]:
    """All attention layers of a U-Net, in the order of its modules."""
    found: list[Attention] = []
    for module in unet.modules():
        to_k, to_v = getattr(module, "to_k", None), getattr(module, "to_v", None)
        if isinstance(to_k, torch.nn.Linear) and isinstance(to_v, torch.nn.Linear):
            found.append(Attention(len(found), to_k.in_features, to_k, to_v))
    return found


def context_widths(unet: torch.nn.Module, first: int) -> dict[int, int]:
    """How many attention layers there are for each width of a context: width `first` first, the others rising."""
    counts: dict[int, int] = {}
    for layer in attention_layers(unet):
        counts[layer.width] = counts.get(layer.width, 0) + 1
    return {width: counts[width] for width in sorted(counts, key=lambda width: (width != first, width))}


@contextmanager
def contexts_changed(
    unet: torch.nn.Module, maps: Mapping[int, tuple[ContextMap, ContextMap]], alike: bool = False
) -> Iterator[None]:
    """While the context lasts, layers whose context has a width of `maps` compute keys and values from what these give.

    A pair of maps is for keys and for values. They get and give float32; in another type the context's own follows.
    `alike` says that the maps give the same for all layers. Then the prompts' context, which all of the cross-attention
    reads, is changed once in a pass of the U-Net: before its blocks are gone through, so that it makes no difference
    whether these compute their activations again.
    """
    prompts = _Prompts(maps if alike else {})
    with ExitStack() as stack:
        if alike:
            stack.callback(unet.register_forward_pre_hook(prompts.begin, with_kwargs=True).remove)
        for layer in attention_layers(unet):
            for half, linear in enumerate((layer.to_k, layer.to_v)):
                if layer.width in maps:
                    change = maps[layer.width][half]
                    handle = linear.register_forward_pre_hook(_hook(change, layer.number, half, prompts))
                    stack.callback(handle.remove)
        yield


class _Prompts:
    """The prompts' context of the last pass that was begun, and what the maps made of it."""

    def __init__(self, maps: Mapping[int, tuple[ContextMap, ContextMap]]) -> None:
        self.maps = maps
        self._context: torch.Tensor | None = None
        self._changed: tuple[torch.Tensor, ...] = ()

    def begin(self, unet: torch.nn.Module, inputs: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Called with what the U-Net is given: the context is the only one of its inputs that is B×N×W."""
        given = [value for value in (*inputs, *named.values()) if torch.is_tensor(value) and value.dim() == 3]
        self._context, self._changed = None, ()
        if len(given) == 1 and given[0].shape[-1] in self.maps:
            self._context = given[0]
            self._changed = tuple(_changed(change, given[0], 0) for change in self.maps[given[0].shape[-1]])

    def of(self, context: torch.Tensor, half: int) -> torch.Tensor | None:
        """What was made of `context` in the beginning, None if it is another."""
        return self._changed[half] if context is self._context else None


def _changed(change: ContextMap, context: torch.Tensor, number: int) -> torch.Tensor:
    return change(context.float(), number).to(context.dtype)


def _hook(
    change: ContextMap, number: int, half: int, prompts: _Prompts
) -> Callable[[torch.nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        known = prompts.of(inputs[0], half)
        return (_changed(change, inputs[0], number) if known is None else known, *inputs[1:])

    return hook
