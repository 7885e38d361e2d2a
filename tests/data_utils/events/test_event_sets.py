"""Event data sets by name: Fashion-DVS from images to files to frames to batches, on drawn images."""

import json
import os
import shutil
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from data_utils.events import fashion_dvs
from data_utils.events import sets as event_sets
from data_utils.events.aedat import read_aedat2, read_aedat3
from data_utils.events.augment import augment_frames
from data_utils.events.fashion_dvs import CAMERA, CLASSES, make_fashion_dvs, read_settings
from data_utils.events.frames import events_to_frames
from data_utils.events.sets import open_events
from data_utils.events.simulator import simulate, write_cifar10_dvs_like, write_gesture_like
from data_utils.images import mnist
from data_utils.loader import Loader, Until
from minispike import create_model
from minispike.runs.cli import main

from ...files.test_readers import idx

CLASS = 10
QUICK = dict(train=20, test=10, step=10_000, threshold=0.4)
TRAINING = dict(T=4, batch_size=8, seed=3)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Fashion-MNIST's four files with 3 + 2 images of each class: a bright block, each in its own place."""
    root, rng = tmp_path_factory.mktemp("fashion-mnist"), np.random.default_rng(0)
    for part, each in (("train", 3), ("t10k", 2)):
        labels = rng.permutation(np.repeat(np.arange(CLASS), each)).astype("u1")
        images = np.zeros((len(labels), 28, 28), "u1")
        for image, label in zip(images, labels, strict=True):
            y, x = rng.integers(2, 10, 2)
            image[y : y + 5 + label, x : x + 14 - label] = rng.integers(100, 256)
        (root / f"{part}-images-idx3-ubyte").write_bytes(idx(images))
        (root / f"{part}-labels-idx1-ubyte").write_bytes(idx(labels))
    return root


@pytest.fixture(scope="module")
def made(source, tmp_path_factory):
    root = tmp_path_factory.mktemp("sets") / "fashion-dvs"
    make_fashion_dvs(root, **QUICK, source=source)
    return root


def no_links(*_):
    raise OSError("a file system without links")


def contents(root: Path) -> dict[str, bytes]:
    return {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*.aedat")}


# ---------------------------------------------------------------- the recordings


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


def test_the_command_line_trains_on_recordings(made, tmp_path, capsys):
    run, root, moved = (str(tmp_path / name) for name in ("run", "set", "moved"))
    shutil.copytree(made, root)
    options = "--recipe fashion-dvs --T 2 --epochs 1 --batch-size 8 --threads 1".split()
    assert main(["train", *options, "--root", root, "--out", run]) == 0
    assert main(["evaluate", run]) == 0
    told = capsys.readouterr().out
    shutil.move(root, moved)
    for command in (["evaluate", run], ["train", "--resume", run]):
        assert main(command) == 1 and f"no {root}/settings.json" in capsys.readouterr().err
        assert main([*command, "--root", moved]) == 0
    assert "fashion-dvs: 3 steps of 8 samples an epoch" in told and "the same, to the last bit" in told


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


def test_a_finished_set_is_left_alone_without_its_images(made, tmp_path):
    before = contents(made)
    make_fashion_dvs(made, **QUICK, source=tmp_path / "no such folder")
    assert contents(made) == before


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
        (dict(train=25), ValueError, "multiples of 10, got 25 and 10"),
        (dict(test=0), ValueError, "multiples of 10, got 20 and 0"),
        (dict(test=30), ValueError, "test=30 takes 3 images of each class, but of t-shirt there are 2"),
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


def test_the_raw_images_are_those_that_are_standardised(source):
    (raw, labels), (test, _) = mnist.read_fashion_mnist(source)
    assert raw.shape == (30, 28, 28) and test.shape == (20, 28, 28) and raw.dtype == "uint8"
    assert np.array_equal(raw.any(2).sum(1), 5 + labels)  # a block is 5 + its label high
    (images, same), _ = mnist.load_fashion_mnist(source)
    inner = images[:, 2:-2, 2:-2, 0].astype("float64")
    np.testing.assert_allclose(inner, (raw / 255 - (raw / 255).mean()) / (raw / 255).std(), atol=1e-6)
    assert np.array_equal(labels, same)


# ---------------------------------------------------------------- the batches


def test_nothing_is_lost_between_file_and_batch(made):
    """Every event of the files is counted once, time is the first axis, and each label is its folder's."""
    settings = TRAINING | {"batch_size": 4}  # T = B: shapes do not tell one from the other
    train, test = open_events("fashion-dvs", made, **settings, augment=False)
    assert len(train) == 5 and len(test) == 3
    for part, batches in (("train", train(0)), ("train", train), ("test", test)):
        files = [file for name in CLASSES for file in sorted((made / part / name).iterdir())]
        events = [read_aedat2(file, (32, 32)) for file in files]
        expected = {events_to_frames(e, 4, "number", (32, 32)).tobytes(): f.parent.name
                    for e, f in zip(events, files, strict=True)}  # fmt: skip
        seen = []
        for frames, labels in batches:
            assert frames.shape == (4, len(labels), 32, 32, 2) and frames.dtype == "float32"
            assert frames.flags.c_contiguous and labels.dtype == "int64"
            for b, label in enumerate(labels):
                sample = np.ascontiguousarray(frames[:, b])
                assert expected.pop(sample.tobytes()) == CLASSES[label]
                seen.append((label, sample.sum()))
        assert not expected and sum(n for _, n in seen) == sum(map(len, events))
        in_order = [label for label, _ in seen] == sorted(label for label, _ in seen)
        assert in_order == isinstance(batches, Loader)


def test_a_batch_depends_on_seed_epoch_and_step_alone(made):
    options = dict(mixup=0.5, mixup_probability=0.5, mixup_until=4)

    def fresh(seed=3):
        return open_events("fashion-dvs", made, **TRAINING | {"seed": seed}, **options)[0]

    train = fresh()
    whole = {epoch: list(train(epoch)) for epoch in (5, 3)}
    for epoch, step in ((3, 2), (5, 1), (3, 0), (5, 2), (5, 0), (3, 1)):
        again = fresh()(epoch)[step]
        assert all(np.array_equal(a, b) for a, b in zip(again, whole[epoch][step], strict=True))
    assert not np.array_equal(whole[3][0][0], whole[5][0][0])
    assert not np.array_equal(whole[3][0][0], fresh(4)(3)[0][0])


def test_augmentation_changes_all_frames_of_a_sample_alike(made, monkeypatch):
    """Of frames that all show the same scene, all still do; and test frames stay as they were."""
    still = np.random.default_rng(0).integers(0, 9, (32, 32, 1)).astype("float32")
    load = fashion_dvs.Frames.__getitem__
    monkeypatch.setattr(
        fashion_dvs.Frames, "__getitem__", lambda self, i: np.broadcast_to(still, load(self, i).shape).copy()
    )
    train, test = open_events("fashion-dvs", made, **TRAINING)
    frames = np.concatenate([x for x, _ in train(0)], 1)  # [4, 20, 32, 32, 2]
    assert np.array_equal(frames, np.broadcast_to(frames[:1, ..., :1], frames.shape))
    assert len({frames[:, b].tobytes() for b in range(20)}) > 10  # but samples draw for themselves
    each = augment_frames(frames.reshape(1, 80, 32, 32, 2).swapaxes(0, 1), np.random.default_rng(0))
    each = each.reshape(frames.shape)  # what must not be: every frame by itself
    assert not np.array_equal(each, np.broadcast_to(each[:1, ..., :1], each.shape))
    assert all((x == still).all() for x, _ in test)
    shuffled = open_events("fashion-dvs", made, **TRAINING, augment=False)[0]
    assert all((x == still).all() for x, _ in shuffled(0))


def test_mixup_gives_shares_of_pairs_until_its_epoch(made):
    plain = open_events("fashion-dvs", made, **TRAINING, augment=False)[0]
    mixed, test = open_events("fashion-dvs", made, **TRAINING, augment=False, mixup=0.5, mixup_until=2)
    assert isinstance(mixed, Until) and len(mixed) == len(plain)
    for epoch in range(4):
        for (x, labels), (y, targets) in zip(plain(epoch), mixed(epoch), strict=True):
            one_hot = np.eye(10, dtype="float32")[labels]
            assert targets.dtype == y.dtype == "float32" and targets.shape == (len(labels), 10)
            if epoch >= 2:
                assert np.array_equal(targets, one_hot) and np.array_equal(x, y)
                continue
            assert not np.array_equal(x, y)
            step = [k for k in range(3) if np.array_equal(plain(epoch)[k][1], labels)]
            share = np.random.default_rng((3, epoch, step[0] + 1)).beta(0.5, 0.5)
            np.testing.assert_allclose(targets, share * one_hot + (1 - share) * one_hot[::-1], rtol=1e-6)
            np.testing.assert_allclose(y, share * x + (1 - share) * x[:, ::-1], rtol=1e-6)  # by samples
    assert all(labels.dtype == "int64" for _, labels in test)
    assert isinstance(open_events("fashion-dvs", made, **TRAINING, mixup=0.5)[0], Loader)  # 0: to the end


def test_mixup_comes_with_its_probability(made):
    train, _ = open_events(
        "fashion-dvs", made, **TRAINING | {"batch_size": 4}, mixup=0.5, mixup_probability=0.5, augment=False
    )
    soft = [bool(((t > 0) & (t < 1)).any()) for epoch in range(20) for _, t in train(epoch)]
    assert len(soft) == 100 and 30 < sum(soft) < 60  # some pairs are of one class: those stay one-hot


def test_mixup_and_the_policy_draw_one_after_the_other(made):
    """A step by hand: the policy's numbers first, then mixup's, all from (seed, epoch, step + 1)."""
    plain = open_events("fashion-dvs", made, **TRAINING, augment=False)[0]
    both = open_events("fashion-dvs", made, **TRAINING, mixup=0.5)[0]
    (x, _), (y, _) = plain(1)[0], both(1)[0]
    rng = np.random.default_rng((3, 1, 1))
    x = augment_frames(x.swapaxes(0, 1), rng)
    share = np.float32(rng.beta(0.5, 0.5))
    np.testing.assert_allclose(y.swapaxes(0, 1), share * x + (1 - share) * x[::-1], rtol=1e-5)


def test_a_switch_of_loaders_is_at_its_epoch():
    first, then = (Loader(np.full(5, value), np.arange(5), 2, prepare=lambda x: x) for value in (1, 2))
    until = Until(3, first, then)
    assert [until(epoch)[0][0][0] for epoch in (0, 2, 3, 9)] == [1, 1, 2, 2] and len(until) == 3
    assert [labels.tolist() for _, labels in until] == [[0, 1], [2, 3], [4]]
    with pytest.raises(ValueError, match="epoch 0 and loaders of 3 and 3 batches"):
        Until(0, first, then)
    with pytest.raises(ValueError, match="loaders of 3 and 2 batches"):
        Until(1, first, Loader(np.ones(5), np.arange(5), 3))


def test_a_model_takes_the_batches(made):
    model = create_model("attention_free_haar_2_64_fashion_dvs", depth=1, embed_dim=16)
    train, test = open_events("fashion-dvs", made, **TRAINING)
    assert model(train(0)[2][0]).shape == (4, 10) and model(next(iter(test))[0]).shape == (8, 10)


# ---------------------------------------------------------------- by name


def test_without_a_root_fashion_dvs_is_made_in_the_cache(source, monkeypatch, tmp_path):
    monkeypatch.setattr(event_sets, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(mnist, "DEBIAN", source)
    asked = []

    def make(root):
        asked.append(root)
        make_fashion_dvs(root, **QUICK)

    monkeypatch.setattr(event_sets, "make_fashion_dvs", make)
    train, test = open_events("fashion-dvs", **TRAINING)
    assert asked == [tmp_path / "fashion-dvs"] and len(contents(asked[0])) == 30
    assert sorted(np.concatenate([labels for _, labels in test])) == list(range(10))


def test_recorded_sets_without_their_files_say_what_goes_where(monkeypatch, tmp_path):
    monkeypatch.setattr(event_sets, "cache_folder", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match=f"unpack the official archives .* in {tmp_path}/cifar10dvs"):
        open_events("cifar10dvs", **TRAINING)
    with pytest.raises(FileNotFoundError, match=f"DvsGesture.tar.gz .* lie in {tmp_path}/gesture"):
        open_events("gesture", **TRAINING)


def test_the_recorded_sets_are_opened_by_name_too(source, tmp_path):
    (images, labels), _ = mnist.read_fashion_mnist(source)
    camera = dict(step=20_000, threshold=0.6, size=(32, 32))
    rng, names = np.random.default_rng(0), ("zero", "one")
    two = np.tile(np.flatnonzero(labels < 2), 4)  # twelve recordings of each
    write_cifar10_dvs_like(tmp_path / "c", images[two] / 255, labels[two], names, rng, **camera)
    options = dict(classes=names, size=(32, 32), split="first-100-test", cache=tmp_path / "frames")
    with pytest.raises(ValueError, match="Loader got 0 images"):  # files 0–99 test: none is left to train on
        open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options)
    train, test = open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options | {"split": "90-10"})
    assert [len(y) for _, y in train(0)] == [8, 8, 6] and [y.tolist() for _, y in test] == [[0, 1]]
    with pytest.raises(ValueError, match="split must be '90-10' or"):
        open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options | {"split": "random"})
    trials = {f"user{i}": (images[2 * i : 2 * i + 2] / 255, [10, i]) for i in range(2)}
    write_gesture_like(tmp_path / "g", trials, {"user1"}, rng, **camera)
    train, test = open_events("gesture", tmp_path / "g", **TRAINING, mixup=1.0, size=(32, 32))
    assert train(0)[0][1].shape == (2, 11) and [labels.tolist() for _, labels in test] == [[10, 1]]
    by_time = open_events("gesture", tmp_path / "g", **TRAINING, split_by="time", size=(32, 32))[1]
    assert not np.array_equal(next(iter(by_time))[0], next(iter(test))[0])


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(name="n-mnist"), "no event data set 'n-mnist'; there are cifar10dvs, gesture, fashion-dvs"),
        (dict(mixup=-0.5), "cannot mix with mixup=-0.5"),
        (dict(mixup_probability=1.5), "mixup_probability=1.5"),
        (dict(mixup_until=-1), "mixup_until=-1"),
        (dict(split_by="events"), "split_by must be 'number' or 'time', got 'events'"),
        (dict(T=0), "T >= 1, got 0"),
        (dict(batch_size=0), "batches of 0"),
    ],
)
def test_what_cannot_be_opened_is_refused(made, tmp_path, options, told):
    options = {"name": "fashion-dvs", "cache": tmp_path, **TRAINING, **options}
    with pytest.raises(ValueError, match=told):
        open_events(root=made, **options)


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


def test_settings_tell_all_that_the_recordings_depend_on(source, made):
    told = json.loads((made / "settings.json").read_text())
    chosen = []
    for part, (images, labels) in enumerate(mnist.read_fashion_mnist(source)):
        for label in range(CLASS):
            chosen += [images[i] for i in np.flatnonzero(labels == label)[: 2 - part]]
    assert told.pop("images") == f"{crc32(np.array(chosen).tobytes()):08x}"
    assert told == {"train": 20, "test": 10, "seed": 0, "aedat": "2.0", "size": [32, 32], "travel": 4.0,
                    "threshold": 0.4, "refractory": 1000, "noise_rate": 1.0, "step": 10_000}  # fmt: skip


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


def test_a_switch_of_loaders_is_tested_by_the_first():
    first, then = (Loader(np.full(5, value), np.arange(5), 2) for value in (1, 2))
    assert [images[0] for images, _ in Until(3, first, then)] == [1, 1, 1]
