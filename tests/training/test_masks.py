import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from lib_dsm.training.buckets import crop_box
from lib_dsm.training.masks import loss_weights


def weights(alpha, size):
    return loss_weights(Image.fromarray(np.asarray(alpha, dtype=np.uint8)), size)


def test_cells_are_averaged_over_their_area_and_the_mean_is_one():
    alpha = np.zeros((16, 32))
    alpha[:, :8] = 255
    alpha[:8, 8:16] = 51
    expected = torch.tensor([[1, 0.2, 0, 0], [1, 0, 0, 0]])
    assert torch.allclose(weights(alpha, (32, 16)), expected / expected.mean())
    # the same picture twice as large is the same mask
    assert torch.allclose(weights(np.kron(alpha, np.ones((2, 2))), (32, 16)), expected / expected.mean())


def test_what_the_crop_takes_away_does_not_count():
    alpha = np.zeros((16, 48))
    alpha[:, :16] = 255  # cropped away in part: the middle 32 columns are kept
    found = weights(alpha, (32, 16))
    assert torch.allclose(found, torch.tensor([[4.0, 0, 0, 0], [4.0, 0, 0, 0]]))


def test_rows_and_columns_are_not_exchanged():
    alpha = np.zeros((40, 16))
    alpha[24:] = 255
    found = weights(alpha, (16, 40))
    assert found.shape == (5, 2)
    assert torch.allclose(found, torch.tensor([[0.0, 0.0]] * 3 + [[2.5, 2.5]] * 2))


@pytest.mark.parametrize("value", [255, 128, 1])
def test_the_same_everywhere_weighs_nothing(value):
    for shape, size in (((64, 64), (64, 64)), ((77, 131), (64, 40)), ((10, 10), (64, 64))):
        assert weights(np.full(shape, value), size) is None


def test_opaque_where_it_is_kept_weighs_nothing():
    alpha = np.full((16, 64), 255)
    alpha[:, :16] = alpha[:, -16:] = 0
    assert weights(alpha, (32, 16)) is None


def test_transparent_everywhere_gives_zeros():
    alpha = np.zeros((16, 64))
    alpha[:, :10] = 255  # lies outside of the crop
    assert not weights(alpha, (32, 16)).any()


pictures = arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, min_side=8, max_side=20))


@settings(max_examples=40)
@given(pictures, st.sampled_from([(8, 8), (16, 8), (24, 32)]))
def test_against_a_plain_sum_over_pixels(alpha, size):
    found = loss_weights(Image.fromarray(alpha), size)
    left, top, right, bottom = crop_box((alpha.shape[1], alpha.shape[0]), size)
    rows, columns = size[1] // 8, size[0] // 8
    expected = np.zeros((rows, columns))
    for row in range(rows):
        y0, y1 = top + (bottom - top) * row / rows, top + (bottom - top) * (row + 1) / rows
        for column in range(columns):
            x0, x1 = left + (right - left) * column / columns, left + (right - left) * (column + 1) / columns
            for y in range(alpha.shape[0]):
                for x in range(alpha.shape[1]):
                    area = max(0.0, min(y1, y + 1) - max(y0, y)) * max(0.0, min(x1, x + 1) - max(x0, x))
                    expected[row, column] += area * float(alpha[y, x])
    if expected.sum() == 0:
        assert not found.any()
        return
    expected /= expected.mean()
    if found is None:
        assert np.allclose(expected, 1.0)
    else:
        assert np.allclose(found.numpy(), expected, atol=1e-4) and abs(float(found.mean()) - 1) < 1e-5
