"""How the lessons train on the digits, and how they quote recorded comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data_utils.images.augment import shift
from data_utils.images.digits import load_digits
from minispike import Module, evaluate, fit
from minispike.files.checkpoint import load_encoder
from minispike.masked import MaskedAutoencoder, pretrain
from minispike.optim import AdamW, cosine_with_warmup, layer_scales
from minispike.train import calibrate, set_gains

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"


class Batches:
    """Pairs (images, labels) of `size` samples, the last of an epoch perhaps smaller, never dropped.

    `batches(epoch)` shuffles, and applies augment(images, rng), by (seed, epoch); plain iteration does not.
    An epoch is copied and augmented as a whole: data_utils.loader.Loader makes a batch at a time.
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


def train_on_digits(
    model: Module,
    *,
    seed: int = 0,
    epochs: int = 20,
    lr: float = 3e-3,
    on_epoch: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train on the 1,437 training digits, test on the other 360 each epoch; return the records.

    AdamW, batches of 32, cosine from lr to 1e-5; weight decay 0.06 and label smoothing 0.1 (as Spikformer's
    recipe for CIFAR); images shifted by up to 0.3 pixels. Batch norm's gain starts at 2: at 1 a neuron
    needs a current of two deviations to fire at once, and the first epochs look dead.
    """
    set_gains(model, 2)
    (images, labels), test = load_digits()
    return fit(
        model,
        AdamW(model.parameters(), weight_decay=0.06),
        Batches(images, labels, 32, seed, augment=partial(shift, pixels=0.3)),
        epochs=epochs,
        schedule=partial(cosine_with_warmup, epochs=epochs, lr=lr, min_lr=1e-5),
        label_smoothing=0.1,
        test=Batches(*test, 180),
        on_epoch=on_epoch,
        progress=progress,
    )


def few_digits(n: int, seed: int = 0):
    """Return n of the training digits and their labels, equally many of each class, chosen by seed."""
    (images, labels), _ = load_digits()
    rng = np.random.default_rng(seed)
    each = [rng.permutation(np.flatnonzero(labels == label))[: n // 10] for label in range(10)]
    chosen = np.concatenate(each)
    return images[chosen], labels[chosen]


def start_scs(model: Module) -> None:
    """Set batch norm's first gains in a model with the stem SCS, as training on digits wants them.

    3 in a stage's strided convolution, 1 in its pair: the residual is loud and the pair quiet at first. With
    equal gains twelve layers of spikes, in stages of 8 to 64 channels, scramble what they are given. The
    blocks start at 2.
    """
    set_gains(model, 2, down=1.5, pair=0.5)


def pretrain_on_digits(
    model: MaskedAutoencoder, *, seed: int = 0, epochs: int = 40, lr: float = 5e-3, progress: bool = True
) -> list[dict]:
    """Pre-train on the 1,437 training digits without their labels; return the records.

    AdamW (0.9, 0.95), weight decay 0.05, batches of 32, one epoch of warm-up, then cosine to 0.
    """
    (images, labels), _ = load_digits()
    start_scs(model)
    return pretrain(
        model,
        AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.05),
        Batches(images, labels, 32, seed, augment=partial(shift, pixels=0.3)),
        rng=seed,
        epochs=epochs,
        schedule=partial(cosine_with_warmup, epochs=epochs, lr=lr, warmup=1),
        progress=progress,
    )


def train_on_few(
    model: Module,
    encoder: MaskedAutoencoder | None = None,
    *,
    n_labels: int = 100,
    seed: int = 0,
    epochs: int = 100,
    lr: float = 3e-3,
    decay: float = 1.0,
    progress: bool = True,
) -> list[dict]:
    """Train on a few labelled digits, from an encoder if there is one; test at the end; return the records.

    As `train_on_digits`, but batches of 20. From an encoder: layer-wise learning rates, decay a step down.
    The usual 0.75 is meant for a dozen layers and long fine-tuning; in 500 steps the stem of so small a model
    hardly moves by it. Mean test accuracy from a pre-trained encoder, seeds 0 … 2, 100 labels:
    one block 85.8 % with 0.75, 89.7 % with 0.9, 91.0 % with 1;    six blocks 62.6 %, 79.3 %, 86.8 %.
    """
    start_scs(model)
    if encoder is not None:
        load_encoder(model, encoder)
    scales = layer_scales(model, decay) if encoder is not None else None
    images, labels = few_digits(n_labels, seed)
    history = fit(
        model,
        AdamW(model.parameters(), weight_decay=0.06, lr_scales=scales),
        Batches(images, labels, 20, seed, augment=partial(shift, pixels=0.3)),
        epochs=epochs,
        schedule=partial(cosine_with_warmup, epochs=epochs, lr=lr, min_lr=1e-5),
        label_smoothing=0.1,
        progress=progress,
    )
    _, test = load_digits()
    history[-1]["test_loss"], history[-1]["test_accuracy"] = evaluate(model, Batches(*test, 180))
    return history


def wake(model: Module, images, gain: float = 3.0) -> None:
    """Make an untrained model fire, so that there is something to see: raise batch norm's gain, and let one
    pass over the images make its running statistics.
    """
    set_gains(model, gain)
    calibrate(model.train(), [(images, None)])


def recorded(experiment: str) -> dict[str, list[dict]]:
    """Print an experiment's recorded table; return its runs by variant. {} where no record is at hand.

    Records are made by `python -m benchmarks.ablations <experiment>` in a clone of the repository.
    """
    path = RESULTS / f"{experiment}.json"
    if not path.exists():
        print(f"no recorded {experiment} here; in a clone: python -m benchmarks.ablations {experiment}")
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    runs: dict[str, list[dict]] = {}
    for run in record["runs"]:
        runs.setdefault(run["variant"], []).append(run)
    print(f"recorded {record['date']} on {record['machine']}; to remake:")
    print(f"  {record['command']}")
    for variant, each in runs.items():
        accuracy = [run["test_accuracy"] for run in each]
        spread = f"{min(accuracy):.1%} … {max(accuracy):.1%}"
        seconds = sorted(run["seconds"] for run in each)[len(each) // 2]
        mean = sum(accuracy) / len(each)
        print(f"  {variant:<14} {mean:.1%} ({spread}, {len(each)} seeds), {seconds:.0f} s")
    return runs
