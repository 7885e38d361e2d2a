"""A path that begins with ~ is in the home folder, for every reader of events."""

import numpy as np
import pytest

from data_utils.events.aedat import read_aedat2, read_aedat3, write_aedat2, write_aedat3
from data_utils.events.dvs import cifar10_dvs, dvs128_gesture
from data_utils.events.fashion_dvs import fashion_dvs
from data_utils.events.folders import event_folders
from data_utils.events.frames import make_events
from data_utils.events.recordings import read_events

EVENTS = make_events(x=[1, 2], y=[3, 4], t=[5, 6], p=[0, 1])


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_recordings(home):
    write_aedat2(home / "2.aedat", EVENTS)
    write_aedat3(home / "3.aedat", EVENTS)
    np.savez(home / "a.npz", **{name: EVENTS[name] for name in "xytp"})
    for found in (
        read_aedat2("~/2.aedat"),
        read_aedat3("~/3.aedat"),
        *(read_events(f"~/{name}")[0] for name in ("2.aedat", "3.aedat", "a.npz")),
    ):
        np.testing.assert_array_equal(found, EVENTS)


def test_folders(home):
    for name in ("left", "right"):
        (home / "hands" / name).mkdir(parents=True)
        for i in range(2):
            write_aedat2(home / "hands" / name / f"{i}.aedat", EVENTS)
    assert len(event_folders("~/hands", train=True, T=2)) == 2
    assert (home / "hands" / ".frames").is_dir()


@pytest.mark.parametrize("read", [cifar10_dvs, dvs128_gesture, fashion_dvs])
def test_sets_look_in_the_home_folder(home, read):
    """No set is there; the message says where it was looked for."""
    with pytest.raises(FileNotFoundError, match=str(home / "set")):
        read("~/set", train=True, T=2)
