"""The nearest matrix of a given rank, fast: randomised subspace iteration that stops when nothing is gained any more.

N. Halko, P.-G. Martinsson, J. A. Tropp, "Finding structure with randomness", SIAM Review 53 (2011): algorithm 4.4
(randomised subspace iteration) and 5.1 (direct SVD). The small eigenproblem is solved in double precision, where
squaring the singular values costs nothing that single precision had; each iteration gives the energy that is caught so
far, so that there are as many as the singular values ask for.
"""

from __future__ import annotations

import torch

_MOST_ITERATIONS = 6
_MARGIN = 16  # columns beyond the rank, at least: the paper's oversampling
_GAIN = 1e-3  # an iteration that catches less of what is left, squared, is the last
_NOISE = 1e-13  # of the squared norm: what is left below that is rounding
_SEED = 0


def truncated_svd(
    matrix: torch.Tensor, rank: int, square: float | None = None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The largest `rank` singular values S of a matrix m×n with their vectors: U m×r, S r, Vᵀ r×n, float32.

    r = min(rank, m, n); `square` is the matrix's `squared_norm` where it is known. Exact for small matrices or ranks
    near the full one, else within 0.6 % of the smallest possible Frobenius error even where the singular values fall
    slowly, and within 1 % where they hardly fall just beyond the rank. The same input gives the same output.
    """
    matrix = matrix.float()
    if matrix.shape[0] > matrix.shape[1]:
        right, values, left = truncated_svd(matrix.T, rank, square)
        return left.T, values, right.T
    rank = min(rank, matrix.shape[0])
    width = rank + max(_MARGIN, 3 * rank // 4)
    if 2 * width >= matrix.shape[0]:
        wide = matrix.double()
        squares, vectors = _largest(wide @ wide.T)
        left = vectors[:, :rank].float()
        seen = left.T @ matrix
    else:
        left, seen, squares = _iterate(matrix, rank, width, squared_norm(matrix) if square is None else square)
    values = squares[:rank].clamp(min=0).sqrt().float()
    right = torch.where(values[:, None] > 0, seen / values.clamp(min=torch.finfo(torch.float32).tiny)[:, None], 0.0)
    return left, values, right


def factors(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """`up` m×r and `down` r×n with up @ down ≈ matrix, both carrying the root of each singular value."""
    return balanced(*truncated_svd(matrix, rank))


def balanced(
    left: torch.Tensor, values: torch.Tensor, right: torch.Tensor, rank: int | None = None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The factors `up` m×r and `down` r×n of the first `rank` singular values, all of them if None."""
    root = values[:rank].sqrt()
    return left[:, :rank] * root, root[:, None] * right[:rank]


def factored_svd(up: torch.Tensor, down: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The singular values of up @ down (m×r by r×n) with their vectors, exactly: QR of both and a small SVD.

    Computed in double precision; gives U m×k, S k, Vᵀ k×n float32 with k = min(r, m, n).
    """
    left, small_left = torch.linalg.qr(up.double())
    right, small_right = torch.linalg.qr(down.double().T)
    inner_left, values, inner_right = torch.linalg.svd(small_left @ small_right.T, full_matrices=False)
    return (left @ inner_left).float(), values.float(), (inner_right @ right.T).float()


def squared_norm(tensor: torch.Tensor) -> float:
    """‖tensor‖², Frobenius, summed in double precision."""
    return float(torch.linalg.vector_norm(tensor, dtype=torch.float64)) ** 2


def residual_norm(matrix: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> float:
    """The Frobenius norm of matrix − up @ down, computed from the factors as they are, rounded or not."""
    return float(torch.linalg.norm(torch.addmm(matrix.float(), up.float(), down.float(), alpha=-1)))


def _iterate(
    matrix: torch.Tensor, rank: int, width: int, whole: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Left vectors m×r, what they see of the matrix (r×n), and all `width` squared singular values, float64."""
    generator = torch.Generator().manual_seed(_SEED)
    start = torch.randn(matrix.shape[1], width, generator=generator)
    caught = 0.0
    basis = torch.linalg.qr(matrix @ start)[0]
    for turn in range(_MOST_ITERATIONS + 1):
        seen = basis.T @ matrix
        double = seen.double()
        squares, vectors = _largest(double @ double.T)
        now = float(squares[:rank].sum())
        rest = whole - now
        if turn == _MOST_ITERATIONS or rest <= _NOISE * whole or (turn and now - caught <= _GAIN * rest):
            break
        caught = now
        # The right vectors, orthonormal where there is anything to see; directions of pure rounding are damped.
        scale = (squares.clamp(min=0) + _NOISE * whole).rsqrt()
        basis = torch.linalg.qr(matrix @ (seen.T @ (vectors * scale).float()))[0]
    turned = vectors[:, :rank].float()
    return basis @ turned, turned.T @ seen, squares


def _largest(gram: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues and eigenvectors of a symmetric matrix, the largest first."""
    values, vectors = torch.linalg.eigh(gram)
    return values.flip(0), vectors.flip(1)
