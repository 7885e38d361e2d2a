"""Mini-batches that depend on (seed, epoch) alone, so that a run can be repeated or taken up again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import copy

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


class FrameBatches:
    """Batches of event frames: as Batches, but loaded one batch at a time, and with time first.

    frames: anything with a length whose item i is [T, H, W, 2]: an array [n, T, H, W, 2], or a data set on
    disk (`dvs.Frames`), which need not fit into memory. labels: [n].
    Yields (frames [T, B, H, W, 2], labels [B]), as the models take them.
    augment(frames [B, T, H, W, 2], rng) is called on each batch of an epoch.
    """

    def __init__(
        self,
        frames: Sequence[np.ndarray] | np.ndarray,
        labels: np.ndarray,
        size: int,
        seed: int = 0,
        augment: Callable[[np.ndarray, np.random.Generator], np.ndarray] | None = None,
    ):
        if len(frames) != len(labels) or size < 1:
            raise ValueError(
                f"FrameBatches got {len(frames)} samples, {len(labels)} labels, batches of {size}"
            )
        self.frames, self.labels, self.size, self.seed, self.augment = frames, labels, size, seed, augment
        self.epoch: int | None = None  # None: in order, and not augmented

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __call__(self, epoch: int) -> FrameBatches:
        """Return the batches of one epoch, shuffled and augmented as they are loaded."""
        batches = copy(self)
        batches.epoch = epoch
        return batches

    def __iter__(self):
        order = np.arange(len(self.labels))
        if self.epoch is not None:
            rng = np.random.default_rng((self.seed, self.epoch))
            order = rng.permutation(order)
        for start in range(0, len(order), self.size):
            chosen = order[start : start + self.size]
            frames = np.stack([self.frames[i] for i in chosen])  # [B, T, H, W, 2]
            if self.augment and self.epoch is not None:
                frames = self.augment(frames, rng)
            yield np.ascontiguousarray(frames.swapaxes(0, 1)), self.labels[chosen]  # [T, B, H, W, 2]
