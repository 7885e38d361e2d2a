"""Which kind of one's own data a path holds, and what is none."""

import numpy as np
import pytest

from data_utils import DataFileError
from data_utils.images.folders import read_image
from data_utils.own.arrays import Arrays
from data_utils.own.kinds import description, kind_at
from data_utils.own.pictures import Pictures
from data_utils.own.recordings import Recordings

from .test_arrays import write
from .test_pictures import picture


def test_a_path_is_of_one_kind(tmp_path):
    picture(tmp_path / "p" / "cat" / "1.png")
    (tmp_path / "e" / "wave").mkdir(parents=True)
    (tmp_path / "e" / "wave" / "1.BIN").write_bytes(b"")
    np.savez(tmp_path / "a.npz", x=1)
    kinds = [kind_at(tmp_path / name) for name in ("p", "e", "a.npz")]
    assert kinds == [Pictures, Recordings, Arrays]


def test_pictures_among_recordings_are_refused_by_both_names(tmp_path):
    picture(tmp_path / "cat" / "1.png")
    np.savez(tmp_path / "cat" / "2.npz", t=1)
    with pytest.raises(
        DataFileError, match="the picture cat/1.png and the recording cat/2.npz; expected .* not both"
    ):
        kind_at(tmp_path)
    (tmp_path / "cat" / "2.npz").rename(tmp_path / "cat" / "._2.npz")  # left behind by macOS: no data
    assert kind_at(tmp_path) is Pictures


def test_what_is_no_data_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no .*none; expected a folder of pictures"):
        kind_at(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataFileError, match="no file .aedat, .bin, .jpeg, .jpg, .npy, .npz, .png; expected"):
        kind_at(tmp_path / "empty")
    (tmp_path / "a.npz").write_bytes(b"\x1f\x8b")
    with pytest.raises(DataFileError, match="a.npz: gzip data; expected a folder .* an .npz file of x and y"):
        kind_at(tmp_path / "a.npz")
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataFileError, match="x.npy: a NumPy array; expected"):
        kind_at(tmp_path / "x.npy")


def test_the_home_folder_may_be_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    picture(tmp_path / "p" / "cat" / "1.png")
    assert kind_at("~/p") is Pictures
    assert read_image("~/p/cat/1.png").size == (20, 12)
    write(tmp_path / "a.npz")
    assert Arrays.look_at("~/a.npz").classes == ["cat", "dog"]


def described(tmp_path) -> dict[str, dict]:
    """Return the description of each kind, as JSON holds it."""
    for name in ("cat/1", "cat/2", "dog/1", "dog/2"):
        picture(tmp_path / "p" / f"{name}.png")
        (tmp_path / "e" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "e" / f"{name}.bin").write_bytes(bytes(5))
    np.savez(tmp_path / "a.npz", x=np.ones((4, 4, 4), "u1"), y=[0, 1, 0, 1])
    found = (
        Pictures.look_at(tmp_path / "p", progress=False),
        Arrays.look_at(tmp_path / "a.npz"),
        Recordings.look_at(tmp_path / "e", T=1, progress=False),
    )
    return {each.kind: each.as_dict() for each in found}


def test_a_description_comes_back_and_a_damaged_one_is_refused_by_its_fields(tmp_path):
    wrong = {
        "pictures": dict(train={"owl/1.png": 1}, channels=2, mean=[float("nan")], size=0, classes=["a", "a"]),
        "arrays": dict(deviation=[0.0], of_bytes=1, mean=[], train={"x[0]": "1"}, skipped=None),
        "recordings": dict(labels={"cat/1.bin": 7}, sensor=[34], unit="h", T=0, split_by="x", channels=3),
    }
    for kind, found in described(tmp_path).items():
        assert description(found).as_dict() == found
        for name, value in wrong[kind].items():
            with pytest.raises(ValueError, match=f"the description of {kind} has no good .*{name}"):
                description(found | {name: value})
        with pytest.raises(ValueError, match=f"the description of {kind} has no good more"):
            description(found | {"more": 1})
        del found["size"]
        with pytest.raises(ValueError, match=f"the description of {kind} has no good size"):
            description(found)
    for other in ([], None, {}, {"kind": "sounds"}, {"kind": []}):
        with pytest.raises(ValueError, match="has the kind pictures, arrays, recordings"):
            description(other)
