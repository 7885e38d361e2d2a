"""Recipes are data that come back from JSON as they were, refuse nonsense, and fit their models and data."""

import json
from dataclasses import asdict, fields, replace
from inspect import signature

import numpy as np
import pytest

from data_utils import datasets
from data_utils.datasets import NAMES
from data_utils.events import sets as event_sets
from data_utils.loader import Until
from lessons.common import start_scs
from minispike.kernels.events import products
from minispike.models import configuration
from minispike.runs import cli as command
from minispike.runs.folder import Run
from minispike.runs.recipes import MASKED, PRETRAINING, RECIPES, Recipe, own_recipe, resolve
from minispike.runs.session import build, check_fit, format_duration, format_record, warnings_about

SHAPES = {  # of one sample: height, width, channels; classes
    "digits": (8, 8, 1, 10), "pairs": (8, 32, 1, 2),
    "fashion-mnist": (32, 32, 1, 10), "mnist": (32, 32, 1, 10),
    "cifar10": (32, 32, 3, 10), "cifar100": (32, 32, 3, 100),
    "tiny-imagenet": (64, 64, 3, 200), "imagenet": (224, 224, 3, 1000),
    "cifar10dvs": (128, 128, 2, 10), "gesture": (128, 128, 2, 11), "fashion-dvs": (32, 32, 2, 10),
}  # fmt: skip


def test_there_is_a_recipe_for_every_data_set():
    assert set(RECIPES) == set(NAMES) == set(SHAPES) and set(PRETRAINING) <= set(RECIPES)


@pytest.mark.parametrize("recipes", [RECIPES, PRETRAINING], ids=["train", "pretrain"])
def test_every_recipe_names_a_model_that_takes_its_data(recipes):
    for name in recipes:
        recipe = resolve(name, recipes)
        config = configuration(recipe.model)
        assert (*config.size, config.in_channels) == SHAPES[name][:3], name
        assert recipe.data == name and recipe.warmup < recipe.epochs and recipe.mixup_until < recipe.epochs
        assert (recipe.objective == MASKED) == (recipes is PRETRAINING)


@pytest.mark.parametrize(
    "name", ["digits", "fashion-mnist", "cifar100", "cifar10dvs", "gesture", "fashion-dvs"]
)
def test_a_recipes_model_is_built_for_its_data(name):
    *shape, classes = SHAPES[name]
    recipe = replace(resolve(name), gain=1.5)
    model = build(recipe, classes)
    check_fit(model, np.zeros((3, *shape)), recipe)
    assert model.head.out_channels == classes and model.T == (recipe.T or 4)
    assert (model.stem.stages[0].norm.weight.data == 1.5).all()
    with pytest.raises(ValueError, match=rf"{name} has 7×8×1: choose another --model"):
        check_fit(model, np.zeros((3, 7, 8, 1)), recipe)


@pytest.mark.parametrize("recipes", [RECIPES, PRETRAINING], ids=["train", "pretrain"])
def test_scs_begins_as_in_the_lessons(recipes):
    recipe = resolve("digits", recipes, model="spikformer_v2_1_64_digits")
    model = build(recipe, 10)
    before = {path: array.copy() for path, array in model.state_dict().items()}
    start_scs(model)
    assert {3.0, 1.0, 2.0} == {float(a.max()) for path, a in before.items() if path.endswith(".norm.weight")}
    assert all(np.array_equal(array, before[path]) for path, array in model.state_dict().items())


def test_the_authors_numbers():
    """Spikformer's cifar10.yml and train.py, line by line."""
    recipe = resolve("cifar10")
    assert (recipe.epochs, recipe.batch_size, recipe.lr, recipe.min_lr) == (300, 128, 5e-4, 1e-5)
    assert (recipe.warmup, recipe.warmup_lr, recipe.weight_decay) == (20, 1e-5, 0.06)
    assert (recipe.label_smoothing, recipe.mixup, recipe.mixup_until) == (0.1, 0.5, 200)
    assert (recipe.flip, recipe.policy, recipe.erase, recipe.gain) == (0.5, 0.5, 0.25, 1.0)
    recipe = resolve("cifar10dvs")
    assert (recipe.T, recipe.epochs, recipe.batch_size, recipe.lr) == (16, 96, 16, 1e-3)
    assert (recipe.warmup, recipe.mixup, recipe.mixup_until, recipe.split_by) == (10, 0.5, 75, "number")


# ---------------------------------------------------------------- JSON and options


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_comes_back_from_json(name):
    recipe = resolve(name, lr=1 / 3, seed=7)
    assert Recipe.from_json(recipe.to_json()) == recipe and recipe.lr == 1 / 3


def test_json_that_is_no_recipe_is_refused(tmp_path):
    known = asdict(resolve("digits"))
    with pytest.raises(ValueError, match="a recipe has no momentum; it has T, augment_events"):
        Recipe.from_json(json.dumps(known | {"momentum": 0.9}))
    del known["model"]
    with pytest.raises(ValueError, match="a recipe needs a model and data"):
        Recipe.from_json(json.dumps(known))
    with pytest.raises(ValueError, match="a recipe is a JSON object, got a list"):
        Recipe.from_json("[]")
    twice = resolve("digits").to_json().replace('"epochs": 20', '"epochs": 20, "lr": 1.0')
    with pytest.raises(ValueError, match="two entries of one name, lr"):
        Recipe.from_json(twice)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: Expecting property name"):
        Run.open(tmp_path)


@pytest.mark.parametrize(
    "field, value, message",
    [
        ("epochs", 0, "epochs must lie in 1"),
        ("epochs", 1.5, "epochs must be a int, got 1.5"),
        ("lr", "fast", "lr must be a float, got 'fast'"),
        ("lr", float("nan"), "lr must lie in 0"),
        ("lr", float("inf"), "lr must lie in 0"),
        ("beta2", 1.0, "beta2 must lie in 0 … 0.999999999, got 1.0"),
        ("seed", True, "seed must be a int, got True"),
        ("flip", 1.1, "flip must lie in 0 … 1, got 1.1"),
        ("device", "tpu", "device must be one of cpu, cuda, got 'tpu'"),
        ("objective", "win", "objective must be one of classify, masked"),
        ("model", "", "a recipe needs a model and data"),
        ("single_step", 1.0, "single_step must lie in 0 … 0.999999999, got 1.0"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        resolve("digits", **{field: value})


@pytest.mark.parametrize("epochs, single", [(1, 0), (2, 1), (5, 4), (7, 6), (100, 87)])
def test_the_last_epoch_runs_at_every_step(epochs, single):
    assert resolve("fashion-mnist", epochs=epochs).single_step_epochs == single < epochs


def test_every_option_overrides_its_field(monkeypatch, tmp_path):
    """Each field by its option, once: what arrives is a recipe with that field changed, and nothing else."""
    began = []
    monkeypatch.setattr(command, "data_of", lambda recipe, own: began.append(recipe) or 1 / 0)
    changed = {"model": "saformer_1_64_digits", "data": "mnist", "root": "x", "init": "x", "split_by": "time",
               "split": "first-100-test", "device": "cuda", "augment_events": 0,
               "products": "unknown" if products() == "dense" else "dense", "skip_unreadable": 1,
               "sensor": "3x4", "time_unit": "ms"}  # fmt: skip
    for entry in fields(Recipe):
        if entry.name == "objective":
            continue
        old = getattr(resolve("digits"), entry.name)
        new = changed.get(entry.name, 0.125 if entry.type == "float" else 3)
        arguments = ["--recipe", "digits", "--" + entry.name.replace("_", "-"), str(new)]
        with pytest.raises(ZeroDivisionError):
            command.main(["train", *arguments, "--out", str(tmp_path / "x")])
        assert began[-1] == resolve("digits", **{entry.name: new}) and new != old


@pytest.mark.parametrize(
    "given, idle",
    [
        ({}, []),
        ({"flip": 0.5, "gain": 1.0, "label_smoothing": 0.0, "T": 2}, []),
        ({"mask_ratio": 0.3, "layer_decay": 0.5}, ["mask-ratio", "layer-decay"]),
        ({"gain_down": 2.0}, ["gain-down"]),
        ({"mixup_until": 3, "mixup_probability": 0.5}, ["mixup-probability", "mixup-until"]),
        ({"mixup_until": 3, "mixup": 0.5, "warmup": 1, "warmup_lr": 0.1}, []),
        ({"warmup_lr": 0.1, "split_by": "time"}, ["warmup-lr", "split-by"]),
        ({"split": "first-100-test"}, ["split"]),
        ({"val_split": 0.3, "skip_unreadable": 1, "sensor": "3x4", "time_unit": "s"},
         ["skip-unreadable", "sensor", "time-unit"]),
        ({"spike_price": 1.0}, []),
        ({"warmup": 20}, ["warmup 20 of --epochs 20"]),
        ({"lr": 1e-6}, ["min-lr 1e-05 is above --lr 1e-06"]),
        ({"threads": 10**6}, ["threads 1000000"]),
        ({"single_step": 0.5}, []),
        ({"single_step": 0.5, "T": 1}, ["single-step"]),
        ({"init": "x", "gain": 2.0, "layer_decay": 0.5}, ["gain"]),
        ({"model": "spikformer_v2_1_64_digits", "gain_down": 2.0}, []),
    ],
)  # fmt: skip
def test_what_changes_nothing_is_said(given, idle):
    recipe = resolve("digits", **given)
    found = warnings_about(build(replace(recipe, init=""), 10), recipe, given)
    assert len(found) == len(idle)
    assert all(told.startswith(f"--{name}") for told, name in zip(found, idle, strict=True))


@pytest.mark.parametrize(
    "objective, model, told",
    [
        ("classify", "spikformer_2_64_fashion_dvs", "event frames bring their own T: take --single-step 0"),
        ("masked", "spikformer_v2_2_64_fashion", "pre-training has one T: take --single-step 0, not 0.5"),
    ],
)
def test_epochs_at_one_step_are_refused_where_they_mean_nothing(objective, model, told):
    recipe = resolve("fashion-mnist", objective=objective, model=model, single_step=0.5)
    images = np.zeros((1, 32, 32, 1 + (objective == "classify")))
    model = build(recipe, 10)
    with pytest.raises(ValueError, match=told):
        check_fit(model, images, recipe)
    check_fit(model, images, replace(recipe, single_step=0.0))


@pytest.mark.parametrize("T", [4, 1])
def test_the_time_that_is_left_goes_with_the_steps(T):
    """Of four epochs three at T = 1: after the second, one of them is left, and one at T."""
    recipe = resolve("fashion-mnist", epochs=4, single_step=0.75, T=T)
    record = {"epoch": 2, "loss": 1.0, "seconds": 30.0}
    assert f"30.0 s, about {format_duration(30.0 * (1 + T))} left" in format_record(record, recipe)
    at_T = {"epoch": 3, "loss": 1.0, "seconds": 30.0}
    assert f"about {format_duration(30.0 * T)} left" in format_record(at_T, recipe)
    assert "left" not in format_record(at_T | {"epoch": 4}, recipe)


@pytest.mark.parametrize("recipes", [RECIPES, PRETRAINING], ids=["train", "pretrain"])
def test_no_recipe_is_in_doubt(recipes):
    for name in ("digits", "fashion-mnist", "mnist"):
        recipe = resolve(name, recipes)
        assert not warnings_about(build(recipe, 10), recipe, [])
    masked = resolve("digits", PRETRAINING, label_smoothing=0.1, mask_ratio=0.4, calibration=3)
    told = warnings_about(build(masked, 10), masked, ["label_smoothing", "mask_ratio", "calibration"])
    assert told == [
        "--label-smoothing changes nothing here: it needs labels, which pre-training has none of",
        "--calibration changes nothing here: it needs the command train",
    ]


# ---------------------------------------------------------------- data sets by name


def test_cifar_by_name(monkeypatch, rng):
    """The order of the published code; the policy on bytes, and the test images only standardised."""
    images, labels = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8), np.arange(20) % 10
    monkeypatch.setitem(
        datasets.CIFAR, "cifar10", (lambda root: ((images, labels), (images[:5], labels[:5])), 10)
    )
    recipe = resolve("cifar10", batch_size=8)
    train, test, _ = command.data_of(recipe)
    assert isinstance(train, Until) and train.epoch == 200
    assert train.first.augment == replace(train.then.augment, mixup=0.5)
    assert (train.then.augment.flip, train.then.augment.policy, train.then.augment.erase) == (0.5, 0.5, 0.25)
    x, targets = train(0)[0]
    assert x.dtype == "float32" and targets.shape == (8, 10) and x.shape == (8, 32, 32, 3)
    assert np.array_equal(next(iter(test))[0], datasets.prepare_cifar(images[:5]))
    assert np.array_equal(
        next(iter(train))[0], datasets.prepare_cifar(images[:8])
    )  # plain: in order, prepared


def test_event_sets_are_asked_with_the_recipes_numbers(monkeypatch, rng):
    asked = {}

    def open_events(name, root, **settings):
        asked.update(settings, name=name, root=root)
        T = settings["T"]
        frames, labels = rng.poisson(0.1, (T, 4, 128, 128, 2)).astype("float32"), np.arange(4)
        return [(frames, labels)], [(frames, labels)]

    monkeypatch.setattr("data_utils.datasets.open_events", open_events)
    command.data_of(resolve("cifar10dvs", split="first-100-test"))
    assert (asked.pop("split"), asked["name"]) == ("first-100-test", "cifar10dvs")
    recipe = resolve("gesture", T=3, root="here", split_by="time", augment_events=0)
    _, test, classes = command.data_of(recipe)
    assert classes == 11 and test[0][0].shape[:2] == (3, 4)
    expected = dict(name="gesture", root="here", T=3, batch_size=16, seed=0, mixup=0.5, mixup_until=75)
    expected |= dict(mixup_probability=0.5, augment=False, split_by="time")
    assert asked == expected and set(asked) <= set(signature(event_sets.open_events).parameters)
    check_fit(build(recipe, classes), test[0][0], recipe)


def test_the_authors_other_numbers():
    """imagenet.yml; MAE's optimizer and rate at a batch of 256; what is left of CIFAR10-DVS's train.py."""
    expected = {
        "imagenet": dict(model="spikformer_8_512_imagenet", epochs=300, batch_size=24, lr=5e-4, min_lr=1e-5,
                         warmup=20, warmup_lr=1e-6, weight_decay=0.05, label_smoothing=0.1, mixup=0.8),
        "cifar100": asdict(resolve("cifar10")) | {"data": "cifar100"},
        "cifar10dvs": dict(min_lr=1e-5, warmup_lr=1e-5, weight_decay=0.06, label_smoothing=0.1,
                           mixup_probability=0.5),
    }  # fmt: skip
    for name, numbers in expected.items():
        assert asdict(resolve(name)) | numbers == asdict(resolve(name)), name
    mae = resolve("imagenet", PRETRAINING)
    assert (mae.batch_size, mae.lr, mae.min_lr, mae.warmup, mae.warmup_lr) == (256, 1.5e-4, 0.0, 40, 0.0)
    assert (mae.beta2, mae.weight_decay, mae.mixup, mae.erase, mae.mask_ratio) == (0.95, 0.05, 0.0, 0.0, 0.5)


def test_no_number_may_be_negative_and_no_share_above_one():
    shares = "shift flip policy mixup_probability erase label_smoothing layer_decay mask_ratio".split()
    numbers = [entry.name for entry in fields(Recipe) if entry.type != "str"]
    for name, value in [*((name, -1) for name in numbers), *((name, 1.5) for name in shares)]:
        with pytest.raises(ValueError, match=f"^{name} must"):
            resolve("digits", **{name: value})


def test_pretraining_begins_with_nothing():
    with pytest.raises(ValueError, match="init is for training, not for pre-training"):
        resolve("digits", PRETRAINING, init="encoder")


@pytest.mark.parametrize("recipes", [RECIPES, PRETRAINING], ids=["train", "pretrain"])
def test_the_seed_is_that_of_the_weights(recipes):
    one, again, other = (build(resolve("digits", recipes, seed=seed), 10).parameters() for seed in (1, 1, 2))
    assert all(np.array_equal(a.data, b.data) for a, b in zip(one, again, strict=True))
    assert any(not np.array_equal(a.data, b.data) for a, b in zip(one, other, strict=True))


def test_the_seed_is_that_of_the_shuffling():
    first = [command.data_of(resolve("digits", seed=seed))[0](0)[0][1] for seed in (1, 1, 2)]
    assert np.array_equal(first[0], first[1]) and not np.array_equal(first[0], first[2])


def test_what_a_model_says_of_its_data_is_asked_for(monkeypatch):
    monkeypatch.setattr(command, "open_data", lambda name, root, **settings: settings)
    assert command.data_of(resolve("tiny-imagenet"))["size"] == 64
    asked = command.data_of(resolve("fashion-dvs", T=0, seed=5))
    assert (asked["size"], asked["T"], asked["seed"]) == (32, 8, 5)  # T = 0: as many as the model has


def test_the_seed_of_events_is_passed_on(monkeypatch):
    asked = {}
    monkeypatch.setattr(
        "data_utils.datasets.open_events", lambda *_, **given: asked.update(given) or ([], [])
    )
    command.data_of(resolve("gesture", seed=5))
    assert asked["seed"] == 5


def test_a_split_is_said_where_there_is_more_than_one():
    assert command.with_split(resolve("cifar10dvs")) == "cifar10dvs, split 90-10"
    assert command.with_split(resolve("digits")) == "digits"


@pytest.mark.parametrize("seconds, told", [(99, "99 s"), (100, "2 min"), (5900, "98 min"), (7200, "2.0 h")])
def test_durations_are_said_as_people_do(seconds, told):
    assert format_duration(seconds) == told


@pytest.mark.parametrize("n, epochs", [(2, 10), (48, 10), (1_000, 10), (2_000, 5), (60_000, 4)])
def test_ones_own_data_is_seen_about_ten_thousand_times(n, epochs):
    assert own_recipe("/data", "images", n).epochs == epochs
    assert own_recipe("/data", "images", n, epochs=7).epochs == 7


@pytest.mark.parametrize("kind, channels", [("images", 1), ("events", 2), ("hidden patches", 1)])
def test_the_recipes_for_ones_own_data_fit_their_models(kind, channels):
    recipe = own_recipe("/data", kind, 100, img_size=36, in_channels=channels)
    model = build(recipe, 3)
    assert (recipe.objective == "masked") == (kind == "hidden patches")
    assert model.in_channels == channels and not warnings_about(model, recipe, ())
    x = np.zeros((1, 36, 36, channels))
    check_fit(model, x, recipe)
