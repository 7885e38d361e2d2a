"""Training on a folder of one's own pictures by the command line, and predictions from what it leaves."""

import json
import shutil

import pytest

from minispike.files.checkpoint import load_all
from minispike.runs.cli import main
from minispike.runs.folder import Run

from ..data_utils.images.test_own import picture, zoo

SMALL = [
    "--epochs",
    "2",
    "--T",
    "1",
    "--threads",
    "1",
    "--embed-dim",
    "16",
    "--depth",
    "1",
    "--num-heads",
    "2",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of pictures, and a run on it."""
    folder = tmp_path_factory.mktemp("own")
    zoo(folder / "pictures", n=10)
    assert main(["train", "--data", str(folder / "pictures"), *SMALL, "--out", str(folder / "run")]) == 0
    return folder


@pytest.fixture
def copy(trained, tmp_path):
    """A run of its own, on the same pictures."""
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_run_knows_its_pictures(trained, capsys):
    run = Run.open(trained / "run")
    assert run.recipe.data == str((trained / "pictures").resolve())
    assert (run.recipe.img_size, run.recipe.in_channels) == (12, 3)
    description = json.loads((trained / "run" / "pictures.json").read_text())
    assert description["classes"] == ["cat", "dog"] and len(description["train"]) == 16
    kept = load_all(trained / "run" / "checkpoint.safetensors").training["data"]
    assert kept["classes"] == ["cat", "dog"] and kept["size"] == 12 and not kept["train"]
    assert Run.open(trained / "run").newest().model.blocks[0].mixer.num_heads == 2


def test_training_says_what_it_trains_on(tmp_path, capsys):
    zoo(tmp_path / "p", n=6)
    (tmp_path / "p" / "cat" / "bad.png").write_bytes(b"")
    command = ["train", "--data", str(tmp_path / "p"), *SMALL, "--out", str(tmp_path / "run")]
    assert main(command) == 1
    assert "1 unreadable pictures: cat/bad.png" in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main([*command, "--skip-unreadable", "1"]) == 0
    told = capsys.readouterr().out
    assert "10 pictures to train on, 2 to test on, 2 classes, 12×12 colour" in told
    assert "the largest class has 50.0% of the test pictures; 1 unreadable ones left out" in told


def test_evaluation_tells_what_is_confused(trained, capsys):
    assert main(["evaluate", str(trained / "run")]) == 0
    out = capsys.readouterr().out.splitlines()
    head = next(i for i, line in enumerate(out) if line.startswith("true \\ predicted"))
    rows = [[int(n) for n in line.split()[1:]] for line in out[head + 1 : head + 3]]
    assert [sum(row) for row in rows] == [2, 2] and out[head].split()[-2:] == ["cat", "dog"]
    wrong = rows[0][1] + rows[1][0]
    listed = [line for line in out[head + 3 :] if line.startswith("  ")]
    assert len(listed) == wrong and f"accuracy {(4 - wrong) / 4:.2%}" in out[0]
    assert out[-1] == "metrics.csv has the same, to the last bit"


def test_pictures_that_changed_are_named(trained, copy, capsys, tmp_path):
    moved = shutil.copytree(trained / "pictures", tmp_path / "moved")
    picture(moved / "cat" / "3.png", seed=77)
    (moved / "dog" / "4.png").unlink()
    for command in (["evaluate", str(copy)], ["train", "--resume", str(copy)]):
        assert main([*command, "--root", str(moved)]) == 1
        assert "gone: dog/4.png; changed: cat/3.png" in capsys.readouterr().err
    picture(moved / "cat" / "3.png", colour=(200, 30, 60), seed=3)
    picture(moved / "dog" / "4.png", colour=(20, 90, 200), seed=4)
    assert main(["evaluate", str(copy), "--root", str(moved)]) == 0


def test_predictions_need_neither_run_nor_data(trained, tmp_path, capsys):
    file = shutil.copy(trained / "run" / "checkpoint.safetensors", tmp_path / "model.safetensors")
    one = str(picture(tmp_path / "some" / "a.png", side=(30, 17)))
    assert main(["predict", str(file), one, str(trained / "pictures" / "dog")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11 and lines[0].startswith(one) and "cat " in lines[0] and "dog " in lines[0]
    assert main(["predict", str(trained / "run"), one, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["file"] == one and set(found["classes"]) == {"cat", "dog"}
    shares = list(found["classes"].values())
    assert abs(sum(shares) - 1) < 1e-3 and shares == sorted(shares, reverse=True)


def test_predict_says_what_it_cannot_use(tmp_path, capsys, trained):
    assert main(["train", "--data", "digits", "--epochs", "1", "--T", "1", "--out", str(tmp_path / "d")]) == 0
    assert main(["predict", str(tmp_path / "d"), "x.png"]) == 1
    assert "holds no class names: it was not trained on a folder of pictures" in capsys.readouterr().err
    (tmp_path / "no.png").write_bytes(b"")
    assert main(["predict", str(trained / "run"), str(tmp_path / "no.png")]) == 1
    assert "no.png" in capsys.readouterr().err


def test_a_data_set_that_is_neither_name_nor_folder_says_so(tmp_path, capsys):
    assert main(["train", "--data", "digitz", "--out", str(tmp_path / "run")]) == 1
    assert "no data set and no folder 'digitz'; there are digits, fashion-mnist" in capsys.readouterr().err
