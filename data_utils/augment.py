"""Augmentation of training images: functions of (images [n, H, W, C], rng) that return new images."""

from __future__ import annotations

import numpy as np


def shift(images: np.ndarray, rng: np.random.Generator, pixels: float = 0.5) -> np.ndarray:
    """Shift each image by a random fraction of a pixel, up to `pixels` <= 1 down or up and right or left.

    A fraction f of a shift is (1 − f)·image + f·(image moved by one); what enters repeats the border.
    """
    if not 0 <= pixels <= 1:
        raise ValueError(f"shift moves by up to one pixel, got {pixels}")
    for axis in (1, 2):
        amount = rng.uniform(-pixels, pixels, (len(images), 1, 1, 1)).astype(images.dtype)
        first, last = np.take(images, [0], axis), np.take(images, [-1], axis)
        inner, outer = np.delete(images, -1, axis), np.delete(images, 0, axis)
        moved = np.where(
            amount > 0, np.concatenate([first, inner], axis), np.concatenate([outer, last], axis)
        )
        images = (1 - abs(amount)) * images + abs(amount) * moved
    return images
