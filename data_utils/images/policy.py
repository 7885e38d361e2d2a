"""The image policy of Spikformer's CIFAR recipe: one of five operations, on bytes, before standardising.

For each image, the published code draws one of Equalize, Rotate, ShearX, TranslateX and TranslateY, and
applies it with probability ½. Equalize has no strength. The strength of the other four is random: m/10 of 30°
for Rotate, of 0.3 for ShearX, and of 0.45 times the image's side for the translations. m is drawn from
N(9, 0.4²) and clipped to [0, 10]; the code writes this "rand-m9-n1-mstd0.4". So the strengths are 27°, 0.27
and 0.405 on average. The sign is random. Pixels that enter from outside get the mean colour. Each operation
gives the same bytes as Pillow's, with the recipe's bicubic filter.
"""

from __future__ import annotations

import numpy as np

MAGNITUDE, MAGNITUDE_STD = 9.0, 0.4  # mean and deviation of m; the largest m is 10
MAX_ANGLE, MAX_SHEAR, MAX_SHIFT = np.deg2rad(30), 0.3, 0.45


def five_ops(images: np.ndarray, rng: np.random.Generator, fill, probability: float = 0.5) -> np.ndarray:
    """Change each of the images, uint8 [n, H, W, C], with this probability by one of the five operations.

    fill: the value of pixels that enter from outside, one number or one per channel. The library timm takes
        255 times the data set's mean, rounded.
    Raises TypeError if the images are not uint8.
    """
    if images.dtype != np.uint8:
        raise TypeError(f"five_ops expects uint8 images, got {images.dtype}")
    n, height, width, _ = images.shape
    kind = rng.integers(5, size=n)
    chosen = rng.random(n) < probability
    strength = np.clip(rng.normal(MAGNITUDE, MAGNITUDE_STD, n), 0, 10) / 10 * rng.choice([-1, 1], n)
    matrices = np.stack([
        np.zeros((n, 2, 3)),  # Equalize has no matrix
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
    """Spread the levels of each channel evenly over 0 … 255, as Pillow's ImageOps.equalize does.

    images: uint8 [n, H, W, C]. Let h(v) be the number of a channel's pixels at level v, and

        step = ⌊(H·W − h(the highest level in use)) / 255⌋

    Then a pixel at level v gets the level

        min(255, ⌊(⌊step/2⌋ + Σ_{u<v} h(u)) / step⌋)        or keeps v, if step = 0
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
    """Return matrices [n, 2, 3] that turn images counter-clockwise about their centre.

    angle: [n], in radians.
    """
    cos = np.round(np.cos(angle), 15)  # rounded as in Pillow, so right angles are exact
    sin = np.round(np.sin(angle), 15)
    x, y = width / 2, height / 2
    return _matrices(cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y)


def shear_x(factor: np.ndarray) -> np.ndarray:
    """Return matrices [n, 2, 3] that move each row of an image to the left.

    factor: [n]. A row moves by this factor times its distance from the top.
    """
    return _matrices(1, factor, 0, 0, 1, 0)


def translation(left: np.ndarray, up: np.ndarray) -> np.ndarray:
    """Return matrices [n, 2, 3] that move images by left [n] pixels to the left and by up [n] pixels up."""
    return _matrices(1, 0, left, 0, 1, up)


def _matrices(a, b, c, d, e, f) -> np.ndarray:
    rows = np.broadcast_arrays(*(np.asarray(each, "float64") for each in (a, b, c, d, e, f)))
    return np.stack(rows, -1).reshape(-1, 2, 3)


def affine(images: np.ndarray, matrices: np.ndarray, fill) -> np.ndarray:
    """Return uint8 images [n, H, W, C] whose pixel at (x, y) is taken from the source at matrix · (x, y, 1).

    matrices: [n, 2, 3], one per image. Pixel centres are at ½, 1½, ….

    The value is interpolated from the 4×4 pixels around the source point; where these reach beyond the image,
    the border is repeated. If the source point itself is outside the image, the pixel is `fill`. Fractions of
    a level are cut off, as in Pillow's transform with BICUBIC.
    """
    n, height, width, _ = images.shape
    y, x = np.mgrid[:height, :width] + 0.5
    a, b, c, d, e, f = matrices.reshape(n, 6, 1, 1).transpose(1, 0, 2, 3)
    x, y = a * x + b * y + c, d * x + e * y + f  # source points, [n, H, W] each
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
    """Return the cubic that is v1 at t = 0 with slope v2 − v0, and v2 at t = 1 with slope v3 − v1.

    This is the bicubic filter with the parameter a = −1.
    """
    return v1 + t * (v2 - v0 + t * (2 * (v0 - v1) + v2 - v3 + t * (v1 - v0 + v3 - v2)))
