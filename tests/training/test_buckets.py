import math
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from lib_dsm.training.buckets import batches, candidate_sizes, crop_box, lost_share, showings, training_size

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


@given(sides, sides, limits)
def test_no_other_candidate_is_nearer_in_shape(width, height, limit):
    size = training_size((width, height), limit, 64, True, False)
    shape = math.log(width / height)
    distance = abs(math.log(size[0] / size[1]) - shape)
    for wide, high in candidate_sizes(*limit, 64, (width, height)):
        assert distance <= abs(math.log(wide / high) - shape) + 1e-9


@given(limits, st.sampled_from([8, 64]))
def test_candidates_could_not_grow(limit, step):
    area = limit[0] * limit[1]
    sizes = candidate_sizes(*limit, step)
    assert sizes
    for wide, high in sizes:
        assert wide * (high + step) > area
        assert (wide + step) * high > area or (wide + step, high) in sizes


def test_familiar_shapes():
    assert training_size((2000, 2000), (512, 512), 64, True, False) == (512, 512)
    assert training_size((600, 400), (512, 512), 64, True, False) == (576, 384)
    assert training_size((64, 96), (64, 96), 8, True, False) == (64, 96)
    assert training_size((50, 900), (512, 512), 64, True, False) is None
    assert training_size((50, 50), (512, 512), 64, True, True) == (512, 512)
    assert training_size((500, 800), (512, 512), 64, False, False) is None


@given(st.tuples(sides, sides), st.tuples(sides, sides))
def test_the_crop_keeps_proportions_and_stays_inside(source, target):
    left, top, right, bottom = crop_box(source, target)
    assert 0 <= left < right <= source[0] and 0 <= top < bottom <= source[1]
    assert math.isclose((right - left) / (bottom - top), target[0] / target[1], rel_tol=1e-6)
    # cropped on one axis only, and as little as possible
    assert math.isclose(right - left, source[0]) or math.isclose(bottom - top, source[1])
    assert -1e-9 <= lost_share(source, target) < 1


@given(st.integers(1, 30), st.integers(1, 3), st.integers(1, 13), st.integers(0, 5), st.integers(0, 99))
def test_each_epoch_shows_each_picture_exactly_once(pictures, repeats, per_step, epochs, seed):
    length = pictures * repeats
    steps = -(-length * (epochs + 1) // per_step)
    sequence = [item for step in range(steps) for item in showings(seed, pictures, repeats, step * per_step, per_step)]
    assert [item.place for item in sequence] == list(range(steps * per_step))
    for epoch in range(epochs + 1):
        shown = Counter(item.index for item in sequence[epoch * length : (epoch + 1) * length])
        assert shown == dict.fromkeys(range(pictures), repeats)


@given(st.lists(st.sampled_from([(64, 64), (64, 96), (96, 64)]), min_size=1, max_size=20), st.integers(1, 5))
def test_batches_hold_one_size_and_every_showing(sizes, batch_size):
    shown = showings(0, len(sizes), 1, 0, len(sizes))
    groups = batches(shown, sizes, batch_size)
    assert sorted((item for group in groups for item in group), key=lambda item: item.place) == shown
    for group in groups:
        assert len(group) <= batch_size and len({sizes[item.index] for item in group}) == 1


def test_orders_differ_between_epochs_and_seeds():
    orders = {tuple(item.index for item in showings(seed, 20, 1, begin, 20)) for seed in (0, 1) for begin in (0, 20)}
    assert len(orders) == 4


some_sizes = st.lists(st.sampled_from([(64, 64), (64, 96), (96, 64)]), min_size=1, max_size=12)


@given(some_sizes, st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(0, 99))
def test_steps_average_over_exactly_as_many_pictures_as_asked_and_leave_none_out(sizes, repeats, batch, parts, seed):
    """Over whole epochs and across their ends, whatever sizes the pictures have."""
    each, epoch = batch * parts, len(sizes) * repeats
    shown: list[int] = []
    step = 0
    while len(shown) < 2 * epoch + each:
        groups = batches(showings(seed, len(sizes), repeats, step * each, each), sizes, batch)
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
        assert not variable and (width < limit[0] // step * step or height < limit[1] // step * step)
        return
    left, top, right, bottom = crop_box((width, height), size)
    across, down = size[0] / (right - left), size[1] / (bottom - top)
    assert across <= 1 + 1e-9 and down <= 1 + 1e-9
    assert math.isclose(across, down, rel_tol=1e-9)
