"""Random numbers as a function of a seed, a purpose and a place, so that nothing has to be saved to draw them again.

The generator is numpy's counter-based Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3",
2011) under a key hashed from all of them.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The generator for one purpose at one place; asking again gives the same numbers again."""
    key = np.frombuffer(_digest(seed, purpose, place)[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def uniform(
    seed: int, purpose: str, place: tuple[int, ...], shape: tuple[int, ...], device: torch.device
) -> torch.Tensor:
    """Numbers in [0, 1), float32, drawn on `device` itself: for what would take too long on the CPU.

    The same numbers each time on the same kind of device and version of torch.
    """
    import torch

    own = torch.Generator(device)
    own.manual_seed(int.from_bytes(_digest(seed, purpose, place)[:8], "little") >> 1)
    return torch.rand(shape, generator=own, device=device)


def _digest(seed: int, purpose: str, place: tuple[int, ...]) -> bytes:
    return hashlib.sha256("/".join([str(seed), purpose, *map(str, place)]).encode()).digest()
