"""Event data sets by name, as batches to train and to test on.

    train, test = open_events("fashion-dvs", T=8, batch_size=32)
    for frames, labels in train(epoch):    float32 [T, B, H, W, 2], int64 [B]; train(epoch)[step] is one batch

The way from a file to a training batch:

    events                      aedat.py, recordings.py
    frames, kept on disk        frames.py, dvs.py
    batches, shuffled           ../loader.py
    mirrored, rotated, …        augment.py
    mixed                       ../images/augment.py
    time as the first axis      frames.py

A training batch depends on (seed, epoch, step) alone.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from ..download import cache_folder
from ..images.augment import mixup as mix
from ..loader import Loader, Until
from .augment import augment_frames
from .dvs import Frames, cifar10_dvs, dvs128_gesture
from .fashion_dvs import fashion_dvs, make_fashion_dvs
from .frames import time_first

SETS = {  # name: (function that returns the training or the test frames, number of classes)
    "cifar10dvs": (cifar10_dvs, 10),
    "gesture": (dvs128_gesture, 11),
    "fashion-dvs": (fashion_dvs, 10),
}


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
    """Return (training loader, test loader) of an event set.

    The batches of train(epoch) are shuffled and augmented. Iterating over test gives all test samples in
    order, not augmented. As in Spikformer's code, counts of events are not standardised.

    name: one of SETS.
    root: the folder of the set. The default is the folder of this name in the cache. Fashion-DVS is made
        there at its first use; the files of the other sets must be put there by hand.
    T, split_by: as for `events_to_frames`.
    batch_size: samples per batch.
    seed: of the order of samples and of all random changes.
    mixup: `mixup`'s alpha. If it is not 0, training targets are float32 [B, classes].
    mixup_probability: the probability that a batch is mixed.
    mixup_until: the first epoch without mixup; 0: mixup to the end. Spikformer's recipe for CIFAR10-DVS has
        mixup 0.5, mixup_probability 0.5 and mixup_until 75.
    augment: whether to change training frames by `augment_frames`.
    options: for the function of the set, such as split="first-100-test" for CIFAR10-DVS, or cache.

    Raises ValueError for an unknown name or settings that do not fit, and the errors of the set's function.
    """
    if name not in SETS:
        raise ValueError(f"no event data set {name!r}; there are {', '.join(SETS)}")
    mixing = dict(mixup=mixup, mixup_probability=mixup_probability, mixup_until=mixup_until)
    _check_mixing(**mixing)
    frames_of, classes = SETS[name]
    if root is None:
        root = cache_folder() / name
        if name == "fashion-dvs":
            make_fashion_dvs(root)
    train, test = (frames_of(root, train=part, T=T, split_by=split_by, **options) for part in (True, False))
    return event_loaders(train, test, classes, batch_size=batch_size, seed=seed, augment=augment, **mixing)


def event_loaders(
    train: Frames,
    test: Frames,
    classes: int,
    *,
    batch_size: int,
    seed: int = 0,
    mixup: float = 0.0,
    mixup_probability: float = 1.0,
    mixup_until: int = 0,
    augment: bool = True,
) -> tuple[Loader | Until, Loader]:
    """Return (training loader, test loader) of frames, for example those of `event_folders`.

    classes: the number of classes. The other arguments are those of `open_events`.
    """
    _check_mixing(mixup, mixup_probability, mixup_until)

    def training(probability: float) -> Loader:
        change = partial(_change, augment=augment, classes=classes, alpha=mixup, probability=probability)
        return Loader(train, train.labels, batch_size, seed, prepare=time_first, augment=change)

    batches = training(mixup_probability)
    if mixup and mixup_until:
        batches = Until(mixup_until, batches, training(0.0))
    return batches, Loader(test, test.labels, batch_size, prepare=time_first)


def _check_mixing(mixup: float, mixup_probability: float, mixup_until: int) -> None:
    if not (mixup >= 0 and mixup_until >= 0 and 0 <= mixup_probability <= 1):
        raise ValueError(f"cannot mix with {mixup=}, {mixup_probability=}, {mixup_until=}")


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
    """Turn samples [B, T, H, W, 2] and labels into a training batch: frames [T, B, H, W, 2] and targets."""
    if augment:
        frames = augment_frames(frames, rng)
    if alpha:
        frames, labels = mix(frames, labels, rng, classes, alpha, probability)
    return time_first(frames), labels
