"""Augmentation of event frames: compared with loops, and the same for all frames of a sample."""

from collections import Counter
from functools import partial

import numpy as np
import pytest

from data_utils.events.augment import CHANGES, augment_frames, change, cutout, warp


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


def test_a_cutout_takes_up_to_eleven_hundredths_of_the_sensor():
    frames, rng = np.ones((1, 50, 50, 2)), np.random.default_rng(0)
    lost = [1 - change(frames, "cutout", rng).mean() for _ in range(300)]
    assert min(lost) < 0.004 and 0.1 < max(lost) < 0.116  # whole pixels: 17² of 50² at the most


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
