"""A folder of event recordings: what is found, how events become cells, what is refused."""

import json

import numpy as np
import pytest

from data_utils import DataFileError
from data_utils.events.aedat import write_aedat2
from data_utils.events.frames import events_to_frames, make_events
from data_utils.own.kinds import description
from data_utils.own.recordings import Recordings, chosen_size


def fields(n=60, H=20, W=30, seed=0, column=0):
    """Events as arrays: in the left half, or with column=15 in the right half."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, W // 2, n) + column
    x[0], y = column + W // 2 - 1, rng.integers(0, H, n)
    y[0] = H - 1  # the sensor's corner
    return {"t": np.sort(rng.integers(0, 10_000, n)), "x": x, "y": y, "p": rng.integers(0, 2, n)}


def record(path, seconds=False, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = fields(**options)
    if seconds:
        arrays["t"] = arrays["t"] / 1e6
    np.savez(path, **arrays)
    return path


def hands(root, n=5, **options):
    for name, column in (("left", 0), ("right", 15)):
        for i in range(n):
            record(root / name / f"{i}.npz", seed=i, column=column, **options)
    return root


def look(root, **options):
    return Recordings.look_at(root, progress=False, **options)


def test_recordings_are_split_and_become_batches(tmp_path):
    found = look(hands(tmp_path), T=4)
    assert found.classes == ["left", "right"] and len(found.train) == 8 and len(found.test) == 2
    assert (found.sensor, found.size, found.cell, found.channels) == ([20, 30], 32, 1, 2)
    train, test = found.loaders(tmp_path, batch_size=4, augment=False)
    x, labels = next(iter(test))
    assert x.shape == (4, 2, 32, 32, 2) and labels.tolist() == [0, 1] and x.sum() == 120
    assert x[:, 0, :, 16:].sum() == 0 == x[:, 1, :, :16].sum()  # left and right of the middle
    assert train(0)[0][0].shape == (4, 4, 32, 32, 2)
    assert look(tmp_path, T=4) == found


def test_events_are_counted_in_whole_cells_around_the_middle(tmp_path):
    """By hand: the sensor lies in the middle of a square of size·cell pixels."""
    path = record(hands(tmp_path) / "left" / "5.npz", column=15)
    found = look(tmp_path, size=8)
    assert found.cell == 4  # 8 · 4 = 32 ≥ 30
    given = fields(column=15)
    expected = np.zeros((8, 8, 2))
    for x, y, p in zip(given["x"], given["y"], given["p"], strict=True):
        expected[(y + 6) // 4, (x + 1) // 4, p] += 1
    (((name,), frames),) = found.inputs(path)
    assert name == str(path) and frames.shape == (8, 1, 8, 8, 2)
    np.testing.assert_array_equal(frames.sum((0, 1)), expected)
    plain = events_to_frames(make_events(**given), 8, size=(20, 30))
    np.testing.assert_array_equal(frames.sum((1, 2, 3)), plain.sum((1, 2)))  # nothing is dropped


@pytest.mark.parametrize(
    "sensor, multiple, size",
    [
        ((34, 34), 4, 36),
        ((128, 128), 4, 32),
        ((260, 346), 4, 40),
        ((480, 640), 4, 40),
        ((34, 34), 16, 48),
        ((3, 2), 4, 4),
    ],
)
def test_a_size_that_whole_cells_fill(sensor, multiple, size):
    assert chosen_size(sensor, multiple) == size


def test_the_sensor_is_that_of_the_format_or_the_smallest_that_fits(tmp_path):
    hands(tmp_path)
    assert look(tmp_path, sensor=(40, 60)).sensor == [40, 60]
    write_aedat2(tmp_path / "left" / "a.aedat", make_events(**fields()))
    assert look(tmp_path).sensor == [128, 128]
    with pytest.raises(DataFileError, match="11 unreadable recordings: left/0.npz, .* the 19×29 sensor"):
        look(tmp_path, sensor=(19, 29))


def test_float_times_need_a_unit_and_get_the_same_frames(tmp_path):
    hands(tmp_path / "s", seconds=True)
    with pytest.raises(DataFileError, match="t holds floats, so say their unit.*--time-unit"):
        look(tmp_path / "s")
    parts = [look(tmp_path / "s", unit="s"), look(hands(tmp_path / "us"))]
    frames = [
        found.part(tmp_path / name, "train")[np.arange(8)]
        for found, name in zip(parts, ("s", "us"), strict=True)
    ]
    np.testing.assert_array_equal(*frames)
    with pytest.raises(DataFileError, match="10 unreadable .* integers, which are µs"):
        look(tmp_path / "us", unit="ms")
    with pytest.raises(ValueError, match="unit must be 's', 'ms' or 'us'"):
        look(tmp_path / "us", unit="h")


def test_unreadable_recordings_are_all_named_or_left_out(tmp_path):
    hands(tmp_path)
    (tmp_path / "left" / "bad.bin").write_bytes(b"1234567")
    np.savez(tmp_path / "right" / "none.npz", t=[0][:0], x=[0][:0], y=[0][:0], p=[0][:0])
    with pytest.raises(
        DataFileError, match="2 unreadable recordings: left/bad.bin, right/none.npz; the first: left"
    ):
        look(tmp_path)
    found = look(tmp_path, skip_unreadable=True)
    assert found.skipped == ["left/bad.bin", "right/none.npz"] and len(found.train | found.test) == 10
    found.check(tmp_path)


def test_what_systems_leave_behind_is_no_recording(tmp_path):
    found = look(hands(tmp_path))
    found.loaders(tmp_path, batch_size=2)  # keeps frames in .frames
    (tmp_path / "left" / "._0.npz").write_bytes(b"x")
    (tmp_path / "@eaDir").mkdir()
    (tmp_path / "@eaDir" / "0.npz").write_bytes(b"x")
    (tmp_path / "left" / "folder.npz").mkdir()
    assert look(tmp_path) == found


def test_a_folder_that_is_split_is_taken_as_it_is(tmp_path):
    hands(tmp_path / "Train", n=3)
    hands(tmp_path / "Test", n=1)
    found = look(tmp_path)
    assert sorted(found.test) == ["Test/left/0.npz", "Test/right/0.npz"] and len(found.train) == 6
    assert found.part(tmp_path, "test").labels.tolist() == [0, 1]


def test_a_changed_recording_is_named(tmp_path):
    found = description(json.loads(look(hands(tmp_path)).to_json()))
    found.check(tmp_path)
    record(tmp_path / "left" / "0.npz", seed=9)
    (tmp_path / "right" / "1.npz").rename(tmp_path / "right" / "7.npz")
    with pytest.raises(DataFileError, match="gone: right/1.npz; new: right/7.npz; changed: left/0.npz"):
        found.check(tmp_path)


EVENTS = make_events(**fields())


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda root: record(root / "left" / "0.npz"), "has 1 class folders"),
        (lambda root: (hands(root), record(root / "loose.npz")), "a recording outside the class folders"),
        (lambda root: hands(root, n=1), "has one recording; to train and to test"),
        (lambda root: (hands(root), (root / "up").mkdir()), "no recording in .*up"),
        (lambda root: (hands(root), write_aedat2(root / "left" / "0.aedat", EVENTS)), "0.npz"),
    ],
)  # fmt: skip
def test_what_is_no_set_of_classes_is_refused(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        look(tmp_path).loaders(tmp_path, batch_size=2)


def test_a_prediction_refuses_events_outside_the_sensor(tmp_path):
    found = look(hands(tmp_path))
    with pytest.raises(DataFileError, match="outside the 20×30 sensor"):
        list(found.inputs(record(tmp_path / "x.npz", W=40, column=20)))


def test_a_description_for_predictions_holds_no_samples(tmp_path):
    kept = look(hands(tmp_path)).for_predictions()
    assert (
        kept["labels"] == kept["train"] == {} and kept["sensor"] == [20, 30] and kept["kind"] == "recordings"
    )
    assert description(kept).cell == 1
