import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.buckets import (
    AREA_WEIGHT,
    Shown,
    batches,
    crop_box,
    lost_share,
    showings,
    size_cost,
    training_size,
)

sides = st.integers(64, 4000)
limits = st.sampled_from([(512, 512), (768, 512), (256, 256), (64, 96)])


@given(sides, sides, limits, st.sampled_from([8, 64]), st.booleans())
def test_a_training_size_is_allowed_and_never_enlarges(width, height, limit, step, enlarge):
    size = training_size((width, height), limit, step, True, enlarge)
    assert size is not None
    assert size[0] % step == 0 == size[1] % step
    assert size[0] * size[1] <= limit[0] * limit[1]
    if not enlarge:
        assert size[0] <= width and size[1] <= height


def all_sizes(area: int, step: int, limit: tuple[int, int] | None) -> list[tuple[int, int]]:
    wide_limit, high_limit = limit or (area, area)
    return [
        (wide, high)
        for wide in range(step, min(wide_limit, area // step) + 1, step)
        for high in range(step, min(high_limit, area // wide) + 1, step)
    ]


def cannot_grow(area: int, step: int, source: tuple[int, int]) -> tuple[int, int]:
    """The rule that others have: the size nearest in shape among those that could not grow on either side."""
    sizes = set(all_sizes(area, step, source))
    full = [
        (wide, high) for wide, high in sizes if (wide + step, high) not in sizes and (wide, high + step) not in sizes
    ]
    shape = math.log(source[0] / source[1])
    return min(full, key=lambda size: (round(abs(math.log(size[0] / size[1]) - shape), 9), -size[0] * size[1], size))


small_limits = st.sampled_from([(512, 512), (256, 256), (320, 192), (64, 96)])


@given(st.integers(64, 1500), st.integers(64, 1500), small_limits, st.sampled_from([32, 64]), st.booleans())
def test_no_size_at_all_costs_less(width, height, limit, step, enlarge):
    size = training_size((width, height), limit, step, True, enlarge)
    sizes = all_sizes(limit[0] * limit[1], step, None if enlarge else (width, height))
    assert size in sizes
    least = min(size_cost((width, height), other) for other in sizes)
    assert size_cost((width, height), size) <= least + 1e-9


@given(sides, sides, st.sampled_from([(512, 512), (768, 512), (320, 192)]), st.sampled_from([32, 64]))
def test_more_is_cropped_than_among_the_fullest_sizes_only_for_more_pixels(width, height, limit, step):
    source = (width, height)
    size = training_size(source, limit, step, True, False)
    full = cannot_grow(limit[0] * limit[1], step, source)
    gained = math.log(size[0] * size[1] / (full[0] * full[1]))
    assert lost_share(source, size) <= lost_share(source, full) + AREA_WEIGHT * gained + 1e-8
    if gained <= 0:
        assert lost_share(source, size) <= lost_share(source, full) + 1e-8


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from([8, 16, 64]), st.integers(0, 100))
def test_a_picture_of_an_allowed_size_stays_whole_at_its_size(columns, rows, step, more):
    source = (columns * step, rows * step)
    limit = (source[0] + more, source[1])
    assert training_size(source, limit, step, True, False) == source


@given(st.integers(1, 8), st.integers(1, 8), st.integers(1, 40), st.sampled_from([8, 64]))
def test_where_a_size_has_exactly_the_shape_little_is_lost_and_only_for_more_pixels(columns, rows, times, step):
    """For half the area more than a tenth of a picture is never cut away where it could be whole."""
    source = (columns * step * times, rows * step * times)
    whole = [
        (columns * step * k, rows * step * k)
        for k in range(1, times + 1)
        if columns * rows * (step * k) ** 2 <= 512 * 512
    ]
    size = training_size(source, (512, 512), step, True, False)
    if whole:
        gained = math.log(size[0] * size[1] / (whole[-1][0] * whole[-1][1]))
        assert lost_share(source, size) <= max(AREA_WEIGHT * gained, 0) + 1e-8


@given(st.floats(0.9, 1.1), st.integers(512, 4000), st.sampled_from([8, 16, 32, 64]))
def test_nearly_square_pictures_keep_nearly_all_the_area(ratio, width, step):
    size = training_size((width, max(512, round(width / ratio))), (512, 512), step, True, False)
    assert size[0] * size[1] >= 0.85 * 512 * 512


def test_familiar_shapes():
    assert training_size((2000, 2000), (512, 512), 64, True, False) == (512, 512)
    assert training_size((512, 512), (512, 512), 64, True, False) == (512, 512)
    assert training_size((1000, 1010), (512, 512), 64, True, False) == (512, 512)
    assert training_size((600, 400), (512, 512), 64, True, False) == (576, 384)
    assert training_size((100, 300), (512, 512), 64, True, False) == (64, 192)
    assert training_size((700, 300), (512, 512), 64, True, False) == (576, 256)
    assert training_size((1280, 1024), (512, 512), 64, True, False) == (576, 448)  # and not 320×256
    assert training_size((832, 1216), (512, 512), 64, True, False) == (384, 576)
    assert training_size((1920, 1080), (512, 512), 8, True, False) == (680, 384)
    assert training_size((64, 96), (64, 96), 8, True, False) == (64, 96)
    assert training_size((50, 900), (512, 512), 64, True, False) is None
    assert training_size((50, 50), (512, 512), 64, True, True) == (512, 512)
    assert training_size((500, 800), (512, 512), 64, False, False) is None
    assert training_size((600, 800), (520, 512), 64, False, False) == (520, 512)  # the step is for shapes of their own


@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_the_crop_keeps_proportions_and_stays_inside(source, target):
    left, top, right, bottom = crop_box(source, target)
    assert 0 <= left < right <= source[0] and 0 <= top < bottom <= source[1]
    assert math.isclose((right - left) / (bottom - top), target[0] / target[1], rel_tol=1e-6)
    # cropped on one axis only, and as little as possible
    assert math.isclose(right - left, source[0]) or math.isclose(bottom - top, source[1])
    assert -1e-9 <= lost_share(source, target) < 1


three_sizes = st.sampled_from([(64, 64), (64, 96), (96, 64)])


@given(
    st.lists(three_sizes, min_size=1, max_size=30), st.integers(1, 3), st.integers(1, 13), st.integers(0, 5),
    st.integers(0, 99), st.integers(1, 9),
)  # fmt: skip
def test_each_epoch_shows_each_picture_exactly_once(sizes, repeats, per_step, epochs, seed, together):
    pictures = len(sizes)
    length = pictures * repeats
    steps = -(-length * (epochs + 1) // per_step)
    sequence = [
        item for step in range(steps) for item in showings(seed, sizes, repeats, step * per_step, per_step, together)
    ]
    assert [item.place for item in sequence] == list(range(steps * per_step))
    for epoch in range(epochs + 1):
        shown = Counter(item.index for item in sequence[epoch * length : (epoch + 1) * length])
        assert shown == dict.fromkeys(range(pictures), repeats)


@given(st.lists(three_sizes, min_size=1, max_size=20), st.integers(1, 5))
def test_batches_hold_one_size_and_every_showing(sizes, batch_size):
    shown = showings(0, sizes, 1, 0, len(sizes))
    groups = batches(shown, sizes, batch_size)
    assert sorted((item for group in groups for item in group), key=lambda item: item.place) == shown
    for group in groups:
        assert len(group) <= batch_size and len({sizes[item.index] for item in group}) == 1


@given(st.lists(st.tuples(three_sizes, st.integers(1, 3)), min_size=1, max_size=20), st.integers(1, 5))
def test_batches_hold_prompts_of_one_length_if_these_are_known(pictures, batch_size):
    sizes, chunks = zip(*pictures, strict=True)
    shown = [Shown(index, index) for index in range(len(pictures))]
    groups = batches(shown, sizes, batch_size, chunks)
    assert sorted((item for group in groups for item in group), key=lambda item: item.place) == shown
    assert all(len({pictures[item.index] for item in group}) == 1 for group in groups)
    # As few as there can be.
    assert len(groups) == sum(-(-count // batch_size) for count in Counter(pictures).values())


SQUARES = [(64, 64)] * 20


def test_orders_differ_between_epochs_and_seeds():
    orders = {
        tuple(item.index for item in showings(seed, SQUARES, 1, begin, 20)) for seed in (0, 1) for begin in (0, 20)
    }
    assert len(orders) == 4


@given(
    st.lists(three_sizes, min_size=1, max_size=40), st.integers(1, 3), st.integers(2, 8), st.integers(1, 3),
    st.integers(0, 99),
)  # fmt: skip
def test_sizes_shown_together_fill_the_batches(sizes, repeats, batch, parts, seed):
    """Over an epoch only what is left over of each size, and what completes the epoch before, is cut up."""
    each = batch * parts
    steps = -(-len(sizes) * repeats // each)
    for begin in (0, 7 * steps):
        made = [
            group
            for step in range(begin, begin + steps)
            for group in batches(showings(seed, sizes, repeats, step * each, each, batch), sizes, batch)
        ]
        odd = [group for group in made if len(group) < batch]
        # At most two epochs meet; each has under a batch left over of each size, and under a batch broken up.
        assert sum(map(len, odd)) <= 2 * (len(set(sizes)) + 1) * (batch - 1)


def test_batches_are_full_where_the_pictures_allow_it():
    sizes = [(64, 64)] * 8 + [(64, 96)] * 12 + [(96, 64)] * 20
    steps = [batches(showings(0, sizes, 1, 4 * step, 4, 4), sizes, 4) for step in range(30)]
    assert all(len(groups) == 1 for groups in steps)
    assert any(len(batches(showings(0, sizes, 1, 4 * step, 4), sizes, 4)) > 1 for step in range(30))
    # The batches come in another order and hold other pictures each time.
    assert len({tuple(item.index for item in groups[0]) for groups in steps}) > 25


some_sizes = st.lists(st.sampled_from([(64, 64), (64, 96), (96, 64)]), min_size=1, max_size=12)


@given(some_sizes, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_steps_average_over_exactly_as_many_pictures_as_asked_and_leave_none_out(sizes, repeats, batch, parts, seed):
    """Over whole epochs and across their ends, whatever sizes the pictures have."""
    each, epoch = batch * parts, len(sizes) * repeats
    shown: list[int] = []
    step = 0
    while len(shown) < 2 * epoch + each:
        groups = batches(showings(seed, sizes, repeats, step * each, each, batch), sizes, batch)
        assert sum(map(len, groups)) == each
        for group in groups:
            assert 1 <= len(group) <= batch and len({sizes[item.index] for item in group}) == 1
        items = sorted((item for group in groups for item in group), key=lambda item: item.place)
        assert [item.place for item in items] == list(range(step * each, (step + 1) * each))
        shown += [item.index for item in items]
        step += 1
    for begin in (0, epoch):
        assert Counter(shown[begin : begin + epoch]) == dict.fromkeys(range(len(sizes)), repeats)


@given(sides, sides, limits, st.sampled_from([8, 64]), st.booleans())
def test_a_picture_is_only_shrunk_and_cropped(width, height, limit, step, variable):
    size = training_size((width, height), limit, step, variable, False)
    if size is None:
        assert not variable and (width < limit[0] or height < limit[1])
        return
    left, top, right, bottom = crop_box((width, height), size)
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    assert across <= 1 + 1e-9 and down <= 1 + 1e-9
    assert math.isclose(across, down, rel_tol=1e-9)
