import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from lib_dsm.cropping.boxes import Size, center_box, elongation, fitted, output_size, padded_box, split_boxes
from lib_dsm.cropping.colors import edge_color, parse_color
from lib_dsm.errors import InputError

SIDE = st.integers(1, 3000)
SIZES = st.tuples(SIDE, SIDE)
SHAPES = st.sampled_from([(512, 512), (512, 768), (960, 512), (64, 1024)])


def inside_box(box: tuple[int, int, int, int], size: tuple[int, int]) -> bool:
    return box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]


@given(SIZES, SHAPES)
def test_center_is_inside_and_as_large_as_can_be(size: tuple[int, int], shape: tuple[int, int]) -> None:
    box = center_box(size, shape)
    width, height = box[2] - box[0], box[3] - box[1]
    assert inside_box(box, size) and (width == size[0] or height == size[1])
    assert abs(box[0] - (size[0] - box[2])) <= 1 and abs(box[1] - (size[1] - box[3])) <= 1
    exact = width * shape[1] / shape[0]
    assert abs(height - exact) <= max(1, shape[1] / shape[0])


@given(SIZES, SHAPES)
def test_padding_holds_the_whole_picture_in_its_middle(size: tuple[int, int], shape: tuple[int, int]) -> None:
    box = padded_box(size, shape)
    width, height = box[2] - box[0], box[3] - box[1]
    assert box[0] <= 0 and box[1] <= 0 and box[2] >= size[0] and box[3] >= size[1]
    assert width == size[0] or height == size[1]
    assert abs(-box[0] - (box[2] - size[0])) <= 1 and abs(-box[1] - (box[3] - size[1])) <= 1
    assert abs(height - width * shape[1] / shape[0]) <= max(1, shape[1] / shape[0])


@given(SIZES, SHAPES)
def test_splitting_gives_both_ends(size: tuple[int, int], shape: tuple[int, int]) -> None:
    center = center_box(size, shape)
    assume(center[2] - center[0] < size[0] or center[3] - center[1] < size[1])
    boxes = split_boxes(size, shape)
    one, other = boxes.values()
    assert one[:2] == (0, 0) and other[2:] == size
    for box in (one, other):
        assert inside_box(box, size)
        assert (box[2] - box[0], box[3] - box[1]) == (center[2] - center[0], center[3] - center[1])
    assert list(boxes) == (["left", "right"] if size[0] * shape[1] > size[1] * shape[0] else ["top", "bottom"])
    if elongation(size, shape) <= 1.9:
        assert one[2] >= other[0] and one[3] >= other[1]


def test_never_enlarged_unless_asked() -> None:
    assert output_size((0, 0, 600, 600), (512, 512), False) == (512, 512)
    assert output_size((0, 0, 300, 300), (512, 512), False) == (300, 300)
    assert output_size((0, 0, 300, 300), (512, 512), True) == (512, 512)


def test_colors() -> None:
    assert parse_color("white") == (255, 255, 255) and parse_color(" #102030 ") == (16, 32, 48)
    assert parse_color("Auto") is None
    for bad in ("whiteish", "#12", ""):
        with pytest.raises(InputError, match="is not a colour"):
            parse_color(bad)


def test_the_edge_that_is_padded_gives_the_colour() -> None:
    pixels = np.full((20, 20, 3), (10, 200, 30), np.uint8)
    pixels[:, 5:15] = np.random.default_rng(0).integers(0, 255, (20, 10, 3))
    image = Image.fromarray(pixels)
    assert edge_color(image, (True, False, True, False)) == (10, 200, 30)
    assert edge_color(image, (False, True, False, True)) is None


@pytest.mark.parametrize(
    ("size", "shape", "padded"),
    [
        ((500, 300), (512, 512), (512, 512)), ((480, 512), (512, 512), (512, 512)),
        ((500, 700), (512, 768), (512, 768)),
        ((64, 96), (512, 512), (96, 96)), ((400, 300), (512, 512), (400, 400)), ((600, 300), (512, 512), (600, 600)),
        ((410, 100), (512, 512), (512, 512)), ((512, 512), (512, 512), (512, 512)),
    ],
)  # fmt: skip
def test_what_nearly_fills_the_shape_is_padded_to_its_pixels(size: Size, shape: Size, padded: Size) -> None:
    box = padded_box(size, shape, exact=True)
    assert (box[2] - box[0], box[3] - box[1]) == padded
    assert abs(-box[0] - (box[2] - size[0])) <= 1 and abs(-box[1] - (box[3] - size[1])) <= 1


@given(SIZES, SHAPES, st.integers(-500, 500), st.integers(-500, 500))
def test_fitting_cuts_one_direction_only(size: Size, shape: Size, left: int, top: int) -> None:
    box = (left, top, left + size[0], top + size[1])
    fit = fitted(box, shape)
    wide, high = fit[2] - fit[0], fit[3] - fit[1]
    assert wide * shape[1] == pytest.approx(high * shape[0])
    assert wide == pytest.approx(size[0]) or high == pytest.approx(size[1])
    assert fit[0] - box[0] == pytest.approx(box[2] - fit[2]) and fit[1] - box[1] == pytest.approx(box[3] - fit[3])
    assert fit[0] >= box[0] - 1e-6 and fit[1] >= box[1] - 1e-6
