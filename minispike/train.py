"""Training and evaluation: one flat loop each, over batches that a loader has made."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from math import isfinite

from tqdm import tqdm

from .autograd import Tensor, no_grad, trace
from .backend import HOST, Array, all_finite, asarray, get_device, get_xp, to_device, to_floats
from .blocks.scs import Stage
from .nn import BatchNorm, Module, mode
from .ops import softmax_cross_entropy
from .optim import SGD
from .parallel import keep_freed_memory

# ---------------------------------------------------------------- the loop


@dataclass
class Progress:
    """How far a training has come: together with model and optimizer, all that is needed to go on.

    epoch: the number of complete epochs.    history: their records.
    step, seen, sums, seconds: steps, samples, summed counts and time of the running epoch.
    """

    epoch: int = 0
    step: int = 0
    seen: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    history: list[dict] = field(default_factory=list)

    def count(self, n: int, counts: dict[str, float]) -> None:
        """Count one step of n samples, and what was counted in it."""
        self.step, self.seen = self.step + 1, self.seen + n
        for name, count in counts.items():
            self.sums[name] = self.sums.get(name, 0) + count

    def means(self) -> dict[str, float]:
        """Return the running epoch's counts per sample."""
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
    """Train, and return one record per epoch: epoch, lr, loss, accuracy (and test_…), seconds.

    batches: batches(epoch) gives that epoch's (images, labels) pairs; its len(), if any, sizes the bar.
    schedule: schedule(epoch) gives the learning rate at every step; where the number of steps is known, the
    epoch comes with its fraction.
    objective: objective(model, images, labels) gives the loss to descend and a dict of counts, each of which
    is averaged over the samples (a number, or an array of one element on any device); by default `classify`,
    with its label_smoothing.
    calibration: after each epoch, the number of its batches to `calibrate` the model with.
    test: batches to evaluate on after each epoch.    on_epoch: is called with each record.    on_step: is
    called with the Progress after each step.
    start: where to go on, with a model and an optimizer as they were then; it is updated. Within an epoch,
    batches(epoch, step) gives the pairs from that step on, and its len() is still the whole epoch's.
    Raises FloatingPointError, naming step and layer, as soon as the loss or a gradient is NaN or Inf.
    """
    _check_arguments(epochs, batches=batches, schedule=schedule, objective=objective)
    keep_freed_memory()
    objective = objective or partial(classify, label_smoothing=label_smoothing)
    at = start or Progress()
    for epoch in range(at.epoch, epochs):
        model.train()
        began = time.perf_counter() - at.seconds
        bar, n_steps = _steps(batches, at, epochs, progress)
        for images, labels in bar:
            if schedule:
                optimizer.lr = schedule(epoch + (at.step / n_steps if n_steps else 0))
            run, n = partial(objective, model, _like(model, images), labels), images.shape[-4]

            optimizer.zero_grad()
            loss, counts = run()
            loss.backward()
            counts = check_finite(model, optimizer, {"loss": loss.data, **counts}, run, at)
            optimizer.step()
            at.count(n, counts | {"loss": n * counts["loss"]})
            _show(bar, at, time.perf_counter() - began)
            if on_step:
                on_step(at)
        if calibration:
            calibrate(model, islice(batches(epoch), calibration))
        record = {"epoch": epoch + 1, "lr": optimizer.lr, **at.means(), **_tested(model, test)}
        record["seconds"] = time.perf_counter() - began
        at.close(record)
        if on_epoch:
            on_epoch(record)
    return at.history


def _check_arguments(epochs: int, **functions) -> None:
    if epochs < 1:
        raise ValueError(f"fit needs epochs >= 1, got {epochs}")
    for name, f in functions.items():
        if f is not None and not callable(f):
            raise TypeError(f"fit calls {name}(…), so it must be a function; got a {type(f).__name__}")


def _steps(batches: Callable, at: Progress, epochs: int, progress: bool) -> tuple[tqdm, int | None]:
    """Return the rest of an epoch's batches with a bar, and the epoch's number of steps, if it is known."""
    steps = batches(at.epoch, at.step) if at.step else batches(at.epoch)
    n_steps = len(steps) if hasattr(steps, "__len__") else None
    name, last = f"epoch {at.epoch + 1}/{epochs}", at.epoch == epochs - 1
    return tqdm(steps, name, initial=at.step, leave=last, disable=not progress), n_steps


def _tested(model: Module, test: Iterable | None) -> dict[str, float]:
    """Return what an epoch's record says of the test batches, if there are any."""
    if test is None:
        return {}
    loss, accuracy = evaluate(model, test)
    return {"test_loss": loss, "test_accuracy": accuracy}


def _show(bar: tqdm, at: Progress, seconds: float) -> None:
    """Note the time since the epoch began, and show the running means and the speed next to the bar."""
    at.seconds = seconds
    means = {name: f"{mean:.3f}" for name, mean in at.means().items()}
    bar.set_postfix(means | {"images/s": f"{at.seen / at.seconds:.0f}"}, refresh=False)


# ---------------------------------------------------------------- its parts


def classify(model: Module, images, labels, label_smoothing: float = 0.0) -> tuple[Tensor, dict]:
    """Return the cross-entropy of a classifier's logits and how many samples they get right."""
    logits = model(images)
    loss = softmax_cross_entropy(logits, labels, label_smoothing)
    return loss, {"accuracy": count_correct(logits, labels)}


def calibrate(model: Module, batches: Iterable) -> None:
    """Compute batch norm's running statistics again: the plain mean of those of the (images, labels) batches.

    While weights move, a running mean lags when it averages many batches and is noisy when it averages few;
    with hard thresholds either costs accuracy. After arXiv 2105.07576, §3.
    """
    norms = list(_norms(model).values())
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
    """Return (mean cross-entropy, accuracy) over (images, labels) batches, computed in eval mode."""
    seen, total, correct = 0, 0.0, 0.0
    with mode(model, training=False), no_grad():
        for images, labels in batches:
            logits = model(_like(model, images))
            loss = softmax_cross_entropy(logits, labels).data
            found = to_floats({"loss": loss, "correct": count_correct(logits, labels)})
            total += found["loss"] * len(labels)
            correct += found["correct"]
            seen += len(labels)
    if not seen:
        raise ValueError("evaluate was given no batches")
    return total / seen, correct / seen


def count_correct(logits: Tensor, labels) -> Array:
    """Return how many rows of logits [B, K] have their largest entry at the label [B], where the logits are.

    Of soft targets [B, K] the largest entry counts as the label.
    """
    labels = to_device(asarray(labels), get_device(logits.data).name)
    labels = labels.argmax(1) if labels.ndim == 2 else labels
    return (logits.data.argmax(1) == labels).sum()


def _like(model: Module, images):
    """Move a batch to where the model's parameters are. NaN and Inf are refused on the way to a GPU."""
    device = get_device(model.parameters()[0].data)
    if get_device(images) is HOST is not device and not all_finite(images):
        raise ValueError(f"images {list(images.shape)} hold NaN or Inf")
    return to_device(images, device.name)


def _norms(model: Module) -> dict[str, BatchNorm]:
    return {path: norm for path, norm in model.named_modules() if isinstance(norm, BatchNorm)}


def check_finite(
    model: Module, optimizer: SGD, counts: dict, run: Callable, at: Progress
) -> dict[str, float]:
    """Return a step's counts as floats. FloatingPointError if loss, gradients or variances are not finite.

    counts: the loss, and what the step has counted. They come from a GPU in one copy, together with a sum of
    all gradients and one of all running variances: the only time in a step that the host waits.
    run: run() computes the loss again, for a look at every op's output. So the message names the first layer
    with NaN or Inf.
    """
    variances = [norm.running_var for norm in _norms(model).values()]
    sums = {"all gradients": optimizer.gather().sum(dtype="float64")}
    if variances:
        sums["all variances"] = get_xp(variances[0]).concatenate(variances).sum(dtype="float64")
    found = to_floats(counts | sums)
    if all(isfinite(found[name]) for name in ("loss", *sums)):
        return {name: found[name] for name in counts}
    _find_nan(model, found["loss"], run, f"epoch {at.epoch + 1}, step {at.step + 1}")


def _find_nan(model: Module, loss: float, run: Callable, moment: str) -> None:
    """Raise FloatingPointError that names the first layer with NaN or Inf."""
    first: list[str] = []

    def look(function, inputs, output, path):
        if not first and not all_finite(output.data):
            first.append(f"the output of {function.name} in {path or 'the model'}")

    with no_grad(), trace(look):
        run()
    wide = (path for path, norm in _norms(model).items() if not all_finite(norm.running_var))
    if not first and (path := next(wide, None)):
        first.append(f"the running variance of {path}")
    if not first:  # backward runs from the last layer to the first
        parameters = reversed(list(model.named_parameters()))
        bad = (path for path, p in parameters if p.grad is not None and not all_finite(p.grad))
        first.append(f"the gradient of {next(bad, 'the loss')}")
    raise FloatingPointError(f"training stopped at {moment}: loss {loss}; NaN or Inf first in {first[0]}")


# ---------------------------------------------------------------- before it


def set_gains(model: Module, gain: float, down: float = 1.0, pair: float = 1.0) -> None:
    """Set the gain γ of every batch norm, with which a training begins.

    down, pair: factors in the stem SCS, on top of `gain`: for the strided convolution of each stage, and for
    its pair of convolutions.
    """
    for _, module in model.named_modules():
        if isinstance(module, BatchNorm):
            module.weight.data[...] = gain
    for _, module in model.named_modules():
        if isinstance(module, Stage):
            module.down.norm.weight.data *= down
            module.expand.norm.weight.data *= pair
            module.contract.norm.weight.data *= pair
