"""All that happens to a batch of training images, in the order of Spikformer's published code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .augment import erase, flip, mixup, shift
from .policy import five_ops


@dataclass(frozen=True)
class Pipeline:
    """Turn (samples, labels, rng) into (images float32 [n, H, W, C], targets): a Loader's `augment`.

    cut: (samples, rng) → bytes [n, H, W, C], for images of various sizes; without it samples are an array.
    flip, policy: probabilities of a mirror image, and of one of the five operations on bytes.
    standardise: bytes → floats; without it the images are standardised already.    fill: see `five_ops`.
    shift: fraction of a pixel.    erase: probability.    mixup: alpha, for a batch with mixup_probability;
    with alpha 0 targets are the labels, else rows [n, num_classes].
    """

    num_classes: int
    cut: Callable | None = None
    standardise: Callable | None = None
    fill: np.ndarray | int = 0
    flip: float = 0.0
    policy: float = 0.0
    shift: float = 0.0
    mixup: float = 0.0
    mixup_probability: float = 1.0
    erase: float = 0.0

    def __post_init__(self):
        if self.policy and not self.standardise:
            raise ValueError("the policy's operations work on bytes; these images are standardised already")

    def __call__(self, samples, labels: np.ndarray, rng: np.random.Generator) -> tuple:
        images, targets = self.cut(samples, rng) if self.cut else samples, labels
        if self.flip:
            images = flip(images, rng, self.flip)
        if self.policy:
            images = five_ops(images, rng, self.fill, self.policy)
        if self.standardise:
            images = self.standardise(images)
        if self.shift:
            images = shift(images, rng, self.shift)
        if self.mixup:
            images, targets = mixup(images, labels, rng, self.num_classes, self.mixup, self.mixup_probability)
        if self.erase:
            images = erase(images, rng, self.erase)
        return images, targets
