"""The command line: train, pretrain, evaluate and import, and what they refuse."""

import os
import re
import signal
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from data_utils.loader import Loader
from minispike import backend, create_model
from minispike.files.checkpoint import load, load_all, save
from minispike.optim import AdamW
from minispike.runs import cli as command
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.recipes import Recipe
from minispike.runs.session import Stop

from .common import COMMAND, Crash, alike, end_of, loaders, session, small

# ---------------------------------------------------------------- train and evaluate


def test_train_and_evaluate(tmp_path, capsys, few, monkeypatch):
    folder = tmp_path / "run"
    given = ["--epochs", "2", "--lr", "0.002", "--mask-ratio", "0.4"]
    assert main(["train", *COMMAND, "--out", str(folder), *given]) == 0
    out, told = capsys.readouterr()
    assert told == "note: --mask-ratio changes nothing here: it needs the command pretrain\n"
    out = out.splitlines()
    assert out[0].endswith("parameters, T = 1, 1 threads")
    assert out[1] == "digits: 5 steps of 32 samples per epoch; epochs: 2"
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
    assert main(["evaluate", str(folder)]) == 1
    told = capsys.readouterr().err
    assert "metrics.csv has" in told and "50.00%" in told and "rounding does not explain that" in told
    noted = rows[1]["test_loss"]
    (folder / "metrics.csv").write_text(metrics.replace(repr(noted), repr(noted + 1e-3)))
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"device": "cpu"', '"device": "cuda"'))
    monkeypatch.setattr(Run, "read", lambda self, path: load_all(path))  # as if it had been trained there
    assert main(["evaluate", str(folder), "--device", "cpu"]) == 0
    assert "-1.0e-03 in the loss, +0.00 points in the accuracy, as rounding" in capsys.readouterr().out


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


def test_event_frames_train_and_go_on(tmp_path, monkeypatch, capsys):
    """A Loader of random frames [T, B, H, W, 2] stands in for the event data sets."""

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


@pytest.mark.parametrize("epochs, T", [(1, 2), (2, 1)])
def test_a_run_is_evaluated_with_the_time_steps_of_its_last_epoch(
    tmp_path, few, capsys, monkeypatch, epochs, T
):
    write = Run.save

    def cut_off(self, model, optimizer, at, generators):
        write(self, model, optimizer, at, generators)
        if at.epoch == 1:
            self.write_tables(at.history)
            raise KeyboardInterrupt

    monkeypatch.setattr(Run, "save", cut_off)
    steps = ["--T", "2", "--epochs", str(epochs), "--single-step", "0.9"]
    command = ["train", "--recipe", "digits", "--out", str(tmp_path / "run"), *steps]
    assert main(command) == 130
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    told = capsys.readouterr().out
    assert (f"epochs: {epochs}, the first 1 at T = 1" in told) == (T == 1)
    assert f"after epoch 1 of {epochs}, at T = {T}: " in told and "the same, to the last bit" in told


def test_a_run_cut_off_in_its_first_epoch_at_T_is_evaluated_there(tmp_path, few, capsys):
    """The first of two epochs ran at T = 1; a checkpoint within the second is of a model at T = 3."""
    with pytest.raises(Crash):
        session(tmp_path / "run", small(T=3, single_step=0.5), (1, 2))
    assert main(["evaluate", str(tmp_path / "run")]) == 0
    assert "after epoch 1 of 2 and 2 steps, at T = 3: " in capsys.readouterr().out


def test_a_new_root_is_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    data, roots = loaders(small()), []
    monkeypatch.setattr(command, "data_of", lambda recipe, own: roots.append(recipe.root) or (*data, 10))
    assert main(["train", *COMMAND, "--root", "here", "--out", "run"]) == 0
    assert main(["train", "--resume", "run", "--root", "there"]) == 0
    assert main(["evaluate", "run"]) == 0 and "the same, to the last bit" in capsys.readouterr().out
    assert [Path(root).name for root in roots] == ["here", "there", "there"] and Path(roots[2]).is_absolute()


def test_a_relative_root_is_kept_as_an_absolute_one(tmp_path, monkeypatch):
    """A run may be resumed from a different working directory."""
    monkeypatch.chdir(tmp_path)
    data = loaders(small())
    monkeypatch.setattr(command, "data_of", lambda recipe, own: (*data, 10))
    assert main(["train", *COMMAND, "--root", "here", "--out", "run"]) == 0
    assert Run.open("run").recipe.root == str(tmp_path / "here")


def test_a_relative_init_is_kept_as_an_absolute_one_and_the_models_T_is_noted(tmp_path, monkeypatch, few):
    monkeypatch.chdir(tmp_path)
    session("p", small("masked", epochs=1))
    monkeypatch.setattr(command, "train", lambda *_, **options: None)
    model = ["--model", "spikformer_v2_1_64_digits", "--init", "p"]
    assert main(["train", "--data", "digits", *model, "--out", "run"]) == 0
    recipe = Run.open("run").recipe
    assert recipe.init == str(tmp_path / "p") and recipe.T == 4


def test_pretraining_tells_where_its_data_are(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "data_of", lambda recipe, own: (*loaders(small("masked")), 10))
    options = ["--recipe", "digits", "--epochs", "1", "--root", str(tmp_path / "my data")]
    assert main(["pretrain", *options, "--out", str(tmp_path / "run")]) == 0
    assert f"train --data digits --root '{tmp_path / 'my data'}' --model" in capsys.readouterr().out


def test_the_help_names_every_field(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    told = capsys.readouterr().out
    assert all(
        f"--{name.replace('_', '-')} " in told for name in Recipe.__dataclass_fields__ if name != "objective"
    )


def test_an_import_is_saved_before_it_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(command, "load_official", lambda file, model, **_: Unprintable())
    with pytest.raises(Crash):
        main(["import", "x", "--model", "spikformer_1_64_digits", "--out", str(tmp_path / "x.safetensors")])
    assert load(tmp_path / "x.safetensors").num_params() > 0


class Unprintable:
    def __str__(self):
        raise Crash


# ---------------------------------------------------------------- stopped and diverging runs


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
    assert "has done 0 epochs and 3 steps" in out and f"next: python -m minispike evaluate '{folder}'" in out


def test_a_scheduler_is_told_that_its_signal_stopped_the_run(tmp_path, monkeypatch, capsys, few):
    def stopped(*_, **options):
        raise Stop(signal.SIGTERM, "epoch 1, step 2")

    monkeypatch.setattr(command, "train", stopped)
    assert main(["pretrain", "--data", "digits", "--out", str(tmp_path / "p")]) == 143  # 128 + SIGTERM
    assert f"python -m minispike pretrain --resume {tmp_path / 'p'}" in capsys.readouterr().err


def test_a_run_that_diverges_stops_and_keeps_the_last_good_checkpoint(tmp_path, capsys, few):
    code = main(["train", *COMMAND, "--lr", "1e30", "--out", str(tmp_path / "run")])
    message = capsys.readouterr().err
    assert code == 1 and message.startswith("error: training stopped at epoch 1, step")
    assert "NaN or Inf first in " in message and "lower --lr" in message
    saved = Run.open(tmp_path / "run").newest()
    assert 0 < saved.training["progress"]["step"] < 5
    assert all(np.isfinite(array).all() for array in saved.model.state_dict().values())


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "give either --out RUN, for a new run, or --resume RUN"),
        (["--out", "x"], "give --recipe or --data: digits, pairs, fashion-mnist"),
        (["--out", "x", "--resume", "y"], "give either --out"),
        (["--resume", "nowhere"], "no run in nowhere"),
        (
            ["--resume", "y", "--lr", "1", "--epochs", "3"],
            "keeps its recipe: leave out epochs, lr",
        ),
        (["--out", "x", "--data", "digits", "--epochs", "0"], "epochs must lie in 1 … inf, got 0"),
        (
            ["--out", "x", "--data", "letters"],
            "no data set and no file or folder 'letters'; there are digits",
        ),
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
        (["--out", __file__, "--data", "digits"], "test_cli.py is a file: a run needs a folder"),
    ],
)
def test_what_makes_no_sense_is_refused_before_a_folder_is_made(
    tmp_path, monkeypatch, capsys, arguments, message
):
    monkeypatch.chdir(tmp_path)
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and not list(tmp_path.iterdir())


def test_a_device_that_is_missing_is_found_before_a_folder_is_made(tmp_path, monkeypatch, capsys, few):
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(backend.DEVICES, "cuda", raising=False)
    assert main(["train", *COMMAND, "--device", "cuda", "--out", str(tmp_path / "run")]) == 1
    assert "needs CuPy" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_an_encoder_of_another_shape_is_refused_in_words(tmp_path, capsys, few):
    save(create_model("spikformer_v2_1_64_digits"), tmp_path / "v2.safetensors")
    arguments = ["--data", "digits", "--init", str(tmp_path / "v2.safetensors"), "--out", str(tmp_path / "x")]
    assert main(["train", *arguments]) == 1
    error = capsys.readouterr().err
    assert "v2.safetensors does not fit spikformer_1_64_digits: choose the --model that it was" in error


def test_a_run_without_a_checkpoint_is_nothing_to_begin_with(tmp_path, capsys, few):
    Run.create(tmp_path / "p", small("masked"))
    arguments = ["--data", "digits", "--init", str(tmp_path / "p"), "--out", str(tmp_path / "run")]
    assert main(["train", *arguments]) == 1
    assert f"the run {tmp_path / 'p'} has no checkpoint yet" in capsys.readouterr().err


def test_a_run_is_gone_on_with_by_the_command_that_began_it(tmp_path, capsys):
    Run.create(tmp_path / "p", small("masked"))
    Run.create(tmp_path / "t", small())
    for wrong, folder, other in (("train", "p", "pretrain"), ("pretrain", "t", "train")):
        assert main([wrong, "--resume", str(tmp_path / folder)]) == 1
        assert f"was begun by {other}: use {other} --resume {tmp_path / folder}" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["checkpoint", "checkpoint.previous"])
def test_a_checkpoint_without_its_recipe_is_not_written_over(tmp_path, capsys, name):
    """Otherwise a kill before the new run's first checkpoint would leave it with another run's."""
    (tmp_path / f"{name}.safetensors").write_text("")
    assert main(["train", "--data", "digits", "--out", str(tmp_path)]) == 1
    assert f"{tmp_path} holds a run" in capsys.readouterr().err


def test_a_folder_that_holds_a_run_is_not_written_over(tmp_path, capsys, few):
    assert main(["train", *COMMAND, "--out", str(tmp_path / "run")]) == 0
    assert main(["train", "--data", "digits", "--out", str(tmp_path / "run")]) == 1
    assert "holds a run: go on with it by --resume" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_not_evaluated(tmp_path, capsys):
    Run.create(tmp_path / "run", small())
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert "has no checkpoint yet" in capsys.readouterr().err


def test_a_file_is_not_evaluated_as_a_run(tmp_path, capsys):
    save(create_model("spikformer_1_64_digits"), tmp_path / "m.safetensors")
    assert main(["evaluate", str(tmp_path / "m.safetensors")]) == 1
    assert (
        "is no run, which is a folder that train makes, but a model's file: info" in capsys.readouterr().err
    )


def test_options_are_not_abbreviated(tmp_path, capsys):
    """--ep could mean another option in the next version."""
    for arguments in (["train", "--data", "digits", "--ep", "1", "--out", "x"], ["info", "x", "--js"]):
        with pytest.raises(SystemExit):
            main(arguments)
        assert "unrecognized arguments" in capsys.readouterr().err


def test_a_batch_larger_than_the_data_is_reduced(tmp_path, capsys, few):
    command = [*COMMAND, "--batch-size", "500", "--out", str(tmp_path / "run")]
    assert main(["train", *command]) == 0
    told = capsys.readouterr()
    assert "note: --batch-size 500 is reduced to the 160 training samples" in told.err
    assert Run.open(tmp_path / "run").recipe.batch_size == 160 and "1 steps of 160 samples" in told.out


def test_a_step_that_does_not_fit_in_memory_is_told_before_it_runs(tmp_path, capsys, few, monkeypatch):
    monkeypatch.setattr("minispike.runs.session.free_bytes", lambda: 10_000)
    assert main(["train", *COMMAND, "--out", str(tmp_path / "run")]) == 1
    assert "a step of 32 samples needs about" in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_a_name_that_is_like_none_says_where_the_names_are(capsys):
    assert main(["info", "nomodel"]) == 1
    assert "no model 'nomodel'; minispike.list_models() names all" in capsys.readouterr().err


def thing(tmp_path, name):
    """Make what people give by mistake, and return its path."""
    path = tmp_path / name
    if name == "pictures":
        (path / "cat").mkdir(parents=True)
    elif name == "x.tar":
        with tarfile.open(path, "w") as archive:
            archive.addfile(tarfile.TarInfo("x"))
    elif name == "model.safetensors":
        save(create_model("spikformer_1_64_digits"), path)
    elif name != "missing":
        path.write_bytes({"x.txt": b"hello", "x.png": b"\x89PNG\r\n", "nothing": b""}[name])
    return str(path)


MISTAKES = {  # for a command that takes a run, and for one that takes a model; None: it is right
    "pictures": ("there is no .*config.json; the folder holds cat", "the folder holds cat"),
    "x.tar": ("is no run, .* but a tar archive: unpack it", "a tar archive: unpack it"),
    "x.txt": ("is no run, .* but a text that begins with 'hello'", "a text that begins with 'hello'"),
    "x.png": ("is no run, .* but a picture, of the kind PNG", "a picture, of the kind PNG"),
    "nothing": ("is no run, .* but an empty one", "an empty one: download or copy it again"),
    "model.safetensors": ("but a model's file: info .* counts what it does", None),
    "missing": ("no run in .*missing: there is no such folder", "no model '.*missing'|no file .*missing"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_each_command_says_what_it_was_given_instead(tmp_path, capsys, name):
    given, (of_run, of_model) = thing(tmp_path, name), MISTAKES[name]
    commands = {"evaluate": of_run, "compare": of_run, "train --resume": of_run, "info": of_model}
    commands |= {"profile --batch 1": of_model, "predict": of_model or "holds no class names"}
    for line, told in commands.items():
        more = [given] if line == "predict" else []
        assert main([*line.split(), given, *more]) == (1 if told else 0), line
        error = capsys.readouterr().err
        assert not told or (error.startswith("error: ") and re.search(told, error)), (line, error)
