"""A session: every number of a recipe reaches the training, and a finished run stays as it is."""

import json

import numpy as np
import pytest

from data_utils.images.digits import load_digits
from data_utils.images.pipeline import Pipeline
from data_utils.loader import Loader, Prefetch
from minispike import backend, parallel
from minispike.files.checkpoint import load
from minispike.kernels import events
from minispike.measure.energy import count
from minispike.runs import cli as command
from minispike.runs import session as trainer
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.recipes import Recipe, resolve
from minispike.runs.session import build, set_products, train

from .common import EPOCHS, STEPS, alike, cut, end_of, loaders, session, small

# ---------------------------------------------------------------- every number of a recipe


V2, INIT = {"model": "spikformer_v2_1_64_digits"}, {"init": "encoder"}
EFFECTS = [  # (a recipe's changes, one more change that must have an effect)
    ({}, {"lr": 1e-3}),
    ({}, {"min_lr": 1e-3}),
    ({}, {"warmup": 1}),
    ({"warmup": 1}, {"warmup_lr": 1e-3}),
    ({}, {"beta2": 0.9}),
    ({}, {"weight_decay": 0.5}),
    ({}, {"label_smoothing": 0.0}),
    ({}, {"calibration": 0}),
    ({}, {"gain": 1.0}),
    ({}, {"seed": 1}),
    ({}, {"batch_size": 32}),
    ({}, {"epochs": 1}),
    ({}, {"T": 2}),
    ({"T": 2}, {"single_step": 0.5}),
    (V2, {"gain_down": 1.0}),
    (V2, {"gain_pair": 1.0}),
    (V2, INIT),
    (V2 | INIT, {"layer_decay": 0.5}),
    ({"objective": "masked"}, {"mask_ratio": 0.25}),
    ({}, {"spike_price": 1.0}),
    ({}, {"depth": 2}),
    ({}, {"embed_dim": 32}),
    ({}, {"num_heads": 2}),
]


ELSEWHERE = {  # what is trained, where and how; changes of the images (test_recipes.py); own data
    *("model", "data", "root", "objective", "threads", "products", "device", "save_seconds"),
    *("shift", "flip", "policy", "mixup", "mixup_probability", "mixup_until", "erase"),
    *("augment_events", "split_by", "split"),
    *("img_size", "in_channels", "val_split", "skip_unreadable", "sensor", "time_unit"),
}


def test_no_field_of_a_recipe_is_forgotten_here():
    shown = {name for _, change in EFFECTS for name in change}
    assert shown | ELSEWHERE == set(Recipe.__dataclass_fields__) and not shown & ELSEWHERE


@pytest.fixture(scope="module")
def weights_after(tmp_path_factory):
    """Return a function from changes of the recipe to the final weights; each run is made once."""
    root, found = tmp_path_factory.mktemp("effects"), {}
    session(root / "encoder", small("masked", epochs=1))

    def run(changes: dict) -> dict:
        key = json.dumps(changes)
        if key not in found:
            changes = {k: str(root / v) if k == "init" else v for k, v in changes.items()}
            session(root / str(len(found)), small(**changes))
            found[key] = load(root / str(len(found)) / "checkpoint.safetensors").state_dict()
        return found[key]

    return run


@pytest.mark.parametrize("base, change", EFFECTS, ids=lambda value: ",".join(value) or "recipe")
def test_every_number_of_a_recipe_reaches_the_training(weights_after, base, change):
    one, other = weights_after(base), weights_after(base | change)
    assert any(not np.array_equal(one[name], other[name]) for name in one.keys() & other.keys())


def test_the_seed_is_that_of_the_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "pretrain", lambda *_, rng, **options: rng.random())
    for seed in (0, 1):
        run = Run.create(tmp_path / str(seed), small("masked", seed=seed))
        drawn = train(run, build(run.recipe, 10), None, None, progress=False)
        assert drawn == backend.make_rng(seed).random()


def test_a_training_begins_with_the_older_encoder_where_the_newest_is_damaged(tmp_path, capsys):
    session(tmp_path / "p", small("masked", epochs=1))
    run = Run.open(tmp_path / "p")
    cut(run.checkpoint)
    model = build(small(model="spikformer_v2_1_64_digits", init=str(run.folder)), 10)
    older = load(run.previous)
    assert "going back to checkpoint.previous" in capsys.readouterr().err
    assert np.array_equal(model.blocks[0].mlp.fc1.map.weight.data, older.blocks[0].mlp.fc1.map.weight.data)


# ---------------------------------------------------------------- the price of spikes


def test_a_price_lowers_the_additions_and_both_are_recorded(tmp_path):
    ends = {}
    for price in (0.0, 32.0):
        session(tmp_path / str(price), small(spike_price=price, mixup=0.0, epochs=3))
        run = Run.open(tmp_path / str(price))
        ends[price] = run.read_metrics()[-1]
        images = next(iter(loaders(run.recipe)[1]))[0]
        assert ends[price]["additions"] == count(run.newest().model, images).total("events").ac
    assert "price" not in ends[0.0] and ends[32.0]["price"] > 0
    assert ends[32.0]["additions"] < 0.8 * ends[0.0]["additions"]


def test_settings_can_be_chosen_on_training_samples_that_are_held_out(tmp_path, few, capsys):
    command = "train --data digits --T 1 --epochs 1 --val-split 0.25 --spike-price 1 --threads 1 --out"
    assert main([*command.split(), str(tmp_path / "r")]) == 0
    shown = capsys.readouterr().out
    assert "digits, tested on 25% of the training samples, held out: 4 steps" in shown
    assert "M additions an image" in shown
    assert main(["evaluate", str(tmp_path / "r")]) == 0
    shown = capsys.readouterr().out
    assert "25% of the training samples, held out" in shown and "to the last bit" in shown
    assert main(["show", str(tmp_path / "r"), "41", "--figure", str(tmp_path / "x.png")]) == 1  # of 40


def test_a_run_of_an_older_version_has_no_additions_in_its_first_epochs(tmp_path):
    run = Run.create(tmp_path / "r", small())
    history = [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0, "additions": 3.5}]
    run.write_tables(history)
    assert run.metrics.read_text().split() == ["epoch,loss,additions", "1,2.0,", "2,1.0,3.5"]
    assert run.read_metrics() == history


# ---------------------------------------------------------------- the course of a session


def test_a_finished_run_stays_as_it_is(tmp_path, whole):
    session(tmp_path / "run", small())
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert len(session(tmp_path / "run", small())) == EPOCHS
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_checkpoints_come_as_often_as_the_recipe_says(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Run, "save", lambda self, model, optimizer, at, generators: written.append(at.step))
    session(tmp_path / "often", small())
    assert written == 2 * [*range(1, STEPS + 1), 0]  # after each step, and after each epoch
    written.clear()
    session(tmp_path / "seldom", small(save_seconds=1e9))
    assert written == [0, 0]


def test_a_run_without_a_test_and_with_all_threads(tmp_path):
    """As when the library is called without a test set, and with a recipe of 0 threads."""
    parallel.set_threads(1)
    run = Run.create(tmp_path / "run", small(threads=0))
    assert run.recipe.threads == Run.open(run.folder).recipe.threads == 1
    batches, _ = loaders(small())
    records = train(run, build(run.recipe, 10), batches, None, progress=False)
    assert len(records) == EPOCHS and not any("test_accuracy" in record for record in records)


def test_a_run_and_its_evaluation_take_the_recipes_threads(tmp_path, monkeypatch, few):
    asked = []
    for module in (trainer, command):
        monkeypatch.setattr(module, "set_threads", asked.append)
    session(tmp_path / "run", small(epochs=1))
    assert asked == [1]
    main(["evaluate", str(tmp_path / "run")])
    assert asked == [1, 1]


def test_prefetching_changes_no_run(tmp_path, whole):
    recipe = small()
    run, (images, labels) = Run.create(tmp_path / "run", recipe), load_digits()[0]
    n, augment = 16 * STEPS - 5, Pipeline(10, shift=recipe.shift, mixup=recipe.mixup)
    batches = Prefetch(Loader(images[:n], labels[:n], 16, recipe.seed, augment=augment))
    test = Prefetch(loaders(recipe)[1])
    train(run, build(recipe, 10), batches, test, sample=next(iter(test))[0], progress=False)
    assert alike(end_of(tmp_path / "run"), whole["classify"])


def test_products_of_a_run_are_its_recipes(monkeypatch, capsys):
    """A row of the table, or dense ones; where the row cannot be had the run says so and goes on."""
    monkeypatch.setattr(events, "why_not", lambda: None)
    for name in ("unknown", "dense"):
        set_products(name)
        assert events.products() == name and not capsys.readouterr().err
    set_products("a row of a later version")
    assert events.products() == "dense" and "not bit for bit as where it began" in capsys.readouterr().err
    monkeypatch.setattr(events, "why_not", lambda: "compiled loops, which there are not")
    set_products("unknown")
    assert events.products() == "dense" and "need compiled loops" in capsys.readouterr().err
    events.use_products(None)
    assert events.products() == "dense" == resolve("digits").products
