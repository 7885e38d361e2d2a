"""A simulated event camera: an image makes three small jumps before it, as N-MNIST's did, and pixels report.

N-MNIST (Orchard et al. 2015) moved a real camera before a screen, three saccades of 100 ms along a triangle.
Here the image moves, and a pixel obeys the law that event cameras are built on: with L = log(brightness), it
sends an event each time L has moved by the contrast threshold θ from where it stood at the last one,

    L(t) >= L_ref + θ: an event, brighter, L_ref += θ        L(t) <= L_ref − θ: an event, darker, L_ref −= θ

L is known at the ends of each time step and taken as straight between them, so that the moment of every
crossing follows by proportion. Noise is added, and a pixel is deaf for a refractory time after each event.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .aedat import write_aedat2, write_aedat3
from .frames import make_events

SACCADE = 100_000  # µs; three of them make a recording
CORNERS = np.array([(-1, -1), (1, -1), (0, 1), (-1, -1)]) * 0.5  # of the triangle, (x, y), around the centre


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
    """Return the events (`events.EVENT`, in order of time) of an image [h, w] that makes three saccades.

    image: brightness 0–1, no larger than the sensor of `size`, and dark outside.
    threshold: θ, in log brightness.    refractory: µs.    noise_rate: events per pixel and second (Hz).
    travel: how far the triangle reaches, in pixels.    step: µs between two computed pictures.
    """
    image = np.asarray(image, "float64")
    if image.ndim != 2 or image.shape[0] > size[0] or image.shape[1] > size[1]:
        raise ValueError(f"expected an image [h, w] within {size[0]}×{size[1]}, got {list(image.shape)}")
    if not (image.min(initial=0) >= 0 and image.max(initial=0) <= 1):
        raise ValueError(f"expected brightness from 0 to 1, got {image.min()} … {image.max()}")
    if threshold <= 0 or refractory < 0 or noise_rate < 0 or not 1 <= step <= 3 * SACCADE:
        raise ValueError(f"cannot simulate {threshold=}, {refractory=}, {noise_rate=}, {step=}")
    times = np.append(np.arange(0, 3 * SACCADE, step), 3 * SACCADE)  # [S + 1]
    pictures = moving(image, path(times) * travel, size)  # [S + 1, H, W]
    events = crossings(np.log(0.1 + pictures), times, threshold)
    events = np.concatenate([events, noise(noise_rate, times[-1], size, rng)])
    events = events[np.lexsort((events["x"], events["y"], events["t"]))]
    return obey_refractory(events, refractory, size)


def path(times: np.ndarray) -> np.ndarray:
    """Return the position (x, y) [S, 2] at each of times [S] µs, along the triangle's three sides."""
    at = np.asarray(times) / SACCADE
    return np.stack([np.interp(at, range(4), CORNERS[:, i]) for i in (0, 1)], -1)


def moving(image: np.ndarray, offsets: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the pictures [S, H, W] on the sensor: the image in the middle, moved by offsets (x, y) [S, 2].

    Between whole pixels a picture is mixed from four (bilinear). Rows and columns mix apart from each other,
    so a picture is A · image · Bᵀ with A [H, h] and B [W, w] of two numbers a row.
    """
    A = _mixing(offsets[:, 1], size[0], image.shape[0])  # [S, H, h]
    B = _mixing(offsets[:, 0], size[1], image.shape[1])  # [S, W, w]
    return A @ image @ B.transpose(0, 2, 1)


def _mixing(offsets: np.ndarray, n: int, m: int) -> np.ndarray:
    """Row i: how much each of m image pixels gives to sensor pixel i of n, a tent of width 1 around it."""
    source = np.arange(n) - (n - m) // 2 - offsets[:, None]  # [S, n], where pixel i looks in the image
    return np.maximum(1 - abs(source[..., None] - np.arange(m)), 0)


# ---------------------------------------------------------------- the pixels


def crossings(log_pictures: np.ndarray, times: np.ndarray, threshold: float) -> np.ndarray:
    """Return the events of pixels that see log brightness [S + 1, H, W] at times [S + 1] µs, step by step.

    L_ref starts as the first picture. A step that crosses n thresholds sends n events, the k-th at

        t₀ + (L_ref ± kθ − L₀) / (L₁ − L₀) · (t₁ − t₀)          whole µs, rounded down
    """
    reference = log_pictures[0].copy()
    found = []
    for t0, t1, before, after in zip(times, times[1:], log_pictures, log_pictures[1:], strict=False):
        count = np.floor(abs(after - reference) / threshold).astype(int)  # [H, W], crossed in this step
        sign = np.sign(after - reference)
        for k in range(1, count.max(initial=0) + 1):
            y, x = np.nonzero(count >= k)
            level = reference[y, x] + sign[y, x] * (k * threshold)
            rise = after[y, x] - before[y, x]
            share = (level - before[y, x]) / np.where(rise == 0, 1, rise)  # 0 only where rounding crossed
            t = t0 + (share.clip(0, 1) * (t1 - t0)).astype("i8")
            found.append(make_events(x, y, t, sign[y, x] > 0))
        reference += sign * (count * threshold)
    return np.concatenate([make_events([], [], [], []), *found])


def noise(rate: float, duration: int, size: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Return events of pure chance: on average rate·duration/10⁶ per pixel (Poisson), up as often as down."""
    n = rng.poisson(rate * duration / 1e6 * size[0] * size[1])
    x, y, t = (rng.integers(0, limit, n) for limit in (size[1], size[0], duration))
    return make_events(x, y, t, rng.random(n) < 0.5)


def obey_refractory(events: np.ndarray, refractory: int, size: tuple[int, int]) -> np.ndarray:
    """Drop each event that comes less than `refractory` µs after its pixel's last one that was kept.

    All pixels at once: first every pixel's first event, then every second, …
    """
    pixel = events["y"].astype("i8") * size[1] + events["x"]  # [n]
    order = np.argsort(pixel, kind="stable")
    first = np.searchsorted(pixel[order], pixel[order])  # where each event's pixel begins
    turn = np.empty(len(events), "i8")
    turn[order] = np.arange(len(events)) - first
    last = np.full(size[0] * size[1], -refractory, "i8")
    kept = np.zeros(len(events), bool)
    for now in np.split(np.argsort(turn, kind="stable"), np.cumsum(np.bincount(turn))[:-1]):
        now = now[events["t"][now] - last[pixel[now]] >= refractory]
        last[pixel[now]] = events["t"][now]
        kept[now] = True
    return events[kept]


# ---------------------------------------------------------------- whole folders


def write_cifar10_dvs_like(
    root: str | Path, images: np.ndarray, labels, classes: tuple[str, ...], rng, **camera
) -> None:
    """Record images [n, h, w] as <root>/<class>/cifar10_<class>_<i>.aedat, in AEDAT 2.0.

    labels: [n], places in classes.    camera: `simulate`'s keywords.
    """
    counts = [0] * len(classes)
    for image, label in zip(images, labels, strict=True):
        name = classes[label]
        file = Path(root) / name / f"cifar10_{name}_{counts[label]}.aedat"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_aedat2(file, simulate(image, rng, **camera))
        counts[label] += 1


def write_gesture_like(root: str | Path, trials: dict[str, tuple], test: set[str], rng, **camera) -> None:
    """Record trials as <root>/<name>.aedat in AEDAT 3.1, with <name>_labels.csv and the two lists of trials.

    trials: name: (images [n, h, w], labels [n] of 0–10); a recording's samples follow each other with a pause
    of 0.2 s.    test: the names that test.    camera: `simulate`'s keywords.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    for name, (images, labels) in trials.items():
        recording, rows = [], ["class,startTime_usec,endTime_usec"]
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            start = (i + 1) * 200_000 + i * 3 * SACCADE
            events = simulate(image, rng, **camera)
            events["t"] += start
            recording.append(events)
            rows.append(f"{label + 1},{start},{start + 3 * SACCADE + 1}")
        write_aedat3(root / f"{name}.aedat", np.concatenate(recording))
        (root / f"{name}_labels.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    for file, names in ("train", trials.keys() - test), ("test", test):
        lines = [f"{name}.aedat\n" for name in sorted(names)]
        (root / f"trials_to_{file}.txt").write_text("".join(lines), encoding="utf-8")
