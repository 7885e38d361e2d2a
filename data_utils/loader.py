"""Batches of samples: made one at a time, or ahead of need in a thread.

A data set may be too large to copy, decode or augment as a whole. So a `Loader` makes a batch only when it is
asked for that batch, and the batch depends on (seed, epoch, step) alone. `Until` changes from one Loader to
another at an epoch. `Prefetch` makes the next batches while the model computes.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np


class Loader:
    """Make batches (images, targets) of `size` samples; the last batch of an epoch may be smaller.

    If there are fewer than `size` samples, `size` becomes their number: a batch holds all samples.

    source: source[indices] returns the images of these samples. It is an array, an `ImageFolder`, which
        decodes files, or `Frames` (events/dvs.py), which reads files.
    labels: int [n].
    prepare: (images) → images, for batches that are not augmented.
    augment: (images, labels, rng) → (images, targets), for batches to train on.

    `loader(epoch)` is a training epoch: the samples are shuffled, and `augment` changes each batch. Without
    augment, `prepare` is applied. Iterating over the loader itself is for evaluation: the samples come in
    order, and `prepare` is applied.

    Raises ValueError if source and labels differ in length, if there are no samples, or if size < 1.
    """

    def __init__(
        self,
        source,
        labels: np.ndarray,
        size: int,
        seed: int = 0,
        *,
        prepare: Callable | None = None,
        augment: Callable | None = None,
    ):
        if len(source) != len(labels) or not len(labels) or size < 1:
            raise ValueError(f"Loader got {len(source)} images, {len(labels)} labels and batches of {size}")
        self.source = source
        self.labels = labels
        self.size = min(size, len(labels))
        self.seed = seed
        self.prepare = prepare
        self.augment = augment

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)  # rounded up

    @property
    def n_samples(self) -> int:
        """The number of samples."""
        return len(self.labels)

    def __call__(self, epoch: int, start: int = 0) -> Epoch:
        """Return the batches of one epoch, shuffled and augmented; iteration begins at step `start`."""
        return Epoch(self, epoch, start)

    def __iter__(self) -> Iterator[tuple]:
        for step in range(len(self)):
            indices = np.arange(step * self.size, min(len(self.labels), (step + 1) * self.size))
            yield self.prepared(indices)

    def spread(self, n: int) -> tuple:
        """Return (images, labels) of n samples at even distances in the whole set, not augmented.

        The first n samples may all be of one class, because a set may be sorted by class.
        """
        last = len(self.labels) - 1
        return self.prepared(np.unique(np.linspace(0, last, n).astype(int)))

    def prepared(self, indices: np.ndarray) -> tuple:
        """Return (images, labels) of these samples, not augmented."""
        images = self.source[indices]
        if self.prepare:
            images = self.prepare(images)
        return images, self.labels[indices]


class Epoch:
    """One training epoch of a Loader: `epoch[step]` makes a batch, the same at any time and in any order.

    Iteration makes the batches from step `start` on, and none of those before. `len` counts all batches of
    the epoch.
    """

    def __init__(self, loader: Loader, epoch: int, start: int = 0):
        self.loader = loader
        self.epoch = epoch
        self.start = start
        self.order = np.random.default_rng((loader.seed, epoch)).permutation(len(loader.labels))

    def __len__(self) -> int:
        return len(self.loader)

    def __getitem__(self, step: int) -> tuple:
        loader = self.loader
        if not 0 <= step < len(loader):
            raise IndexError(f"step {step} of an epoch of {len(loader)}")
        indices = self.order[step * loader.size : (step + 1) * loader.size]
        if not loader.augment:
            return loader.prepared(indices)
        # step + 1: NumPy pads a seed with zeros, so (seed, epoch, 0) gives the same numbers as (seed, epoch),
        # which shuffled the samples.
        rng = np.random.default_rng((loader.seed, self.epoch, step + 1))
        return loader.augment(loader.source[indices], loader.labels[indices], rng)

    def __iter__(self) -> Iterator[tuple]:
        return (self[step] for step in range(self.start, len(self)))


class Until:
    """Use the Loader `first` before epoch `epoch`, and the Loader `then` from this epoch on.

    Mixup, for example, may end before training ends. Both Loaders must have the same samples, batch size and
    seed; then only their augmentation differs. Iterating over an Until itself iterates over `first`.

    Raises ValueError if the Loaders have different numbers of batches, or if epoch < 1.
    """

    def __init__(self, epoch: int, first: Loader, then: Loader):
        if len(first) != len(then) or epoch < 1:
            raise ValueError(f"Until got epoch {epoch} and loaders of {len(first)} and {len(then)} batches")
        self.epoch = epoch
        self.first = first
        self.then = then

    def __len__(self) -> int:
        return len(self.first)

    @property
    def n_samples(self) -> int:
        """The number of samples."""
        return self.first.n_samples

    def __call__(self, epoch: int, start: int = 0) -> Epoch:
        """Return the batches of one epoch; iteration begins at step `start`."""
        loader = self.first if epoch < self.epoch else self.then
        return loader(epoch, start)

    def __iter__(self) -> Iterator[tuple]:
        return iter(self.first)


class Part:
    """Some samples of a source, which is a source again: part[i] is source[indices[i]]."""

    def __init__(self, source, indices: np.ndarray):
        self.source = source
        self.indices = indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: np.ndarray):
        return self.source[self.indices[indices]]


def hold_out(batches: Loader | Until, share: float) -> tuple[Loader | Until, Loader]:
    """Split batches to train on: return those of the rest, and a share of each class in batches to test on.

    The samples held out are at even distances in their class, at least one of each class; so they are the
    same for every seed, and settings can be chosen on them that no test sample has seen.
    Raises ValueError if share is not between 0 and 1, or if a class has a single sample.
    """
    if not 0 < share < 1:
        raise ValueError(f"the share to hold out must be between 0 and 1, got {share}")
    if isinstance(batches, Until):
        (first, held), (then, _) = (hold_out(each, share) for each in (batches.first, batches.then))
        return Until(batches.epoch, first, then), held
    labels, held = batches.labels, []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        n = min(max(1, round(share * len(places))), len(places) - 1)
        if not n:
            raise ValueError(f"class {label} has one sample: none can be held out")
        held.append(places[np.arange(n) * len(places) // n])
    kept, held = np.delete(np.arange(len(labels)), np.concatenate(held)), np.sort(np.concatenate(held))

    def part(indices: np.ndarray, augment: Callable | None) -> Loader:
        how = {"prepare": batches.prepare, "augment": augment}
        return Loader(Part(batches.source, indices), labels[indices], batches.size, batches.seed, **how)

    return part(kept, batches.augment), part(held, None)


class Prefetch:
    """Give the same batches as `batches`, for example a Loader, but make up to `depth` of them in advance.

    A thread makes the batches while the model computes. Both can run at the same time, because NumPy and
    Pillow let other threads run while they work. An error in the thread is raised where its batch would have
    come. The thread ends after the last batch, or as soon as the consumer stops early; in that case, the
    consumer waits until the thread has finished the batch that it is making. If no thread can be started,
    each batch is made when it is asked for.

    Raises ValueError if depth < 1.
    """

    def __init__(self, batches, depth: int = 2):
        if depth < 1:
            raise ValueError(f"Prefetch makes at least one batch ahead, got {depth}")
        self.batches = batches
        self.depth = depth

    def __len__(self) -> int:
        return len(self.batches)

    def __call__(self, epoch: int, *start: int) -> Prefetch:
        """Return the batches of one epoch; if `batches` is a Loader, iteration can begin at step `start`."""
        return Prefetch(self.batches(epoch, *start), self.depth)

    def __iter__(self) -> Iterator[tuple]:
        room = threading.Semaphore(self.depth)  # counts how many more batches may be made in advance
        made: queue.SimpleQueue = queue.SimpleQueue()  # ("batch", …) each, then ("end", None) or ("error", …)
        stopped = threading.Event()
        work = (self.batches, room, made, stopped)
        maker = threading.Thread(target=_make, args=work, name="prefetch", daemon=True)
        try:
            maker.start()
        except RuntimeError:  # no thread can be started, as in a browser's Python
            yield from self.batches
            return
        try:
            while True:
                kind, value = made.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                room.release()
                yield value
                del value  # while this waits for the next batch, only the consumer may keep the last one
        finally:
            stopped.set()
            room.release()  # the thread may be waiting for room
            maker.join()


def _make(batches: Iterable, room, made, stopped) -> None:
    try:
        batches = iter(batches)
        while room.acquire() and not stopped.is_set():
            made.put(("batch", next(batches)))
    except StopIteration:
        made.put(("end", None))
    except BaseException as error:  # of any kind: the consumer must get it
        made.put(("error", error))
