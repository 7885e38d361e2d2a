"""Mini-batches that depend on (seed, epoch) alone, so that a run can be repeated or taken up again."""

from __future__ import annotations

import numpy as np


class Batches:
    """Pairs (images, labels) of `size` samples: batches(epoch) shuffles by (seed, epoch), iterating does not.

    The last batch of an epoch may be smaller; it is never dropped.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, size: int, seed: int = 0):
        if len(images) != len(labels) or size < 1:
            raise ValueError(f"Batches got {len(images)} images, {len(labels)} labels and batches of {size}")
        self.images, self.labels, self.size, self.seed = images, labels, size, seed
        self.order = np.arange(len(labels))

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __call__(self, epoch: int) -> Batches:
        """Return the batches of one epoch, in their shuffled order."""
        shuffled = Batches(self.images, self.labels, self.size, self.seed)
        shuffled.order = np.random.default_rng((self.seed, epoch)).permutation(len(self.labels))
        return shuffled

    def __iter__(self):
        for start in range(0, len(self.order), self.size):
            chosen = self.order[start : start + self.size]
            yield self.images[chosen], self.labels[chosen]
