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
def contexts_changed(unet: torch.nn.Module, maps: Mapping[int, tuple[ContextMap, ContextMap]]) -> Iterator[None]:
    """While the context lasts, layers whose context has a width of `maps` compute keys and values from what these give.

    A pair of maps is for keys and for values. They get and give float32; in another type the context's own follows.
    """
    with ExitStack() as stack:
        for layer in attention_layers(unet):
            for linear, change in zip((layer.to_k, layer.to_v), maps.get(layer.width, ()), strict=False):
                handle = linear.register_forward_pre_hook(_hook(change, layer.number))
                stack.callback(handle.remove)
        yield


def _hook(change: ContextMap, number: int) -> Callable[[torch.nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        context: torch.Tensor = inputs[0]
        return (change(context.float(), number).to(context.dtype), *inputs[1:])

    return hook
