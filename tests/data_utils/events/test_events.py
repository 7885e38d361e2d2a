"""Events to frames, frames to batches, frames changed: each beside a loop, and nothing dropped."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_utils.events.augment import CHANGES, augment_frames, change, cutout, warp
from data_utils.events.frames import EVENT, check, events_to_frames, make_events, time_first
from data_utils.loader import Loader
from minispike import create_model

SIZE = (6, 9)


def some_events(n, rng, last=1000, size=SIZE):
    x, y = rng.integers(0, size[1], n), rng.integers(0, size[0], n)
    return make_events(x, y, np.sort(rng.integers(0, last + 1, n)), rng.random(n) < 0.5)


def frames_by_hand(events, T, split_by, size):
    """The rule in loops: each frame's first and last event, then one addition an event."""
    frames = np.zeros((T, *size, 2), "float32")
    n = len(events)
    times = [int(t) for t in events["t"]]
    dt = (max(times) - min(times)) // T if n else 0
    for frame in range(T):
        for i, (x, y, t, p) in enumerate(events.tolist()):
            if split_by == "number":
                begins, ends = i >= frame * (n // T), i < (frame + 1) * (n // T)
            else:
                begins, ends = t >= min(times) + frame * dt, t < min(times) + (frame + 1) * dt
            if begins and (ends or frame == T - 1):
                frames[frame, y, x, int(p)] += 1
    return frames


lists = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 5), st.integers(0, 60), st.booleans()))


@settings(deadline=None)
@given(lists, st.integers(1, 7), st.sampled_from(["number", "time"]))
def test_frames_are_those_of_the_loop_and_drop_nothing(rows, T, split_by):
    events = np.array(rows, EVENT)  # in any order of time
    frames = events_to_frames(events, T, split_by, SIZE)
    assert frames.shape == (T, *SIZE, 2) and frames.dtype == "float32"
    assert frames.sum() == len(events)
    assert np.array_equal(frames, frames_by_hand(events, T, split_by, SIZE))


def test_by_number_the_remainder_is_in_the_last_frame(rng):
    frames = events_to_frames(some_events(23, rng), 5, "number", SIZE)
    assert frames.sum((1, 2, 3)).tolist() == [4, 4, 4, 4, 7]
    few = events_to_frames(some_events(3, rng), 5, "number", SIZE)
    assert few.sum((1, 2, 3)).tolist() == [0, 0, 0, 0, 3]


def test_by_time_an_empty_bin_is_zeros_and_no_duration_is_the_last_frame():
    def counts(times, T):
        zeros = np.zeros(len(times))
        return events_to_frames(make_events(zeros, zeros, times, zeros), T, "time", SIZE).sum((1, 2, 3))

    assert counts([7, 8, 37], 3).tolist() == [2, 0, 1]  # dt = 10: 7–16, 17–26, 27 and after
    assert counts([7, 16, 17, 26, 27, 37], 3).tolist() == [2, 2, 2]
    assert counts([0, 1, 2, 3, 4], 3).tolist() == [1, 1, 3]  # dt = 4 // 3 = 1: the last takes what is over
    assert counts([5, 5, 5], 3).tolist() == [0, 0, 3]
    assert counts([], 3).tolist() == [0, 0, 0]


def test_by_time_does_not_depend_on_the_array_s_order_and_by_number_does(rng):
    events = some_events(200, rng)
    mixed = rng.permutation(events)
    assert np.array_equal(*(events_to_frames(e, 4, "time", SIZE) for e in (events, mixed)))
    assert not np.array_equal(*(events_to_frames(e, 4, "number", SIZE) for e in (events, mixed)))


def test_polarity_is_the_channel_and_y_the_row():
    frames = events_to_frames(make_events([3, 3, 8], [5, 5, 0], [0, 1, 2], [1, 1, 0]), 1, size=SIZE)
    assert frames[0, 5, 3].tolist() == [0, 2] and frames[0, 0, 8].tolist() == [1, 0]


def test_framing_refuses_what_it_cannot_count(rng):
    events = some_events(10, rng)
    with pytest.raises(ValueError, match="T >= 1, got 0"):
        events_to_frames(events, 0, size=SIZE)
    with pytest.raises(ValueError, match="'number' or 'time', got 'exposure'"):
        events_to_frames(events, 2, "exposure", SIZE)
    with pytest.raises(ValueError, match=r"expected an event array \[n\] .* got float64 \[3\]"):
        check(np.zeros(3), SIZE)
    with pytest.raises(ValueError, match="got <class 'list'>"):
        check([], SIZE)
    with pytest.raises(ValueError, match="event 1 of 2 at x = 9, y = 5 lies outside the 6×9 sensor"):
        check(make_events([8, 9], [0, 5], [0, 0], [0, 0]), SIZE)
    with pytest.raises(ValueError, match="event 0 of 1 at x = 0, y = 6 lies outside"):
        check(make_events([0], [6], [0], [0]), SIZE)
    with pytest.raises(ValueError, match="event 1 of 2 has the negative time -1 µs"):
        check(make_events([0, 0], [0, 0], [0, -1], [0, 0]), SIZE)


# ---------------------------------------------------------------- batches


def test_a_loader_of_frames_puts_time_first_and_gives_every_sample_once(rng):
    frames, labels = rng.random((7, 4, 3, 5, 2)).astype("float32"), np.arange(7)
    batches = Loader(frames, labels, 3, prepare=time_first)
    plain = list(batches)
    assert [x.shape for x, _ in plain] == [(4, 3, 3, 5, 2), (4, 3, 3, 5, 2), (4, 1, 3, 5, 2)]
    assert len(batches) == 3 and all(x.flags.c_contiguous for x, _ in plain)
    assert np.concatenate([y for _, y in plain]).tolist() == list(range(7))
    for x, y in batches(2):
        assert np.array_equal(x.swapaxes(0, 1), frames[y])  # samples and labels stay together
    with pytest.raises(ValueError, match=r"takes frames \[B, T, H, W, 2\], got \[4, 3, 5, 2\]"):
        time_first(frames[0])


def test_a_batch_of_frames_is_what_a_model_takes(rng):
    events = [some_events(500, rng, size=(16, 16)) for _ in range(3)]
    frames = np.stack([events_to_frames(e, 4, size=(16, 16)) for e in events])
    model = create_model(
        "spikformer_2_256_cifar10dvs",
        depth=1,
        embed_dim=16,
        num_heads=2,
        img_size=16,
        pools=(True, True, False, False),
    )
    shapes = [model(x).shape for x, _ in Loader(frames, np.zeros(3, "int64"), 2, prepare=time_first)]
    assert shapes == [(2, 10), (1, 10)]


# ---------------------------------------------------------------- augmentation


def warp_by_hand(frames, matrix, shift):
    T, H, W, C = frames.shape
    moved = np.zeros_like(frames)
    back = np.linalg.inv(matrix)
    for y in range(H):
        for x in range(W):
            there = back @ (np.array([x, y]) - [(W - 1) / 2, (H - 1) / 2] - shift)
            sx, sy = (int(np.floor(v + 0.5)) for v in there + [(W - 1) / 2, (H - 1) / 2])
            if 0 <= sx < W and 0 <= sy < H:
                moved[:, y, x] = frames[:, sy, sx]
    return moved


@pytest.mark.parametrize("matrix", [[[1, 0.3], [0, 1]], [[0.8, -0.6], [0.6, 0.8]], [[1, 0], [0, 1]]])
def test_a_warp_is_the_loop(rng, matrix):
    frames = rng.integers(0, 9, (3, 7, 10, 2)).astype("float32")
    shift = (1.7, -2.2)
    assert np.array_equal(warp(frames, matrix, shift), warp_by_hand(frames, matrix, shift))


def test_warps_move_where_they_say(rng):
    frames = rng.integers(1, 9, (2, 6, 8, 2)).astype("float32")
    right = warp(frames, shift=(3, 0))
    assert np.array_equal(right[:, :, 3:], frames[:, :, :-3]) and not right[:, :, :3].any()
    down = warp(frames, shift=(0, 2))
    assert np.array_equal(down[:, 2:], frames[:, :-2]) and not down[:, :2].any()
    square = frames[:, :, :6]
    turned = warp(square, np.round([[np.cos(np.pi / 2), -1], [1, 0]]))  # (x, y) -> (−y, x): clockwise, y down
    assert np.array_equal(turned, np.rot90(square, -1, (1, 2)))
    sheared = warp(frames, [[1, 2], [0, 1]])
    assert not np.array_equal(sheared, frames) and set(np.unique(sheared)) <= {0, *np.unique(frames)}
    assert np.array_equal(warp(frames), frames)


def test_a_cutout_is_one_empty_square_alike_on_all_frames(rng):
    cut = cutout(np.ones((4, 20, 30, 2)), 0.06, rng) == 0
    assert cut.sum() == 4 * 6 * 6 * 2 and (cut == cut[:1, :, :, :1]).all()  # 0.06 · 600 = 6²
    y, x = cut[0, :, :, 0].nonzero()
    assert np.ptp(x) == np.ptp(y) == 5
    assert not cutout(np.ones((1, 4, 4, 2)), 5.0, rng).any()  # never larger than the sensor


def test_the_policy_changes_all_frames_and_polarities_alike(rng):
    one = rng.integers(1, 9, (40, 1, 16, 16, 1)).astype("float32")
    frames = np.broadcast_to(one, (40, 3, 16, 16, 2)).copy()
    changed = augment_frames(frames, rng)
    assert changed.shape == frames.shape and changed.dtype == frames.dtype
    assert (changed == changed[:, :1, :, :, :1]).all()
    assert set(np.unique(changed)) <= {0.0, *np.unique(frames)}  # whole pixels: counts stay counts
    assert len({sample.tobytes() for sample in changed}) > 30  # samples draw for themselves
    assert np.array_equal(frames, np.broadcast_to(one, frames.shape))  # the originals are left alone


def test_the_policy_draws_each_change_equally_often_and_mirrors_half(monkeypatch):
    drawn = Counter()

    def note(frames, name, rng):
        drawn[name] += 1
        drawn["mirrored"] += frames[0, 0, 0, 0] == 1
        return frames

    monkeypatch.setattr("data_utils.events.augment.change", note)
    frames = np.zeros((3000, 1, 1, 2, 2), "float32")
    frames[:, :, :, 1] = 1
    augment_frames(frames, np.random.default_rng(0))
    assert abs(drawn.pop("mirrored") - 1500) < 4 * (3000 * 0.25) ** 0.5
    spread = 4 * (3000 * 5 / 36) ** 0.5  # four deviations of a count of 3000 draws at 1/6
    assert set(drawn) == set(CHANGES) and all(abs(n - 500) < spread for n in drawn.values())


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_stays_within_its_strength(name):
    H = W = 41
    point = np.zeros((1, H, W, 2))
    point[0, 20, 20] = point[0, 6, 20] = 1  # the centre, and 14 pixels above it
    change_it = partial(change, point, name)
    results = [change_it(np.random.default_rng(seed)) for seed in range(300)]
    moved = sum(not np.array_equal(result, point) for result in results)
    if name == "identity":
        assert moved == 0
        return
    places = np.concatenate([np.argwhere(result[0, :, :, 0]) - [20, 20] for result in results])  # (y, x)
    if name == "translate_x":
        assert set(places[:, 0]) == {0, -14} and set(places[:, 1]) == set(range(-5, 6))
    if name == "translate_y":
        above = {y for y in places[:, 0] if y < -5}
        assert set(places[:, 1]) == {0} and above == set(range(-19, -8))
    if name == "shear_x":
        assert set(places[:, 0]) == {0, -14}  # rows stay rows
        upper = places[places[:, 0] == -14][:, 1]
        assert upper.min() == -4 and upper.max() == 4  # 0.3 · 14 = 4.2
    if name == "rotate":
        upper = places[np.hypot(*places.T) > 5]
        angles = np.degrees(np.arctan2(upper[:, 1], -upper[:, 0]))
        assert 25 < angles.max() < 33 and -33 < angles.min() < -25  # ±30°, to half a pixel in 14
    if name == "cutout":
        assert 0 < moved < 300


def test_the_policy_refuses_other_shapes_and_names(rng):
    with pytest.raises(ValueError, match=r"takes \[n, T, H, W, 2\], got \[3, 4, 4, 2\]"):
        augment_frames(np.zeros((3, 4, 4, 2)), rng)
    with pytest.raises(ValueError, match="no change 'blur'; there are identity"):
        change(np.zeros((1, 4, 4, 2)), "blur", rng)


def test_an_event_array_has_one_axis():
    with pytest.raises(ValueError, match=r"expected an event array \[n\] .* \[2, 2\]"):
        check(np.zeros((2, 2), EVENT), SIZE)


def test_a_cutout_takes_up_to_eleven_hundredths_of_the_sensor():
    frames, rng = np.ones((1, 50, 50, 2)), np.random.default_rng(0)
    lost = [1 - change(frames, "cutout", rng).mean() for _ in range(300)]
    assert min(lost) < 0.004 and 0.1 < max(lost) < 0.116  # whole pixels: 17² of 50² at the most
