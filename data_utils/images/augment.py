"""Augmentation of training images: functions of (images [n, H, W, C], rng) that return new images.

Those that move whole pixels (flip, crop) take any dtype; shift, mixup and erase come after `normalise`, in
floats.
The data set's policy of rotations and the like is in policy.py.
"""

from __future__ import annotations

import numpy as np


def shift(images: np.ndarray, rng: np.random.Generator, pixels: float = 0.5) -> np.ndarray:
    """Shift each image by a random fraction of a pixel, up to `pixels` <= 1 down or up and right or left.

    A fraction f of a shift is (1 − f)·image + f·(image moved by one); what enters repeats the border.
    """
    if not 0 <= pixels <= 1:
        raise ValueError(f"shift moves by up to one pixel, got {pixels}")
    _expect_floats("shift", images)
    for axis in (1, 2):
        amount = rng.uniform(-pixels, pixels, (len(images), 1, 1, 1)).astype(images.dtype)
        first, last = np.take(images, [0], axis), np.take(images, [-1], axis)
        inner, outer = np.delete(images, -1, axis), np.delete(images, 0, axis)
        moved = np.where(
            amount > 0, np.concatenate([first, inner], axis), np.concatenate([outer, last], axis)
        )
        images = (1 - abs(amount)) * images + abs(amount) * moved
    return images


def flip(images: np.ndarray, rng: np.random.Generator, probability: float = 0.5) -> np.ndarray:
    """Mirror each image left to right with this probability."""
    images = images.copy()
    chosen = rng.random(len(images)) < probability
    images[chosen] = images[chosen, :, ::-1]
    return images


def crop(images: np.ndarray, rng: np.random.Generator, pixels: int = 4) -> np.ndarray:
    """Move each image by whole pixels, up to `pixels` down or up and right or left: pad, then cut at random.

    What enters repeats the border: on Fashion-MNIST that is the background, standardised or not.
    """
    n, height, width, _ = images.shape
    down, right = rng.integers(-pixels, pixels, (2, n, 1), endpoint=True)
    rows = np.clip(np.arange(height) - down, 0, height - 1)  # [n, H]
    columns = np.clip(np.arange(width) - right, 0, width - 1)  # [n, W]
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# ---------------------------------------------------------------- on standardised images


def normalise(images: np.ndarray, mean, deviation) -> np.ndarray:
    """Turn bytes into standardised float32: (images / 255 − mean) / deviation, scalars or one a channel."""
    if images.dtype != np.uint8:
        raise TypeError(f"normalise expects uint8 images, got {images.dtype}")
    result = images.astype("float32")
    for step, value in ((np.divide, 255), (np.subtract, mean), (np.divide, deviation)):
        step(result, np.asarray(value, "float32"), out=result)  # in place: the images may fill the memory
    return result


ERASED_AREA = (0.02, 1 / 3)  # of the image
ERASED_RATIO = (0.3, 1 / 0.3)  # height to width
TRIES = 10  # for a rectangle that fits


def erase(images: np.ndarray, rng: np.random.Generator, probability: float = 0.25) -> np.ndarray:
    """Random erasing (arXiv 1708.04896): set a random rectangle of an image to 0, with this probability.

    On standardised images 0 is the mean colour: timm's mode 'const', which Spikformer's CIFAR recipe uses.
    As there, the ratio is log-uniform, and an image for which ten rectangles do not fit stays whole.
    """
    _expect_floats("erase", images)
    n, height, width, _ = images.shape
    area = rng.uniform(*ERASED_AREA, (TRIES, n)) * height * width
    ratio = np.exp(rng.uniform(*np.log(ERASED_RATIO), (TRIES, n)))
    h, w = np.rint(np.sqrt(area * ratio)).astype(int), np.rint(np.sqrt(area / ratio)).astype(int)
    fits = (h < height) & (w < width)
    first = fits.argmax(0), np.arange(n)
    chosen = fits[first] & (rng.random(n) < probability)
    h, w = np.minimum(h[first], height), np.minimum(w[first], width)
    rows = _inside(rng.integers(0, height - h, endpoint=True), h, height) & chosen[:, None]  # [n, H]
    columns = _inside(rng.integers(0, width - w, endpoint=True), w, width)  # [n, W]
    images = images.copy()
    images[rows[:, :, None] & columns[:, None, :]] = 0
    return images


def mixup(
    images: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    num_classes: int,
    alpha: float = 0.5,
    probability: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Mix pairs of images of a batch (arXiv 1710.09412); return images and targets [n, num_classes].

    With this probability x ← λ x + (1 − λ) x′ and t ← λ t + (1 − λ) t′, λ ~ Beta(alpha, alpha) once a batch;
    x′ is the batch backwards, as in timm: it is shuffled already. images: [n, …] of any shape, floats.
    Targets are (mixed) one-hot rows. Label smoothing is left to the loss: it is linear, so it may come after.
    """
    _expect_floats("mixup", images)
    if labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(f"mixup got labels {labels.min()} to {labels.max()} for {num_classes} classes")
    targets = np.eye(num_classes, dtype=images.dtype)[labels]
    share = rng.beta(alpha, alpha)
    if rng.random() >= probability:
        return images, targets
    return tuple(share * x + (1 - share) * x[::-1] for x in (images, targets))


def _inside(start: np.ndarray, length: np.ndarray, size: int) -> np.ndarray:
    """Return [n, size]: whether a position is in start ≤ position < start + length."""
    position = np.arange(size)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


def _expect_floats(name: str, images: np.ndarray) -> None:
    if images.dtype.kind != "f":
        raise TypeError(f"{name} expects standardised float images, got {images.dtype}")
