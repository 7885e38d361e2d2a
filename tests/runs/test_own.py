"""Training on one's own data by the command line, and predictions from what it leaves."""

import json
import re
import shutil

import numpy as np
import pytest

from minispike.files.checkpoint import load_all
from minispike.runs.cli import main
from minispike.runs.folder import Run
from minispike.runs.own import batches_for, saved_of

from ..data_utils.own.test_arrays import images, write
from ..data_utils.own.test_pictures import picture, zoo
from ..data_utils.own.test_recordings import hands, record

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
    description = json.loads((trained / "run" / "data.json").read_text())
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
    assert "holds no class names: it was not trained on data of your own" in capsys.readouterr().err
    (tmp_path / "no.png").write_bytes(b"")
    assert main(["predict", str(trained / "run"), str(tmp_path / "no.png")]) == 1
    assert "no.png" in capsys.readouterr().err


def test_a_data_set_that_is_neither_name_nor_folder_says_so(tmp_path, capsys):
    assert main(["train", "--data", "digitz", "--out", str(tmp_path / "run")]) == 1
    assert (
        "no data set and no file or folder 'digitz'; there are digits, pairs, fashion-mnist"
        in capsys.readouterr().err
    )


# ---------------------------------------------------------------- arrays


@pytest.fixture(scope="module")
def on_arrays(tmp_path_factory):
    """An .npz of images, and a run on it."""
    folder = tmp_path_factory.mktemp("arrays")
    write(folder / "set.npz")
    assert main(["train", "--data", str(folder / "set.npz"), *SMALL, "--out", str(folder / "run")]) == 0
    return folder


def test_arrays_are_trained_on_evaluated_and_predicted(on_arrays, capsys, tmp_path):
    run = Run.open(on_arrays / "run")
    assert run.recipe.data == str((on_arrays / "set.npz").resolve()) and run.recipe.in_channels == 1
    assert main(["evaluate", str(on_arrays / "run")]) == 0
    out = capsys.readouterr().out
    assert "16 images to train on, 4 to test on, 2 classes, 12×12, channels: 1; the largest" in out
    wrong = [line for line in out.splitlines() if line.startswith("  x[")]
    assert f"accuracy {(4 - len(wrong)) / 4:.2%}" in out and "to the last bit" in out
    file = shutil.copy(on_arrays / "run" / "checkpoint.safetensors", tmp_path / "model.safetensors")
    np.savez(tmp_path / "other.npz", x=images(3))
    assert main(["predict", str(file), str(tmp_path / "other.npz"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["file"] for each in found] == [f"{tmp_path / 'other.npz'}[{i}]" for i in range(3)]
    assert all(set(each["classes"]) == {"cat", "dog"} for each in found)


def test_arrays_that_changed_are_named(on_arrays, capsys, tmp_path):
    x = images()
    x[3, 0, 0] += 1
    write(tmp_path / "moved.npz", x)
    for command in (["evaluate"], ["train", "--resume"]):
        assert main([*command, str(on_arrays / "run"), "--root", str(tmp_path / "moved.npz")]) == 1
        assert "moved.npz: other images than the run began with; changed: x[3]" in capsys.readouterr().err
    assert main(["evaluate", str(on_arrays / "run"), "--root", str(tmp_path / "gone.npz")]) == 1
    assert "gone.npz, the run's data: --root says where it is now" in capsys.readouterr().err


# ---------------------------------------------------------------- event recordings


@pytest.fixture(scope="module")
def on_events(tmp_path_factory):
    """A folder of recordings with times in seconds, and a run on it."""
    folder = tmp_path_factory.mktemp("events")
    hands(folder / "hands", seconds=True)
    more = ["--T", "2", "--time-unit", "s", "--img-size", "16", "--out", str(folder / "run")]
    assert main(["train", "--data", str(folder / "hands"), *SMALL, *more]) == 0
    return folder


def test_recordings_are_trained_on_evaluated_and_predicted(on_events, capsys, tmp_path):
    recipe = Run.open(on_events / "run").recipe
    assert (recipe.T, recipe.img_size, recipe.in_channels, recipe.time_unit) == (2, 16, 2, "s")
    kept = load_all(on_events / "run" / "checkpoint.safetensors").training["data"]
    assert (kept["T"], kept["unit"], kept["sensor"], kept["classes"]) == (2, "s", [20, 30], ["left", "right"])
    assert main(["evaluate", str(on_events / "run")]) == 0
    out = capsys.readouterr().out
    assert "8 recordings to train on, 2 to test on, 2 classes, 2 frames of 16×16 cells of 2×2 pixels" in out
    assert "true \\ predicted" in out and "to the last bit" in out
    file = shutil.copy(on_events / "run" / "checkpoint.safetensors", tmp_path / "model.safetensors")
    one = str(record(tmp_path / "one.npz", seconds=True, seed=0))
    assert main(["predict", str(file), one, str(on_events / "hands" / "left"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == 6 and found[0]["file"] == one and found[0]["classes"] == found[1]["classes"]
    assert main(["predict", str(file), str(record(tmp_path / "us.npz")), str(tmp_path / "none")]) == 1
    assert "us.npz: t holds integers, which are µs" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["predict", str(file), str(tmp_path / "empty")]) == 1
    assert "no recording in" in capsys.readouterr().err


def test_recordings_that_changed_are_named(on_events, capsys, tmp_path):
    moved = shutil.copytree(on_events / "hands", tmp_path / "moved")
    record(moved / "left" / "3.npz", seconds=True, seed=99)
    for command in (["evaluate"], ["train", "--resume"]):
        assert main([*command, str(on_events / "run"), "--root", str(moved)]) == 1
        assert "other recordings than the run began with; changed: left/3.npz" in capsys.readouterr().err


def test_options_that_recordings_do_not_have_are_refused(on_events, capsys, tmp_path):
    start = ["train", "--data", str(on_events / "hands"), "--out", str(tmp_path / "run")]
    for more, message in (
        (["--time-unit", "s", "--shift", "0.5"], "event frames have their own changes, and no shift"),
        (["--time-unit", "s", "--T", "0", "--depth", "-1"], "depth must lie in 0"),
        (["--time-unit", "s", "--in-channels", "1"], "in_channels is 1, but"),
        (["--time-unit", "s", "--sensor", "34"], "sensor must be rows x columns, such as 260x346, got '34'"),
        (["--time-unit", "s", "--sensor", "9x9"], "10 unreadable recordings"),
        (["--time-unit", "h"], "unit must be 's', 'ms' or 'us', got 'h'"),
        ([], "--time-unit tells the unit of float times"),
    ):
        assert main([*start, *more]) == 1
        assert message in capsys.readouterr().err and not (tmp_path / "run").exists()
    assert main(["pretrain", *start[1:], "--time-unit", "s"]) == 1
    assert "holds event recordings, and pre-training takes images" in capsys.readouterr().err


# ---------------------------------------------------------------- pre-training


@pytest.mark.parametrize("kind", ["pictures", "no classes", "arrays"])
def test_pretraining_needs_no_labels_and_training_begins_with_it(tmp_path, capsys, kind):
    data = tmp_path / "data"
    if kind == "arrays":
        data = write(tmp_path / "data.npz")
    else:
        zoo(data if kind == "pictures" else tmp_path / "labelled", n=6)
    if kind == "no classes":
        for i, path in enumerate(sorted((tmp_path / "labelled").rglob("*.png"))):
            data.mkdir(exist_ok=True)
            shutil.copy(path, data / f"{i}.png")
    small = [*SMALL[:6], "--embed-dim", "16", "--depth", "1", "--num-heads", "2"]
    assert main(["pretrain", "--data", str(data), *small, "--out", str(tmp_path / "p")]) == 0
    assert "to train on" in capsys.readouterr().out
    assert main(["predict", str(tmp_path / "p"), "x.png"]) == 1
    labelled = tmp_path / "labelled" if kind == "no classes" else data
    start = ["train", "--data", str(labelled), "--init", str(tmp_path / "p"), "--epochs", "1", "--T", "1"]
    assert main([*start, "--out", str(tmp_path / "f")]) == 0
    one, other = (Run.open(tmp_path / name) for name in "pf")
    assert other.recipe.model == "spikformer_v2_2_64_fashion" and other.recipe.embed_dim == 16
    if kind != "no classes":  # no test sample was seen in pre-training
        tests = [json.loads((run.folder / "data.json").read_text())["test"] for run in (one, other)]
        assert tests[0] == tests[1]
    assert main(["train", "--data", str(labelled), "--out", str(tmp_path / "p2"), "--init", "none"]) == 1
    assert main(["pretrain", "--resume", str(tmp_path / "p")]) == 0


# ---------------------------------------------------------------- info, compare and ~


def input_of(arguments, capsys) -> str:
    assert main(["info", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)["input"]


def test_info_counts_with_any_data(trained, on_arrays, on_events, capsys):
    assert input_of([str(trained / "run")], capsys) == f"4 real test images ({trained / 'pictures'})"
    model = str(on_events / "run" / "checkpoint.safetensors")
    assert "2 real test images" in input_of([model, "--data", str(on_events / "hands")], capsys)
    assert "4 real test images" in input_of([str(on_arrays / "run")], capsys)
    for name, data, kind in (
        ("spikformer_2_64_fashion", on_arrays / "set.npz", "4 real test images"),
        ("spikformer_2_64_fashion_dvs", on_events / "hands", "time-unit"),
        ("spikformer_1_64_digits", on_arrays / "none", "no data set and no file or folder"),
    ):
        code = main(["info", name, "--data", str(data)])
        out, err = capsys.readouterr()
        assert kind in out + err and code == ("real" not in kind)


def test_info_refuses_a_root_that_changes_nothing(on_arrays, capsys):
    for more in ([], ["--data", str(on_arrays / "set.npz")]):
        assert main(["info", "spikformer_2_64_fashion", *more, "--root", "x"]) == 1
        assert "--root goes with the name of a data set, or with a run" in capsys.readouterr().err
    moved = ["--root", str(on_arrays / "none")]
    assert main(["info", str(on_arrays / "run"), *moved]) == 1
    assert "--root says where it is now" in capsys.readouterr().err


def test_a_damaged_description_is_named(on_arrays, tmp_path, capsys):
    run = shutil.copytree(on_arrays / "run", tmp_path / "run")
    for text in ("{", "[]", '{"kind": "songs"}', '{"kind": "arrays", "a": 1}'):
        (run / "data.json").write_text(text)
        assert main(["evaluate", str(run)]) == 1
        assert "data.json: not as it was written" in capsys.readouterr().err


def test_info_prepares_images_as_the_model_was_trained(trained, tmp_path):
    """Not by the mean and deviation of the folder that info is given."""
    other = zoo(tmp_path / "other", n=4, colours=((250, 250, 250), (240, 250, 250)))
    model = Run.open(trained / "run").newest().model
    test = batches_for(model, str(trained / "run"), str(other))
    kept = saved_of(str(trained / "run"))[1]
    with_folder = batches_for(model, "spikformer_2_64_fashion", str(other))
    expected = kept.prepare(test.source[[0]])
    np.testing.assert_array_equal(test.prepared([0])[0], expected)
    assert abs(with_folder.prepared([0])[0] - expected).max() > 0.1


def test_runs_on_own_data_are_compared(trained, on_arrays, capsys):
    assert main(["compare", str(trained / "run"), str(on_arrays / "run")]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_a_tilde_is_the_home_folder_everywhere(trained, on_arrays, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HOME", str(on_arrays))
    assert main(["evaluate", str(on_arrays / "run"), "--root", "~/set.npz"]) == 0
    assert main(["predict", str(on_arrays / "run"), "~/set.npz"]) == 0
    assert main(["train", "--data", "~/set.npz", *SMALL, "--out", str(tmp_path / "run")]) == 0
    assert Run.open(tmp_path / "run").recipe.data == str((on_arrays / "set.npz").resolve())


@pytest.mark.parametrize(
    "text, told",
    [("{", "Expecting property name"), ("[]", "has the kind"), ('{"kind": "pictures"}', "no good channels"),
     ('{"kind": "arrays", "kind": "pictures"}', "two entries of one name")],
)  # fmt: skip
def test_a_damaged_description_is_refused_by_the_name_of_its_file(trained, tmp_path, text, told, capsys):
    shutil.copytree(trained / "run", tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(text)
    assert main(["evaluate", str(tmp_path / "run")]) == 1
    assert re.search(f"data.json: not as it was written .*{told}", capsys.readouterr().err)
