"""CIFAR10-DVS and DVS128 Gesture from folder to batch, on real digits that the simulated camera recorded."""

import os
import shutil
import time
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import zoom

from data_utils.errors import DataFileError
from data_utils.events import dvs
from data_utils.events.aedat import read_aedat2, read_aedat3, write_aedat3
from data_utils.events.dvs import cifar10_dvs, dvs128_gesture, read_labels, split_files
from data_utils.events.frames import events_to_frames, make_events, time_first
from data_utils.events.simulator import SACCADE, simulate
from data_utils.images.digits import load_digits
from data_utils.loader import Loader
from minispike import create_model, fit
from minispike.optim import AdamW

from .recordings import write_cifar10_dvs, write_gesture

CLASSES, SIZE = ("zero", "one"), (32, 32)
coarse = dict(step=5000, threshold=0.4, size=SIZE)  # quick recordings


@pytest.fixture(scope="module")
def digits():
    """Twenty digits, ten 0s and ten 1s in turn, 8×8 enlarged to 24×24: images [20, 24, 24], labels [20]."""
    (images, labels), _ = load_digits()
    chosen = np.concatenate([np.flatnonzero(labels == k)[:10] for k in (0, 1)]).reshape(2, 10).T.ravel()
    images = images[chosen, :, :, 0]
    images = (images - images.min()) / (images.max() - images.min())
    return np.stack([zoom(image, 3.0, order=1) for image in images]).clip(0, 1), labels[chosen]


@pytest.fixture(scope="module")
def cifar_folder(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("cifar10dvs")
    write_cifar10_dvs(root, *digits, CLASSES, np.random.default_rng(0), **coarse)
    return root


@pytest.fixture(scope="module")
def gesture_folder(digits, tmp_path_factory):
    root = tmp_path_factory.mktemp("gesture")
    images, labels = digits
    trials = {f"user{i:02}_led": (images[4 * i : 4 * i + 4], labels[4 * i : 4 * i + 4]) for i in range(5)}
    write_gesture(root, trials, {"user03_led", "user04_led"}, np.random.default_rng(0), **coarse)
    return root


cifar = partial(cifar10_dvs, T=4, size=SIZE, classes=CLASSES)
gesture = partial(dvs128_gesture, T=4, size=SIZE)


def npy(root: Path) -> set[Path]:
    return set((root / "frames").rglob("*.npy"))


# ---------------------------------------------------------------- CIFAR10-DVS


def test_recordings_become_frames_and_labels(cifar_folder, tmp_path):
    frames = cifar(cifar_folder, train=True, cache=tmp_path)
    assert (
        len(frames) == 18 and frames.labels.tolist() == [0] * 9 + [1] * 9 and frames.labels.dtype == "int64"
    )
    for i in (0, 10):
        name = CLASSES[frames.labels[i]]
        events = read_aedat2(cifar_folder / name / f"cifar10_{name}_{i % 9}.aedat", SIZE)
        assert np.array_equal(frames[i], events_to_frames(events, 4, "number", SIZE))
        assert frames[i].dtype == "float32" and frames[i].sum() == len(events) > 100
    several = frames[np.array([10, 0, 10])]
    assert several.shape == (3, 4, *SIZE, 2) and np.array_equal(several, [frames[i] for i in (10, 0, 10)])
    test = cifar(cifar_folder, train=False, cache=tmp_path)
    assert len(test) == 2 and test.labels.tolist() == [0, 1]
    by_time = cifar(cifar_folder, train=False, split_by="time", cache=tmp_path)
    assert by_time[0].sum() == test[0].sum() and not np.array_equal(by_time[0], test[0])


def test_the_folder_holds_what_the_camera_saw(digits, cifar_folder):
    images, labels = digits
    rng = np.random.default_rng(0)
    first = simulate(images[0], rng, **coarse)
    assert labels[0] == 0
    assert np.array_equal(read_aedat2(cifar_folder / "zero" / "cifar10_zero_0.aedat", SIZE), first)


def test_the_splits_are_the_named_ones():
    files = sorted((Path(f"cifar10_cat_{i}.aedat") for i in range(1000)), key=str)
    train, test = split_files(files, "90-10")
    assert len(train) == 900 and len(test) == 100 and train + test == files
    assert [f.stem for f in train[:4]] == [
        "cifar10_cat_0",
        "cifar10_cat_1",
        "cifar10_cat_10",
        "cifar10_cat_100",
    ]
    assert test[0].stem == "cifar10_cat_909" and test[-1].stem == "cifar10_cat_999"
    train, test = split_files(files, "first-100-test")
    assert {f.stem for f in test} == {f"cifar10_cat_{i}" for i in range(100)} and len(train) == 900
    assert not set(train) & set(test)
    with pytest.raises(ValueError, match="'90-10' or 'first-100-test', got 'random'"):
        split_files(files, "random")
    with pytest.raises(ValueError, match="cat.aedat: expected a name that ends in its number"):
        split_files([Path("cat.aedat")], "first-100-test")


def test_what_is_missing_is_named_with_the_remedy(cifar_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"airplane.zip … truck.zip") as caught:
        cifar10_dvs(tmp_path, train=True)
    assert f"{tmp_path}/airplane/cifar10_airplane_0.aedat" in str(caught.value)
    shutil.copytree(cifar_folder / "zero", tmp_path / "zero")
    shutil.copytree(cifar_folder / "one", tmp_path / "one")
    (tmp_path / "one" / "cifar10_one_3.aedat").unlink()  # unpacked by half: the split would be another
    with pytest.raises(FileNotFoundError, match=r"found \{'zero': 10, 'one': 9\}"):
        cifar(tmp_path, train=True)


# ---------------------------------------------------------------- the frames on disk


def test_frames_are_made_once(cifar_folder, tmp_path, monkeypatch):
    root = tmp_path / "data"
    shutil.copytree(cifar_folder, root, ignore=shutil.ignore_patterns("frames"))
    first = cifar(root, train=False)
    files = npy(root)
    assert len(files) == 2 and not list(root.rglob("*.part"))
    assert all(np.load(file).dtype == "uint8" for file in files)  # the smallest type that holds the counts
    monkeypatch.setattr(dvs, "read_aedat2", None)  # nothing is read a second time
    again = cifar(root, train=False)
    assert np.array_equal(first[1], again[1]) and npy(root) == files


def test_frames_are_made_again_when_source_or_settings_change(cifar_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(cifar_folder, root, ignore=shutil.ignore_patterns("frames"))
    before, files = cifar(root, train=False)[0], npy(root)
    changed = sorted((root / "zero").glob("*.aedat"))[-1]
    shutil.copy(root / "zero" / "cifar10_zero_0.aedat", changed)  # other content
    assert not np.array_equal(cifar(root, train=False)[0], before)
    renewed = npy(root)
    assert len(renewed) == 2 and len(renewed & files) == 1  # the outdated file is gone, the other stayed
    os.utime(changed, ns=(time.time_ns(), changed.stat().st_mtime_ns + 1))  # the same size, a later time
    cifar(root, train=False)
    assert len(npy(root) - renewed) == 1 and len(npy(root)) == 2
    for options in (dict(T=5), dict(split_by="time"), dict(size=(34, 32))):
        held = len(npy(root))
        frames = cifar(root, train=False, **options)
        assert len(npy(root)) == held + 2 and frames[0].shape == frames.shape  # next to the others
    assert cifar(root, train=False)[0].shape == (4, *SIZE, 2)


def test_frames_are_made_again_for_a_recording_of_another_length_at_the_same_time(cifar_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(cifar_folder, root, ignore=shutil.ignore_patterns("frames"))
    before, changed = cifar(root, train=False)[0], sorted((root / "zero").glob("*.aedat"))[-1]
    old = changed.stat()
    shutil.copy(root / "zero" / "cifar10_zero_0.aedat", changed)
    os.utime(changed, ns=(old.st_atime_ns, old.st_mtime_ns))  # as an archive unpacks it
    assert changed.stat().st_size != old.st_size
    assert not np.array_equal(cifar(root, train=False)[0], before)


def test_recordings_of_one_name_in_two_classes_keep_their_frames_apart(cifar_folder, tmp_path):
    root = tmp_path / "data"
    for name in CLASSES:
        (root / name).mkdir(parents=True)
        for i in range(10):
            shutil.copy(cifar_folder / name / f"cifar10_{name}_{i}.aedat", root / name / f"{i}.aedat")
    cifar(root, train=False)
    assert len(npy(root)) == 2


def test_large_counts_survive_the_disk(tmp_path):
    for count in (255, 256, 70_000):
        frames = np.zeros((1, 2, 2, 2), "float32")
        frames[0, 1, 0, 1] = count
        dvs._keep(tmp_path / f"x{count}.1.2.npy", frames)
        assert np.array_equal(np.load(tmp_path / f"x{count}.1.2.npy").astype("float32"), frames)


def test_outdated_frames_go_and_those_of_a_longer_name_stay(tmp_path):
    for name in ("x.led.1.2.npy", "x.1.2.npy", "x.1.3.npy"):
        dvs._keep(tmp_path / name, np.ones((1, 1, 1, 2)))
    assert {file.name for file in tmp_path.iterdir()} == {"x.led.1.2.npy", "x.1.3.npy"}
    (tmp_path / "any").touch()  # who may read other new files may read these
    assert (tmp_path / "x.1.3.npy").stat().st_mode == (tmp_path / "any").stat().st_mode


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(file, array):
        file.write(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dvs._keep(tmp_path / "x.1.2.npy", np.ones((1, 1, 1, 2)))
    assert not list(tmp_path.iterdir())


def test_a_damaged_source_or_cache_is_an_error_not_a_sample(cifar_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(cifar_folder, root, ignore=shutil.ignore_patterns("frames"))
    frames = cifar(root, train=False)
    file, right = frames.files[0], frames[0]
    whole = file.read_bytes()
    np.save(tmp_path / "other.npy", np.zeros((4, 3, 3, 2)))
    for damaged in (b"", whole[:60], whole[:-1], (tmp_path / "other.npy").read_bytes(), None):
        file.unlink() if damaged is None else file.write_bytes(damaged)
        assert np.array_equal(frames[0], right) and file.read_bytes() == whole  # made again
    recording = frames.samples[0].source
    os.utime(recording, ns=(1, 1))
    file.unlink()
    with pytest.raises(ValueError, match="has changed since it was first read: start again"):
        frames[0]
    source = root / "one" / "cifar10_one_9.aedat"
    source.write_bytes(source.read_bytes()[:-1])
    with pytest.raises(DataFileError, match="cifar10_one_9.aedat, byte"):
        cifar(root, train=False)
    source.write_bytes(b"#!AER-DAT2.0\r\n")
    with pytest.raises(DataFileError, match="cifar10_one_9.aedat: no events; expected at least one$"):
        cifar(root, train=False)


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_a_pickle_in_the_place_of_frames_is_not_opened(cifar_folder, tmp_path):
    frames = cifar(cifar_folder, train=False, cache=tmp_path)
    right = frames[0]
    np.save(frames.files[0], np.array([Evil(str(tmp_path / "was_here"))], object), allow_pickle=True)
    assert np.array_equal(frames[0], right) and not (tmp_path / "was_here").exists()


# ---------------------------------------------------------------- DVS128 Gesture


def test_gesture_recordings_are_cut_by_their_labels(gesture_folder, digits, tmp_path):
    train = gesture(gesture_folder, train=True, cache=tmp_path)
    test = gesture(gesture_folder, train=False, cache=tmp_path)
    assert len(train) == 12 and len(test) == 8
    assert (
        train.labels.tolist() == digits[1][:12].tolist() and test.labels.tolist() == digits[1][12:].tolist()
    )
    events = read_aedat3(gesture_folder / "user04_led.aedat", SIZE)
    assert np.ptp(events["t"]) > 4 * 3 * SACCADE
    start, end = read_labels(gesture_folder / "user04_led_labels.csv")[2][1:]
    part = events[(events["t"] >= start) & (events["t"] < end)]
    assert np.array_equal(test[6], events_to_frames(part, 4, "number", SIZE)) and test[6].sum() > 100
    assert sum(test[i].sum() for i in range(4, 8)) == len(events)  # this camera saw nothing in the pauses


def test_a_part_begins_at_its_start_and_ends_before_its_end(tmp_path):
    write_aedat3(tmp_path / "a.aedat", make_events([1] * 5, [2] * 5, [9, 10, 15, 19, 20], [1] * 5))
    (tmp_path / "a_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,10,20\n11,20,21\n")
    (tmp_path / "trials_to_train.txt").write_text("a.aedat\n\n")
    frames = gesture(tmp_path, train=True)
    assert [frames[i].sum() for i in (0, 1)] == [3, 1] and frames.labels.tolist() == [0, 10]
    (tmp_path / "a_labels.csv").write_text("class,startTime_usec,endTime_usec\n1,21,22\n")
    with pytest.raises(DataFileError, match="a.aedat: no events from 21 to 22 µs"):
        gesture(tmp_path, train=True)


def test_a_recording_is_read_once_for_all_its_samples(gesture_folder, tmp_path, monkeypatch):
    read = []

    def counting(path, size):
        read.append(path.name)
        return read_aedat3(path, size)

    monkeypatch.setattr(dvs, "read_aedat3", counting)
    gesture(gesture_folder, train=False, cache=tmp_path)
    assert read == ["user03_led.aedat", "user04_led.aedat"]


def test_missing_gesture_files_are_named_with_the_remedy(gesture_folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no .*trials_to_test.txt. Unpack .* DvsGesture.tar.gz"):
        gesture(tmp_path, train=False)
    root = tmp_path / "data"
    shutil.copytree(gesture_folder, root, ignore=shutil.ignore_patterns("frames"))
    (root / "user03_led_labels.csv").unlink()
    with pytest.raises(
        FileNotFoundError, match="lists user03_led.aedat, but there is no .*user03_led_labels.csv"
    ):
        gesture(root, train=False)
    (root / "user00_led.aedat").unlink()
    with pytest.raises(FileNotFoundError, match="there is no .*user00_led.aedat. Unpack"):
        gesture(root, train=True)


def test_labels_are_read_strictly(tmp_path):
    file = tmp_path / "x_labels.csv"
    head = "class,startTime_usec,endTime_usec\n"
    file.write_text(head + "1,5,9\n11,9,12\n\n")
    assert read_labels(file) == [(0, 5, 9), (10, 9, 12)]
    for bad in ("0,5,9", "12,5,9", "1,9,9", "1,5", "1,5,9,9", "1,five,9", "1,-5,9", "1,5.0,9"):
        file.write_text(head + "1,1,2\n" + bad + "\n")
        with pytest.raises(
            DataFileError, match="x_labels.csv: line 3: '.*'; expected class 1–11, start < end"
        ):
            read_labels(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataFileError, match="x_labels.csv, byte 0: not text"):
        read_labels(file)
    for bad in ("", "1,5,9\n"):
        file.write_text(bad)
        with pytest.raises(DataFileError, match="line 1: '.*'; expected class,startTime_usec,endTime_usec"):
            read_labels(file)


def test_the_known_bad_row_is_put_right_and_said(tmp_path):
    text = "class,startTime_usec,endTime_usec\n9,99000000,110000000\n10,105000000,111000000\n"
    bad, other = tmp_path / "user22_led_labels.csv", tmp_path / "user21_led_labels.csv"
    bad.write_text(text)
    other.write_text(text)
    with pytest.warns(UserWarning, match="user22_led_labels.csv: class 9 ends at 110000000"):
        assert read_labels(bad)[0] == (8, 99_000_000, 104_000_000)
    assert read_labels(other)[0] == (8, 99_000_000, 110_000_000)  # others are taken as they are
    bad.write_text(text.replace("110000000", "103000000"))
    assert read_labels(bad)[0] == (8, 99_000_000, 103_000_000)  # a corrected file needs no correction


def test_only_the_known_class_of_the_known_file_is_put_right(tmp_path):
    file = tmp_path / "user22_led_labels.csv"
    file.write_text("class,startTime_usec,endTime_usec\n8,99000000,110000000\n10,105000000,111000000\n")
    assert read_labels(file)[0] == (7, 99_000_000, 110_000_000)


# ---------------------------------------------------------------- end to end


@pytest.mark.parametrize("data", ["cifar", "gesture"])
def test_a_spikformer_learns_from_recordings(data, cifar_folder, gesture_folder, tmp_path):
    load, root = (cifar, cifar_folder) if data == "cifar" else (gesture, gesture_folder)
    frames = load(root, train=True, cache=tmp_path)
    model = create_model(
        "spikformer_2_256_cifar10dvs",
        depth=1,
        embed_dim=16,
        num_heads=2,
        mlp_ratio=2,
        num_classes=2,
        img_size=32,
        pools=(True, True, True, False),
    )
    for path, parameter in model.named_parameters():
        if path.endswith("norm.weight"):
            parameter.data[...] = 2
    batches = Loader(frames, frames.labels, len(frames), prepare=time_first)
    history = fit(model, AdamW(model.parameters(), lr=1e-2), batches, epochs=8, progress=False)
    assert history[-1]["loss"] < 0.5 * history[0]["loss"]


# ---------------------------------------------------------------- what is no recording, and what is one twice


def test_what_systems_leave_among_recordings_is_no_recording(cifar_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(cifar_folder, root, ignore=shutil.ignore_patterns("frames"))
    before = [[sample.source.name for sample in cifar(root, train=part).samples] for part in (True, False)]
    for name in CLASSES:  # in both classes, so that both would have the same number of recordings
        (root / name / "._cifar10_zero_0.aedat").write_bytes(b"\0\5\26\7")  # as macOS writes it
        (root / name / "Thumbs.db").touch()
        for folder in ("@eaDir", ".ipynb_checkpoints", "#recycle", "cifar10_zero_77.aedat"):
            (root / name / folder).mkdir()
        shutil.copy(root / name / f"cifar10_{name}_1.aedat", root / name / "@eaDir" / "cifar10_zero_99.aedat")
    after = [[sample.source.name for sample in cifar(root, train=part).samples] for part in (True, False)]
    assert after == before
    (root / "zero" / "cifar10_zero_77.aedat").rmdir()
    shutil.copy(root / "zero" / "cifar10_zero_1.aedat", root / "zero" / "cifar10_zero_77.aedat")
    with pytest.raises(FileNotFoundError, match=r"found \{'zero': 11, 'one': 10\}"):  # negative control
        cifar(root, train=True)


def test_two_recordings_of_one_number_are_refused_where_the_number_decides():
    files = [Path("a/cifar10_cat_007.aedat"), Path("a/cifar10_cat_7.aedat")]
    with pytest.raises(ValueError, match="cat_007.aedat and a/cifar10_cat_7.aedat both have the number 7"):
        split_files(files, "first-100-test")
    assert split_files(files, "90-10") == (files, [])


def test_two_samples_of_one_name_are_refused(cifar_folder, tmp_path):
    source = cifar_folder / "zero" / "cifar10_zero_0.aedat"
    other = tmp_path / "zero" / source.name
    other.parent.mkdir()
    shutil.copy(source, other)

    def frames(*samples):
        return dvs.Frames(list(samples), read_aedat2, 4, "number", SIZE, tmp_path / "frames")

    for second in (source, other):
        with pytest.raises(ValueError, match=f"{source} and {second} have one name, .* remove or rename"):
            frames(dvs.Sample(source, 0), dvs.Sample(second, 1))
    assert len(frames(dvs.Sample(source, 0), dvs.Sample(other, 1, key="other"))) == 2
    assert len(frames(dvs.Sample(source, 0, (0, 150_000)), dvs.Sample(source, 0, (150_000, 300_001)))) == 2


def test_a_trial_that_is_listed_twice_is_refused(gesture_folder, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(gesture_folder, root, ignore=shutil.ignore_patterns("frames"))
    trials = root / "trials_to_test.txt"
    trials.write_text("user03_led.aedat\nuser04_led.aedat\n./user03_led.aedat\n")
    with pytest.raises(DataFileError, match="trials_to_test.txt: user03_led.aedat is listed twice; expected"):
        gesture(root, train=False)
    for strange in ("../user03_led.aedat", "/user03_led.aedat", 300 * "x"):
        trials.write_text(f"{strange}\n")
        with pytest.raises(
            DataFileError, match="trials_to_test.txt: the name '.*; expected names of recordings"
        ):
            gesture(root, train=False)
    trials.write_text("user03_led.aedat\nuser00_led.aedat\n")
    for train, told in ((True, "test"), (False, "train")):
        with pytest.raises(DataFileError, match=f"user00_led.aedat is also listed in .*trials_to_{told}.txt"):
            gesture(root, train=train)
    trials.write_text(
        "user03_led.aedat\r\nuser04_led.aedat\r\n", encoding="utf-8-sig"
    )  # as Windows writes it
    assert len(gesture(root, train=False)) == 8


def test_two_rows_about_one_part_are_refused(tmp_path):
    file = tmp_path / "x_labels.csv"
    for second in ("1,5,9", "2,5,9"):  # the same row, and another class for the same part
        file.write_text(f"class,startTime_usec,endTime_usec\n1,5,9\n3,9,12\n{second}\n")
        with pytest.raises(DataFileError, match="lines 2 and 4: both about 5 to 9 µs; expected each part"):
            read_labels(file)
    file.write_text("class,startTime_usec,endTime_usec\n1,5,9\n1,5,10\n")  # parts may overlap
    assert read_labels(file) == [(0, 5, 9), (0, 5, 10)]


FALSE_HEADERS = {
    "a larger shape": lambda whole: whole.replace(b"(4, ", b"(4444444, ", 1),
    "a shape beyond any integer": lambda whole: whole.replace(b"(4, ", b"(" + b"9" * 25 + b", ", 1),
    "a long header": lambda whole: whole[:6] + b"\3\0" + (2**29).to_bytes(4, "little") + whole[12:],
    "floats": lambda whole: whole.replace(b"'|u1'", b"'|i1'"),
    "a header that does not end": lambda whole: whole[:30] + bytes(len(whole) - 30),
    "an archive": lambda whole: b"PK\x05\x06" + bytes(18),
    "nothing": lambda whole: b"",
}


@pytest.mark.parametrize("change", FALSE_HEADERS)
def test_kept_frames_that_are_damaged_are_made_again(cifar_folder, tmp_path, change):
    """Their header cannot ask for more memory than the file has, and NumPy's own errors do not come out."""
    shutil.copytree(cifar_folder, tmp_path / "data", ignore=shutil.ignore_patterns("frames"))
    frames = cifar(tmp_path / "data", train=False)
    good, whole = frames[0], frames.files[0].read_bytes()
    broken = FALSE_HEADERS[change](whole)
    assert broken != whole
    frames.files[0].write_bytes(broken)
    tracemalloc.start()
    assert np.array_equal(frames[0], good)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()
    assert frames.files[0].read_bytes() == whole
