"""Batches made one at a time, for data too large to copy, decode or augment at once; and made ahead of need.

`Batches` augments a whole epoch with one stream of random numbers: right for small sets, and recorded runs
depend on that stream. A `Loader` makes a batch when it is asked for, from (seed, epoch, step) alone.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator

import numpy as np


class Loader:
    """Pairs (images, targets) of `size` samples, the last of an epoch perhaps smaller, never dropped.

    source: source[indices] gives the images of these samples: an array, or an ImageFolder that decodes
    them, or `dvs.Frames` that reads them.
    labels: int [n].
    `loader(epoch)` is a training epoch: shuffled, with augment(images, labels, rng) → (images, targets).
    Plain iteration is for evaluation: in order, with prepare(images) → images. An epoch without augment
    prepares too.
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
        self.source, self.labels, self.size, self.seed = source, labels, size, seed
        self.prepare, self.augment = prepare, augment

    def __len__(self) -> int:
        return -(-len(self.labels) // self.size)

    def __call__(self, epoch: int, start: int = 0) -> Epoch:
        """Return the batches of one epoch, shuffled and augmented; iteration begins at step `start`."""
        return Epoch(self, epoch, start)

    def __iter__(self) -> Iterator[tuple]:
        for step in range(len(self)):
            indices = np.arange(step * self.size, min(len(self.labels), (step + 1) * self.size))
            yield self.prepared(indices)

    def spread(self, n: int) -> tuple:
        """Return n samples taken evenly over the whole set, for its classes may stand one after the other."""
        last = len(self.labels) - 1
        return self.prepared(np.unique(np.linspace(0, last, n).astype(int)))

    def prepared(self, indices: np.ndarray) -> tuple:
        """Return these samples, not augmented."""
        images = self.source[indices]
        return self.prepare(images) if self.prepare else images, self.labels[indices]


class Epoch:
    """A training epoch of a Loader. epoch[step] makes one batch: the same one at any time, in any order.

    Iteration makes the batches from step `start` on, and none before; len() is that of the whole epoch.
    """

    def __init__(self, loader: Loader, epoch: int, start: int = 0):
        self.loader, self.epoch, self.start = loader, epoch, start
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
        # step + 1: NumPy pads a seed with zeros, so that (seed, epoch, 0) would repeat the shuffle's numbers
        rng = np.random.default_rng((loader.seed, self.epoch, step + 1))
        return loader.augment(loader.source[indices], loader.labels[indices], rng)

    def __iter__(self) -> Iterator[tuple]:
        return (self[step] for step in range(self.start, len(self)))


class Until:
    """`first` for the epochs before `epoch`, `then` from it on: mixup that ends before the training does.

    first, then: Loaders of the same samples, batch size and seed, so that only their augmentation differs.
    """

    def __init__(self, epoch: int, first: Loader, then: Loader):
        if len(first) != len(then) or epoch < 1:
            raise ValueError(f"Until got epoch {epoch} and loaders of {len(first)} and {len(then)} batches")
        self.epoch, self.first, self.then = epoch, first, then

    def __len__(self) -> int:
        return len(self.first)

    def __call__(self, epoch: int, start: int = 0) -> Epoch:
        """Return the batches of one epoch, by the loader whose turn it is."""
        return (self.first if epoch < self.epoch else self.then)(epoch, start)

    def __iter__(self) -> Iterator[tuple]:
        return iter(self.first)


class Prefetch:
    """The same batches as `batches` (Batches, Loader), up to `depth` of them made ahead in a thread.

    NumPy and Pillow let other threads run while they work, so the next batch is made as the model computes.
    An error in the making is raised where the batch would have come. The thread ends with the last batch, or
    as soon as the consumer stops early; the batch it may be making by then is waited for.
    """

    def __init__(self, batches, depth: int = 2):
        if depth < 1:
            raise ValueError(f"Prefetch makes at least one batch ahead, got {depth}")
        self.batches, self.depth = batches, depth

    def __len__(self) -> int:
        return len(self.batches)

    def __call__(self, epoch: int, *start: int) -> Prefetch:
        """Return the batches of one epoch; of a Loader, also those from a step on."""
        return Prefetch(self.batches(epoch, *start), self.depth)

    def __iter__(self) -> Iterator[tuple]:
        room = threading.Semaphore(self.depth)  # how many more may be made ahead
        made: queue.SimpleQueue = queue.SimpleQueue()  # ("batch", …) each, then ("end", None) or ("error", …)
        stopped = threading.Event()
        work = (self.batches, room, made, stopped)
        maker = threading.Thread(target=_make, args=work, name="prefetch", daemon=True)
        maker.start()
        try:
            while True:
                kind, value = made.get()
                if kind == "error":
                    raise value
                if kind == "end":
                    return
                room.release()
                yield value
                del value  # the consumer's, not kept while the next is waited for
        finally:
            stopped.set()
            room.release()  # in case it waits
            maker.join()


def _make(batches: Iterable, room, made, stopped) -> None:
    try:
        batches = iter(batches)
        while room.acquire() and not stopped.is_set():
            made.put(("batch", next(batches)))
    except StopIteration:
        made.put(("end", None))
    except BaseException as error:  # whatever it is, the consumer has to hear of it
        made.put(("error", error))
