"""Pairs of digits: are these two the same digit? A task that no model solves which does not mix its tokens.

    canvas    8×32 pixels: a digit, 16 blank columns, a digit
    label     1 if both show the same digit, else 0

Either digit alone says nothing about the label: the classes of both are uniform, whatever the label is. And
the gap is wide enough that no token of a small stem sees both digits. So without mixing, the logit is a sum
a(left) + b(right), and such a model's cross-entropy is never below ln 2 (lesson 16 shows why).

Training pairs are drawn afresh in every epoch, from the training digits. Test pairs are 2,000 that are drawn
once, from digits that no training pair shows.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..loader import Loader
from .digits import load_digits

GAP, TRAINING, TEST = 16, 1440, 2000  # blank columns; pairs in an epoch; test pairs


class Pairs:
    """Draw pairs from images [n, H, W, C] with labels [n]: canvases […, H, 2·W + gap, C].

    blank: the value of the columns between.
    Raises ValueError if there are not two images of every class, and at least two classes.
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray, gap: int = GAP, blank: float | None = None):
        self.images, self.gap = images, gap
        self.blank = images.min() if blank is None else blank
        self.classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        if len(self.classes) < 2 or min(map(len, self.classes)) < 2:
            raise ValueError("pairs need two classes or more, and two images or more of each")

    def draw(self, n: int, rng: np.random.Generator, balanced: bool = False) -> tuple[np.ndarray, np.ndarray]:
        """Return (canvases, labels) of n pairs. Both images of a pair are never the same image.

        balanced: half of the labels are 1, to the last pair; else each label is a coin's throw.
        """
        k = len(self.classes)
        labels = rng.permutation(np.arange(n) % 2) if balanced else rng.integers(0, 2, n)
        left = rng.integers(0, k, n)
        right = np.where(labels == 1, left, (left + rng.integers(1, k, n)) % k)
        sizes = np.array([len(places) for places in self.classes])
        first = (rng.random(n) * sizes[left]).astype(int)
        second = (rng.random(n) * (sizes[right] - labels)).astype(int)
        second += (labels == 1) & (second >= first)  # the others of the class, each as likely
        halves = [
            self.images[[self.classes[c][i] for c, i in zip(*each, strict=True)]]
            for each in ((left, first), (right, second))
        ]
        middle = np.full((n, self.images.shape[1], self.gap, self.images.shape[3]), self.blank)
        canvas = np.concatenate([halves[0], middle.astype(self.images.dtype), halves[1]], axis=2)
        return canvas, labels


class FreshPairs:
    """Training batches of pairs, drawn afresh in every epoch: `batches(epoch, start)`, as a Loader has it.

    A batch depends on (seed, epoch, step) alone. Iterating over the object itself gives epoch 0.
    """

    def __init__(self, pairs: Pairs, n: int, size: int, seed: int = 0):
        if size < 1 or n < 1:
            raise ValueError(f"FreshPairs got {n} pairs and batches of {size}")
        self.pairs, self.n_samples, self.size, self.seed = pairs, n, min(size, n), seed

    def __len__(self) -> int:
        return -(-self.n_samples // self.size)

    def __call__(self, epoch: int, start: int = 0) -> FreshEpoch:
        """Return the batches of one epoch; iteration begins at step `start`."""
        return FreshEpoch(self, epoch, start)

    def __iter__(self) -> Iterator[tuple]:
        return iter(self(0))


class FreshEpoch:
    """One epoch of FreshPairs: `epoch[step]` makes a batch. `len` counts all batches of the epoch."""

    def __init__(self, batches: FreshPairs, epoch: int, start: int = 0):
        self.batches, self.epoch, self.start = batches, epoch, start

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, step: int) -> tuple:
        if not 0 <= step < len(self):
            raise IndexError(f"step {step} of an epoch of {len(self)}")
        all_of = self.batches
        n = min(all_of.size, all_of.n_samples - step * all_of.size)
        return all_of.pairs.draw(n, np.random.default_rng((all_of.seed, self.epoch, step + 1)))

    def __iter__(self) -> Iterator[tuple]:
        return (self[step] for step in range(self.start, len(self)))


def open_pairs(batch_size: int, seed: int = 0, gap: int = GAP) -> tuple[FreshPairs, Loader]:
    """Return (training batches, test batches) of pairs of scikit-learn's digits.

    gap: the blank columns between. With a small gap tokens see both digits, and no mixing is needed.
    """
    (images, labels), (test, test_labels) = load_digits()
    blank = images.min()
    train = FreshPairs(Pairs(images, labels, gap, blank), TRAINING, batch_size, seed)
    drawn = Pairs(test, test_labels, gap, blank).draw(TEST, np.random.default_rng(0), balanced=True)
    return train, Loader(*drawn, batch_size)
