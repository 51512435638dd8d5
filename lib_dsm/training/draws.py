"""Every random draw of training is a function of (seed, purpose, place), so nothing has to be saved to repeat it.

A run that was killed and resumed draws the same numbers as one that was not, and nothing else (a preview, another
extension) can disturb them. The generator is numpy's counter-based Philox4x64-10 (Salmon et al., "Parallel random
numbers: as easy as 1, 2, 3", 2011) under a key hashed from the place.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch


def generator(seed: int, purpose: str, *place: int) -> np.random.Generator:
    """The generator for one purpose at one place; asking again gives the same numbers again."""
    text = "/".join([str(seed), purpose, *map(str, place)])
    key = np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


def normal(seed: int, purpose: str, place: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Standard normal numbers, float32 on the CPU, the same on every device."""
    return torch.from_numpy(generator(seed, purpose, place).standard_normal(shape, dtype=np.float32))


def timestep(seed: int, purpose: str, place: int, count: int) -> int:
    """A timestep, uniform in 0 … count - 1."""
    return int(generator(seed, purpose, place).integers(count))


def chance(seed: int, purpose: str, place: int, probability: float) -> bool:
    """True with that probability, 0 to 1."""
    return probability > 0 and float(generator(seed, purpose, place).random()) < probability


def epoch_order(seed: int, epoch: int, length: int, purpose: str = "order") -> list[int]:
    """The order in which an epoch shows its items: a permutation of 0 … length - 1."""
    return [int(index) for index in generator(seed, purpose, epoch).permutation(length)]
