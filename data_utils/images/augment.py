"""Augmentation of training images: functions of (images [n, H, W, C], rng) that return new images.

`flip` and `crop` move whole pixels and take any dtype. `shift`, `erase` and `mixup` take floats, so they come
after `normalise`. Rotations and the like are in policy.py.
"""

from __future__ import annotations

import numpy as np


def shift(images: np.ndarray, rng: np.random.Generator, pixels: float = 0.5) -> np.ndarray:
    """Shift each image, up or down and left or right, by random fractions of a pixel.

    pixels: the largest shift, at most 1.
    A shift by the fraction f is (1 − f)·image + f·(image moved by one pixel). Pixels that enter from outside
    repeat the border.
    Raises ValueError if pixels is not between 0 and 1, and TypeError for images of bytes.
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
    """Return the images, each mirrored left to right with this probability."""
    images = images.copy()
    chosen = rng.random(len(images)) < probability
    images[chosen] = images[chosen, :, ::-1]
    return images


def crop(images: np.ndarray, rng: np.random.Generator, pixels: int = 4) -> np.ndarray:
    """Move each image, up or down and left or right, by random whole numbers of pixels.

    pixels: the largest move.
    This is the usual padding followed by a random cut. Pixels that enter from outside repeat the border; on
    Fashion-MNIST the border is the background, standardised or not.
    """
    n, height, width, _ = images.shape
    down, right = rng.integers(-pixels, pixels, (2, n, 1), endpoint=True)
    rows = np.clip(np.arange(height) - down, 0, height - 1)  # [n, H]
    columns = np.clip(np.arange(width) - right, 0, width - 1)  # [n, W]
    return images[np.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


# ---------------------------------------------------------------- on standardised images


def normalise(images: np.ndarray, mean, deviation) -> np.ndarray:
    """Return bytes as standardised float32: (images / 255 − mean) / deviation.

    mean, deviation: one number for all channels, or one per channel.
    Raises TypeError if the images are not uint8.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"normalise expects uint8 images, got {images.dtype}")
    result = images.astype("float32")
    # In place, because the images may fill the memory.
    for step, value in ((np.divide, 255), (np.subtract, mean), (np.divide, deviation)):
        step(result, np.asarray(value, "float32"), out=result)
    return result


ERASED_AREA = (0.02, 1 / 3)  # the smallest and the largest share of the image's area
ERASED_RATIO = (0.3, 1 / 0.3)  # the smallest and the largest ratio of height to width
TRIES = 10  # how many rectangles are drawn, until one fits


def erase(images: np.ndarray, rng: np.random.Generator, probability: float = 0.25) -> np.ndarray:
    """Set a random rectangle of each image to 0 with this probability: random erasing (arXiv 1708.04896).

    On standardised images 0 is the mean colour. This is the mode 'const' of the library timm, which
    Spikformer's CIFAR recipe uses. As in timm, the ratio of height to width is log-uniform, and an image
    stays whole if none of ten rectangles fits into it.
    Raises TypeError for images of bytes.
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
    """Mix the images of a batch in pairs (arXiv 1710.09412); return images and targets [n, num_classes].

    images: floats [n, …] of any shape.    labels: int [n].

    Let x be the images and t the labels as one-hot rows; x′ and t′ are the same in reverse order, as in the
    library timm. The batch is shuffled already, so this makes random pairs. With this probability, the whole
    batch is mixed by one share λ, drawn from Beta(alpha, alpha):

        x ← λ x + (1 − λ) x′        t ← λ t + (1 − λ) t′

    Label smoothing is linear, so it may come after the mixing: it is left to the loss.
    Raises ValueError for a label outside 0 … num_classes − 1, and TypeError for images of bytes.
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
    """Return bool [n, size]: for each position 0 … size − 1, whether start <= position < start + length."""
    position = np.arange(size)
    return (position >= start[:, None]) & (position < (start + length)[:, None])


def _expect_floats(name: str, images: np.ndarray) -> None:
    if images.dtype.kind != "f":
        raise TypeError(f"{name} expects standardised float images, got {images.dtype}")
