"""Mini-batches that depend on (seed, epoch) alone, so that a run can be repeated or taken up again."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


class Batches:
    """Pairs (images, labels) of `size` samples, the last of an epoch perhaps smaller, never dropped.

    `batches(epoch)` shuffles, and applies augment(images, rng), by (seed, epoch); plain iteration does not.
    An epoch is copied and augmented as a whole: for what is too large for that, see loader.py.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray,
        size: int,
        seed: int = 0,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    ):
        if len(images) != len(labels) or size < 1:
            raise ValueError(f"Batches got {len(images)} images, {len(labels)} labels and batches of {size}")
        self.images, self.labels, self.size, self.seed, self.augment = images, labels, size, seed, augment

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __call__(self, epoch: int) -> Batches:
        """Return the batches of one epoch, shuffled and augmented."""
        rng = np.random.default_rng((self.seed, epoch))
        order = rng.permutation(len(self.labels))
        images = self.images[order]
        if self.augment:
            images = self.augment(images, rng)
        return Batches(images, self.labels[order], self.size)

    def __iter__(self):
        for start in range(0, len(self.labels), self.size):
            yield self.images[start : start + self.size], self.labels[start : start + self.size]
