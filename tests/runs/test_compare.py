"""Runs next to each other: the table and the figure say what the runs' own files say."""

import csv

import pytest

from minispike.runs.cli import main
from minispike.runs.folder import Run

from .common import COMMAND, small
from .conftest import see_few_digits


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with pytest.MonkeyPatch.context() as patch:
        see_few_digits(patch)
        for name, more in (
            ("ssa", []),
            ("fourier", ["--model", "attention_free_fft1d_1_64_digits", "--T", "2"]),
        ):
            assert main(["train", *COMMAND, "--epochs", "2", *more, "--out", str(folder / name)]) == 0
    return folder


def rows_of(folder, table):
    return list(csv.DictReader((folder / table).read_text().splitlines()))


def test_two_runs_are_compared(two, capsys, tmp_path):
    figure = tmp_path / "compare.png"
    assert main(["compare", str(two / "ssa"), str(two / "fourier"), "--figure", str(figure)]) == 0
    head, one, other, note = capsys.readouterr().out.splitlines()
    assert head.split("  ")[0] == "run" and note.startswith("firing rate: ")
    for line, name, model, T in (
        (one, "ssa", "spikformer_1_64_digits", "1"),
        (other, "fourier", "attention_free_fft1d_1_64_digits", "2"),
    ):
        cells, last = line.split(), rows_of(two / name, "metrics.csv")[-1]
        assert cells[:4] == [name, model, T, "2"]
        assert cells[4:6] == [f"{float(last['test_loss']):.3f}", f"{float(last['test_accuracy']):.1%}"]
        rates = [
            float(value) for key, value in rows_of(two / name, "rates.csv")[-1].items() if key != "epoch"
        ]
        assert cells[6] == f"{sum(rates) / len(rates):.1%}" and float(cells[7].replace(",", "")) > 0
    assert figure.stat().st_size > 20_000


def test_what_cannot_be_compared_is_refused(two, capsys, tmp_path):
    Run.create(tmp_path / "begun", small())
    assert main(["compare", str(two / "ssa"), str(tmp_path / "begun")]) == 1
    assert f"{tmp_path / 'begun'} has no complete epoch yet" in capsys.readouterr().err
    pretraining = ["--data", "digits", "--T", "1", "--epochs", "1", "--threads", "1"]
    assert main(["pretrain", *pretraining, "--out", str(tmp_path / "p")]) == 0
    assert main(["compare", str(tmp_path / "p")]) == 1
    assert "holds a pre-trained encoder, which has no accuracy to compare" in capsys.readouterr().err


def test_info_and_profile_take_a_run(two, capsys, tmp_path):
    assert main(["info", str(two / "ssa"), "--data", "digits"]) == 0
    assert "360 real test images (digits), T = 1." in capsys.readouterr().out
    assert main(["profile", str(two / "fourier"), "--batch", "2"]) == 0
    Run.create(tmp_path / "begun", small())
    assert main(["info", str(tmp_path / "begun")]) == 1
    assert "has no checkpoint yet" in capsys.readouterr().err
