"""The command show: one figure of one sample, for a run, a model's file, and one's own pictures."""

from pathlib import Path

import numpy as np
import pytest

from data_utils.images.digits import load_digits
from minispike import create_model
from minispike.files.checkpoint import load, save
from minispike.measure import viz
from minispike.runs import cli, show
from minispike.runs.cli import main

from ..data_utils.own.test_pictures import picture, zoo
from .common import COMMAND
from .test_own import SMALL

WEIGHTS = str(Path(__file__).parents[2] / "weights" / "spikformer_1_64_digits.safetensors")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of one epoch on digits, by a model without Q and K."""
    folder = tmp_path_factory.mktemp("shown") / "run"
    assert main(["train", *COMMAND, "--model", "attention_free_haar_1_64_digits", "--out", str(folder)]) == 0
    return folder


def test_a_models_file_and_a_sample_of_a_known_set(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["show", WEIGHTS, "digits:17"]) == 0
    classes, block, rates, figure = capsys.readouterr().out.splitlines()
    images, labels = load_digits()[1]
    assert classes.startswith(f"digits, test sample 17: {labels[17]} ") and f"(label {labels[17]})" in classes
    assert block.startswith("block 0: SSA: Q Kᵀ counts") and figure == "figure: show.png"
    model = load(WEIGHTS)
    found = viz.firing_rates(model, images[17:18].astype(model.head.weight.dtype))
    assert f"q {found['blocks.0.mixer.q.neuron']:.1%}" in rates and rates.startswith("firing rates: ")
    assert (tmp_path / "show.png").read_bytes()[:4] == b"\x89PNG"


def test_a_run_and_the_number_of_a_test_sample(run, tmp_path, capsys):
    assert main(["show", str(run), "3", "--figure", str(tmp_path / "x.pdf")]) == 0
    out = capsys.readouterr().out
    assert "digits, test sample 3: " in out and "haar has no Q and K: it mixes every image alike" in out
    assert (tmp_path / "x.pdf").read_bytes()[:4] == b"%PDF"
    newest = str(run / "checkpoint.safetensors")
    assert main(["show", newest, "3", "--figure", str(tmp_path / "x.png")]) == 0
    assert capsys.readouterr().out == out.replace("x.pdf", "x.png")


def test_ones_own_picture(tmp_path, capsys):
    zoo(tmp_path / "pictures", n=6)
    run, file = tmp_path / "run", tmp_path / "new.png"
    assert main(["train", "--data", str(tmp_path / "pictures"), *SMALL, "--out", str(run)]) == 0
    picture(file, (30, 20), (200, 40, 40))
    capsys.readouterr()
    assert main(["show", str(run), str(file), "--head", "1", "--figure", str(tmp_path / "s.png")]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{file}: ") and "cat" in out and "dog" in out and "head 1" in out
    sample = cli.find_sample(str(run), str(file))
    assert sample.label is None and sample.picture.shape == (12, 12, 3) and sample.classes == ["cat", "dog"]
    np.testing.assert_allclose(sample.picture[6, 6], np.array([200, 40, 40]) / 255, atol=0.06)
    assert main(["show", str(run), "3"]) == 1
    assert "was trained on your own" in capsys.readouterr().err


def test_events_are_drawn_by_polarity():
    frames = np.zeros((3, 1, 4, 4, 2))
    frames[:, 0, 1, 2, 0], frames[0, 0, 3, 0, 1] = 1, 3
    image = show.picture_of(frames)
    orange, blue = image[1, 2], image[3, 0]
    assert orange[0] > orange[1] > orange[2] and blue[0] < blue[1] < blue[2]
    assert (image[0] == 1).all() and 0 <= image.min()
    assert np.array_equal(show.picture_of(np.ones((1, 4, 4, 1))), np.ones((4, 4)))
    colour = show.picture_of(np.arange(48.0).reshape(1, 4, 4, 3))
    assert (colour.min(), colour.max()) == (0, 1)


def test_frames_of_events_are_shown(tmp_path, capsys, rng):
    model = create_model("spikformer_2_256_cifar10dvs", embed_dim=16, num_heads=2, img_size=32, T=3)
    x = rng.poisson(0.3, (3, 1, 32, 32, 2)).astype("float32")
    sample = show.Sample(model, x, show.picture_of(x), "noise", [str(i) for i in range(10)])
    out = show.show(sample, 1, None, str(tmp_path / "x.png"))
    assert "block 1: SSA" in out and "(label" not in out and (tmp_path / "x.png").exists()


@pytest.mark.parametrize(
    "model, sample, more, said",
    [
        (WEIGHTS, "360", [], "does not say what it was trained on: name the data, as digits:360"),
        (WEIGHTS, "digits:360", [], "no test sample 360: digits has 360, counted from 0"),
        (WEIGHTS, "digits:-1", [], "digits:-1 is neither a file nor the number of a test sample"),
        (WEIGHTS, "cat.jpg", [], "cat.jpg is neither a file nor the number of a test sample"),
        (WEIGHTS, "nothing:3", [], "nothing"),
        (WEIGHTS, "digits:3", ["--block", "1"], "no block 1: the model has 1, counted from 0"),
        (WEIGHTS, "digits:3", ["--head", "9"], "no head 9: the mixer of block 0 has"),
        (WEIGHTS, __file__, [], "it was not trained on data of your own"),
        ("nowhere", "3", [], "nowhere"),
    ],
)
def test_what_cannot_be_shown_is_refused(model, sample, more, said, tmp_path, capsys):
    figure = tmp_path / "x.png"
    assert main(["show", model, sample, *more, "--figure", str(figure)]) == 1
    assert said in capsys.readouterr().err and not figure.exists()


def test_a_pre_trained_encoder_and_a_place_that_is_not_there_are_refused(tmp_path, capsys):
    pretraining = ["--data", "digits", "--T", "1", "--epochs", "1", "--threads", "1", "--batch-size", "256"]
    assert main(["pretrain", *pretraining, "--out", str(tmp_path / "p")]) == 0
    assert main(["show", str(tmp_path / "p"), "3"]) == 1
    assert "a MaskedAutoencoder has no classes to show" in capsys.readouterr().err
    assert main(["show", WEIGHTS, "digits:3", "--figure", str(tmp_path / "no" / "x.png")]) == 1
    assert str(tmp_path / "no") in capsys.readouterr().err


def test_a_number_that_is_also_a_file_is_the_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "3.png")
    (tmp_path / "3.png").rename("3")
    save(create_model("spikformer_1_64_digits"), "m.safetensors")
    assert main(["show", "m.safetensors", "3"]) == 1
    assert "was not trained on data of your own" in capsys.readouterr().err
