"""Every data set by its name: a training loader with its augmentation, and a test loader without.

train, test, classes = open_data("fashion-mnist", batch_size=64, flip=0.5)
train(epoch)[step]  →  (images [B, H, W, C], targets)        for images, labels in test: …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from .events.sets import SETS, open_events
from .images import folders
from .images.augment import normalise
from .images.cifar import MEAN, load_cifar10, load_cifar100, prepare_cifar
from .images.digits import load_digits
from .images.mnist import load_fashion_mnist, load_mnist
from .images.pipeline import Pipeline
from .loader import Loader, Until

STANDARDISED: dict[str, Callable] = {
    "fashion-mnist": load_fashion_mnist,
    "mnist": load_mnist,
}  # of ten classes
CIFAR = {"cifar10": (load_cifar10, 10), "cifar100": (load_cifar100, 100)}
FOLDERS = ("tiny-imagenet", "imagenet")
NAMES = ("digits", *STANDARDISED, *CIFAR, *FOLDERS, *SETS)


def open_data(
    name: str,
    root: str | None = None,
    *,
    batch_size: int,
    seed: int = 0,
    size: int = 224,
    T: int = 16,
    mixup_until: int = 0,
    augment_events: bool = True,
    split_by: str = "number",
    split: str = "90-10",
    mixup: float = 0.0,
    mixup_probability: float = 1.0,
    **augmentation: float,
) -> tuple:
    """Return (train, test, number of classes): loaders as data_utils.loader.Loader.

    root: the folder that holds the files; without it where each reader looks (the digits need none).
    augmentation, mixup, mixup_probability: as Pipeline's fields.    mixup_until: the first epoch without
    mixup, 0 for never.
    size: the side to which image folders are cut.    T, split_by, augment_events: of event frames, which have
    their own changes in place of `augmentation`.    split: of cifar10dvs, as `split_files` has it.
    Raises ValueError for an unknown name, and what the readers raise.
    """
    if name not in NAMES:
        raise ValueError(f"no data set {name!r}; there are {', '.join(NAMES)}")
    mix = {"mixup": mixup, "mixup_probability": mixup_probability, "mixup_until": mixup_until}
    if name in SETS:
        odd = [key for key, value in augmentation.items() if value]
        if odd:
            raise ValueError(f"event frames have their own changes, and no {', '.join(odd)}")
        settings = dict(T=T, batch_size=batch_size, seed=seed, augment=augment_events, split_by=split_by)
        settings |= {"split": split} if name == "cifar10dvs" else {}
        return *open_events(name, root, **settings, **mix), SETS[name][1]
    train, test, prepare, pipeline = _open_images(name, root, size)
    pipeline = replace(pipeline, **augmentation)
    return (
        _training(*train, batch_size, seed, prepare, pipeline, **mix),
        Loader(*test, batch_size, prepare=prepare),
        pipeline.num_classes,
    )


def _open_images(name: str, root: str | None, size: int) -> tuple:
    """Return (images, labels) to train and to test, what prepares images for a test, and a bare Pipeline."""
    if name == "digits":
        if root is not None:
            raise ValueError(f"the digits come with scikit-learn: there is nothing to read in {root}")
        return *load_digits(), None, Pipeline(10)
    if name in STANDARDISED:
        return *STANDARDISED[name](root), None, Pipeline(10)
    if name in CIFAR:
        load, classes = CIFAR[name]
        fill = np.rint(255 * np.array(MEAN)).astype(np.uint8)
        return *load(root), prepare_cifar, Pipeline(classes, standardise=prepare_cifar, fill=fill)
    if root is None:
        raise FileNotFoundError(
            f"{name} cannot be downloaded freely: say where its folders train and val are (root, --root)"
        )
    standardise = partial(normalise, mean=folders.MEAN, deviation=folders.DEVIATION)
    train, test = folders.load_image_folders(root)
    fill = np.rint(255 * np.array(folders.MEAN)).astype(np.uint8)
    cut = partial(folders.random_resized_crop, size=size)
    pipeline = Pipeline(len(train.classes), cut=cut, standardise=standardise, fill=fill)

    def prepare(images):
        return standardise(folders.centre_crop(images, size))

    return (train, train.labels), (test, test.labels), prepare, pipeline


def _training(images, labels, batch_size, seed, prepare, pipeline: Pipeline, mixup_until: int, **mix: float):
    def loader(pipeline: Pipeline) -> Loader:
        return Loader(images, labels, batch_size, seed, prepare=prepare, augment=pipeline)

    mixed = loader(replace(pipeline, **mix))
    return Until(mixup_until, mixed, loader(pipeline)) if mix["mixup"] and mixup_until else mixed
