"""A simulated event camera: an image makes three small jumps in front of it, as in N-MNIST.

For N-MNIST (Orchard et al. 2015), a real camera in front of a screen made three jumps (saccades) of 100 ms
along a triangle. Here the image moves instead.

A pixel follows the rule by which event cameras are built. Let L be the logarithm of its brightness, θ the
contrast threshold, and L_ref the level of L at its last event. The pixel sends an event each time L differs
from L_ref by θ:

    L(t) >= L_ref + θ: an event "brighter", L_ref += θ        L(t) <= L_ref − θ: an event "darker", L_ref −= θ

L is computed at the ends of each time step. In between, L is taken as a straight line, which gives the time
at which L crosses a threshold. Noise is added, and after each event a pixel is blind for a refractory time.
"""

from __future__ import annotations

import numpy as np

from .frames import check_size, make_events

SACCADE = 100_000  # µs; a recording has three saccades
CORNERS = np.array([(-1, -1), (1, -1), (0, 1), (-1, -1)]) * 0.5  # (x, y) of the triangle, around the centre


def simulate(
    image: np.ndarray,
    rng: np.random.Generator,
    *,
    threshold: float = 0.2,
    refractory: int = 1000,
    noise_rate: float = 1.0,
    size: tuple[int, int] = (34, 34),
    travel: float = 4.0,
    step: int = 1000,
) -> np.ndarray:
    """Return the events of an image [h, w] that makes three saccades: event array [n], in order of time.

    image: brightness 0–1, no larger than the sensor. Outside the image, brightness is 0.
    threshold: θ, a difference of L.
    refractory: µs.
    noise_rate: noise events per pixel and second.
    size: (H, W) of the sensor.
    travel: width and height of the triangle, in pixels.
    step: µs between two computed pictures.

    L is log(0.1 + brightness), which keeps it finite.
    Raises ValueError for an image or a setting that does not fit.
    """
    check_size(size)
    image = np.asarray(image, "float64")
    if image.ndim != 2 or image.shape[0] > size[0] or image.shape[1] > size[1]:
        raise ValueError(f"expected an image [h, w] within {size[0]}×{size[1]}, got {list(image.shape)}")
    if not (image.min(initial=0) >= 0 and image.max(initial=0) <= 1):
        raise ValueError(f"expected brightness from 0 to 1, got {image.min()} … {image.max()}")
    possible = threshold > 0 and refractory >= 0 and noise_rate >= 0 and 1 <= step <= 3 * SACCADE
    if not possible or not np.isfinite(travel):  # NaN fails every comparison
        raise ValueError(f"cannot simulate {threshold=}, {refractory=}, {noise_rate=}, {step=}, {travel=}")
    times = np.append(np.arange(0, 3 * SACCADE, step), 3 * SACCADE)  # [S + 1]
    pictures = moving(image, path(times) * travel, size)  # [S + 1, H, W]
    events = crossings(np.log(0.1 + pictures), times, threshold)
    events = np.concatenate([events, noise(noise_rate, times[-1], size, rng)])
    events = events[np.lexsort((events["x"], events["y"], events["t"]))]
    return obey_refractory(events, refractory, size)


def path(times: np.ndarray) -> np.ndarray:
    """Return the positions (x, y), [S, 2], at times [S] in µs, along the three sides of the triangle."""
    at = np.asarray(times) / SACCADE
    return np.stack([np.interp(at, range(4), CORNERS[:, i]) for i in (0, 1)], -1)


def moving(image: np.ndarray, offsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return pictures [S, H, W] of an image [h, w] that is moved from the middle of the sensor.

    offsets: the moves (x, y), [S, 2], in pixels.    size: (H, W) of the sensor.

    If an offset is not a whole number, each pixel is mixed from four pixels of the image (bilinear). Rows and
    columns can be mixed one after the other. So a picture is A · image · Bᵀ, where A [H, h] and B [W, w] have
    at most two non-zero numbers per row.
    """
    A = _mixing(offsets[:, 1], size[0], image.shape[0])  # [S, H, h]
    B = _mixing(offsets[:, 0], size[1], image.shape[1])  # [S, W, w]
    return A @ image @ B.transpose(0, 2, 1)


def _mixing(offsets: np.ndarray, n: int, m: int) -> np.ndarray:
    """Return [S, n, m]: the share of each of m image pixels in each of n sensor pixels, for each offset.

    The share falls linearly from 1 at distance 0 to 0 at distance 1.
    """
    source = np.arange(n) - (n - m) // 2 - offsets[:, None]  # [S, n], the place in the image
    return np.maximum(1 - abs(source[..., None] - np.arange(m)), 0)


# ---------------------------------------------------------------- the pixels


def crossings(log_pictures: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Return the events of all pixels, an event array, step by step.

    log_pictures: L of each pixel, [S + 1, H, W], at times [S + 1] in µs.    threshold: θ.

    L_ref starts as the first picture. Let a step go from L₀ at time t₀ to L₁ at time t₁. If L crosses n
    thresholds in this step, the pixel sends n events. Event k = 1 … n has the time

        t₀ + (L_ref ± kθ − L₀) / (L₁ − L₀) · (t₁ − t₀)        rounded down to whole µs
    """
    reference = log_pictures[0].copy()
    found = []
    for t0, t1, before, after in zip(times, times[1:], log_pictures, log_pictures[1:], strict=False):
        count = np.floor(abs(after - reference) / threshold).astype(int)  # [H, W] thresholds in this step
        sign = np.sign(after - reference)
        for k in range(1, count.max(initial=0) + 1):
            y, x = np.nonzero(count >= k)
            level = reference[y, x] + sign[y, x] * (k * threshold)
            rise = after[y, x] - before[y, x]
            share = (level - before[y, x]) / np.where(rise == 0, 1, rise)  # 0: only by rounding
            t = t0 + (share.clip(0, 1) * (t1 - t0)).astype("i8")
            found.append((x, y, t, sign[y, x] > 0))
        reference += sign * (count * threshold)
    if not found:
        return make_events([], [], [], [])
    return make_events(*(np.concatenate(values) for values in zip(*found, strict=True)))


def noise(rate: float, duration: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return random events, half of them "brighter" on average; their times are in no order.

    rate: events per pixel and second, on average; their number is Poisson distributed.    duration: µs.
    """
    n = rng.poisson(rate * duration / 1e6 * size[0] * size[1])
    x, y, t = (rng.integers(0, limit, n) for limit in (size[1], size[0], duration))
    return make_events(x, y, t, rng.random(n) < 0.5)


def obey_refractory(events: np.ndarray, refractory: int, size: tuple[int, int]) -> np.ndarray:
    """Drop each event that comes less than `refractory` µs after the last kept event of its pixel.

    events: event array [n], in order of time.    size: (H, W) of the sensor.

    All pixels are handled together: first the first event of every pixel, then the second of every pixel, ….
    """
    pixel = events["y"].astype(np.intp) * size[1] + events["x"]  # [n]
    order = np.argsort(pixel, kind="stable")
    first = np.searchsorted(pixel[order], pixel[order])  # where the events of its pixel begin
    turn = np.empty(len(events), np.intp)  # 0 for the first event of its pixel, 1 for the second, …
    turn[order] = np.arange(len(events)) - first
    last = np.full(size[0] * size[1], -refractory, "i8")
    kept = np.zeros(len(events), bool)
    for now in np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1]):
        now = now[events["t"][now] - last[pixel[now]] >= refractory]
        last[pixel[now]] = events["t"][now]
        kept[now] = True
    return events[kept]
