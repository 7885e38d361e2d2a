"""Event data sets by name, as batches: no event is lost, and every batch can be repeated."""

import shutil

import numpy as np
import pytest

from data_utils.events import fashion_dvs
from data_utils.events import sets as event_sets
from data_utils.events.aedat import read_aedat2
from data_utils.events.augment import augment_frames
from data_utils.events.fashion_dvs import CLASSES, make_fashion_dvs
from data_utils.events.frames import events_to_frames
from data_utils.events.sets import open_events
from data_utils.images import mnist
from data_utils.loader import Loader, Until
from minispike import create_model
from minispike.runs.cli import main

from .recordings import QUICK, TRAINING, contents, write_cifar10_dvs, write_gesture

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


def test_a_model_takes_the_batches(made):
    model = create_model("attention_free_haar_2_64_fashion_dvs", depth=1, embed_dim=16)
    train, test = open_events("fashion-dvs", made, **TRAINING)
    assert model(train(0)[2][0]).shape == (4, 10) and model(next(iter(test))[0]).shape == (8, 10)


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
    assert "fashion-dvs: 3 steps of 8 samples per epoch" in told and "the same, to the last bit" in told


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
    write_cifar10_dvs(tmp_path / "c", images[two] / 255, labels[two], names, rng, **camera)
    options = dict(classes=names, size=(32, 32), split="first-100-test", cache=tmp_path / "frames")
    with pytest.raises(ValueError, match="Loader got 0 images"):  # files 0–99 test: none is left to train on
        open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options)
    train, test = open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options | {"split": "90-10"})
    assert [len(y) for _, y in train(0)] == [8, 8, 6] and [y.tolist() for _, y in test] == [[0, 1]]
    with pytest.raises(ValueError, match="split must be '90-10' or"):
        open_events("cifar10dvs", tmp_path / "c", **TRAINING, **options | {"split": "random"})
    trials = {f"user{i}": (images[2 * i : 2 * i + 2] / 255, [10, i]) for i in range(2)}
    write_gesture(tmp_path / "g", trials, {"user1"}, rng, **camera)
    train, test = open_events("gesture", tmp_path / "g", **TRAINING, mixup=1.0, size=(32, 32))
    assert train(0)[0][1].shape == (2, 11) and [labels.tolist() for _, labels in test] == [[10, 1]]
    by_time = open_events("gesture", tmp_path / "g", **TRAINING, split_by="time", size=(32, 32))[1]
    assert not np.array_equal(next(iter(by_time))[0], next(iter(test))[0])


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(name="n-mnist"), "no event data set 'n-mnist'; there are cifar10dvs, gesture, fashion-dvs"),
        (dict(mixup=-0.5), "cannot mix with mixup=-0.5"),
        (dict(mixup=float("nan")), "cannot mix with mixup=nan"),
        (dict(mixup_probability=1.5), "mixup_probability=1.5"),
        (dict(mixup_until=-1), "mixup_until=-1"),
        (dict(split_by="events"), "split_by must be 'number' or 'time', got 'events'"),
        (dict(T=0), "T >= 1, got 0"),
        (dict(T="8"), "T >= 1, got '8'"),
        (dict(batch_size=0), "batches of 0"),
    ],
)
def test_what_cannot_be_opened_is_refused(made, tmp_path, options, told):
    options = {"name": "fashion-dvs", "cache": tmp_path, **TRAINING, **options}
    with pytest.raises(ValueError, match=told):
        open_events(root=made, **options)
