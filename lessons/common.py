"""How the lessons train on the digits, and how they read recorded comparisons."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from data_utils.images.augment import shift
from data_utils.images.digits import load_digits
from data_utils.loader import Loader
from minispike import Module, evaluate, fit
from minispike.files.checkpoint import load_encoder
from minispike.masked import MaskedAutoencoder, pretrain
from minispike.measure.price import priced
from minispike.optim import AdamW, cosine_with_warmup, layer_scales
from minispike.train import calibrate, classify, set_gains

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"

# ---------------------------------------------------------------- batches


class Batches:
    """The training batches of the recorded runs; for a program of your own use data_utils.loader.Loader.

    Both give pairs (images, labels) of `size` samples; an epoch's last batch may be smaller. `batches(epoch)`
    shuffles the samples and applies augment(images, rng); plain iteration does neither. The random numbers
    depend on (seed, epoch) alone.

    Batches draws an epoch's numbers from one stream: first the order, then the augmentation of all images at
    once. A Loader augments one batch at a time, with other numbers. The runs in benchmarks/results were made
    with the stream of Batches, so it stays here, with the functions that repeat those runs.
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


# ---------------------------------------------------------------- training on all digits


def train_on_digits(
    model: Module,
    *,
    seed: int = 0,
    epochs: int = 20,
    lr: float = 3e-3,
    price: float = 0.0,
    on_epoch: Callable[[dict], None] | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train on the 1,437 training digits and test on the other 360 after each epoch; return the records.

    The optimizer is AdamW with batches of 32 and a cosine from lr to 1e-5. Weight decay 0.06 and label
    smoothing 0.1 are those of Spikformer's recipe for CIFAR. Images are shifted by up to 0.3 pixels. Batch
    norm's gain starts at 2. With gain 1 an input must be two standard deviations large for a neuron to fire
    at once, and hardly any neuron fires in the first epochs. price: the weight of the price on spikes
    (lesson 15).
    """
    set_gains(model, 2)
    (images, labels), test = load_digits()
    objective = partial(classify, label_smoothing=0.1)
    return fit(
        model,
        AdamW(model.parameters(), weight_decay=0.06),
        Batches(images, labels, 32, seed, augment=partial(shift, pixels=0.3)),
        epochs=epochs,
        schedule=partial(cosine_with_warmup, epochs=epochs, lr=lr, min_lr=1e-5),
        objective=priced(objective, price) if price else objective,
        test=Loader(*test, 180),
        on_epoch=on_epoch,
        progress=progress,
    )


# ---------------------------------------------------------------- pre-training, and training on a few digits


def few_digits(n: int, seed: int = 0):
    """Return n training digits and their labels, the same number of each class; `seed` decides which."""
    (images, labels), _ = load_digits()
    rng = np.random.default_rng(seed)
    chosen = []
    for label in range(10):
        shuffled = rng.permutation(np.flatnonzero(labels == label))
        chosen.extend(shuffled[: n // 10])
    return images[chosen], labels[chosen]


def start_scs(model: Module) -> None:
    """Set the initial gains of batch norm in a model with the stem SCS, for training on digits.

    The blocks start at 2. In the stem, a stage's first convolution starts at 3 and its pair at 1, so that at
    first the residual is strong and the pair's contribution is small. With equal gains, the stem's twelve
    layers of spikes, in stages of 8 to 64 channels, scramble their input.
    """
    set_gains(model, 2, down=1.5, pair=0.5)


def pretrain_on_digits(
    model: MaskedAutoencoder, *, seed: int = 0, epochs: int = 40, lr: float = 5e-3, progress: bool = True
) -> list[dict]:
    """Pre-train on the 1,437 training digits without their labels; return the records.

    The optimizer is AdamW with betas (0.9, 0.95), weight decay 0.05 and batches of 32. The learning rate
    rises to lr in one epoch, then follows a cosine to 0.
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
    """Train on a few labelled digits and test at the end; return the records.

    encoder: a pre-trained model whose stem and blocks are copied first, or None to train from scratch.
    decay: with an encoder, the learning rate of each layer is that of the layer above it times decay.

    The rest is as in `train_on_digits`, with batches of 20. A decay of 0.75 is usual, for a dozen layers and
    long fine-tuning. In 500 steps it hardly changes the stem of so small a model. Mean test accuracy with a
    pre-trained encoder, 100 labels, seeds 0 … 2:

        decay         0.75      0.9       1
        one block     85.8 %    89.7 %    91.0 %
        six blocks    62.6 %    79.3 %    86.8 %
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
    loss, accuracy = evaluate(model, Loader(*test, 180))
    history[-1] |= {"test_loss": loss, "test_accuracy": accuracy}
    return history


# ---------------------------------------------------------------- without training; recorded runs


def wake(model: Module, images, gain: float = 3.0) -> None:
    """Make an untrained model fire, so that there is something to see.

    All gains of batch norm are set to `gain`, and its running statistics to those of the images.
    """
    set_gains(model, gain)
    calibrate(model.train(), [(images, None)])


def recorded(experiment: str) -> dict[str, list[dict]]:
    """Print an experiment's recorded table and return its runs by variant, or {} if there is no record.

    `python -m benchmarks.ablations <experiment>` in a clone of the repository makes a record.
    """
    path = RESULTS / f"{experiment}.json"
    if not path.exists():
        print(f"no recorded {experiment} here; in a clone: python -m benchmarks.ablations {experiment}")
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    runs: dict[str, list[dict]] = {}
    for run in record["runs"]:
        runs.setdefault(run["variant"], []).append(run)
    print(f"recorded {record['date']} on {record['machine']}; to record it again:")
    print(f"  {record['command']}")
    for variant, each in runs.items():
        accuracy = [run["test_accuracy"] for run in each]
        spread = f"{min(accuracy):.1%} … {max(accuracy):.1%}"
        seconds = sorted(run["seconds"] for run in each)[len(each) // 2]
        mean = sum(accuracy) / len(each)
        print(f"  {variant:<14} {mean:.1%} ({spread}, {len(each)} seeds), {seconds:.0f} s")
    return runs
