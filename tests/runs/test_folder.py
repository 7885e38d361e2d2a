"""A run's folder: checkpoints survive, damaged files are never used, one process trains at a time."""

import os
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from minispike.files.checkpoint import load, read_safetensors, save
from minispike.files.torchfile import FileFormatError
from minispike.optim import AdamW
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.session import build, train
from minispike.train import Progress

from .common import EPOCHS, Crash, alike, cut, end_of, loaders, put_a_bare_model, put_a_text, session, small

# ---------------------------------------------------------------- checkpoints


def test_a_checkpoint_is_a_models_file(tmp_path, capsys):
    session(tmp_path / "run", small(epochs=1))
    model = load(tmp_path / "run" / "checkpoint.safetensors")
    arrays, _ = read_safetensors(tmp_path / "run" / "checkpoint.safetensors")
    assert all(np.array_equal(arrays[name], array) for name, array in model.state_dict().items())
    assert main(["info", str(tmp_path / "run" / "checkpoint.safetensors")]) == 0
    assert "blocks.0.mixer.q" in capsys.readouterr().out


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    run = Run.create(tmp_path / "run", small())
    model = build(run.recipe, 10)
    optimizer = AdamW(model.parameters())
    run.save(model, optimizer, Progress(step=3), {})
    model.head.weight.data[0, 0] = np.inf
    with pytest.raises(FloatingPointError, match="epoch 1, step 4: NaN or Inf first in head.weight"):
        run.save(model, optimizer, Progress(step=4), {})
    assert load(run.checkpoint).head.weight.data[0, 0] != np.inf and not run.previous.exists()


def test_statistics_that_are_not_finite_are_not_saved(tmp_path):
    run = Run.create(tmp_path / "run", small())
    model = build(run.recipe, 10)
    model.stem.stages[0].norm.running_var[0] = np.nan
    with pytest.raises(FloatingPointError, match="first in stem.stages.0.norm.running_var"):
        run.save(model, AdamW(model.parameters()), Progress(), {})
    assert not run.checkpoint.exists()


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


# ---------------------------------------------------------------- damaged and foreign checkpoints


def flip_a_bit_of_the_progress(path):
    whole = path.read_bytes()
    at = whole.index(b"seen") + 9
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])


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
    """After going back, the next checkpoint replaces the damaged one, so that a kill finds two good ones.

    The checkpoint after that one replaces the older of the two, as usual.
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


def test_a_checkpoint_without_its_optimizer_is_refused(tmp_path):
    run = Run.create(tmp_path / "run", small())
    save(build(run.recipe, 10), run.checkpoint, training={"recipe": asdict(run.recipe)})
    with pytest.raises(FileFormatError, match="no training to go on with"):
        run.read(run.checkpoint)


# ---------------------------------------------------------------- metrics and pictures


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


def test_a_run_goes_on_without_matplotlib(tmp_path, monkeypatch, capsys):
    monkeypatch.undo()  # of the fixture that leaves out the pictures
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert len(session(tmp_path / "run", small())) == EPOCHS
    assert capsys.readouterr().err.count("not drawn: figures need matplotlib") == 1


def test_firing_rates_may_begin_late(tmp_path, monkeypatch):
    """A run that the library started without a sample can be resumed on the command line, with one."""
    monkeypatch.undo()  # of the fixture that leaves out the pictures
    run = Run.create(tmp_path / "run", small())
    record = {"loss": 1.0, "accuracy": 0.5, "test_loss": 1.0, "test_accuracy": 0.5}
    rates = {"stem.stages.0.neuron": 0.1}
    run.draw([{"epoch": 1, **record}, {"epoch": 2, **record, "rates": rates}])
    assert (run.folder / "rates.png").read_bytes()[:4] == b"\x89PNG"


# ---------------------------------------------------------------- two processes in one folder


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


def test_of_two_that_begin_a_run_at_once_one_does(tmp_path):
    """Both make the folder before either has a checkpoint; the one that trains writes its recipe again."""
    pytest.importorskip("fcntl")
    first, second = (Run.create(tmp_path / "run", small(seed=seed)) for seed in (1, 2))
    assert Run.open(tmp_path / "run").recipe.seed == 2
    with first.locked(), pytest.raises(BlockingIOError, match="another process is training"):
        train(second, build(second.recipe, 10), *loaders(second.recipe), progress=False)
    train(first, build(first.recipe, 10), *loaders(first.recipe), progress=False)
    assert Run.open(tmp_path / "run").recipe.seed == 1
    with pytest.raises(BlockingIOError, match="another process has just trained"):
        train(second, build(second.recipe, 10), *loaders(second.recipe), progress=False)
    assert Run.open(tmp_path / "run").newest().training["recipe"]["seed"] == 1


def test_a_folder_with_a_recipe_and_no_checkpoint_counts_as_not_begun(tmp_path):
    Run.create(tmp_path / "run", small(seed=1))
    assert Run.create(tmp_path / "run", small(seed=2)).recipe.seed == 2
    session(tmp_path / "run", small(seed=2))
    with pytest.raises(FileExistsError, match="holds a run: go on with it by --resume"):
        Run.create(tmp_path / "run", small(seed=3))


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
    monkeypatch.setattr(Run, "write_recipe", another)
    Run.create(folder, small())
    assert seen == [1]


def test_what_another_process_has_trained_meanwhile_is_not_taken_back(tmp_path, capsys, monkeypatch, few):
    """The late process read the checkpoint before the other one finished, and got the lock after that."""
    with pytest.raises(Crash):
        session(tmp_path / "run", small(), (1, 1))
    late = Run.open(tmp_path / "run")
    saved = late.newest()
    session(tmp_path / "run", small())
    end = end_of(tmp_path / "run")
    with pytest.raises(BlockingIOError, match="another process has just trained in .*: --resume it again"):
        train(late, saved.model, *loaders(small()), saved=saved, progress=False)
    assert alike(end_of(tmp_path / "run"), end)
    again = late.newest()
    train(late, again.model, *loaders(small()), saved=again, progress=False)  # it has looked again
    assert alike(end_of(tmp_path / "run"), end)
