"""Which rank each layer gets: by the energy of its change, or within a size where the error falls most for the bytes.

The Eckart–Young theorem makes both simple: rank r leaves the squares of the singular values beyond r, so each further
rank of a layer takes its square away and costs rows + columns numbers. As the squares fall, taking the best ratios
first is the best within any budget, but for the last few bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_HEADER = 100  # bytes of a file's header for one tensor, beside its name
_PARTS = 3  # tensors of a module
_ROUNDING = 1e-9  # of the squared norm: 3e-5 of the norm, less than half precision takes away
WHOLE_WIDTH = 4  # bytes of a number of what is carried as it is


@dataclass(frozen=True)
class Spectrum:
    """What is known of one layer's change.

    Attributes:
        values: its largest singular values, falling.
        square: its squared Frobenius norm, that of the values not listed included.
        numbers: how many numbers a rank costs, rows + columns.
        group: see `Layer.group`; a layer of a group has at least rank 1.
        bias: how many numbers of the layer's bias changed, which a layer of rank 0 carries as they are.
    """

    values: tuple[float, ...]
    square: float
    numbers: int
    group: str = ""
    bias: int = 0

    def bytes(self, name: str, rank: int, width: int) -> int:
        """What the layer takes in the file at that rank, with `width` bytes a number."""
        if rank or not self.bias:
            return module_bytes(name, self.numbers, rank, width)
        return module_bytes(name, self.bias, 1, WHOLE_WIDTH)

    def lost(self, rank: int) -> float:
        """The squared error of the best matrix of that rank."""
        return max(0.0, self.square - sum(value**2 for value in self.values[:rank]))


def significant(values: Sequence[float]) -> int:
    """How many of the singular values are more than rounding: the last ones that hold next to nothing are none."""
    whole = sum(value**2 for value in values)
    tail, count = 0.0, len(values)
    while count and tail + values[count - 1] ** 2 <= _ROUNDING * whole:
        count -= 1
        tail += values[count] ** 2
    return count


def by_energy(values: Sequence[float], square: float, energy: float) -> int:
    """The smallest rank that keeps `energy` (0…1) of the squared norm; all of `values` if they do not."""
    kept = 0.0
    for rank, value in enumerate(values, 1):
        kept += value**2
        if kept >= energy * square:
            return rank
    return len(values)


def by_size(spectra: Mapping[str, Spectrum], budget: float, width: int) -> dict[str, int]:
    """The rank of each layer, 0 for none, so that all together take at most `budget` bytes of `width` a number."""
    ranks = {name: 1 if spectrum.group else 0 for name, spectrum in spectra.items()}
    left = budget - sum(spectra[name].bytes(name, rank, width) for name, rank in ranks.items())
    steps = sorted(
        (-(value**2) / spectrum.numbers, name, rank)
        for name, spectrum in spectra.items()
        for rank, value in enumerate(spectrum.values, 1)
        if rank > ranks[name] and value > 0
    )
    full: set[str] = set()
    for _, name, rank in steps:
        cost = spectra[name].bytes(name, rank, width) - spectra[name].bytes(name, rank - 1, width)
        if name not in full and cost <= left:
            ranks[name] = rank
            left -= cost
        else:
            full.add(name)  # its later ranks are worth less and cost the same
    return ranks


def module_bytes(name: str, numbers: int, rank: int, width: int) -> int:
    """What a module of that rank takes in the file, its part of the header included."""
    return numbers * rank * width + _PARTS * (len(name) + _HEADER) if rank else 0
