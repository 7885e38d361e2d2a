"""Events to frames, and frames to batches: compared with loops, and no event is dropped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    for T in (0, -1, 2.0, "4", None):
        with pytest.raises(ValueError, match=rf"a whole number T >= 1, got {T!r}"):
            events_to_frames(events, T, size=SIZE)
    for size in ((0, 9), (6, -9), (6,), (6, 9, 2), (6.0, 9), "69", 9, None):
        with pytest.raises(ValueError, match=r"size must be \(H, W\), two whole numbers from 1 on, got"):
            events_to_frames(events, 2, size=size)
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


def test_an_event_array_has_one_axis():
    with pytest.raises(ValueError, match=r"expected an event array \[n\] .* \[2, 2\]"):
        check(np.zeros((2, 2), EVENT), SIZE)


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
