import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib_dsm.extraction.low_rank import factors, residual_norm, truncated_svd


def matrix_with(values, rows, columns, seed):
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    left = torch.linalg.qr(torch.randn(rows, count, generator=generator))[0]
    right = torch.linalg.qr(torch.randn(columns, count, generator=generator))[0]
    return (left * values) @ right.T


@pytest.mark.parametrize("shape", [(320, 320), (320, 900), (900, 320), (256, 2304)])
@pytest.mark.parametrize("decay", [0.3, 0.5, 1.0])
def test_the_error_is_within_six_thousandths_of_the_least_possible(shape, decay):
    values = torch.arange(1, min(shape) + 1, dtype=torch.float32) ** -decay
    matrix = matrix_with(values, *shape, seed=1)
    up, down = factors(matrix, 32)
    assert up.shape == (shape[0], 32) and down.shape == (32, shape[1])
    least = float(torch.linalg.norm(values[32:].double()))
    assert least * 0.9999 <= residual_norm(matrix, up, down) <= least * 1.006


@pytest.mark.parametrize("step", [1.05, 1.1, 1.2, 1.5])
@pytest.mark.parametrize(("rank", "width"), [(32, 2.0), (64, 1.3), (64, 2.0), (64, 3.0), (128, 2.0)])
def test_a_plateau_just_beyond_the_rank_costs_less_than_a_hundredth(rank, width, step):
    places = torch.arange(640)
    values = torch.where(places < rank, step, 1.0) * torch.where(places < width * rank, 1.0, 0.01)
    matrix = matrix_with(values, 640, 800, seed=1)
    least = float(torch.linalg.norm(values[rank:].double()))
    assert residual_norm(matrix, *factors(matrix, rank)) <= least * 1.01


@settings(max_examples=25, deadline=None)
@given(
    rows=st.integers(1, 150),
    columns=st.integers(1, 150),
    true_rank=st.integers(1, 12),
    spare=st.integers(0, 4),
    scale=st.sampled_from([1e-4, 1.0, 1e3]),
    seed=st.integers(0, 99),
)
def test_a_matrix_of_low_rank_comes_back(rows, columns, true_rank, spare, scale, seed):
    true_rank = min(true_rank, rows, columns)
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, true_rank, generator=generator) @ torch.randn(true_rank, columns, generator=generator)
    matrix *= scale
    up, down = factors(matrix, true_rank + spare)
    assert up.shape[1] == min(true_rank + spare, rows, columns)
    assert residual_norm(matrix, up, down) <= 1e-5 * float(torch.linalg.norm(matrix))


def test_large_matrices_of_low_rank_come_back_too():
    matrix = matrix_with(torch.tensor([3.0, 2.0, 1.0, 0.001]), 400, 1200, seed=5)
    up, down = factors(matrix, 4)
    assert residual_norm(matrix, up, down) <= 1e-5 * float(torch.linalg.norm(matrix))


def test_singular_values_are_the_largest_and_the_factors_share_them():
    spectrum = 1 / torch.arange(1, 301)
    matrix = matrix_with(spectrum, 300, 700, seed=2)
    left, values, right = truncated_svd(matrix, 10)
    assert torch.allclose(values, spectrum[:10], rtol=1e-3)
    assert torch.allclose(left.T @ left, torch.eye(10), atol=1e-4)
    assert torch.allclose(right @ right.T, torch.eye(10), atol=1e-4)
    up, down = factors(matrix, 10)
    assert torch.allclose(up.norm(dim=0), down.norm(dim=1), rtol=1e-4)


def test_the_same_input_gives_the_same_bits_whatever_the_random_state():
    matrix = matrix_with(torch.linspace(1, 0.1, 300), 300, 400, seed=3)
    first = factors(matrix, 8)
    torch.manual_seed(123)
    before = torch.get_rng_state()
    second = factors(matrix, 8)
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))
    assert torch.equal(before, torch.get_rng_state())
