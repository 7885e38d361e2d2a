"""Runs: wherever they are cut off, they end bit for bit the same; and what is damaged is never believed."""

import csv
import json
import os
import signal
import stat
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from data_utils import datasets
from data_utils.images.digits import load_digits
from data_utils.images.pipeline import Pipeline
from data_utils.loader import Epoch, Loader, Prefetch
from minispike import backend, create_model, parallel
from minispike.files.checkpoint import load, load_all, read_safetensors, save, write_durably
from minispike.files.torchfile import FileFormatError
from minispike.models import SpikingTransformer
from minispike.optim import AdamW
from minispike.runs import cli as command
from minispike.runs import session as trainer
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.recipes import PRETRAINING, RECIPES, Recipe, resolve
from minispike.runs.session import Stop, build, train
from minispike.train import Progress

EPOCHS, STEPS = 2, 4


@pytest.fixture(autouse=True)
def threads():
    """A run sets the number of threads; give it back."""
    before = parallel.get_threads()
    yield
    parallel.set_threads(before)


@pytest.fixture(autouse=True)
def pictures(monkeypatch, request):
    """Pictures take most of a tiny run's time: only test_train_and_evaluate has them."""
    if request.function.__name__ != "test_train_and_evaluate":
        monkeypatch.setattr(Run, "draw", lambda self, history: None)


class Crash(Exception):
    pass


class Fragile(Loader):
    """A training loader in which `accident` happens when (epoch, step) is asked for, once."""

    moment, accident = None, None

    def __call__(self, epoch, start=0):
        return Steps(self, epoch, start)


class Steps(Epoch):
    def __getitem__(self, step):
        if (self.epoch, step) == self.loader.moment:
            self.loader.moment = None
            self.loader.accident()
        return super().__getitem__(step)


def crash():
    raise Crash


@pytest.fixture
def few(monkeypatch):
    """160 digits to train on and 40 to test with, for what the command line does in this process."""
    (images, labels), (test, test_labels) = load_digits()
    part = (images[:160], labels[:160]), (test[:40], test_labels[:40])
    monkeypatch.setattr(datasets, "load_digits", lambda: part)


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
    """Begin a run, or go on with it, to its end or to the accident."""
    run = Run.open(folder) if Path(folder).exists() else Run.create(folder, recipe)
    saved = run.newest()
    batches, test = loaders(recipe)
    batches.moment, batches.accident = moment, accident
    model = saved.model if saved else build(recipe, 10)
    return train(run, model, batches, test, sample=next(iter(test))[0], saved=saved, progress=False)


def end_of(folder):
    """All that a run leaves, but for the seconds."""
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


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run of each objective: what it leaves."""
    ends = {}
    for objective in ("classify", "masked"):
        folder = tmp_path_factory.mktemp("whole") / objective
        session(folder, small(objective))
        ends[objective] = end_of(folder)
    return ends


# ---------------------------------------------------------------- the recipe's numbers

V2, INIT = {"model": "spikformer_v2_1_64_digits"}, {"init": "encoder"}
EFFECTS = [  # of a field on a run, otherwise by the first
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
]


ELSEWHERE = {  # what a run is of, where and how it runs; and its images' changes, proved in test_recipes.py
    *("model", "data", "root", "objective", "threads", "device", "save_seconds"),
    *("shift", "flip", "policy", "mixup", "mixup_probability", "mixup_until", "erase"),
    *("augment_events", "split_by", "split"),
}


def test_no_field_of_a_recipe_is_forgotten_here():
    shown = {name for _, change in EFFECTS for name in change}
    assert shown | ELSEWHERE == set(Recipe.__dataclass_fields__) and not shown & ELSEWHERE


@pytest.fixture(scope="module")
def weights_after(tmp_path_factory):
    """The weights and statistics at the end of a small run with these numbers; each run is made once."""
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
    assert any(not np.array_equal(one[name], other[name]) for name in one)


# ---------------------------------------------------------------- bit for bit


@pytest.mark.parametrize("objective", ["classify", "masked"])
@pytest.mark.parametrize("moments", [[(0, 0)], [(0, 1), (0, 2), (1, 3)], [(1, 0)], [(1, 1)]], ids=str)
def test_a_run_that_is_taken_up_anywhere_ends_as_if_it_had_never_stopped(tmp_path, whole, objective, moments):
    for moment in moments:
        with pytest.raises(Crash):
            session(tmp_path / "run", small(objective), moment)
    history = session(tmp_path / "run", small(objective))
    assert alike(end_of(tmp_path / "run"), whole[objective])
    assert [record["epoch"] for record in history] == [1, 2] and len(end_of(tmp_path / "run")[2]) == 2


def test_single_step_epochs_come_first_and_are_taken_up_too(tmp_path, monkeypatch):
    """T is 1 in the first epoch and 3 in the second, tests included, wherever the run was cut off."""
    recipe, steps = small(T=3, single_step=0.5), []
    forward = SpikingTransformer.forward
    monkeypatch.setattr(
        SpikingTransformer, "forward", lambda self, x: steps.append(self.T) or forward(self, x)
    )
    session(tmp_path / "whole", recipe)
    n = len(steps) // 2
    assert steps == [1] * n + [3] * n
    for moment in ((0, 2), (1, 0), (1, 2)):
        with pytest.raises(Crash):
            session(tmp_path / "run", recipe, moment)
    session(tmp_path / "run", recipe)
    assert alike(end_of(tmp_path / "run"), end_of(tmp_path / "whole"))
    session(tmp_path / "other", replace(recipe, single_step=0.0))
    assert not alike(end_of(tmp_path / "other"), end_of(tmp_path / "whole"))


@pytest.mark.parametrize("epochs, T", [(1, 2), (2, 1)])
def test_a_run_is_evaluated_with_the_time_steps_of_its_last_epoch(
    tmp_path, few, capsys, monkeypatch, epochs, T
):
    write = Run.save

    def cut_off(self, model, optimizer, at, generators):
        write(self, model, optimizer, at, generators)
        if at.epoch == 1:
            self.write_books(at.history)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", cut_off)
    steps = ["--T", "2", "--epochs", str(epochs), "--single-step", "0.9"]
    command = ["train", "--recipe", "digits", "--out", str(tmp_path / "run"), *steps]
    assert main(command) == 130
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert (f"epochs: {epochs}, the first 1 at T = 1" in told) == (T == 1)
    assert f"after epoch 1 of {epochs}, at T = {T}: " in told and "the same, to the last bit" in told


@pytest.mark.slow
def test_with_more_threads_as_well(tmp_path):
    session(tmp_path / "whole", small(threads=2))
    with pytest.raises(Crash):
        session(tmp_path / "run", small(threads=2), (1, 1))
    session(tmp_path / "run", small(threads=2))
    assert alike(end_of(tmp_path / "run"), end_of(tmp_path / "whole"))


@pytest.mark.parametrize("what", ["moments", "step", "sums", "masks"])
def test_what_is_forgotten_shows(tmp_path, whole, monkeypatch, what):
    """The negative control: each part of a checkpoint is needed."""
    objective = "masked" if what == "masks" else "classify"
    with pytest.raises(Crash):
        session(tmp_path / "run", small(objective), (1, 2))
    if what == "moments":
        monkeypatch.setattr(AdamW, "load_state_dict", lambda self, state: None)
    elif what == "masks":
        monkeypatch.setattr(trainer, "make_rng", lambda seed: np.random.default_rng(seed + 1))
        read = Run.read

        def forgetful(self, path):
            saved = read(self, path)
            saved.training["generators"]["masks"] = np.random.default_rng(0).bit_generator.state
            return saved

        monkeypatch.setattr(Run, "read", forgetful)
    else:
        lost = {"step": 0} if what == "step" else {"sums": {}, "seen": 0}
        monkeypatch.setattr(trainer, "Progress", lambda **given: Progress(**given | (lost if given else {})))
    session(tmp_path / "run", small(objective))
    assert not alike(end_of(tmp_path / "run"), whole[objective])


def test_a_finished_run_stays_as_it_is(tmp_path, whole):
    session(tmp_path / "run", small())
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    assert len(session(tmp_path / "run", small())) == EPOCHS
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_a_kill_before_the_last_pictures_costs_no_pictures(tmp_path, monkeypatch):
    drawn = []

    def cut_off(self, history):
        drawn.append(len(history))
        if len(drawn) == 1:
            raise Crash

    monkeypatch.setattr(Run, "draw", cut_off)
    with pytest.raises(Crash):
        session(tmp_path / "run", small())
    session(tmp_path / "run", small())
    assert drawn == [EPOCHS, EPOCHS]


def test_checkpoints_come_as_often_as_the_recipe_says(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(Run, "save", lambda self, model, optimizer, at, generators: written.append(at.step))
    session(tmp_path / "often", small())
    assert written == 2 * [*range(1, STEPS + 1), 0]  # after each step, and after each epoch
    written.clear()
    session(tmp_path / "seldom", small(save_seconds=1e9))
    assert written == [0, 0]


# ---------------------------------------------------------------- killed

COMMAND = "--recipe digits --T 1 --epochs 1 --batch-size 32 --threads 1 --save-seconds 0".split()


def start(*arguments):
    command = [sys.executable, "-m", "minispike", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_of(run: Run) -> int:
    saved = run.newest()
    return saved.training["progress"]["step"] if saved else 0


def inode(path):
    """Return which file stands under a name; None where, for an instant, none does."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


def test_three_kills_change_nothing(tmp_path):
    """Real processes and SIGKILL: no handler, no clean-up."""
    assert main(["train", *COMMAND, "--out", str(tmp_path / "whole")]) == 0
    stood = []
    for i in range(3):
        process = start(*(["--resume", tmp_path / "run"] if i else [*COMMAND, "--out", tmp_path / "run"]))
        newest = tmp_path / "run" / "checkpoint.safetensors"
        before = inode(newest)
        give_up = time.monotonic() + 60
        while inode(newest) in (before, None):
            assert process.poll() is None and time.monotonic() < give_up, process.communicate()[0]
            time.sleep(0.001)
        time.sleep(0.02 * i)
        process.kill()
        assert process.wait() == -signal.SIGKILL
        process.stdout.close()
        stood.append(steps_of(Run.open(tmp_path / "run")))
    assert 0 < stood[0] < stood[1] < stood[2] < 45
    assert main(["train", "--resume", str(tmp_path / "run")]) == 0
    assert alike(end_of(tmp_path / "run"), end_of(tmp_path / "whole"))
    assert not list((tmp_path / "run").glob("*.part"))


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path, monkeypatch):
    path, previous = tmp_path / "file", tmp_path / "before"
    for text in (b"one", b"two", b"three"):
        write_durably(path, text, previous)
    assert path.read_text() == "three" and previous.read_text() == "two"

    def full(descriptor):
        assert (tmp_path / "file.part").read_text() == "four"  # all of it, before its name
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        write_durably(path, b"four", previous)
    assert path.read_text() == "three" and previous.read_text() == "two"


def test_between_the_two_renames_the_older_checkpoint_is_there(tmp_path, whole, monkeypatch):
    session(tmp_path / "run", small(epochs=1))
    run = Run.open(tmp_path / "run")
    replace_, calls = os.replace, []

    def power_cut(source, target):
        calls.append(Path(target).name)
        if target == run.checkpoint:
            raise Crash
        replace_(source, target)

    monkeypatch.setattr(os, "replace", power_cut)
    saved = run.newest()
    with pytest.raises(Crash):
        run.save(saved.model, AdamW(saved.model.parameters()), Progress(), {})
    assert calls == ["checkpoint.previous.safetensors", "checkpoint.safetensors"]
    assert not run.checkpoint.exists() and run.newest().training == saved.training


# ---------------------------------------------------------------- damaged, foreign


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit_of_the_progress(path):
    whole = path.read_bytes()
    at = whole.index(b"seen") + 9
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


def put_a_text(path):
    path.write_text("not a checkpoint")


def put_a_bare_model(path):
    save(create_model("spikformer_1_64_digits"), path)


@pytest.mark.parametrize("damage", [cut, flip_a_bit_of_the_progress, put_a_text, put_a_bare_model])
def test_the_older_checkpoint_is_used_where_the_newest_is_damaged_or_foreign(tmp_path, whole, capsys, damage):
    with pytest.raises(Crash):
        session(tmp_path / "run", small(), (1, 2))
    run = Run.open(tmp_path / "run")
    assert run.newest().training["progress"]["step"] == 2
    damage(run.checkpoint)
    assert run.newest().training["progress"]["step"] == 1
    warning = capsys.readouterr().err
    assert warning.startswith("warning: ") and "going back to checkpoint.previous.safetensors" in warning
    session(tmp_path / "run", small())
    assert alike(end_of(tmp_path / "run"), whole["classify"])


@pytest.mark.parametrize("stop, kept", [((1, 2), [1, 2]), ((1, 3), [2, 3])], ids=["one more", "two more"])
def test_a_damaged_checkpoint_never_takes_the_good_ones_place(tmp_path, capsys, stop, kept):
    """After going back, the next checkpoint is written over the damaged one: a kill then finds both good.

    And the one after that keeps its older again.
    """
    with pytest.raises(Crash):
        session(tmp_path / "run", small(), (1, 2))
    run = Run.open(tmp_path / "run")
    cut(run.checkpoint)
    with pytest.raises(Crash):
        session(tmp_path / "run", small(), stop)  # a checkpoint a step
    steps = [run.read(path).training["progress"]["step"] for path in (run.previous, run.checkpoint)]
    assert steps == kept and "going back" in capsys.readouterr().err


def test_without_a_good_checkpoint_nothing_is_begun_anew(tmp_path):
    session(tmp_path / "run", small())
    run = Run.open(tmp_path / "run")
    put_a_text(run.checkpoint)
    cut(run.previous)
    with pytest.raises(FileFormatError, match=r"no checkpoint in .* can be used: .*not a readable .*; .*"):
        run.newest()
    run.previous.unlink()
    put_a_bare_model(run.checkpoint)
    with pytest.raises(FileFormatError, match="holds a model, but no training to go on with"):
        run.newest()


def test_another_runs_checkpoint_is_refused(tmp_path):
    session(tmp_path / "a", small(epochs=1))
    session(tmp_path / "b", small(epochs=1, lr=0.01))
    a, b = Run.open(tmp_path / "a"), Run.open(tmp_path / "b")
    with pytest.raises(FileFormatError, match="belongs to another run; the recipes differ in lr"):
        a.read(b.checkpoint)
    moved = Run(a.folder, replace(a.recipe, root="elsewhere"))  # the data may move
    assert moved.read(a.checkpoint).training["progress"]["epoch"] == 1


def test_a_checkpoint_is_a_models_file(tmp_path, capsys):
    session(tmp_path / "run", small(epochs=1))
    model = load(tmp_path / "run" / "checkpoint.safetensors")
    arrays, _ = read_safetensors(tmp_path / "run" / "checkpoint.safetensors")
    assert all(np.array_equal(arrays[name], array) for name, array in model.state_dict().items())
    assert main(["info", str(tmp_path / "run" / "checkpoint.safetensors")]) == 0
    assert "blocks.0.mixer.q" in capsys.readouterr().out


# ---------------------------------------------------------------- diverging, and being stopped


def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path, capsys, few):
    code = main(["train", *COMMAND, "--lr", "1e30", "--out", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert code == 1 and message.startswith("error: training stopped at epoch 1, step")
    assert "NaN or Inf first in " in message and "lower --lr" in message
    saved = Run.open(tmp_path / "run").newest()
    assert 0 < saved.training["progress"]["step"] < 5
    assert all(np.isfinite(array).all() for array in saved.model.state_dict().values())


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = Run.create(tmp_path / "run", small())
    model = build(run.recipe, 10)
    optimizer = AdamW(model.parameters())
    run.save(model, optimizer, Progress(step=3), {})
    model.head.weight.data[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="epoch 1, step 4: NaN or Inf first in head.weight"):
        run.save(model, optimizer, Progress(step=4), {})
    assert load(run.checkpoint).head.weight.data[0, 0] != np.inf and not run.previous.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_after_the_step_and_loses_nothing(tmp_path, whole, number):
    recipe = small(save_seconds=1e9)
    before = signal.getsignal(number)
    with pytest.raises(Stop, match="epoch 2, step 3") as stop:
        session(tmp_path / "run", recipe, (1, 2), lambda: os.kill(os.getpid(), number))
    assert stop.value.number == number and signal.getsignal(number) == before
    assert Run.open(tmp_path / "run").newest().training["progress"]["step"] == 3
    session(tmp_path / "run", recipe)
    arrays, _, rows, rates = end_of(tmp_path / "run")
    assert alike((arrays, None, rows, rates), (whole["classify"][0], None, *whole["classify"][2:]))


def test_a_signal_during_evaluation_stops_there(tmp_path, monkeypatch):
    recipe = small(save_seconds=1e9)
    seen = []

    class Slow(Loader):
        def prepared(self, indices):
            seen.append(len(indices))
            if len(seen) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return super().prepared(indices)

    run, (batches, test) = Run.create(tmp_path / "run", recipe), loaders(recipe)
    with pytest.raises(Stop, match="epoch 1, step 4"):
        train(run, build(recipe, 10), batches, Slow(test.source, test.labels, 8), progress=False)
    assert len(seen) == 3 and run.newest().training["progress"]["step"] == STEPS
    assert len(session(tmp_path / "run", recipe)) == EPOCHS


def test_ctrl_c_on_the_command_line(tmp_path, capsys, monkeypatch, few):
    step = AdamW.step

    def third(self):
        step(self)
        if self.t == 3:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(AdamW, "step", third)
    folder = str(tmp_path / "a run")
    assert main(["train", *COMMAND, "--out", folder]) == 130
    message = capsys.readouterr().err
    again = f"python -m minispike train --resume '{folder}'"
    assert f"stopped at epoch 1, step 3, and saved; to go on: {again}" in message
    assert main(["train", "--resume", folder]) == 0
    out = capsys.readouterr().out
    assert "stands at 0 epochs and 3 steps" in out and f"next: python -m minispike evaluate '{folder}'" in out


# ---------------------------------------------------------------- the commands


def test_train_and_evaluate(tmp_path, capsys, few, monkeypatch):
    folder = tmp_path / "run"
    given = ["--epochs", "2", "--lr", "0.002", "--mask-ratio", "0.4"]
    assert main(["train", *COMMAND, "--out", str(folder), *given]) == 0
    out, told = capsys.readouterr()
    assert told == "note: --mask-ratio changes nothing here: it needs the command pretrain\n"
    out = out.splitlines()
    assert out[0].endswith("parameters, T = 1, 1 threads")
    assert out[1] == "digits: 5 steps of 32 samples an epoch; epochs: 2"
    assert out[2].startswith("epoch 1/2   loss") and out[3].startswith("epoch 2/2")
    config = Recipe.from_json((folder / "config.json").read_text())
    assert (config.epochs, config.lr, config.T, config.gain) == (2, 0.002, 1, 2.0)
    assert {path.name for path in folder.iterdir()} == {
        ".lock", "config.json", "checkpoint.safetensors", "checkpoint.previous.safetensors",
        "metrics.csv", "rates.csv", "curves.png", "rates.png",
    }  # fmt: skip
    assert all((folder / name).read_bytes()[:4] == b"\x89PNG" for name in ("curves.png", "rates.png"))
    rows = Run.open(folder).read_metrics()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert main(["evaluate", str(folder)]) == 0
    out = capsys.readouterr().out
    assert f"accuracy {rows[1]['test_accuracy']:.2%}" in out and "the same, to the last bit" in out
    older = str(folder / "checkpoint.previous.safetensors")
    assert main(["evaluate", str(folder), "--checkpoint", older]) == 0
    assert "after epoch 1 of 2 and 5 steps" in capsys.readouterr().out
    metrics = (folder / "metrics.csv").read_text()
    (folder / "metrics.csv").write_text(metrics.replace(repr(rows[1]["test_accuracy"]), "0.5"))
    assert main(["evaluate", str(folder)]) == 1 and "metrics.csv has" in capsys.readouterr().err
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr(Run, "read", lambda self, path: load_all(path))  # as if it had been trained there
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert "50.00%, on cuda" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["epoch,loss\n1,\n", "epoch,loss\n1,2,3\n", "epoch,loss\n1\n"])
def test_damaged_metrics_are_refused_and_written_anew(tmp_path, text):
    session(tmp_path / "run", small())
    run = Run.open(tmp_path / "run")
    rows = run.read_metrics()
    run.metrics.write_text(text)
    with pytest.raises(FileFormatError, match="metrics.csv: not as it was written; --resume"):
        run.read_metrics()
    session(tmp_path / "run", small())
    assert run.read_metrics() == rows


def test_event_frames_train_and_go_on(tmp_path, monkeypatch, capsys):
    """With a stand-in for the event sets: a Loader that gives frames [T, B, H, W, 2]."""

    def open_events(name, root, *, T, batch_size, seed, **_):
        rng = np.random.default_rng(0)
        frames, labels = rng.poisson(0.2, (11, T, 32, 32, 2)).astype("float32"), np.arange(11) % 10

        def prepare(x, *_):
            return np.ascontiguousarray(x.swapaxes(0, 1))

        def augment(x, labels, rng):
            return prepare(x[..., ::-1, :] if rng.random() < 0.5 else x), np.eye(10, dtype="float32")[labels]

        train = Loader(frames, labels, batch_size, seed, augment=augment)
        return train, Loader(frames[:5], labels[:5], batch_size, prepare=prepare)

    monkeypatch.setattr("data_utils.datasets.open_events", open_events)
    options = "--recipe fashion-dvs --T 2 --batch-size 4 --epochs 2 --threads 1 --save-seconds 0".split()
    assert main(["train", *options, "--out", str(tmp_path / "whole")]) == 0
    step = AdamW.step

    def second(self):
        step(self)
        if self.t == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch:
        patch.setattr(AdamW, "step", second)
        assert main(["train", *options, "--out", str(tmp_path / "cut")]) == 130
    assert main(["train", "--resume", str(tmp_path / "cut")]) == 0
    assert alike(end_of(tmp_path / "cut"), end_of(tmp_path / "whole"))
    assert main(["evaluate", str(tmp_path / "cut")]) == 0 and "to the last bit" in capsys.readouterr().out


def test_pretrain_and_begin_with_the_encoder(tmp_path, capsys, few):
    encoder, folder = tmp_path / "p", tmp_path / "run"
    short = ["--batch-size", "256", "--T", "1", "--epochs", "1", "--threads", "1"]
    assert main(["pretrain", "--data", "digits", *short, "--out", str(encoder)]) == 0
    out = capsys.readouterr().out
    assert f"train --data digits --model spikformer_v2_1_64_digits --init {encoder}" in out
    assert not (encoder / "rates.png").exists()
    model = ["--model", "spikformer_v2_1_64_digits", "--init", str(encoder), "--lr", "0", "--min-lr", "0"]
    assert main(["train", "--data", "digits", *short, *model, "--out", str(folder)]) == 0
    a, b = (Run.open(path).newest().model for path in (encoder, folder))
    assert np.array_equal(a.blocks[0].mlp.fc1.map.weight.data, b.blocks[0].mlp.fc1.map.weight.data)
    assert main(["evaluate", str(encoder)]) == 1
    assert "holds a pre-trained encoder, for train --init" in capsys.readouterr().err


def test_an_encoder_of_another_shape_is_refused_in_words(tmp_path, capsys, few):
    save(create_model("spikformer_v2_1_64_digits"), tmp_path / "v2.safetensors")
    arguments = ["--data", "digits", "--init", str(tmp_path / "v2.safetensors"), "--out", str(tmp_path / "x")]
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert "v2.safetensors does not fit spikformer_1_64_digits: choose the --model that it was" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "say either --out RUN, for a new run, or --resume RUN"),
        (["--out", "x"], "say --recipe or --data: digits, fashion-mnist"),
        (["--out", "x", "--resume", "y"], "say either --out"),
        (["--resume", "nowhere"], "no run in nowhere"),
        (
            ["--resume", "y", "--lr", "1", "--epochs", "3"],
            "keeps its recipe, for its schedule: leave out epochs, lr",
        ),
        (["--out", "x", "--data", "digits", "--epochs", "0"], "epochs must lie in 1 … inf, got 0"),
        (["--out", "x", "--data", "letters"], "no recipe 'letters'; there are digits"),
        (
            ["--out", "x", "--recipe", "digits", "--data", "letters"],
            "no data set 'letters'; there are digits",
        ),
        (["--out", "x", "--data", "digits", "--model", "spikformer_9"], "no model 'spikformer_9'"),
        (["--out", "x", "--data", "digits", "--policy", "1"], "work on bytes"),
        (["--out", "x", "--data", "digits", "--root", "y"], "nothing to read in y"),
        (
            ["--out", "x", "--data", "gesture", "--flip", "0.5"],
            "event frames have their own changes, and no flip",
        ),
        (
            ["--out", "x", "--data", "digits", "--model", "spikformer_2_64_fashion"],
            "spikformer_2_64_fashion takes images of 32×32×1, digits has 8×8×1: choose another --model",
        ),
        (["--out", "x", "--data", "digits", "--init", "nowhere"], "no file nowhere"),
        (["--out", __file__, "--data", "digits"], "test_run.py is a file: a run needs a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_folder_is_made(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and not list(tmp_path.iterdir())


def test_a_run_is_gone_on_with_by_the_command_that_began_it(tmp_path, capsys):
    Run.create(tmp_path / "p", small("masked"))
    Run.create(tmp_path / "t", small())
    for wrong, folder, other in (("train", "p", "pretrain"), ("pretrain", "t", "train")):
        assert main([wrong, "--resume", str(tmp_path / folder)]) == 1
        assert f"was begun by {other}: say {other} --resume {tmp_path / folder}" in capsys.readouterr().err


def test_a_relative_root_is_kept_as_an_absolute_one(tmp_path, monkeypatch):
    """A run may be resumed from another folder than it was begun in."""
    monkeypatch.chdir(tmp_path)
    data = loaders(small())
    monkeypatch.setattr(command, "data_of", lambda recipe: (*data, 10))
    assert main(["train", *COMMAND, "--root", "here", "--out", "run"]) == 0
    assert Run.open("run").recipe.root == str(tmp_path / "here")


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.previous"])
def test_a_checkpoint_without_its_recipe_is_not_written_over(tmp_path, capsys, name):
    """A kill before the new run's first checkpoint would otherwise leave it with another run's."""
    (tmp_path / f"{name}.safetensors").write_text("")
    assert main(["train", "--data", "digits", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path} holds a run" in capsys.readouterr().err


def test_a_device_that_is_missing_is_found_before_a_folder_is_made(tmp_path, monkeypatch, capsys, few):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend.DEVICES, "cuda", raising=False)
    assert main(["train", *COMMAND, "--device", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert "needs CuPy" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path, capsys):
    Run.create(tmp_path / "run", small())
    assert main(["train", "--data", "digits", "--out", str(tmp_path / "run")]) == 1
    assert "holds a run: go on with it by --resume" in capsys.readouterr().err
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_a_run_goes_on_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()  # of the fixture that leaves out the pictures
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert len(session(tmp_path / "run", small())) == EPOCHS
    assert capsys.readouterr().err.count("not drawn: pictures need matplotlib") == 1


def test_two_processes_do_not_train_in_one_folder(tmp_path, capsys):
    pytest.importorskip("fcntl")
    run = Run.create(tmp_path / "run", small())
    with run.locked():
        assert main(["train", "--resume", str(run.folder)]) == 1
    assert f"another process is training in {run.folder}" in capsys.readouterr().err
    with run.locked():  # free again
        assert not run.checkpoint.exists()


def test_a_second_process_leaves_the_books_alone(tmp_path):
    pytest.importorskip("fcntl")
    session(tmp_path / "run", small())
    run = Run.open(tmp_path / "run")
    books, late = run.metrics.read_text(), run.newest()
    late.training["progress"]["history"].pop()  # as read before the first one's last epoch ended
    with run.locked(), pytest.raises(BlockingIOError):
        train(run, late.model, *loaders(small()), saved=late, progress=False)
    assert run.metrics.read_text() == books


def test_of_two_that_begin_a_run_at_once_one_does(tmp_path, monkeypatch):
    """Also where the other's folder appears between the look and the lock."""
    folder, absent = tmp_path / "run", Run.absent

    def faster(self):
        monkeypatch.setattr(Run, "absent", absent)
        Run.create(folder, small(seed=1))
        return self

    monkeypatch.setattr(Run, "absent", faster)
    with pytest.raises(FileExistsError, match="holds a run: go on with it"):
        Run.create(folder, small(seed=2))
    assert Run.open(folder).recipe.seed == 1


def test_what_another_process_has_trained_meanwhile_is_not_taken_back(tmp_path, capsys, monkeypatch, few):
    """It looked before this one had ended, and comes when this one has let go."""
    with pytest.raises(Crash):
        session(tmp_path / "run", small(), (1, 1))
    late = Run.open(tmp_path / "run")
    saved = late.newest()
    session(tmp_path / "run", small())
    end = end_of(tmp_path / "run")
    with pytest.raises(BlockingIOError, match="another process has just trained in .*: --resume it anew"):
        train(late, saved.model, *loaders(small()), saved=saved, progress=False)
    assert alike(end_of(tmp_path / "run"), end)
    again = late.newest()
    train(late, again.model, *loaders(small()), saved=again, progress=False)  # it has looked again
    assert alike(end_of(tmp_path / "run"), end)


def test_a_new_root_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data, roots = loaders(small()), []
    monkeypatch.setattr(command, "data_of", lambda recipe: roots.append(recipe.root) or (*data, 10))
    assert main(["train", *COMMAND, "--root", "here", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--root", "there"]) == 0
    assert main(["evaluate", "run"]) == 0 and "the same, to the last bit" in capsys.readouterr().out
    assert [Path(root).name for root in roots] == ["here", "there", "there"] and Path(roots[2]).is_absolute()


def test_pretraining_tells_where_its_data_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "data_of", lambda recipe: (*loaders(small("masked")), 10))
    options = ["--recipe", "digits", "--epochs", "1", "--root", str(tmp_path / "my data")]
    assert main(["pretrain", *options, "--out", str(tmp_path / "run")]) == 0
    assert f"train --data digits --root '{tmp_path / 'my data'}' --model" in capsys.readouterr().out


def test_a_run_without_a_test_and_with_all_threads(tmp_path):
    """As the library is called: what `fit` takes as none, and a recipe's 0 threads."""
    parallel.set_threads(1)
    run = Run.create(tmp_path / "run", small(threads=0))
    assert run.recipe.threads == Run.open(run.folder).recipe.threads == 1
    batches, _ = loaders(small())
    records = train(run, build(run.recipe, 10), batches, None, progress=False)
    assert len(records) == EPOCHS and not any("test_accuracy" in record for record in records)


def test_firing_rates_may_begin_late(tmp_path, monkeypatch):
    """A run begun without a sample, as the library is called, and gone on with on the command line."""
    monkeypatch.undo()  # of the fixture that leaves out the pictures
    run = Run.create(tmp_path / "run", small())
    record = {"loss": 1.0, "accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5}
    rates = {"stem.stages.0.neuron": 0.1}
    run.draw([{"epoch": 1, **record}, {"epoch": 2, **record, "rates": rates}])
    assert (run.folder / "rates.png").read_bytes()[:4] == b"\x89PNG"


def test_an_import_is_saved_before_it_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_official", lambda file, model: Unprintable())
    with pytest.raises(Crash):
        main(["import", "x", "--model", "spikformer_1_64_digits", "--out", str(tmp_path / "x.safetensors")])
    assert load(tmp_path / "x.safetensors").num_params() > 0


class Unprintable:
    def __str__(self):
        raise Crash


def test_the_help_names_every_field(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    assert all(
        f"--{name.replace('_', '-')} " in told for name in Recipe.__dataclass_fields__ if name != "objective"
    )


def test_prefetching_changes_no_run(tmp_path, whole):
    recipe = small()
    run, (images, labels) = Run.create(tmp_path / "run", recipe), load_digits()[0]
    n, augment = 16 * STEPS - 5, Pipeline(10, shift=recipe.shift, mixup=recipe.mixup)
    batches = Prefetch(Loader(images[:n], labels[:n], 16, recipe.seed, augment=augment))
    test = Prefetch(loaders(recipe)[1])
    train(run, build(recipe, 10), batches, test, sample=next(iter(test))[0], progress=False)
    assert alike(end_of(tmp_path / "run"), whole["classify"])


def test_a_name_is_made_durable_after_the_bytes(tmp_path, monkeypatch):
    path, fsync, seen = tmp_path / "file", os.fsync, []

    def note(descriptor):
        seen.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    write_durably(path, b"content")
    assert seen == [(False, False), (True, True)]  # the file before it has its name, the folder after


def test_a_checkpoint_without_its_optimizer_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", small())
    save(build(run.recipe, 10), run.checkpoint, training={"recipe": asdict(run.recipe)})
    with pytest.raises(FileFormatError, match="no training to go on with"):
        run.read(run.checkpoint)


def test_statistics_that_are_not_finite_are_not_saved(tmp_path):
    run = Run.create(tmp_path / "run", small())
    model = build(run.recipe, 10)
    model.stem.stages[0].norm.running_var[0] = np.nan
    with pytest.raises(FloatingPointError, match="first in stem.stages.0.norm.running_var"):
        run.save(model, AdamW(model.parameters()), Progress(), {})
    assert not run.checkpoint.exists()


def test_a_recipe_is_noted_under_the_lock(tmp_path, monkeypatch):
    pytest.importorskip("fcntl")
    folder = tmp_path / "run"

    def another(self):
        with (
            pytest.raises(BlockingIOError, match="another process is training"),
            Run(folder, small()).locked(),
        ):
            pass
        seen.append(1)

    seen = []
    monkeypatch.setattr(Run, "note_recipe", another)
    Run.create(folder, small())
    assert seen == [1]


def test_the_seed_is_that_of_the_masks(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "pretrain", lambda *_, rng, **options: rng.random())
    for seed in (0, 1):
        run = Run.create(tmp_path / str(seed), small("masked", seed=seed))
        drawn = train(run, build(run.recipe, 10), None, None, progress=False)
        assert drawn == backend.make_rng(seed).random()


def test_a_run_and_its_evaluation_take_the_recipes_threads(tmp_path, monkeypatch, few):
    asked = []
    for module in (trainer, command):
        monkeypatch.setattr(module, "set_threads", asked.append)
    session(tmp_path / "run", small(epochs=1))
    assert asked == [1]
    main(["evaluate", str(tmp_path / "run")])
    assert asked == [1, 1]


def test_a_second_signal_acts_at_once():
    with trainer.Signals() as signals:
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.number == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_scheduler_is_told_that_its_signal_stopped_the_run(tmp_path, monkeypatch, capsys, few):
    def stopped(*_, **options):
        raise Stop(signal.SIGTERM, "epoch 1, step 2")

    monkeypatch.setattr(command, "train", stopped)
    assert main(["pretrain", "--data", "digits", "--out", str(tmp_path / "p")]) == 143  # 128 + SIGTERM
    assert f"python -m minispike pretrain --resume {tmp_path / 'p'}" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_nothing_to_begin_with(tmp_path, capsys, few):
    Run.create(tmp_path / "p", small("masked"))
    arguments = ["--data", "digits", "--init", str(tmp_path / "p"), "--out", str(tmp_path / "run")]
    assert main(["train", *arguments]) == 1
    assert f"the run {tmp_path / 'p'} has no checkpoint yet to begin with" in capsys.readouterr().err


def test_a_training_begins_with_the_older_encoder_where_the_newest_is_damaged(tmp_path, capsys):
    session(tmp_path / "p", small("masked", epochs=1))
    run = Run.open(tmp_path / "p")
    cut(run.checkpoint)
    model = build(small(model="spikformer_v2_1_64_digits", init=str(run.folder)), 10)
    older = load(run.previous)
    assert "going back to checkpoint.previous" in capsys.readouterr().err
    assert np.array_equal(model.blocks[0].mlp.fc1.map.weight.data, older.blocks[0].mlp.fc1.map.weight.data)


def test_a_run_cut_off_in_its_first_epoch_at_T_is_evaluated_there(tmp_path, few, capsys):
    """The first of two epochs ran at T = 1; a checkpoint within the second is of a model at T = 3."""
    with pytest.raises(Crash):
        session(tmp_path / "run", small(T=3, single_step=0.5), (1, 2))
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "after epoch 1 of 2 and 2 steps, at T = 3: " in capsys.readouterr().out


def test_a_relative_init_is_kept_as_an_absolute_one_and_the_models_T_is_noted(tmp_path, monkeypatch, few):
    monkeypatch.chdir(tmp_path)
    session("p", small("masked", epochs=1))
    monkeypatch.setattr(command, "train", lambda *_, **options: None)
    model = ["--model", "spikformer_v2_1_64_digits", "--init", "p"]
    assert main(["train", "--data", "digits", *model, "--out", "run"]) == 0
    recipe = Run.open("run").recipe
    assert recipe.init == str(tmp_path / "p") and recipe.T == 4
