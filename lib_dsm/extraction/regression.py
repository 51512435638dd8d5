"""The linear map of a given rank that fits a non-linear one best on what it is really given.

Reduced-rank regression (A. J. Izenman, "Reduced-rank regression for the multivariate linear model", J. Multivariate
Analysis 5, 1975) with a ridge: with the covariance C of the inputs, D = Cov(Y, X)(C + λI)⁻¹ is the least-squares map,
and P = U Uᵀ D with the first left singular vectors U of D·chol(C + λI) the best of rank r.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # of the mean variance of an input
_HELD = 4  # every which group is kept apart


@dataclass(frozen=True, eq=False)
class Fit:
    """y ≈ up @ down @ x + offset; `r2` is the share of the variance explained on the rows kept apart."""

    up: torch.Tensor
    down: torch.Tensor
    offset: torch.Tensor
    r2: float


def fit_groups(inputs: Sequence[torch.Tensor], outputs: Sequence[torch.Tensor], rank: int) -> Fit:
    """Fit groups of rows (one a prompt), of which every fourth is kept apart to measure on.

    The ridge is the one that serves best on a part of the others, so that what is measured on decides nothing.
    """
    places = range(len(inputs))
    held = [place for place in places if place % _HELD == 1]
    kept = [place for place in places if place % _HELD != 1]
    tried = kept[::_HELD] if len(kept) > _HELD else []
    inner = [place for place in kept if place not in tried]

    def rows(groups: Sequence[torch.Tensor], chosen: Sequence[int]) -> torch.Tensor:
        return torch.cat([groups[place] for place in chosen]).float()

    def fitted(on: Sequence[int], against: Sequence[int], ridge: float) -> Fit:
        return fit(rows(inputs, on), rows(outputs, on), rows(inputs, against), rows(outputs, against), rank, ridge)

    ridge = max(RIDGES, key=lambda value: fitted(inner, tried, value).r2) if tried else RIDGES[1]
    return fitted(kept, held, ridge)


def fit(
    inputs: torch.Tensor,
    outputs: torch.Tensor,
    held_inputs: torch.Tensor,
    held_outputs: torch.Tensor,
    rank: int,
    ridge: float = RIDGES[0],
) -> Fit:
    """Fit rows `inputs` N×n to `outputs` N×m, and measure on the held rows. Gives float32."""
    x, y = inputs.double(), outputs.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    covariance = x.T @ x / len(x)
    covariance += (ridge * covariance.diagonal().mean() + 1e-12) * torch.eye(len(covariance), dtype=x.dtype)
    root = torch.linalg.cholesky(covariance)
    least_squares = torch.cholesky_solve(x.T @ y / len(x), root).T
    left = torch.linalg.svd(least_squares @ root, full_matrices=False)[0][:, :rank]
    down = left.T @ least_squares
    offset = y_mean - left @ (down @ x_mean)
    held = held_outputs.double()
    rest = held - held_inputs.double() @ down.T @ left.T - offset
    whole = float((held - y_mean).square().sum())
    r2 = 1.0 - float(rest.square().sum()) / whole if whole else 1.0
    return Fit(left.float(), down.float(), offset.float(), r2)
