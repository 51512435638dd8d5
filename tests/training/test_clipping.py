import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.clipping import Clipping, total_norm

values = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=12)


def parameters(*gradients) -> list[torch.nn.Parameter]:
    made = []
    for gradient in gradients:
        parameter = torch.nn.Parameter(torch.zeros(len(gradient)))
        parameter.grad = torch.tensor(gradient)
        made.append(parameter)
    return made


@given(values, values, st.sampled_from([0.5, 1.0, 2.0, 3.0, 7.0, math.inf]))
def test_a_norm_is_that_of_all_values_together(first, second, order):
    expected = torch.linalg.vector_norm(torch.tensor([*first, *second], dtype=torch.float64), order)
    found = total_norm([torch.tensor(first), torch.tensor(second)], order)
    assert math.isclose(float(found), float(expected), rel_tol=1e-4, abs_tol=1e-30)


def test_high_powers_of_small_numbers_do_not_become_nothing():
    gradients = [torch.tensor([3e-7, -1e-7])]
    assert float(total_norm(gradients, 50.0)) == pytest.approx(3e-7, rel=1e-4)
    assert float(total_norm([torch.zeros(3)], 50.0)) == 0
    assert float(total_norm([])) == 0


@given(values, values, st.floats(1e-3, 1e3), st.sampled_from(["1", "2", "2.5", "inf"]))
def test_clipping_by_norm_keeps_the_direction_and_what_is_short_enough(first, second, bound, norm):
    clipped = parameters(first, second)
    before = torch.tensor([*first, *second])
    length = float(total_norm([before], float(norm)))
    Clipping("norm", repr(bound), norm).apply(clipped, 0)
    after = torch.cat([parameter.grad for parameter in clipped])
    if length <= bound:
        assert torch.equal(after, before)
    else:
        assert float(total_norm([after], float(norm))) == pytest.approx(bound, rel=1e-3)
        assert torch.allclose(after, before * (bound / length), rtol=1e-3, atol=1e-6 * bound)


def test_the_infinite_norm_shortens_all_to_the_largest():
    (parameter,) = parameters([4.0, -8.0, 1.0])
    Clipping("norm", "2", "inf").apply([parameter], 0)
    assert parameter.grad.tolist() == [1.0, -2.0, 0.25]


@pytest.mark.parametrize("mode", ["value", "norm"])
def test_a_bound_changes_at_its_steps_and_the_last_holds_on(mode):
    bounds = []
    for step in (0, 9, 10, 19, 20, 1000):
        (parameter,) = parameters([100.0])
        Clipping(mode, "1:10, 0.5:20", "2").apply([parameter], step)
        bounds.append(float(parameter.grad))
    assert bounds == [1.0, 1.0, 0.5, 0.5, 0.5, 0.5]


def test_off_clips_nothing_and_a_missing_gradient_is_passed_over():
    (parameter,) = parameters([100.0])
    bare = torch.nn.Parameter(torch.zeros(2))
    Clipping("off", "1", "2").apply([parameter, bare], 0)
    assert parameter.grad.tolist() == [100.0] and bare.grad is None
    Clipping("norm", "1", "2").apply([bare], 0)
