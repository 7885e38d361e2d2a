"""What the tests of runs share: a small run on digits that can be cut off, and what it leaves behind."""

import csv
import json
from pathlib import Path

import numpy as np

from data_utils.images.digits import load_digits
from data_utils.images.pipeline import Pipeline
from data_utils.loader import Epoch, Loader
from minispike import create_model
from minispike.files.checkpoint import read_safetensors, save
from minispike.runs.folder import Run
from minispike.runs.recipes import PRETRAINING, RECIPES, Recipe, resolve
from minispike.runs.session import build, train

EPOCHS, STEPS = 2, 4
COMMAND = "--recipe digits --T 1 --epochs 1 --batch-size 32 --threads 1 --save-seconds 0".split()


class Crash(Exception):
    pass


def crash():
    raise Crash


class Fragile(Loader):
    """A training loader that calls `accident` once, when batch (epoch, step) = `moment` is asked for."""

    moment, accident = None, None

    def __call__(self, epoch, start=0):
        return Steps(self, epoch, start)


class Steps(Epoch):
    def __getitem__(self, step):
        if (self.epoch, step) == self.loader.moment:
            self.loader.moment = None
            self.loader.accident()
        return super().__getitem__(step)


def small(objective="classify", **overrides) -> Recipe:
    recipes = PRETRAINING if objective == "masked" else RECIPES
    settings = {"epochs": EPOCHS, "batch_size": 16, "threads": 1, "save_seconds": 0.0, "T": 1, "mixup": 0.5}
    settings |= {"calibration": 2} if objective == "classify" else {}
    model = {"model": "spikformer_v2_1_64_digits"} if objective == "masked" else {}
    return resolve("digits", recipes, **settings | model | overrides)


def loaders(recipe):
    (images, labels), (test, test_labels) = load_digits()
    n = 16 * STEPS - 5  # the last batch is smaller
    augment = Pipeline(10, shift=recipe.shift, mixup=recipe.mixup)
    train = Fragile(images[:n], labels[:n], recipe.batch_size, recipe.seed, augment=augment)
    return train, Loader(test[:40], test_labels[:40], 16)


def session(folder, recipe, moment=None, accident=crash):
    """Start or resume a run; it ends when it is finished, or at the accident."""
    run = Run.open(folder) if Path(folder).exists() else Run.create(folder, recipe)
    saved = run.newest()
    batches, test = loaders(recipe)
    batches.moment, batches.accident = moment, accident
    model = saved.model if saved else build(recipe, 10)
    return train(run, model, batches, test, sample=next(iter(test))[0], saved=saved, progress=False)


def end_of(folder):
    """Return everything a run leaves behind, except times in seconds."""
    arrays, metadata = read_safetensors(Path(folder) / "checkpoint.safetensors")
    training = json.loads(metadata["training"])
    for record in training["progress"]["history"]:
        assert record.pop("seconds") > 0
    with (Path(folder) / "metrics.csv").open() as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    rates = Path(folder) / "rates.csv"
    return arrays, training, rows, rates.read_text() if rates.exists() else None


def alike(a, b) -> bool:
    arrays = a[0].keys() == b[0].keys() and all(np.array_equal(a[0][name], b[0][name]) for name in a[0])
    return arrays and a[1:] == b[1:]


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def put_a_text(path):
    path.write_text("not a checkpoint")


def put_a_bare_model(path):
    save(create_model("spikformer_1_64_digits"), path)
