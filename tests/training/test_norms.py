import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.config import RunConfig
from lib_dsm.training.norms import NormControl, word_lengths


class Words:
    """A model whose words have lengths 1, 2, 3 in turn."""

    def token_vectors(self, ids):
        return torch.tensor([[0.0, 1.0 + number % 3] for number in ids])


def control(**changes) -> NormControl:
    return NormControl(RunConfig("zorgle", "model", "folder", **changes), Words())


def vectors(*rows) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor(rows, dtype=torch.float32))


def lengths(parameter) -> list[float]:
    return pytest.approx(parameter.detach().norm(dim=-1).tolist())


def test_words_are_measured():
    found = word_lengths(Words())
    assert len(found) == 49406 and found.median() == 2


def test_off_does_nothing():
    mine = vectors([3.0, 4.0], [0.0, 0.0])
    mine.grad = torch.ones(2, 2)
    off = NormControl(RunConfig("zorgle", "model", "folder"), None)  # it does not even ask for the words
    off.begin([mine])
    off.project([mine])
    off.end([mine], [torch.zeros(2, 2)])
    assert mine.tolist() == [[3, 4], [0, 0]] and mine.grad.tolist() == [[1, 1], [1, 1]]


def test_decay_takes_away_a_share_of_the_difference_to_the_median():
    mine = vectors([6.0, 8.0], [0.5, 0.0], [0.0, 2.0], [0.0, 0.0])
    decay = control(norm_control="decay", norm_decay=0.25)
    decay.begin([mine])
    assert lengths(mine) == [10, 0.5, 2, 0]
    decay.end([mine], [torch.zeros(4, 2)])
    assert lengths(mine) == [8, 0.875, 2, 0]
    assert torch.allclose(mine[0], torch.tensor([4.8, 6.4]))  # the direction stays


def test_a_fixed_length_is_that_of_the_start():
    start = torch.tensor([[3.0, 4.0], [0.0, 0.1]])
    mine = vectors([30.0, 0.0], [0.0, -7.0])
    fixed = control(norm_control="fixed")
    fixed.end([mine], [start])
    assert torch.allclose(mine, torch.tensor([[5.0, 0.0], [0.0, -0.1]]))


def test_a_fixed_length_can_be_that_of_the_median_word():
    mine = vectors([30.0, 40.0], [0.0, 0.1])
    fixed = control(norm_control="fixed", norm_target="median")
    fixed.begin([mine])
    assert lengths(mine) == [2, 2]
    with torch.no_grad():
        mine.add_(1.0)
    fixed.end([mine], [torch.zeros(2, 2)])
    assert lengths(mine) == [2, 2]


rows = st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=4)


@given(rows, rows)
def test_a_projected_gradient_is_tangent_and_the_nearest_such(vector, gradient):
    mine = vectors(vector)
    mine.grad = torch.tensor([gradient])
    control(norm_control="fixed").project([mine])
    length = float(mine.detach().norm())
    if length < 1e-3:
        return
    assert abs(float((mine.grad * mine.detach()).sum())) < 1e-3 * length
    # what was taken away lies along the vector
    taken = torch.tensor([gradient]) - mine.grad
    assert float((taken - (taken * mine.detach()).sum() / length**2 * mine.detach()).norm()) < 1e-3
