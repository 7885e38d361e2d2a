"""Recordings of any kind as events: right values by hand, and nothing wrong gets past in silence."""

import io
import struct
import tracemalloc
import warnings
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_utils.errors import DataFileError
from data_utils.events.aedat import HEADER2, HEADER3, write_aedat2, write_aedat3
from data_utils.events.frames import EVENT, make_events
from data_utils.events.recordings import read_events

from ..common import damaged, fuzz, memory_below
from .test_frames import some_events

COLUMNS = dict(t=[10, 20, 20, 31], x=[3, 0, 8, 1], y=[5, 0, 2, 1], p=[1, 0, 1, 1])
EVENTS = make_events(COLUMNS["x"], COLUMNS["y"], COLUMNS["t"], COLUMNS["p"])


def nmnist(rows) -> bytes:
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for x, y, t, p in rows)


def npz(path, **arrays):
    np.savez(path, **(COLUMNS | arrays))
    return path


def refuses(path, message, **options):
    with pytest.raises(DataFileError, match=message) as caught:
        read_events(path, **options)
    assert str(caught.value).startswith(str(path))


# ---------------------------------------------------------------- every kind


@pytest.mark.parametrize("kind", ["2.0", "3.1", "bin", "npz", "npy"])
def test_every_kind_gives_the_same_events(kind, tmp_path):
    path = tmp_path / {"2.0": "a.aedat", "3.1": "a.aedat"}.get(kind, f"a.{kind}")
    if kind == "2.0":
        write_aedat2(path, EVENTS)
    elif kind == "3.1":
        write_aedat3(path, EVENTS)
    elif kind == "bin":
        path.write_bytes(nmnist(EVENTS.tolist()))
    elif kind == "npz":
        npz(path)
    else:
        np.save(path, EVENTS)
    events, size = read_events(path)
    assert events.dtype == EVENT and np.array_equal(events, EVENTS)
    expected = {"2.0": (128, 128), "3.1": (128, 128), "bin": (34, 34)}
    assert size == expected.get(kind, (6, 9))  # the smallest that holds all events
    assert read_events(str(path), size=(20, 30))[1] == (20, 30)
    refuses(path, "x up to 8|x = 8", size=(20, 8))
    refuses(path, "y up to 5|y = 5", size=(5, 20))


def test_the_content_tells_the_kind_not_the_name(tmp_path):
    for name in ("a.aedat", "a.bin", "a"):
        npz(tmp_path / "a.npz").rename(tmp_path / name)
        assert np.array_equal(read_events(tmp_path / name)[0], EVENTS)
        write_aedat3(tmp_path / name, EVENTS)
        assert np.array_equal(read_events(tmp_path / name)[0], EVENTS)


@pytest.mark.parametrize(
    "name, data, message",
    [
        ("a.aedat", b"", "byte 0: an empty file; expected an AEDAT file"),
        ("a.txt", b"1 2 3 4", "expected an AEDAT file, a NumPy file"),
        ("a.h5", b"\x89HDF\r\n\x1a\n", "expected an AEDAT file"),
        ("a.aedat4", b"#!AER-DAT4.0\r\n", "a header of AEDAT '4.0'; expected AEDAT 2.0 or 3.1"),
        ("a.aedat", b"# only a comment\r\n", "byte 18: b''; expected header lines, one of which"),
        ("a.aedat", b"#!AER-DAT\r\n", "a header of AEDAT ''"),
    ],
)
def test_another_kind_of_file_is_refused_by_what_it_is(name, data, message, tmp_path):
    (tmp_path / name).write_bytes(data)
    refuses(tmp_path / name, message)


def test_a_missing_file_and_a_wrong_unit_are_their_own_errors(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_events(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="unit must be 's', 'ms' or 'us', got 'minutes'"):
        read_events(tmp_path / "none.npz", unit="minutes")
    with pytest.raises(ValueError, match=r"size must be \(H, W\), .* got \(0, 3\)"):
        read_events(tmp_path / "none.npz", size=(0, 3))


# ---------------------------------------------------------------- headers of AEDAT

HEADERS = [
    (b"#!AER-DAT2.0 This is a raw file\r\n", b"", "2.0"),
    (b"# made by a program\r\n#!AER-DAT2.0\r\n", b"# more\r\n", "2.0"),
    (b"#!AER-DAT2.0\n", b"# line ends of Unix\n", "2.0"),
    (b"#!AER-DAT2.0\r\n", b"# " + b"x" * 200_000 + b"\r\n", "2.0"),
    (b"# " + b"x" * 70_000 + b"\r\n#!AER-DAT2.0\tx\r\n", b"", "2.0"),
    (b"#!AER-DAT3.1 something\r\n", b"#Format: RAW\r\n#!END-HEADER\r\n", "3.1"),
    (b"# a comment\r\n#!AER-DAT3.1\r\n", b"# " + b"y" * 70_000 + b"\r\n#!END-HEADER\r\n", "3.1"),
]


@pytest.mark.parametrize("first, rest, version", HEADERS)
def test_headers_as_programs_write_them(first, rest, version, tmp_path):
    path, write, header = tmp_path / "a.aedat", write_aedat2, HEADER2
    if version == "3.1":
        write, header = write_aedat3, HEADER3
    write(path, EVENTS)
    path.write_bytes(first + rest + path.read_bytes().removeprefix(header))
    assert np.array_equal(read_events(path)[0], EVENTS)


# ---------------------------------------------------------------- N-MNIST


def test_nmnist_by_hand(tmp_path):
    path = tmp_path / "00002.bin"
    path.write_bytes(bytes([33, 0, 0x80, 0, 5, 7, 33, 0x7F, 0xFF, 0xFE, 1, 2, 0xFF, 0xFF, 0xFF]))
    events, size = read_events(path)
    last = 2**23 - 1
    assert events.tolist() == [(33, 0, 5, True), (7, 33, last - 1, False), (1, 2, last, True)]
    assert size == (34, 34)
    path.write_bytes(bytes([35, 80, 0x80, 0, 5]))  # N-Caltech101; 35 is "#", which must not look like AEDAT
    assert read_events(path, (180, 240))[0].tolist() == [(35, 80, 5, True)]
    refuses(path, "byte 0: x = 35, y = 80; expected a place on the 34×34 sensor")


def test_damaged_nmnist_is_refused_with_the_offset(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(nmnist(EVENTS.tolist())[:-1])
    refuses(path, "byte 15: 4 bytes; expected events of 5 bytes")
    path.write_bytes(nmnist([(0, 0, 0, 1), (3, 34, 0, 1)]))
    refuses(path, "byte 5: x = 3, y = 34;")
    path.write_bytes(nmnist([(0, 0, 1_000_001, 1), (0, 0, 0, 1)]))
    refuses(path, "a time that is 1000001 µs before an earlier one; expected .* sort them by t")
    path.write_bytes(nmnist([(0, 0, 1_000_000, 1), (0, 0, 0, 1)]))
    assert read_events(path)[0]["t"].tolist() == [1_000_000, 0]  # 1 s is allowed, in the file's order


# ---------------------------------------------------------------- NumPy files


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_any_number_type_have_their_values(save, tmp_path):
    path = tmp_path / "a.npz"
    for kinds in (dict(t=">i8", x="u1", y="i4", p="?"), dict(t="u4", x="f4", y=">u2", p="f8")):
        save(path, **{name: np.array(values, kinds[name]) for name, values in COLUMNS.items()})
        assert np.array_equal(read_events(path)[0], EVENTS)


@pytest.mark.parametrize("names", ["txyp", "pytx", "xytp"])
def test_fields_may_be_in_any_order_and_next_to_others(names, tmp_path):
    kinds = [(name, "i8") for name in names]
    array = np.empty(4, [("label", "U3"), *kinds])
    for name, values in COLUMNS.items():
        array[name] = values
    np.save(tmp_path / "a.npy", array)
    np.savez(tmp_path / "a.npz", array)  # np.savez names it arr_0
    assert all(np.array_equal(read_events(tmp_path / name)[0], EVENTS) for name in ("a.npy", "a.npz"))


def test_arrays_that_are_not_needed_are_passed_over(tmp_path):
    path = npz(tmp_path / "a.npz", label=np.array(["hand"]), who=np.array([{}], object))
    assert np.array_equal(read_events(path)[0], EVENTS)


@pytest.mark.parametrize("unit, factor", [("s", 1e6), ("ms", 1e3), ("us", 1.0)])
def test_float_times_are_taken_in_their_unit(unit, factor, tmp_path):
    path = npz(tmp_path / "a.npz", t=np.array([0.0, 1.0, 1.0, 2.5]) * 1e5 / factor)
    assert read_events(path, unit=unit)[0]["t"].tolist() == [0, 100_000, 100_000, 250_000]
    refuses(path, "t holds floats, so say their unit: unit='s', 'ms' or 'us'")


WRONG = {
    "x nan": (dict(x=[3, np.nan, 8, 1]), r"x\[1\] is nan"),
    "x 2.5": (dict(x=[3, 2.5, 8, 1]), r"x\[1\] is 2.5; it must be a whole number from 0 to 65535"),
    "x −1": (dict(x=[3, 0, 8, -1]), r"x\[3\] is -1"),
    "y 65536": (dict(y=[5, 0, 65536, 1]), r"y\[2\] is 65536"),  # as u2 it would be 0
    "p 2": (dict(p=[1, 0, 2, 1]), r"p\[2\] is 2; it must be of \{0, 1\} or of \{−1, 1\}"),
    "p 0 and −1": (dict(p=[1, 0, -1, 1]), r"p\[1\] is 0"),
    "p 255": (dict(p=np.array([1, 255, 1, 1], "u1")), r"p\[1\] is 255"),  # −1 that was cast
    "p nan": (dict(p=[1.0, np.nan, 0, 1]), r"p\[1\] is nan"),
    "p text": (dict(p=["on", "off", "on", "on"]), "p is <U3"),
    "t nan": (dict(t=[0.0, np.nan, 0, 0]), r"t\[1\] is nan"),
    "t inf": (dict(t=[0.0, 0, np.inf, 0]), r"t\[2\] is inf"),
    "t −5": (dict(t=[-5, 0, 0, 0]), "negative time -5 µs"),
    "t 2⁶³": (dict(t=np.array([0, 0, 0, 2**63], "u8")), r"t\[3\] is 9223372036854775808"),
    "t unsorted": (dict(t=[2_000_000, 0, 0, 0]), "2000000 µs before an earlier one"),
    "short": (dict(p=[1, 0, 1]), r"must have the same length, got \{'x': 4, 'y': 4, 't': 4, 'p': 3\}"),
    "two axes": (dict(x=[[3, 0, 8, 1]]), r"x has the shape \[1, 4\]"),
    "complex": (dict(t=[0j, 0, 0, 0]), "t is complex128"),
    "objects": (dict(x=np.array([3, 0, 8, None])), "x holds Python objects"),
}


@pytest.mark.parametrize("arrays, message", WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_by_its_field(arrays, message, tmp_path):
    arrays = {name: np.array(values) for name, values in arrays.items()}
    unit = "us" if "t" in arrays and arrays["t"].dtype.kind == "f" else None
    refuses(npz(tmp_path / "a.npz", **arrays), message, unit=unit)


def test_no_event_tells_no_sensor_but_one_may_be_given(tmp_path):
    path = npz(tmp_path / "a.npz", **{name: np.zeros(0, "i4") for name in "txyp"})
    assert len(read_events(path, (4, 5))[0]) == 0
    refuses(path, "no events that would tell the sensor; give size")


def test_files_of_other_arrays_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, times=[1], xs=[1], ys=[1], ps=[1], more=[1])
    refuses(path, "arrays times, xs, ys, ps, more; expected arrays t, x, y and p, or one")
    np.savez(path, np.zeros((4, 4)))
    refuses(path, r"arr_0 has the shape \[4, 4\] of float64")
    np.save(tmp_path / "a.npy", np.zeros(4))
    refuses(tmp_path / "a.npy", "an array of float64; expected a structured array with the fields")
    np.save(tmp_path / "a.npy", np.zeros(4, [("t", "i8"), ("x", "i8"), ("y", "i8")]))
    refuses(tmp_path / "a.npy", "expected a structured array with the fields t, x, y and p")
    np.save(tmp_path / "a.npy", np.zeros(4, "V0"))
    refuses(tmp_path / "a.npy", "expected the bytes for it")


# ---------------------------------------------------------------- hostile files


def npy_bytes(array) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def test_two_arrays_of_one_name_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    for second in ("t.npy", "t"):
        with zipfile.ZipFile(path, "w") as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zipfile warns of the second
            for name in ("t.npy", "x.npy", "y.npy", "p.npy", second):
                archive.writestr(name, npy_bytes(np.arange(4)))
        refuses(path, "two arrays named t; expected one array of each name")


def test_a_header_that_claims_more_than_the_file_has_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    data = npy_bytes(EVENTS)
    for claim in (b"(9999999999999999,)", b"(5,)", b"(3,)", b"(-4,)", b"(-1, -4,)", b"()"):
        padding = b" " * (len(claim) - 4)
        assert b"(4,), }" + padding in data
        path.write_bytes(data.replace(b"(4,), }" + padding, claim + b", }" + b" " * (4 - len(claim))))
        tracemalloc.start()
        refuses(path, "a.npy has the shape|a damaged header")
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()


def test_a_zip_bomb_and_other_compressions_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    n = 3_000_000
    np.savez_compressed(path, **{name: np.zeros(n, "i4") for name in "txyp"})
    tracemalloc.start()
    refuses(path, "arrays that unpack to 48,000,512 bytes; expected at most 100 × the file's")
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.npy", npy_bytes(EVENTS))
    refuses(path, "another compression; expected stored or deflated")


class Evil:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        import os

        return os.mkdir, (self.folder,)


def test_a_pickle_is_not_opened(tmp_path):
    evil = np.array([Evil(str(tmp_path / "was_here"))] * 4, object)
    np.save(tmp_path / "a.npy", evil, allow_pickle=True)
    refuses(tmp_path / "a.npy", "a.npy holds Python objects; expected numbers")
    refuses(npz(tmp_path / "a.npz", x=evil), "x holds Python objects")
    assert not (tmp_path / "was_here").exists()


def good_files() -> dict[str, bytes]:
    file = io.BytesIO()
    np.savez_compressed(file, **{name: np.array(values, "i8") for name, values in COLUMNS.items()})
    record = struct.pack(">II", 3 << 8, 7)
    return {
        "a.npz": file.getvalue(),
        "a.npy": npy_bytes(EVENTS),
        "a.bin": nmnist(EVENTS.tolist()),
        "a.aedat": HEADER2 + record * 3,
    }


@pytest.mark.parametrize("name", good_files())
@fuzz
@given(data=st.data())
def test_a_damaged_file_is_refused_or_gives_events(name, data, tmp_path):
    content = data.draw(damaged(good_files()[name]))
    path = tmp_path / name
    path.write_bytes(content)
    tracemalloc.start()
    try:
        events, (H, W) = read_events(path)
        assert events.dtype == EVENT
        assert not len(events) or (events["x"].max() < W and events["y"].max() < H)
    except DataFileError as error:
        assert str(error).startswith(str(path))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 8 << 20


def test_large_recordings_come_back_from_every_numpy_file(rng, tmp_path):
    events = some_events(100_000, rng)
    np.save(tmp_path / "a.npy", events)
    np.savez_compressed(tmp_path / "a.npz", **{name: events[name] for name in "txyp"})
    for name in ("a.npy", "a.npz"):
        assert np.array_equal(read_events(tmp_path / name, (6, 9))[0], events)


def test_four_arrays_of_other_names_are_refused_by_their_names(tmp_path):
    columns = {name: np.zeros(3, "u2") for name in ("time", "x", "y", "p")}
    np.savez(tmp_path / "x.npz", **columns)
    with pytest.raises(DataFileError, match="x.npz: arrays time, x, y, p; expected arrays t, x, y and p"):
        read_events(tmp_path / "x.npz")


def test_an_array_whose_packed_size_is_false_takes_no_memory(tmp_path):
    """zipfile would allocate what the archive's directory claims, for stored arrays as well."""
    path = tmp_path / "x.npz"
    np.savez(path, **{name: np.zeros(3, "u2") for name in "txyp"})
    whole = bytearray(path.read_bytes())
    at = whole.index(b"PK\x01\x02")  # the first entry of the directory
    whole[at + 20 : at + 24] = (2**30).to_bytes(4, "little")
    path.write_bytes(whole)
    with memory_below(2**22), pytest.raises(DataFileError, match="arrays that unpack to 1,073,74"):
        read_events(path)
