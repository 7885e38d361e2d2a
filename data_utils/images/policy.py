"""The image policy of Spikformer's CIFAR recipe: one of five operations, on bytes, before standardising.

The published code draws, for each image, one of Equalize, Rotate, ShearX, TranslateX, TranslateY and applies
it with probability ½. Its strength is m/10 of 30°, 0.3, and 0.45 of the side, with m ~ N(9, 0.4²) in [0, 10]
("rand-m9-n1-mstd0.4"), hence 27°, 0.27 and 0.405 on average; the sign is random. What enters from outside
takes the mean colour. Each operation gives Pillow's bytes, with the recipe's bicubic filter.
"""

from __future__ import annotations

import numpy as np

MAGNITUDE, MAGNITUDE_STD = 9.0, 0.4  # of 10
MAX_ANGLE, MAX_SHEAR, MAX_SHIFT = np.deg2rad(30), 0.3, 0.45


def five_ops(images: np.ndarray, rng: np.random.Generator, fill, probability: float = 0.5) -> np.ndarray:
    """Change each uint8 image [n, H, W, C] with this probability, by one of the five operations.

    fill: the value of what enters, for all channels or one each (timm's: 255 · the data set's mean, rounded).
    """
    if images.dtype != np.uint8:
        raise TypeError(f"five_ops expects uint8 images, got {images.dtype}")
    n, height, width, _ = images.shape
    kind = rng.integers(5, size=n)
    chosen = rng.random(n) < probability
    strength = np.clip(rng.normal(MAGNITUDE, MAGNITUDE_STD, n), 0, 10) / 10 * rng.choice([-1, 1], n)
    matrices = np.stack([
        np.zeros((n, 2, 3)),  # Equalize: none
        rotation(strength * MAX_ANGLE, height, width),
        shear_x(strength * MAX_SHEAR),
        translation(strength * MAX_SHIFT * width, 0 * strength),
        translation(0 * strength, strength * MAX_SHIFT * height),
    ])[kind, np.arange(n)]  # [n, 2, 3]  # fmt: skip
    images = images.copy()
    images[chosen & (kind == 0)] = equalize(images[chosen & (kind == 0)])
    moved = chosen & (kind > 0)
    images[moved] = affine(images[moved], matrices[moved], fill)
    return images


# ---------------------------------------------------------------- levels


def equalize(images: np.ndarray) -> np.ndarray:
    """Spread each channel's levels evenly over 0…255, as Pillow's ImageOps.equalize does.

    With h the channel's histogram and step = ⌊(pixels − h at the highest level in use) / 255⌋,

        level v  →  min(255, ⌊(⌊step/2⌋ + Σ_{u<v} h(u)) / step⌋),    unchanged where step = 0.
    """
    n, height, width, channels = images.shape
    channel = np.arange(n * channels).reshape(n, 1, 1, channels)
    histogram = np.bincount((256 * channel + images).reshape(-1), minlength=256 * n * channels)
    histogram = histogram.reshape(-1, 256)  # [n·C, 256]
    below = histogram.cumsum(1) - histogram
    highest = 255 - (histogram[:, ::-1] > 0).argmax(1)
    step = (height * width - histogram[np.arange(n * channels), highest])[:, None] // 255
    levels = np.where(step > 0, np.minimum(255, (step // 2 + below) // np.maximum(step, 1)), np.arange(256))
    return levels.astype(np.uint8)[channel, images]


# ---------------------------------------------------------------- places


def rotation(angle: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return matrices [n, 2, 3] that turn by `angle` [n] radians, counter-clockwise about the centre."""
    cos, sin = np.round(np.cos(angle), 15), np.round(np.sin(angle), 15)  # as Pillow: a right angle is exact
    x, y = width / 2, height / 2
    return _matrices(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def shear_x(factor: np.ndarray) -> np.ndarray:
    """Return matrices [n, 2, 3] that move a row left by `factor` [n] times its distance from the top."""
    return _matrices(1, factor, 0, 0, 1, 0)


def translation(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return matrices [n, 2, 3] that move images by [n] pixels to the left and up."""
    return _matrices(1, 0, left, 0, 1, up)


def _matrices(a, b, c, d, e, f) -> np.ndarray:
    rows = np.broadcast_arrays(*(np.asarray(each, "float64") for each in (a, b, c, d, e, f)))
    return np.stack(rows, -1).reshape(-1, 2, 3)


def affine(images: np.ndarray, matrices: np.ndarray, fill) -> np.ndarray:
    """Return uint8 images whose pixel at (x, y) is the source's at matrix · (x, y, 1), interpolated.

    matrices: [n, 2, 3], in (x, y) with pixel centres at ½, 1½, …. A source point outside the image gives
    `fill`; a 4×4 neighbourhood that reaches beyond repeats the border. As Pillow's transform with BICUBIC,
    fractions of a level are cut off.
    """
    n, height, width, _ = images.shape
    y, x = np.mgrid[:height, :width] + 0.5
    a, b, c, d, e, f = matrices.reshape(n, 6, 1, 1).transpose(1, 0, 2, 3)
    x, y = a * x + b * y + c, d * x + e * y + f  # [n, H, W] source points
    outside = (x < 0) | (x >= width) | (y < 0) | (y >= height)
    column, row = np.floor(x - 0.5).astype(int), np.floor(y - 0.5).astype(int)
    dx, dy = (x - 0.5 - column)[..., None], (y - 0.5 - row)[..., None]
    sample = np.arange(n)[:, None, None]
    lines = []
    for i in range(-1, 3):
        at = np.clip(row + i, 0, height - 1)
        pixels = (images[sample, at, np.clip(column + j, 0, width - 1)] * 1.0 for j in range(-1, 3))
        lines.append(_cubic(*pixels, dx))
    result = np.clip(_cubic(*lines, dy), 0, 255).astype(np.uint8)
    result[outside] = fill
    return result


def _cubic(v0, v1, v2, v3, t):
    """Interpolate between v1 (t = 0) and v2 (t = 1); the slopes there are v2 − v0 and v3 − v1 (a = −1)."""
    return v1 + t * (v2 - v0 + t * (2 * (v0 - v1) + v2 - v3 + t * (v1 - v0 + v3 - v2)))
