"""The simulated event camera, compared with loops over single pixels, and what its arguments do."""

import numpy as np
import pytest

from data_utils.events.frames import EVENT, check
from data_utils.events.simulator import (
    CORNERS,
    SACCADE,
    crossings,
    moving,
    noise,
    obey_refractory,
    path,
    simulate,
)


def picture(rng, size=(9, 8)):
    return rng.random(size)


def crossings_by_hand(log_pictures, times, threshold):
    """One pixel after the other, one threshold after the other."""
    rows = []
    S, H, W = log_pictures.shape
    for y in range(H):
        for x in range(W):
            reference = log_pictures[0, y, x]
            for s in range(1, S):
                before, after = log_pictures[s - 1, y, x], log_pictures[s, y, x]
                sign = 1 if after > reference else -1
                k = 0
                while abs(after - reference) / threshold >= k + 1:
                    k += 1
                    share = (reference + sign * (k * threshold) - before) / (after - before)
                    t = times[s - 1] + int(min(max(share, 0), 1) * (times[s] - times[s - 1]))
                    rows.append((x, y, t, sign > 0))
                reference += sign * (k * threshold)
    return rows


def test_crossings_are_those_of_the_loop_over_pixels(rng):
    logs = np.cumsum(rng.standard_normal((12, 5, 4)) * 0.4, 0)  # large steps: several thresholds in one
    times = np.array([0, 7, 20, 21, 100, 130, 131, 150, 400, 999, 1000, 1500])
    found = crossings(logs, times, 0.15)
    assert len(found) > 300
    assert sorted(found.tolist()) == sorted(crossings_by_hand(logs, times, 0.15))
    per_pixel = [found[(found["x"] == x) & (found["y"] == y)]["t"] for x in range(4) for y in range(5)]
    assert all((np.diff(t) >= 0).all() for t in per_pixel)


def test_a_crossing_s_moment_follows_by_proportion():
    logs = np.array([0.0, 0.875, 0.5]).reshape(3, 1, 1)  # numbers that are exact in binary
    events = crossings(logs, np.array([0, 1000, 2000]), 0.25)
    assert events["t"].tolist() == [285, 571, 857, 2000]  # ²⁄₇, ⁴⁄₇, ⁶⁄₇ of the rise; L_ref 0.75; then 0.5
    assert events["p"].tolist() == [True, True, True, False]


def test_brightness_is_told_by_its_events_to_less_than_a_threshold(rng):
    """Start plus θ·(up − down) of a pixel is its last log brightness to within θ."""
    logs = np.log(0.1 + moving(picture(rng), path(np.arange(0, 300_001, 1000)) * 4, (14, 12)))
    events = crossings(logs, np.arange(0, 300_001, 1000), 0.25)
    total = np.zeros((14, 12))
    np.add.at(total, (events["y"], events["x"]), np.where(events["p"], 0.25, -0.25))
    assert abs(logs[0] + total - logs[-1]).max() < 0.25 + 1e-9
    still = crossings(np.repeat(logs[:1], 5, 0), np.arange(5), 0.25)
    assert len(still) == 0  # what does not change is not seen


def test_the_image_makes_three_saccades_and_returns():
    at = path(np.arange(4) * SACCADE)
    assert np.array_equal(at, CORNERS) and np.array_equal(at[0], at[3])
    assert np.allclose(path([SACCADE / 2])[0], (CORNERS[0] + CORNERS[1]) / 2)


def test_a_moved_picture_is_the_bilinear_one(rng):
    image, size = picture(rng), (13, 14)
    whole = moving(image, np.array([[0.0, 0.0], [2.0, -1.0]]), size)
    assert np.array_equal(whole[0, 2:11, 3:11], image) and whole[0].sum() == pytest.approx(image.sum())
    assert np.array_equal(whole[1, 1:10, 5:13], image)  # two to the right, one up
    dx, dy = 0.3, 1.6
    by_hand = np.zeros(size)
    for y in range(9):
        for x in range(8):  # each pixel shares itself among the four around where it has moved to
            for row, part in ((1, 1 - (dy - 1)), (2, dy - 1)):
                by_hand[2 + y + row, 3 + x] += (1 - dx) * part * image[y, x]
                by_hand[2 + y + row, 3 + x + 1] += dx * part * image[y, x]
    np.testing.assert_allclose(moving(image, np.array([[dx, dy]]), size)[0], by_hand, atol=1e-12)


def refractory_by_hand(events, refractory):
    last, kept = {}, []
    for x, y, t, p in events.tolist():
        if (x, y) not in last or t - last[x, y] >= refractory:
            last[x, y] = t
            kept.append((x, y, t, p))
    return kept


@pytest.mark.parametrize("refractory", [0, 1, 400, 10**6])
def test_the_refractory_time_is_that_of_the_loop(rng, refractory):
    events = np.sort(noise(4000.0, 20_000, (3, 4), rng), order="t", kind="stable")
    kept = obey_refractory(events, refractory, (3, 4))
    assert kept.tolist() == refractory_by_hand(events, refractory)
    assert (len(kept) == len(events)) == (refractory == 0)
    assert len(obey_refractory(events[:0], 5, (3, 4))) == 0


def test_noise_comes_at_its_rate(rng):
    events = noise(50.0, 2_000_000, (20, 30), rng)
    expected = 50 * 2 * 600
    assert abs(len(events) - expected) < 4 * expected**0.5
    assert abs(events["p"].mean() - 0.5) < 4 * 0.5 / len(events) ** 0.5
    assert np.bincount(events["x"], minlength=30).min() > 0.85 * expected / 30
    assert events["t"].max() < 2_000_000 and len(noise(0.0, 2_000_000, (20, 30), rng)) == 0


def test_a_recording_is_in_order_on_the_sensor_and_repeats_by_its_seed(rng):
    image = picture(rng, (20, 20))
    first, again, other = (simulate(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.dtype == EVENT and len(check(first, (34, 34))) > 1000
    assert (np.diff(first["t"]) >= 0).all() and first["t"].max() <= 3 * SACCADE
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    for number in range(3):  # each saccade is seen
        within = (first["t"] >= number * SACCADE) & (first["t"] < (number + 1) * SACCADE)
        assert within.sum() > 0.2 * len(first)


def test_every_argument_of_the_camera_counts(rng):
    image = picture(rng, (20, 20))

    def count(**camera):
        return len(simulate(image, np.random.default_rng(0), **({"noise_rate": 0.0} | camera)))

    plain = count()
    assert count(threshold=0.1) > plain > count(threshold=0.4)
    assert count(refractory=0) >= plain > count(refractory=50_000)
    assert count(noise_rate=20.0) > plain
    assert count(travel=8.0) > plain > count(travel=1.0) and count(travel=0.0) == 0
    assert simulate(image, rng, size=(40, 50))["x"].max() > 34
    coarse = simulate(image, np.random.default_rng(0), noise_rate=0.0, step=150_000)  # misses the corners
    assert len(coarse) < plain


def test_a_pixel_keeps_its_refractory_time_through_noise_too(rng):
    events = simulate(picture(rng, (20, 20)), rng, noise_rate=200.0, refractory=3000)
    pixel = events["y"].astype(int) * 34 + events["x"]
    order = np.argsort(pixel, kind="stable")
    same = np.diff(pixel[order]) == 0
    assert same.any() and np.diff(events["t"][order])[same].min() >= 3000


def test_the_camera_refuses_what_it_cannot_see(rng):
    with pytest.raises(ValueError, match=r"an image \[h, w\] within 34×34, got \[35, 3\]"):
        simulate(np.zeros((35, 3)), rng)
    with pytest.raises(ValueError, match=r"got \[3, 3, 1\]"):
        simulate(np.zeros((3, 3, 1)), rng)
    for bad in (np.full((3, 3), 255.0), np.full((3, 3), -0.1), np.full((3, 3), np.nan)):
        with pytest.raises(ValueError, match="brightness from 0 to 1"):
            simulate(bad, rng)
    for bad in (
        dict(threshold=0),
        dict(refractory=-1),
        dict(noise_rate=-1.0),
        dict(step=0),
        dict(step=10**6),
        dict(threshold=np.nan),
        dict(noise_rate=np.nan),
        dict(travel=np.inf),
    ):
        with pytest.raises(ValueError, match="cannot simulate"):
            simulate(np.zeros((3, 3)), rng, **bad)
    with pytest.raises(ValueError, match="size must be"):
        simulate(np.zeros((3, 3)), rng, size=(34.0, 34.0))


def test_a_white_square_is_seen_as_the_law_has_it():
    """log(1.1 / 0.1) / 0.2 = 11.99 thresholds; a travel of 4 is 2 pixels either way; three times 100 ms."""
    events = simulate(np.ones((20, 20)), np.random.default_rng(0), noise_rate=0.0, refractory=0)
    assert [(events[name].min(), events[name].max()) for name in "xy"] == [(5, 28), (5, 28)]  # 7 … 26 and 2
    first = events[events["t"] < 100_000]  # to the right: the left edge goes dark, the right one lights up
    net = np.zeros((34, 34), int)
    np.add.at(net, (first["y"], first["x"]), np.where(first["p"], 1, -1))
    assert net.max() == 11 and (net[7:23, 28] == 11).all() and net.min() == -11 == net[7:23, 5].max()
    assert 290_000 < events["t"].max() <= 300_000


def test_steps_that_do_not_divide_a_recording_still_see_all_of_it(rng):
    events = simulate(picture(rng, (20, 20)), rng, noise_rate=0.0, step=70_000)
    assert events["t"].max() > 280_000  # the last step is shorter


def test_noise_lasts_as_long_as_the_recording(rng):
    events = simulate(np.zeros((20, 20)), rng, noise_rate=20.0)
    assert np.histogram(events["t"], 3, (0, 3 * SACCADE))[0].min() > 0.8 * len(events) / 3
