"""All changes to a batch of training images, in the order of Spikformer's published code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from ..loader import Loader, Until
from .augment import erase, flip, mixup, shift
from .policy import five_ops


@dataclass(frozen=True)
class Pipeline:
    """Turn (samples, labels, rng) into (images float32 [n, H, W, C], targets); the `augment` of a Loader.

    num_classes: for mixup's targets.
    cut: (samples, rng) → uint8 [n, H, W, C], for images of various sizes. Without cut, samples are an array.
    standardise: uint8 → floats. Without it, the images are standardised already.
    fill: the value of pixels that enter from outside, see `five_ops`.
    flip: the probability of a mirror image.
    policy: the probability of one of the five operations of `five_ops`.
    shift: the largest shift, at most 1 pixel.
    mixup, mixup_probability: `mixup`'s alpha and probability. With alpha 0, targets are the labels; else they
        are rows [n, num_classes].
    erase: the probability of an erased rectangle.

    Raises ValueError for a policy without standardise, because the policy works on bytes; for a probability
    or a shift that is not between 0 and 1; and for a mixup that is negative or not finite.
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
        for name in ("flip", "policy", "shift", "mixup_probability", "erase"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be between 0 and 1, got {getattr(self, name)}")
        if not 0 <= self.mixup < np.inf:
            raise ValueError(f"mixup must be a finite number, 0 or larger, got {self.mixup}")

    def __call__(self, samples, labels: np.ndarray, rng: np.random.Generator) -> tuple:
        images = self.cut(samples, rng) if self.cut else samples
        targets = labels
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


def image_loaders(
    train: tuple,
    test: tuple,
    pipeline: Pipeline,
    prepare: Callable | None,
    *,
    batch_size: int,
    seed: int = 0,
    mixup_until: int = 0,
) -> tuple[Loader | Until, Loader]:
    """Return the loaders of training images and of test images.

    train, test: (source, labels), as for `Loader`.    pipeline: the changes to training images.
    prepare: (images) → images, for a test.    mixup_until: the first epoch without mixup; 0: none.
    """

    def training(augment: Pipeline) -> Loader:
        return Loader(*train, batch_size, seed, prepare=prepare, augment=augment)

    batches = training(pipeline)
    if pipeline.mixup and mixup_until:
        batches = Until(mixup_until, batches, training(replace(pipeline, mixup=0.0)))
    return batches, Loader(*test, batch_size, prepare=prepare)
