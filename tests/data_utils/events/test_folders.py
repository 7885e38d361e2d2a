"""Folders of recordings of any kind as a data set: right labels, right split, and nothing that is no data."""

import shutil

import numpy as np
import pytest

from data_utils.errors import DataFileError
from data_utils.events.aedat import write_aedat2, write_aedat3
from data_utils.events.folders import event_folders
from data_utils.events.frames import events_to_frames, make_events
from data_utils.events.recordings import read_events
from data_utils.events.sets import event_loaders

from .test_frames import some_events

SIZE = (6, 9)


def write(path, events):
    """Write events as the kind of file that the suffix names; for .aedat, 2.0 or 3.1 in turn."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, events)
    elif path.suffix == ".npz":
        np.savez(path, **{name: events[name] for name in "txyp"})
    elif path.suffix == ".bin":
        rows = [(x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255) for x, y, t, p in events.tolist()]
        path.write_bytes(np.array(rows, "u1").tobytes())
    else:
        (write_aedat2 if len(path.stem) % 2 else write_aedat3)(path, events)


@pytest.fixture
def hands(tmp_path, rng):
    """Three classes of five recordings of mixed kinds: root/<class>/<a … e>.<suffix>."""
    for name in ("wave", "fist", "Open"):
        for stem, suffix in zip("abcde", (".npz", ".npy", ".bin", ".aedat", ".npz"), strict=True):
            write(tmp_path / "hands" / name / f"{stem}{suffix}", some_events(50, rng))
    return tmp_path / "hands"


def names(frames):
    return [sample.source.relative_to(sample.source.parents[1]).as_posix() for sample in frames.samples]


def both(root, **options):
    options = {"T": 4, "size": SIZE} | options
    return [event_folders(root, train=part, **options) for part in (True, False)]


# ---------------------------------------------------------------- what is data


def test_recordings_of_any_kind_become_frames_with_their_class(hands):
    train, test = both(hands)
    assert train.classes == test.classes == ("Open", "fist", "wave")  # by name: upper case is first
    assert len(train) == 12 and len(test) == 3  # 0.2 of 5 each
    for frames in (train, test):
        for i, sample in enumerate(frames.samples):
            assert frames.classes[frames.labels[i]] == sample.source.parent.name
            events, _ = read_events(sample.source, SIZE)
            assert len(events) == 50 and np.array_equal(frames[i], events_to_frames(events, 4, size=SIZE))


def test_the_frames_become_batches(hands):
    train, test = both(hands)
    options = dict(batch_size=5, augment=False)
    training, testing = event_loaders(train, test, len(train.classes), **options, mixup=1.0, mixup_until=1)
    x, y = next(iter(testing))
    assert np.array_equal(x, test[np.arange(3)].swapaxes(0, 1)) and y.tolist() == [0, 1, 2]
    assert training(0)[0][1].shape == (5, 3) and training(0)[0][1].sum(1) == pytest.approx(np.ones(5))
    plain = event_loaders(train, test, 3, **options)[0]
    for step, (x, y) in enumerate(plain(2)):
        assert x.shape == (4, len(y), *SIZE, 2) and x.sum() == 50 * len(y)
        assert np.array_equal(x, training(2)[step][0]) and np.array_equal(np.eye(3)[y], training(2)[step][1])
    with pytest.raises(ValueError, match="cannot mix with mixup=-1"):
        event_loaders(train, test, 3, batch_size=5, mixup=-1)


LEFT = [
    ".DS_Store",
    "._a.npz",
    "Thumbs.db",
    "desktop.ini",
    "wave/._a.npz",
    "wave/.DS_Store",
    "wave/notes.txt",
]
LEFT += ["__MACOSX/wave/a.npz", "@eaDir/a.npz", "wave/@eaDir/a.npz", "#recycle/a.npz", "readme.txt"]
LEFT += [".ipynb_checkpoints/a.npz", "wave/.ipynb_checkpoints/a-checkpoint.npz", "fist/x.npz/none.txt"]


def test_what_systems_leave_is_no_data(hands):
    before = [names(frames) for frames in both(hands)]
    for name in LEFT:
        (hands / name).parent.mkdir(parents=True, exist_ok=True)
        (hands / name).write_bytes(b"left behind")
    after = both(hands)
    assert [names(frames) for frames in after] == before and after[0].classes == ("Open", "fist", "wave")
    (hands / "wave" / "f.npz").write_bytes(b"not a recording")  # negative control: this one counts
    with pytest.raises(DataFileError, match="f.npz, byte 0: b'not a rec'; expected an AEDAT file"):
        both(hands)


def test_frames_are_kept_apart_from_the_classes_and_made_once(hands, monkeypatch):
    before = [frames[0] for frames in both(hands)]
    assert len(list((hands / ".frames").rglob("*.npy"))) == 15
    monkeypatch.setattr("data_utils.events.folders.read_events", None)  # nothing is read a second time
    again = both(hands)
    assert all(np.array_equal(a, frames[0]) for a, frames in zip(before, again, strict=True))
    assert again[0].classes == ("Open", "fist", "wave")  # .frames is no class


def test_folders_within_a_class_belong_to_it(hands):
    for name in ("wave", "fist"):  # the same name in two classes, and in two folders of one
        shutil.copytree(hands / "Open", hands / name / "monday")
        shutil.copytree(hands / "Open", hands / name / "tuesday")
    train, test = both(hands)
    assert np.bincount(np.concatenate([train.labels, test.labels])).tolist() == [5, 15, 15]
    assert len({*train.files, *test.files}) == 35


# ---------------------------------------------------------------- the split


def test_the_split_is_fixed_stratified_and_follows_its_seed(hands):
    train, test = both(hands)
    assert sorted(names(train) + names(test)) == sorted(
        f"{name}/{file}"
        for name in ("Open", "fist", "wave")
        for file in ("a.npz", "b.npy", "c.bin", "d.aedat", "e.npz")
    )
    assert [names(frames) for frames in both(hands)] == [names(train), names(test)]
    others = {tuple(names(event_folders(hands, train=False, size=SIZE, seed=seed))) for seed in range(9)}
    assert len(others) > 4
    sizes = [[len(frames) for frames in both(hands, val_split=share)] for share in (0.01, 0.4, 0.99)]
    assert sizes == [[12, 3], [9, 6], [3, 12]]  # at least one recording of each class in each part
    for share in (0, 1, -0.1):
        with pytest.raises(ValueError, match=f"val_split must be between 0 and 1, got {share}"):
            both(hands, val_split=share)


@pytest.mark.parametrize("train, test", [("train", "test"), ("train", "val"), ("Train", "Test")])
def test_a_split_into_folders_is_taken_as_it_is(hands, train, test):
    root = hands.parent
    hands.rename(root / train)
    shutil.copytree(root / train, root / test)
    for name in ("wave", "fist"):
        (root / test / name / "a.npz").unlink()
    (root / "papers").mkdir()
    frames = both(root)
    assert [len(part) for part in frames] == [15, 13] and frames[1].labels.tolist() == [0] * 5 + [1] * 4 + [
        2
    ] * 4
    assert len({*frames[0].files, *frames[1].files}) == 28  # both parts have a file Open/a.npz


def test_of_val_and_test_val_is_taken(hands):
    root = hands.parent
    for part in ("train", "val", "test"):
        shutil.copytree(hands, root / "set" / part)
    (root / "set" / "val" / "wave" / "a.npz").unlink()
    assert len(both(root / "set")[1]) == 14


def test_parts_that_do_not_fit_are_refused(hands):
    root = hands.parent
    hands.rename(root / "train")
    with pytest.raises(FileNotFoundError, match="has a folder train; expected train next to val or test"):
        both(root)
    shutil.copytree(root / "train", root / "test")
    shutil.move(root / "test" / "wave", root / "test" / "waves")
    with pytest.raises(ValueError, match="must have the same classes; only in one: wave, waves"):
        both(root)
    (root / "Train").mkdir()
    with pytest.raises(ValueError, match="has both train and Train|has both Train and train"):
        both(root)


# ---------------------------------------------------------------- what is refused


def test_a_recording_outside_the_class_folders_is_refused(hands):
    shutil.copy(hands / "wave" / "a.npz", hands / "loose.NPZ")
    with pytest.raises(
        DataFileError, match="loose.NPZ: a recording outside the class folders; expected one in"
    ):
        both(hands)


def test_two_files_of_one_name_are_refused(hands):
    shutil.copy(hands / "wave" / "b.npy", hands / "wave" / "a.npy")
    with pytest.raises(ValueError, match="wave/a.np[yz] and .*wave/a.np[yz] have one name"):
        both(hands, val_split=0.01)


def test_too_little_data_is_refused(hands):
    for name in ("fist", "wave"):
        shutil.rmtree(hands / name)
    with pytest.raises(ValueError, match=r"has 1 class folders \('Open',\); expected at least two"):
        both(hands)
    (hands / "fist").mkdir()
    with pytest.raises(FileNotFoundError, match="no recording in .*fist; expected .aedat, .bin, .npy, .npz"):
        both(hands)
    shutil.copy(hands / "Open" / "a.npz", hands / "fist")
    with pytest.raises(ValueError, match="fist has one recording; .* a class needs at least two"):
        both(hands)
    with pytest.raises(FileNotFoundError):
        both(hands / "none")


def test_the_sensor_is_known_only_of_files_of_one_kind_that_has_one(hands, rng, tmp_path):
    with pytest.raises(ValueError, match=r"files of .aedat, .bin, .npy, .npz do not tell .* size=\(H, W\)"):
        both(hands, size=None)
    for suffix, size in ((".bin", (34, 34)), (".aedat", (128, 128)), (".npz", None)):
        for name in ("one", "two"):
            for stem in "ab":
                write(tmp_path / suffix / name / f"{stem}{suffix}", some_events(9, rng))
        if size:
            assert both(tmp_path / suffix, size=None)[0].shape == (4, *size, 2)
        else:
            with pytest.raises(ValueError, match="files of .npz do not tell"):
                both(tmp_path / suffix, size=None)
    with pytest.raises(DataFileError, match="x = 8, y = "):  # the sensor is too small for an event
        both(tmp_path / ".npz", size=(6, 8))


def test_the_unit_reaches_the_files_and_their_frames(tmp_path):
    """Events at 0, 0.4 and 1. In seconds, two frames by time get 2 and 1; in µs they last 1 µs: too short."""
    for name in ("one", "two"):
        for stem in "ab":
            (tmp_path / name).mkdir(exist_ok=True)
            np.savez(
                tmp_path / name / f"{stem}.npz", t=[0.0, 0.4, 1.0], x=[0, 1, 2], y=[0, 0, 0], p=[1, 1, 1]
            )
    with pytest.raises(DataFileError, match="t holds floats, so say their unit"):
        both(tmp_path)
    with pytest.raises(ValueError, match="unit must be 's', 'ms' or 'us', got 'h'"):
        both(tmp_path, unit="h")
    options = dict(T=2, split_by="time", size=(1, 3))
    for unit, counts in (("s", [2, 1]), ("us", [0, 3]), ("s", [2, 1])):
        assert event_folders(tmp_path, True, unit=unit, **options)[0].sum((1, 2, 3)).tolist() == counts
    assert make_events([0], [0], [0.4], [1], unit="us")["t"].tolist() == [0]
