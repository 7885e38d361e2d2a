"""One training from start to end, or from where it stopped: checkpoints, metrics, plots and a clean stop."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..backend import make_rng, to_device
from ..blocks.scs import SCS
from ..files.checkpoint import Saved, load_encoder
from ..kernels.events import DENSE, use_products
from ..masked import MaskedAutoencoder, masked_autoencoder, pretrain, random_visible
from ..measure import viz
from ..measure.energy import additions_per_image
from ..measure.price import priced
from ..models import SpikingTransformer, create_model
from ..nn import Module
from ..ops import softmax_cross_entropy
from ..optim import AdamW, cosine_with_warmup, layer_scales
from ..parallel import get_threads, set_threads
from ..train import Progress, classify, fit, set_gains
from .folder import Run, saved_at
from .memory import check_memory, free_bytes, step_bytes
from .recipes import MASKED, Recipe

SAMPLE = 32  # test images on which firing rates and additions are measured
REDRAW = 10.0  # seconds between two drawings of the figures; one drawing takes about a second

# ---------------------------------------------------------------- before the first step


def build(recipe: Recipe, classes: int) -> SpikingTransformer | MaskedAutoencoder:
    """Return a recipe's model as training starts with it; `classes` is the data's number of classes."""
    names = ("T", "img_size", "in_channels", "depth", "embed_dim", "num_heads")
    given = {name: getattr(recipe, name) for name in names if getattr(recipe, name)}
    if recipe.objective == MASKED:
        model = masked_autoencoder(recipe.model, mask_ratio=recipe.mask_ratio, rng=recipe.seed, **given)
    else:
        model = create_model(recipe.model, rng=recipe.seed, num_classes=classes, **given)
    set_gains(model, recipe.gain, recipe.gain_down, recipe.gain_pair)
    if recipe.init:
        encoder = saved_at(recipe.init).model
        try:
            load_encoder(model, encoder)
        except ValueError as error:
            wanted = f"{recipe.init} does not fit {recipe.model}: choose the --model that it was trained with"
            raise ValueError(f"{wanted} ({error})") from error
    return model


def check_fit(model: SpikingTransformer | MaskedAutoencoder, images, recipe: Recipe) -> None:
    """Raise ValueError unless images have the model's size and channels, and epochs at T = 1 make sense."""
    takes, comes = (*model.img_size, model.in_channels), tuple(images.shape[-3:])
    if takes != comes:
        takes, comes = ("×".join(map(str, shape)) for shape in (takes, comes))
        raise ValueError(
            f"{recipe.model} takes images of {takes}, {recipe.data} has {comes}: choose another --model"
        )
    if recipe.single_step_epochs and (recipe.objective == MASKED or model.in_channels == 2):
        why = "pre-training has one T" if recipe.objective == MASKED else "event frames bring their own T"
        raise ValueError(f"{why}: take --single-step 0, not {recipe.single_step}")


def check_step_fits(model: SpikingTransformer | MaskedAutoencoder, sample, recipe: Recipe) -> None:
    """Raise MemoryError if a training step needs more memory than is free.

    sample: a few images [n, H, W, C] or frames [T, n, H, W, C].
    """

    def step(n: int) -> None:
        x = sample[..., np.arange(n) % sample.shape[-4], :, :, :]  # there may be fewer than n
        if recipe.objective == MASKED:
            loss = model(x, random_visible(n, model.grid, model.n_visible, make_rng(0)))
        else:
            loss = softmax_cross_entropy(model(x), np.zeros(n, int))
        loss.backward()

    if recipe.device == "cpu":
        needed = step_bytes(model, step, recipe.batch_size)
        check_memory(needed, free_bytes(), recipe.batch_size)


def warnings_about(
    model: SpikingTransformer | MaskedAutoencoder, recipe: Recipe, given: Iterable[str]
) -> list[str]:
    """Return warnings: given options that have no effect, and suspicious learning rates.

    given: the names of the recipe's fields that the user has set.
    """
    masked, scs = recipe.objective == MASKED, isinstance(model.stem, SCS)
    own = Path(recipe.data).is_absolute()
    needs = {  # fields: whether they have an effect, and what they need for one
        "spike_price": (not masked, "the command train"),
        "label_smoothing": (not masked, "labels, which pre-training has none of"),
        "calibration": (not masked, "the command train"),
        "mask_ratio": (masked, "the command pretrain"),
        "layer_decay": (recipe.init, "--init"),
        "mixup_probability mixup_until": (recipe.mixup, "--mixup"),
        "warmup_lr": (recipe.warmup, "--warmup"),
        "split_by augment_events": (model.in_channels == 2, "event data"),
        "split": (recipe.data == "cifar10dvs", "--data cifar10dvs"),
        "skip_unreadable": (own and Path(recipe.data).suffix != ".npz", "a folder of one's own as --data"),
        "sensor time_unit": (own and model.in_channels == 2, "one's own recordings as --data"),
        "single_step": (model.T > 1, "T above 1"),
        "gain": (not recipe.init, "fresh weights, no --init"),
        "gain_down gain_pair": (scs and not recipe.init, "the stem SCS with fresh weights"),
    }
    found = [
        f"--{name.replace('_', '-')} changes nothing here: it needs {need}"
        for names, (works, need) in needs.items()
        for name in names.split()
        if name in given and not works
    ]
    if recipe.warmup >= recipe.epochs:
        found.append(f"--warmup {recipe.warmup} of --epochs {recipe.epochs}: lr never reaches its peak")
    if recipe.min_lr > recipe.lr:
        found.append(f"--min-lr {recipe.min_lr} is above --lr {recipe.lr}: the rate rises to the end")
    if recipe.threads > get_threads():
        found.append(
            f"--threads {recipe.threads}, but there are {get_threads()} cores: more threads only wait"
        )
    return found


# ---------------------------------------------------------------- from the first step to the last


def train(
    run: Run,
    model: Module,
    batches: Callable,
    test,
    *,
    sample=None,
    saved: Saved | None = None,
    progress: bool = True,
) -> list[dict]:
    """Train a run's model to the end, from the beginning or from what `newest` gave; return the records.

    model: as `build` makes it, or saved.model.    batches, test: as `fit` takes them.
    sample: images on which firing rates and additions are measured after each epoch.
    Raises Stop on Ctrl-C; FloatingPointError if training diverges (the last good checkpoint stays);
    BlockingIOError if another process is training in the run's folder.
    """
    recipe, at, generators = run.recipe, Progress(), {"masks": make_rng(run.recipe.seed)}
    set_threads(recipe.threads)
    set_products(recipe.products)
    model.to(recipe.device)
    scales = layer_scales(model, recipe.layer_decay) if recipe.init else None
    optimizer = AdamW(model.parameters(), recipe.lr, (0.9, recipe.beta2), 1e-8, recipe.weight_decay, scales)
    if saved:
        optimizer.load_state_dict(saved.optimizer)
        at = Progress(**saved.training["progress"])
        for name, rng in generators.items():
            rng.bit_generator.state = saved.training["generators"][name]
    rate = {"epochs": recipe.epochs, "lr": recipe.lr, "min_lr": recipe.min_lr}
    rate |= {"warmup": recipe.warmup, "warmup_lr": recipe.warmup_lr}
    quiet = np.errstate(over="ignore", invalid="ignore")  # fit finds NaN and Inf, and names the layer
    with run.locked(), Signals() as signals, quiet:
        records = RecordKeeper(run, model, optimizer, generators, at, signals)
        run.write_recipe()  # another process may have begun here, before this one held the lock
        run.write_tables(at.history)  # a kill may have come between the checkpoint and the tables,
        if at.epoch == recipe.epochs:  # or before the last figures
            records.draw()
        options = {"epochs": recipe.epochs, "schedule": partial(cosine_with_warmup, **rate), "start": at}
        options |= {"on_step": records.on_step, "on_epoch": records.on_epoch, "progress": progress}
        if recipe.objective == MASKED:
            return pretrain(model, optimizer, batches, rng=generators["masks"], **options)
        batches = single_steps_first(model, batches, recipe.single_step_epochs)
        records.sample = None if sample is None else to_device(sample, recipe.device)
        objective = partial(classify, label_smoothing=recipe.label_smoothing)
        if recipe.spike_price:
            objective = priced(objective, recipe.spike_price)
        options |= {"objective": objective, "calibration": recipe.calibration}
        test = None if test is None else InterruptibleBatches(test, lambda: records.stop_here(at), progress)
        return fit(model, optimizer, batches, test=test, **options)


def set_products(name: str) -> None:
    """Compute products as a recipe says. Where that cannot be, say so and go on with dense ones."""
    try:
        use_products(name)
    except ValueError as error:
        use_products(DENSE)
        print(f"note: {error}; the run goes on, but not bit for bit as where it began", file=sys.stderr)


def single_steps_first(model: SpikingTransformer, batches: Callable, epochs: int) -> Callable:
    """Return batches that also set the model's T when an epoch begins: 1 in the first `epochs`, then T."""
    T = model.T

    def begin(epoch: int, *start: int) -> Iterable:
        model.T = 1 if epoch < epochs else T
        return batches(epoch, *start)

    return begin


class RecordKeeper:
    """What happens between the steps: checkpoints, tables, figures, and a clean stop."""

    sample = None  # the images on which firing rates and additions are measured

    def __init__(self, run: Run, model, optimizer, generators: dict, at: Progress, signals: Signals):
        self.run, self.at, self.signals, self.model = run, at, signals, model
        self.state = model, optimizer, at, generators
        self.last_write = self.last_drawing = time.monotonic()

    def on_step(self, at: Progress) -> None:
        self.stop_here(at)
        if time.monotonic() - self.last_write >= self.run.recipe.save_seconds:
            self.save()

    def on_epoch(self, record: dict) -> None:
        if self.sample is not None:
            few = self.sample, self.run.recipe.batch_size
            record["rates"] = viz.firing_rates(self.model, *few)
            record["additions"] = additions_per_image(self.model, *few)
        self.save()
        self.run.write_tables(self.at.history)
        print(format_record(record, self.run.recipe), flush=True)
        if self.at.epoch == self.run.recipe.epochs or time.monotonic() - self.last_drawing >= REDRAW:
            self.draw()

    def draw(self) -> None:
        try:
            self.run.draw(self.at.history)
        except ImportError as error:
            print(f"not drawn: {error}", file=sys.stderr)
        self.last_drawing = time.monotonic()

    def save(self) -> None:
        self.run.save(*self.state)
        self.last_write = time.monotonic()

    def stop_here(self, at: Progress) -> None:
        """If a signal has come, write a checkpoint and raise Stop."""
        if self.signals.number:
            self.save()
            raise Stop(self.signals.number, f"epoch {at.epoch + 1}, step {at.step}")


class Stop(KeyboardInterrupt):
    """Raised after Ctrl-C or SIGTERM, when the running step is complete and saved."""

    def __init__(self, number: int, moment: str):
        super().__init__(moment)
        self.number = number


class Signals:
    """Hold back Ctrl-C, or a scheduler's SIGTERM, until a step is complete; a second one acts at once."""

    def __enter__(self) -> Signals:
        self.number = 0
        self.before = {each: signal.signal(each, self.note) for each in (signal.SIGINT, signal.SIGTERM)}
        return self

    def note(self, number: int, _) -> None:
        self.number = number
        signal.signal(number, self.before[number])
        os.write(2, b"\nfinishing this step; again to stop now\n")  # print is not safe in a signal handler

    def __exit__(self, *_) -> None:
        for each, handler in self.before.items():
            signal.signal(each, handler)


class InterruptibleBatches:
    """Test batches with a progress bar; `between()` is called before each, and may raise to stop."""

    def __init__(self, batches: Iterable, between: Callable[[], None], progress: bool):
        self.batches, self.between, self.progress = batches, between, progress

    def __iter__(self):
        for pair in tqdm(self.batches, desc="test", leave=False, disable=not self.progress):
            self.between()
            yield pair


# ---------------------------------------------------------------- text


def format_record(record: dict, recipe: Recipe) -> str:
    """Return an epoch's record as a line of text."""
    number, epochs = record["epoch"], recipe.epochs
    parts = [f"epoch {number:>{len(str(epochs))}}/{epochs}", f"loss {record['loss']:.3f}"]
    if "accuracy" in record:
        parts.append(f"accuracy {record['accuracy']:.1%}")
    if "test_loss" in record:
        parts.append(f"test loss {record['test_loss']:.3f}  accuracy {record['test_accuracy']:.1%}")
    steps = [1 if epoch < recipe.single_step_epochs else max(recipe.T, 1) for epoch in range(epochs)]
    left = record["seconds"] * sum(steps[number:]) / steps[number - 1]  # an epoch's time is proportional to T
    if "additions" in record:
        parts.append(f"{record['additions'] / 1e6:.3g} M additions an image")
    parts.append(f"{record['seconds']:.1f} s" + (f", about {format_duration(left)} left" if left else ""))
    return "   ".join(parts)


def format_duration(seconds: float) -> str:
    """Return a duration in seconds, minutes or hours."""
    minutes, hours = round(seconds / 60), seconds / 3600
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{hours:.1f} h"
