"""Every data set by its name: a loader of training batches, with augmentation, and a loader of test batches.

    train, test, classes = open_data("fashion-mnist", batch_size=64, flip=0.5)
    for images, targets in train(epoch):    images [B, H, W, C]; train(epoch)[step] is one batch
    for images, labels in test:             images [B, H, W, C], labels [B]

For the event sets, a batch is frames [T, B, H, W, 2].
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
from .images.pairs import FreshPairs, open_pairs
from .images.pipeline import Pipeline, image_loaders
from .loader import Loader, Until, hold_out

STANDARDISED: dict[str, Callable] = {  # of ten classes; these functions return standardised images
    "fashion-mnist": load_fashion_mnist,
    "mnist": load_mnist,
}
CIFAR = {"cifar10": (load_cifar10, 10), "cifar100": (load_cifar100, 100)}  # name: (function, classes)
FOLDERS = ("tiny-imagenet", "imagenet")
NAMES = ("digits", "pairs", *STANDARDISED, *CIFAR, *FOLDERS, *SETS)


def open_data(
    name: str,
    root: str | None = None,
    *,
    size: int = 224,
    shift: float = 0.0,
    flip: float = 0.0,
    policy: float = 0.0,
    erase: float = 0.0,
    T: int = 16,
    split_by: str = "number",
    split: str = "90-10",
    augment_events: bool = True,
    val_split: float = 0.0,
    **batches,
) -> tuple[Loader | Until | FreshPairs, Loader, int]:
    """Return (training loader, test loader, number of classes) of the data set with this name.

    root: the folder that holds the files. Without root, each reader looks where it looks by default. The
        digits and their pairs have no files, so they take no root.
    val_split: if not 0, this share of the training samples is held out, and takes the place of the test
        samples (see `hold_out`). Settings that are chosen on it have not seen the set's own test.
    batches: batch_size, and if wanted seed, mixup, mixup_probability and mixup_until, as in `open_events`.

    For images only; event sets ignore size:
    shift, flip, policy, erase: fields of `Pipeline`.
    size: the side, in pixels, of the squares that are cut out of image folders.

    For event sets only; images ignore these options:
    T, split_by: as in `events_to_frames`.
    split: of CIFAR10-DVS, as in `split_files`.
    augment_events: whether to change training frames by `augment_frames`.

    Raises ValueError for an unknown name, and for an event set with shift, flip, policy or erase. The errors
    of the readers pass through.
    """
    if name not in NAMES:
        raise ValueError(f"no data set {name!r}; there are {', '.join(NAMES)}")
    augmentation = {"shift": shift, "flip": flip, "policy": policy, "erase": erase}
    if name in SETS:
        wrong = [key for key, value in augmentation.items() if value]
        if wrong:
            raise ValueError(f"event frames have their own changes, and no {', '.join(wrong)}")
        if name == "cifar10dvs":  # the only event set with more than one split
            batches["split"] = split
        train, test = open_events(name, root, T=T, split_by=split_by, augment=augment_events, **batches)
        _, classes = SETS[name]
    elif name == "pairs":
        train, test = _pairs(root, augmentation, val_split, **batches)
        return train, test, 2
    else:
        train, test, classes = _image_batches(name, root, size, augmentation, **batches)
    if val_split:
        train, test = hold_out(train, val_split)
    return train, test, classes


def _pairs(
    root: str | None,
    augmentation: dict[str, float],
    val_split: float,
    *,
    batch_size: int,
    seed: int = 0,
    **mixup,
) -> tuple[FreshPairs, Loader]:
    """Return the batches of `open_pairs`. ValueError for options that pairs do not have."""
    given = {"root": root, "val_split": val_split, **augmentation, "mixup": mixup.get("mixup")}
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise ValueError(
            f"pairs are drawn from the digits, afresh in each epoch, and have no {', '.join(wrong)}"
        )
    return open_pairs(batch_size, seed)


def _image_batches(
    name: str,
    root: str | None,
    size: int,
    augmentation: dict[str, float],
    *,
    batch_size: int,
    seed: int = 0,
    mixup: float = 0.0,
    mixup_probability: float = 1.0,
    mixup_until: int = 0,
) -> tuple[Loader | Until, Loader, int]:
    train, test, prepare, pipeline = _open_images(name, root, size)
    pipeline = replace(pipeline, **augmentation, mixup=mixup, mixup_probability=mixup_probability)
    sizes = {"batch_size": batch_size, "seed": seed, "mixup_until": mixup_until}
    return *image_loaders(train, test, pipeline, prepare, **sizes), pipeline.num_classes


def _open_images(name: str, root: str | None, size: int) -> tuple:
    """Return (training images, labels), (test images, labels), prepare and a Pipeline without augmentation.

    prepare: the function that prepares images for a test, or None if they are standardised already.
    """
    if name == "digits":
        if root is not None:
            raise ValueError(f"the digits come with scikit-learn: there is nothing to read in {root}")
        return *load_digits(), None, Pipeline(10)
    if name in STANDARDISED:
        return *STANDARDISED[name](root), None, Pipeline(10)
    if name in CIFAR:
        load, classes = CIFAR[name]
        pipeline = Pipeline(classes, standardise=prepare_cifar, fill=_mean_colour(MEAN))
        return *load(root), prepare_cifar, pipeline
    if root is None:
        raise FileNotFoundError(
            f"{name} cannot be downloaded freely: say where its folders train and val are (root, --root)"
        )
    standardise = partial(normalise, mean=folders.MEAN, deviation=folders.DEVIATION)
    cut = partial(folders.random_resized_crop, size=size)

    def prepare(images):
        return standardise(folders.centre_crop(images, size))

    train, test = folders.load_image_folders(root)
    pipeline = Pipeline(len(train.classes), cut=cut, standardise=standardise, fill=_mean_colour(folders.MEAN))
    return (train, train.labels), (test, test.labels), prepare, pipeline


def _mean_colour(mean: tuple[float, ...]) -> np.ndarray:
    """Return mean [C], which is given as shares of 255, as bytes [C]."""
    return np.rint(255 * np.array(mean)).astype(np.uint8)
