"""Training and evaluation: one flat loop each, over batches that somebody else has made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import isfinite

from tqdm import tqdm

from .autograd import Tensor, no_grad, trace
from .backend import get_device, get_xp, to_device, to_host
from .nn import BatchNorm, Module, mode
from .ops import softmax_cross_entropy
from .optim import SGD
from .parallel import keep_freed_memory


@dataclass
class Progress:
    """Where a training stands between two steps: with model and optimizer, all that is needed to go on.

    epoch: how many are complete.    step, seen, sums, seconds: of the one that runs, its steps, samples,
    summed counts and time.    history: the records of the complete ones.
    """

    epoch: int = 0
    step: int = 0
    seen: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)

    def count(self, n: int, counts: dict[str, float]) -> None:
        """Count a step of n samples."""
        self.step, self.seen = self.step + 1, self.seen + n
        for name, count in counts.items():
            self.sums[name] = self.sums.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Return the running epoch's counts, a sample."""
        return {name: count / self.seen for name, count in self.sums.items()}

    def close(self, record: dict) -> None:
        """End the epoch with its record."""
        self.history.append(record)
        self.epoch, self.step, self.seen, self.sums, self.seconds = self.epoch + 1, 0, 0, {}, 0.0


def fit(
    model: Module,
    optimizer: SGD,
    batches: Callable[[int], Iterable],
    *,
    epochs: int,
    schedule: Callable[[float], float] | None = None,
    label_smoothing: float = 0.0,
    objective: Callable | None = None,
    calibration: int = 0,
    test: Iterable | None = None,
    on_step: Callable[[Progress], None] | None = None,
    on_epoch: Callable[[dict], None] | None = None,
    start: Progress | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train, and return one record an epoch: epoch, lr, loss, accuracy (and test_…), seconds of it all.

    batches: batches(epoch) gives that epoch's (images, labels) pairs; its len(), if any, sizes the bar.
    schedule: schedule(epoch) gives the learning rate at every step; where the number of steps is known, the
    epoch comes with its fraction.
    objective: objective(model, images, labels) gives the loss to descend, and a dict of things to count, each
    averaged over the samples; by default `classify`, with its label_smoothing.
    calibration: after each epoch, how many of its batches to `calibrate` the model with.
    test: batches to evaluate on after each epoch.    on_epoch: sees each record.    on_step: sees how far
    training has come, after each step.
    start: where to go on, with a model and an optimizer as they were then; it is moved along. Within an
    epoch, batches(epoch, step) gives the pairs from that step on, and its len() stays the whole epoch's.
    Raises FloatingPointError, naming step and layer, as soon as the loss or a gradient is NaN or Inf.
    """
    keep_freed_memory()
    objective = objective or partial(classify, label_smoothing=label_smoothing)
    at = start or Progress()
    for epoch in range(at.epoch, epochs):
        model.train()
        steps = batches(epoch, at.step) if at.step else batches(epoch)
        n_steps = len(steps) if hasattr(steps, "__len__") else None
        began = time.perf_counter() - at.seconds
        frame = {"desc": f"epoch {epoch + 1}/{epochs}", "initial": at.step, "leave": epoch == epochs - 1}
        bar = tqdm(steps, disable=not progress, **frame)
        for images, labels in bar:
            if schedule:
                optimizer.lr = schedule(epoch + (at.step / n_steps if n_steps else 0))
            optimizer.zero_grad()
            images = _like(model, images)
            loss, counts = objective(model, images, labels)
            value = loss.item()
            loss.backward()
            _check_finite(model, objective, images, labels, value, f"epoch {epoch + 1}, step {at.step + 1}")
            optimizer.step()
            n = images.shape[-4]  # of [B, H, W, C] and of frames [T, B, H, W, C]
            at.count(n, {"loss": value * n, **counts})
            at.seconds = time.perf_counter() - began
            shown = {name: f"{mean:.3f}" for name, mean in at.means().items()}
            bar.set_postfix(shown | {"images/s": f"{at.seen / at.seconds:.0f}"}, refresh=False)
            if on_step:
                on_step(at)
        if calibration:
            calibrate(model, islice(batches(epoch), calibration))
        record = {"epoch": epoch + 1, "lr": optimizer.lr, **at.means()}
        if test is not None:
            record["test_loss"], record["test_accuracy"] = evaluate(model, test)
        record["seconds"] = time.perf_counter() - began
        at.close(record)
        if on_epoch:
            on_epoch(record)
    return at.history


def classify(model: Module, images, labels, label_smoothing: float = 0.0) -> tuple[Tensor, dict]:
    """Return the cross-entropy of a classifier's logits and how many samples they get right."""
    logits = model(images)
    loss = softmax_cross_entropy(logits, labels, label_smoothing)
    return loss, {"accuracy": count_correct(logits, labels)}


def calibrate(model: Module, batches: Iterable) -> None:
    """Make batch norm's running statistics anew: the plain mean of what each (images, labels) batch has.

    While weights move, the running mean of a training comes late where many batches count, and is noisy where
    few do; in a spiking network, with its thresholds, either costs accuracy. After arXiv 2105.07576, §3.
    """
    norms = [module for _, module in model.named_modules() if isinstance(module, BatchNorm)]
    usual = [norm.momentum for norm in norms]
    try:
        with mode(model, training=True), no_grad():
            for number, (images, _) in enumerate(batches, start=1):
                for norm in norms:
                    norm.momentum = 1 / number
                model(_like(model, images))
    finally:
        for norm, momentum in zip(norms, usual, strict=True):
            norm.momentum = momentum


def evaluate(model: Module, batches: Iterable) -> tuple[float, float]:
    """Return (mean cross-entropy, accuracy) over (images, labels) batches, in eval mode meanwhile."""
    seen = correct = 0
    total = 0.0
    with mode(model, training=False), no_grad():
        for images, labels in batches:
            logits = model(_like(model, images))
            total += softmax_cross_entropy(logits, labels).item() * len(labels)
            correct += count_correct(logits, labels)
            seen += len(labels)
    if not seen:
        raise ValueError("evaluate was given no batches")
    return total / seen, correct / seen


def count_correct(logits: Tensor, labels) -> int:
    """Return how many rows of logits [B, K] have their largest entry at the label [B].

    Of soft targets [B, K] the largest is the label.
    """
    labels = to_host(labels)
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    return int((to_host(logits.data).argmax(1) == labels).sum())


def _like(model: Module, images):
    """Move a batch to where the model's parameters are."""
    return to_device(images, get_device(model.parameters()[0].data).name)


def _check_finite(model: Module, objective: Callable, images, labels, loss: float, moment: str) -> None:
    gradients = sum(float(p.grad.sum()) for p in model.parameters() if p.grad is not None)
    if isfinite(loss) and isfinite(gradients):
        return
    first: list[str] = []

    def look(function, inputs, output, path):
        if not first and not bool(get_xp(output.data).isfinite(output.data).all()):
            first.append(f"the output of {type(function).__name__} in {path or 'the model'}")

    with no_grad(), trace(look):
        objective(model, images, labels)
    if not first:  # backward runs from the last layer to the first
        parameters = reversed(list(model.named_parameters()))
        bad = (path for path, p in parameters if p.grad is not None and not isfinite(float(p.grad.sum())))
        first.append(f"the gradient of {next(bad, 'the loss')}")
    raise FloatingPointError(f"training stopped at {moment}: loss {loss}; NaN or Inf first in {first[0]}")
