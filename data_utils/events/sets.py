"""Event data sets by name, as batches to train and to test on.

    train, test = open_events("fashion-dvs", T=8, batch_size=32)
    for frames, labels in train(epoch):    float32 [T, B, H, W, 2], int64 [B]; train(epoch)[step] is one batch

The file → events (aedat.py) → frames (events.py), kept on disk (dvs.py) → batches, shuffled (loader.py) →
mirrored, turned, … (augment_events.py) → mixed (augment.py) → time first. A training batch depends on (seed,
epoch, step) alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ..download import cache_folder
from ..images.augment import mixup as mix
from ..loader import Loader, Until
from .augment import augment_frames
from .dvs import cifar10_dvs, dvs128_gesture
from .fashion_dvs import fashion_dvs, make_fashion_dvs
from .frames import time_first

SETS = {"cifar10dvs": (cifar10_dvs, 10), "gesture": (dvs128_gesture, 11), "fashion-dvs": (fashion_dvs, 10)}
"""Name: the function that gives a part's frames, how many classes there are."""


def open_events(
    name: str,
    root: str | Path | None = None,
    *,
    T: int,
    batch_size: int,
    seed: int = 0,
    mixup: float = 0.0,
    mixup_probability: float = 1.0,
    mixup_until: int = 0,
    augment: bool = True,
    split_by: str = "number",
    **options,
) -> tuple[Loader | Until, Loader]:
    """Return (train, test). train(epoch) is shuffled and augmented; iterating test is in order, and is not.

    name: one of SETS.    root: the set's folder; by default the one of its name in the cache, where
    Fashion-DVS is made at its first use, and the others' files have to be put.
    T, split_by: as `events_to_frames` has them.
    augment: Spikformer's policy for event frames.
    mixup: alpha. If it is not 0, training targets are float32 [B, classes]; a batch is mixed with
    mixup_probability, and none from the epoch mixup_until on (0: to the end). Spikformer's recipe for
    CIFAR10-DVS has 0.5, 0.5 and 75. Counts of events are not standardised, as there.
    options: the set's own, as split="first-100-test" for CIFAR10-DVS, or cache.
    """
    if name not in SETS:
        raise ValueError(f"no event data set {name!r}; there are {', '.join(SETS)}")
    if mixup < 0 or mixup_until < 0 or not 0 <= mixup_probability <= 1:
        raise ValueError(f"cannot mix with {mixup=}, {mixup_probability=}, {mixup_until=}")
    frames_of, classes = SETS[name]
    if root is None:
        root = cache_folder() / name
        if name == "fashion-dvs":
            make_fashion_dvs(root)
    train, test = (frames_of(root, train=part, T=T, split_by=split_by, **options) for part in (True, False))

    def training(probability: float) -> Loader:
        change = partial(_change, augment=augment, classes=classes, alpha=mixup, probability=probability)
        return Loader(train, train.labels, batch_size, seed, prepare=time_first, augment=change)

    batches = training(mixup_probability)
    if mixup and mixup_until:
        batches = Until(mixup_until, batches, training(0.0))
    return batches, Loader(test, test.labels, batch_size, prepare=time_first)


def _change(
    frames: np.ndarray,
    labels: np.ndarray,
    rng: np.random.Generator,
    *,
    augment: bool,
    classes: int,
    alpha: float,
    probability: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what a training step takes of samples [B, T, H, W, 2]: frames [T, B, H, W, 2] and targets."""
    if augment:
        frames = augment_frames(frames, rng)
    if alpha:
        frames, labels = mix(frames, labels, rng, classes, alpha, probability)
    return time_first(frames), labels
