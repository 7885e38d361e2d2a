"""A run interrupted anywhere, by a crash, a kill or a signal, ends bit for bit as if it never stopped."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from data_utils.loader import Loader
from minispike.models import SpikingTransformer
from minispike.optim import AdamW
from minispike.runs import session as trainer
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.session import Stop, build, train
from minispike.train import Progress

from .common import COMMAND, EPOCHS, STEPS, Crash, alike, end_of, loaders, session, small

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
    """T is 1 in the first epoch and 3 in the second, in tests too, wherever the run was interrupted."""
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


@pytest.mark.slow
def test_with_more_threads_as_well(tmp_path):
    session(tmp_path / "whole", small(threads=2))
    with pytest.raises(Crash):
        session(tmp_path / "run", small(threads=2), (1, 1))
    session(tmp_path / "run", small(threads=2))
    assert alike(end_of(tmp_path / "run"), end_of(tmp_path / "whole"))


@pytest.mark.parametrize("what", ["moments", "step", "sums", "masks"])
def test_what_is_forgotten_shows(tmp_path, whole, monkeypatch, what):
    """Negative control: each part of a checkpoint is needed."""
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


# ---------------------------------------------------------------- killed


def start(*arguments):
    command = [sys.executable, "-m", "minispike", "train", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def steps_of(run: Run) -> int:
    saved = run.newest()
    return saved.training["progress"]["step"] if saved else 0


def inode(path):
    """Return the number of the file that has this name, or None in the instant when there is none."""
    try:
        return path.stat().st_ino
    except FileNotFoundError:
        return None


@pytest.mark.slow
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


# ---------------------------------------------------------------- stopped by a signal


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


def test_a_second_signal_acts_at_once():
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job ignores SIGINT
    try:
        with trainer.Signals() as signals:
            os.kill(os.getpid(), signal.SIGINT)
            assert signals.number == signal.SIGINT
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
