"""Fashion-DVS from images to files: reproducible, completed after an interruption, and never mixed up."""

import json
import os
import shutil
from zlib import crc32

import numpy as np
import pytest

from data_utils.events import fashion_dvs
from data_utils.events.aedat import read_aedat2, read_aedat3
from data_utils.events.fashion_dvs import CAMERA, CLASSES, make_fashion_dvs, read_settings
from data_utils.events.sets import open_events
from data_utils.events.simulator import simulate
from data_utils.images import mnist

from .recordings import QUICK, TRAINING, contents


def no_links(*_):
    raise OSError("a file system without links")


def test_the_raw_images_are_those_that_are_standardised(source):
    (raw, labels), (test, _) = mnist.read_fashion_mnist(source)
    assert raw.shape == (30, 28, 28) and test.shape == (20, 28, 28) and raw.dtype == "uint8"
    assert np.array_equal(raw.any(2).sum(1), 5 + labels)  # a block is 5 + its label high
    (images, same), _ = mnist.load_fashion_mnist(source)
    inner = images[:, 2:-2, 2:-2, 0].astype("float64")
    np.testing.assert_allclose(inner, (raw / 255 - (raw / 255).mean()) / (raw / 255).std(), atol=1e-6)
    assert np.array_equal(labels, same)


def test_each_recording_is_its_image_seen_with_its_own_random_numbers(source, made):
    """From settings, seed, part and place alone; and so training images train and test images test."""
    camera = {**CAMERA, "step": 10_000, "threshold": 0.4}
    files = sorted(made.rglob("*.aedat"))
    assert len(files) == 30
    for part, (images, labels) in enumerate(mnist.read_fashion_mnist(source)):
        for label, name in enumerate(CLASSES):
            chosen = np.flatnonzero(labels == label)[: 2 - part]  # the first of each class
            found = sorted((made / ("train", "test")[part] / name).iterdir())
            assert [file.name for file in found] == sorted(f"fashion_{name}_{i}.aedat" for i in chosen)
            for i in chosen:
                file = found[0].with_name(f"fashion_{name}_{i}.aedat")
                expected = simulate(images[i] / 255, np.random.default_rng((0, part, i)), **camera)
                assert np.array_equal(read_aedat2(file, (32, 32)), expected) and len(expected) > 300
                for seeds in ((1, part, i), (0, 1 - part, i), (0, part, i + 1)):  # each of them counts
                    other = simulate(images[i] / 255, np.random.default_rng(seeds), **camera)
                    assert not np.array_equal(expected, other)


def test_no_recording_is_in_both_parts(made):
    files = contents(made)
    train = {data for name, data in files.items() if name.startswith("train")}
    test = {data for name, data in files.items() if name.startswith("test")}
    assert len(train) == 20 and len(test) == 10 and not train & test


def test_another_seed_gives_other_recordings(source, made, tmp_path):
    make_fashion_dvs(tmp_path / "set", **QUICK, seed=1, source=source)
    one, other = contents(made), contents(tmp_path / "set")
    assert one.keys() == other.keys() and all(one[name] != other[name] for name in one)


def test_both_formats_hold_the_same_events(source, made, tmp_path):
    root = tmp_path / "set"
    make_fashion_dvs(root, **QUICK, aedat="3.1", source=source)
    for file in made.rglob("*.aedat"):
        twin = read_aedat3(root / file.relative_to(made), (32, 32))
        assert np.array_equal(read_aedat2(file, (32, 32)), twin)
    (one, _), (other, _) = (open_events("fashion-dvs", folder, **TRAINING) for folder in (made, root))
    assert np.array_equal(one(0)[1][0], other(0)[1][0])


@pytest.mark.skipif(not mnist.DEBIAN.is_dir(), reason="Fashion-MNIST is not installed")
@pytest.mark.parametrize("aedat", ["2.0", "3.1"])
def test_fashion_mnist_itself_goes_through_both_formats(tmp_path, aedat):
    make_fashion_dvs(tmp_path, train=10, test=10, aedat=aedat, step=10_000, source=mnist.DEBIAN)
    train, test = open_events("fashion-dvs", tmp_path, T=8, batch_size=10, augment=False)
    read = {"2.0": read_aedat2, "3.1": read_aedat3}[aedat]
    for part, batches in (("train", train(0)), ("test", test)):
        events = [read(file, (32, 32)) for file in (tmp_path / part).rglob("*.aedat")]
        ((frames, labels),) = batches
        assert frames.shape == (8, 10, 32, 32, 2) and sorted(labels) == list(range(10))
        assert frames.sum() == sum(map(len, events)) > 10_000
    images, labels = mnist.read_fashion_mnist(mnist.DEBIAN)[1]
    i = int(np.flatnonzero(labels == 9)[0])  # the first ankle boot
    camera = CAMERA | {"step": 10_000}
    expected = simulate(images[i] / 255, np.random.default_rng((0, 1, i)), **camera)
    boot = tmp_path / "test" / "ankle-boot" / f"fashion_ankle-boot_{i}.aedat"
    assert np.array_equal(read(boot, (32, 32)), expected)


# ---------------------------------------------------------------- a folder of recordings


def test_a_finished_set_is_left_alone_without_its_images(made, tmp_path):
    before = contents(made)
    make_fashion_dvs(made, **QUICK, source=tmp_path / "no such folder")
    assert contents(made) == before


def test_a_making_that_was_interrupted_goes_on_to_the_same_set(source, made, tmp_path, monkeypatch):
    root, written, real = tmp_path / "set", [], fashion_dvs.FORMATS["2.0"][1]

    def failing(path, events):
        if len(written) == 7:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        written.append(path)
        real(path, events)

    monkeypatch.setitem(fashion_dvs.FORMATS, "2.0", (read_aedat2, failing))
    with pytest.raises(KeyboardInterrupt):
        make_fashion_dvs(root, **QUICK, source=source)
    assert len(contents(root)) == 7 == sum(file.is_file() for file in root.rglob("*")) - 1  # nothing by half
    with pytest.raises(
        FileNotFoundError, match="expects 2 recordings of each class in .*'dress': 1"
    ) as caught:
        open_events("fashion-dvs", root, **TRAINING)
    assert "make_fashion_dvs with the same settings completes them" in str(caught.value)
    before = {file: file.stat().st_mtime_ns for file in root.rglob("*.aedat")}
    monkeypatch.setitem(fashion_dvs.FORMATS, "2.0", (read_aedat2, real))
    make_fashion_dvs(root, **QUICK, source=source)
    assert all(file.stat().st_mtime_ns == time for file, time in before.items())  # those were kept
    assert contents(root) == contents(made)


def test_a_set_that_lacks_one_of_each_class_is_not_a_smaller_set(source, made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("frames"))
    for name in CLASSES:
        next((root / "train" / name).iterdir()).unlink()
    with pytest.raises(FileNotFoundError, match="expects 2 recordings of each class"):
        open_events("fashion-dvs", root, **TRAINING)
    make_fashion_dvs(root, **QUICK, source=source)
    assert contents(root) == contents(made)


@pytest.mark.parametrize("links", [True, False])
def test_a_set_is_not_completed_with_other_images(source, made, tmp_path, monkeypatch, links):
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    root, other = tmp_path / "set", tmp_path / "other"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("frames"))
    next((root / "train" / "dress").iterdir()).unlink()
    shutil.copytree(source, other)
    images = bytearray((other / "train-images-idx3-ubyte").read_bytes())
    images[16 + 300] ^= 1  # of the first image
    (other / "train-images-idx3-ubyte").write_bytes(images)
    with pytest.raises(ValueError, match="holds a set of images = "):
        make_fashion_dvs(root, **QUICK, source=other)
    make_fashion_dvs(root, **QUICK, source=source)
    assert contents(root) == contents(made)


def test_one_too_many_does_not_stand_in_for_one_too_few(source, made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("frames"))
    next((root / "train" / "dress").iterdir()).unlink()
    stray = root / "train" / "coat" / "stray.aedat"
    shutil.copy(next((root / "train" / "coat").iterdir()), stray)
    make_fashion_dvs(root, **QUICK, source=source)
    stray.unlink()
    assert contents(root) == contents(made)


@pytest.mark.parametrize("links", [True, False])
def test_what_another_process_has_recorded_meanwhile_stays(source, made, tmp_path, monkeypatch, links):
    """Frames are known by their recording's time: it must not change by a second writer."""
    root, real, times = tmp_path / "set", fashion_dvs.FORMATS["2.0"][1], {}

    def second(path, events):
        real(path, events)
        file = path.with_suffix(".aedat")
        if links and len(times) < 5:  # the other one was faster
            real(file, events)
            os.utime(file, ns=(1, 1))
            times[file] = 1

    if not links:
        monkeypatch.setattr(os, "link", no_links)
    monkeypatch.setitem(fashion_dvs.FORMATS, "2.0", (read_aedat2, second))
    make_fashion_dvs(root, **QUICK, source=source)
    assert contents(root) == contents(made) and not list(root.rglob("*.part*"))
    assert len(times) == 5 * links and all(file.stat().st_mtime_ns == 1 for file in times)


def test_of_two_that_make_different_sets_in_one_folder_one_stops(source, tmp_path, monkeypatch):
    """The other one's settings come after this one has looked, and before it writes its own."""
    root, real = tmp_path / "set", fashion_dvs.simulate

    def meanwhile(image, rng, **camera):
        monkeypatch.setattr(fashion_dvs, "simulate", real)
        make_fashion_dvs(root, **QUICK, seed=1, source=source)
        return real(image, rng, **camera)

    monkeypatch.setattr(fashion_dvs, "simulate", meanwhile)
    with pytest.raises(ValueError, match=r"seed = 1 \(asked for 0\)"):
        make_fashion_dvs(root, **QUICK, source=source)


def test_settings_tell_all_that_the_recordings_depend_on(source, made):
    told = json.loads((made / "settings.json").read_text())
    chosen = []
    for part, (images, labels) in enumerate(mnist.read_fashion_mnist(source)):
        for label in range(10):
            chosen += [images[i] for i in np.flatnonzero(labels == label)[: 2 - part]]
    assert told.pop("images") == f"{crc32(np.array(chosen).tobytes()):08x}"
    assert told == {"train": 20, "test": 10, "seed": 0, "aedat": "2.0", "size": [32, 32], "travel": 4.0,
                    "threshold": 0.4, "refractory": 1000, "noise_rate": 1.0, "step": 10_000}  # fmt: skip


@pytest.mark.parametrize(
    "other, told",
    [
        (dict(seed=1), r"seed = 0 \(asked for 1\): take another folder"),
        (dict(train=10), r"train = 20 \(asked for 10\)"),
        (dict(threshold=0.3), r"threshold = 0.4 \(asked for 0.3\)"),
        (dict(size=(34, 34)), r"size = \[32, 32\] \(asked for \[34, 34\]\)"),
        (dict(aedat="3.1"), r"aedat = 2.0 \(asked for 3.1\)"),
    ],
)
def test_a_set_made_with_other_settings_is_refused(source, made, other, told):
    before = contents(made)
    with pytest.raises(ValueError, match=told):
        make_fashion_dvs(made, **QUICK | other, source=source)
    assert contents(made) == before


@pytest.mark.parametrize(
    "bad, error, told",
    [
        (dict(train=25), ValueError, "multiples of 10, for ten classes; got 25 and 10"),
        (dict(test=0), ValueError, "multiples of 10, for ten classes; got 20 and 0"),
        (dict(test=30), ValueError, "test=30 takes 3 images of each class, but t-shirt has only 2"),
        (dict(aedat="4.0"), ValueError, "aedat must be '2.0' or '3.1', got '4.0'"),
        (dict(threshold=-1.0), ValueError, "cannot simulate threshold=-1.0"),
        (dict(size=(16, 16)), ValueError, r"within 16×16, got \[28, 28\]"),
        (dict(size=(200, 200)), ValueError, "2.0 holds sensors of up to 128×128, got 200×200"),
        (dict(treshold=1.0), TypeError, "treshold"),
        (dict(seed=-1), ValueError, "non-negative"),
        (dict(source="nowhere"), FileNotFoundError, "read_fashion_mnist needs in nowhere"),
    ],
)
def test_a_making_that_cannot_be_leaves_nothing_behind(source, tmp_path, bad, error, told):
    with pytest.raises(error, match=told):
        make_fashion_dvs(tmp_path / "set", **{**QUICK, "source": source, **bad})
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_a_set_is_an_error_in_words(source, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*settings.json: make_fashion_dvs\('.*'\) makes a set"):
        open_events("fashion-dvs", tmp_path, **TRAINING)
    (tmp_path / "train").mkdir()
    with pytest.raises(ValueError, match="has recordings, but no settings.json"):
        make_fashion_dvs(tmp_path, **QUICK, source=source)
    for text, told in (
        ("{", "is not JSON"),
        ("[]", "does not say aedat, images, noise_rate"),
        ("{}", "does not say"),
    ):
        (tmp_path / "settings.json").write_text(text)
        with pytest.raises(ValueError, match=f"settings.json {told}.*: delete {tmp_path}"):
            read_settings(tmp_path)
    good = json.dumps(dict(train=20, test=10, seed=0, aedat="2.0", images="0", **CAMERA))
    (tmp_path / "settings.json").write_text(good)
    assert read_settings(tmp_path)["size"] == [32, 32]
    for right, wrong in (
        ('"train": 20', '"train": null'),
        ('"test": 10', '"test": "10"'),
        ('"2.0"', "[2.0]"),
        ("[32, 32]", "32"),
        ("[32, 32]", "[32, -1]"),
    ):
        (tmp_path / "settings.json").write_text(good.replace(right, wrong))
        with pytest.raises(ValueError, match="settings.json has settings that cannot be: train"):
            read_settings(tmp_path)
    (tmp_path / "settings.json").write_text(good.replace("{", '{"seed": 1, ', 1))
    with pytest.raises(ValueError, match="settings.json is not JSON .two entries of one name, 'seed'."):
        read_settings(tmp_path)


def test_the_parts_keep_their_frames_apart(made, tmp_path):
    """A training and a test image of the same class and number must not take each other's place."""
    root = tmp_path / "set"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("frames"))
    one, other = next((root / "train" / "dress").iterdir()), next((root / "test" / "dress").iterdir())
    other = other.rename(other.with_name(one.name))
    for _ in range(2):
        train, test = (fashion_dvs.fashion_dvs(root, train=part, T=2) for part in (True, False))
        for frames, file in ((train, one), (test, other)):
            held = {frames[i].sum() for i in np.flatnonzero(frames.labels == CLASSES.index("dress"))}
            assert len(read_aedat2(file, (32, 32))) in held
    assert len(list((root / "frames").rglob("*.npy"))) == 30


def test_what_systems_leave_does_not_count_as_a_recording(source, made, tmp_path):
    root = tmp_path / "set"
    shutil.copytree(made, root, ignore=shutil.ignore_patterns("frames"))
    gone = next((root / "train" / "dress").iterdir())
    gone.rename(gone.with_name(f"._{gone.name}"))
    with pytest.raises(FileNotFoundError, match="expects 2 recordings of each class in .*'dress': 1"):
        open_events("fashion-dvs", root, **TRAINING)
    make_fashion_dvs(root, **QUICK, source=source)
    gone.with_name(f"._{gone.name}").unlink()
    assert contents(root) == contents(made)
