"""Every random draw of training is a function of (seed, purpose, place), so nothing has to be saved to repeat it.

A run that was killed and resumed draws the same numbers as one that was not, and nothing else (a preview, another
extension) can disturb them. See seeds.py for the generator.
"""

from __future__ import annotations

import numpy as np
import torch

from lib_dsm.seeds import generator as generator


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
