"""A recording in any known format as events: AEDAT 2.0 and 3.1, N-MNIST's files, and NumPy files.

    events, (H, W) = read_events("hand.npz", size=(260, 346), unit="s")

    AEDAT      Described in aedat.py.
    N-MNIST    A file <name>.bin of 5 bytes per event: x, y, and 3 bytes, big-endian. The highest bit of the 3
               bytes is 1 for "brighter". The other 23 bits are the time in µs. (Orchard et al. 2015)
    .npz       Four arrays t, x, y, p of the same length, or one structured array with these fields.
    .npy       One structured array with the fields t, x, y, p.

Fields may be in any order. Other fields, and arrays next to t, x, y and p, are not read. Integer times are
µs; float times need a unit. Nothing in a file is executed, and memory is bounded (../npz.py).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..errors import DataFileError
from ..npz import read_array, read_npz
from .aedat import aedat_version, read_aedat2, read_aedat3
from .frames import EVENT, check, check_size, check_unit, make_events

SENSORS = {".aedat": (128, 128), ".bin": (34, 34)}  # suffix: (H, W) of the sensor, where the format has one
SUFFIXES = {*SENSORS, ".npy", ".npz"}
MAX_STEP_BACK = 1_000_000  # µs; after a longer step back, events are not in order, or the clock has wrapped

Size = tuple[int, int]


def read_events(
    path: str | Path, size: Size | None = None, unit: str | None = None
) -> tuple[np.ndarray, Size]:
    """Return the events in a recording, an event array [n] in the file's order, and the sensor's (H, W).

    size: (H, W) of the sensor. The default is 128×128 for AEDAT and 34×34 for N-MNIST. NumPy files do not say
        what their sensor is; the default is the smallest (H, W) that holds all events.
    unit: "s", "ms" or "us", the unit of float times in NumPy files. Times in other formats are always µs.

    The format is recognised by the content of the file. Only the files of N-MNIST are recognised by their
    suffix .bin, because they have no header.

    Raises DataFileError for a file of another kind, for damage, and for events that are not valid: places
    outside the sensor, NaN, fields of different lengths, polarities other than {0, 1}, bool or {−1, 1},
    negative times, and a time that is more than 1 s before an earlier one. Raises ValueError for a size or
    unit that cannot be.
    """
    path = Path(path).expanduser()
    check_unit(unit)
    if size is not None:
        check_size(size)
    kind = _kind(path)
    if kind in ("2.0", "3.1"):
        size = size or SENSORS[".aedat"]
        return {"2.0": read_aedat2, "3.1": read_aedat3}[kind](path, size), size
    if kind == "N-MNIST":
        size = size or SENSORS[".bin"]
        return _expect_order(path, read_nmnist(path, size)), size
    fields = _npz_fields(path) if kind == "npz" else _npy_fields(path)
    try:
        events = make_events(**fields, unit=unit)
        size = size or _smallest_sensor(events)
        check(events, size)
    except ValueError as error:
        expected = "x and y on the sensor, t in µs or with a unit, and p of {0, 1}, bool or {−1, 1}"
        raise DataFileError(path, None, str(error), expected) from error
    return _expect_order(path, events), size


def _kind(path: Path) -> str:
    with path.open("rb") as file:
        start = file.peek(9)[:9]
        if start.startswith(b"\x93NUMPY"):
            return "npy"
        if start.startswith(b"PK\x03\x04"):
            return "npz"
        if path.suffix.lower() == ".bin" and start != b"#!AER-DAT":
            return "N-MNIST"
        if start.startswith(b"#"):
            version = aedat_version(file, path)
            if version in ("2.0", "3.1"):
                return version
            expected = "AEDAT 2.0 or 3.1: save it as one of these, or as an .npz of t, x, y and p"
            raise DataFileError(path, 0, f"a header of AEDAT {version[:20]!r}", expected)
    found = repr(start) if start else "an empty file"
    expected = "an AEDAT file, a NumPy file (.npz or .npy of t, x, y and p) or a file of N-MNIST (.bin)"
    raise DataFileError(path, 0, found, expected)


def _smallest_sensor(events: np.ndarray) -> Size:
    if not len(events):
        raise ValueError("no events that would tell the sensor; give size")
    return int(events["y"].max()) + 1, int(events["x"].max()) + 1


def _expect_order(path: Path, events: np.ndarray) -> np.ndarray:
    t = events["t"]
    step = int((np.maximum.accumulate(t) - t).max(initial=0))
    if step > MAX_STEP_BACK:
        expected = "events in order of time, with steps back of at most 1 s: sort them by t"
        raise DataFileError(path, None, f"a time that is {step} µs before an earlier one", expected)
    return events


# ---------------------------------------------------------------- N-MNIST


def read_nmnist(path: Path, size: Size) -> np.ndarray:
    """Return the events in a file of N-MNIST, or of another set in its format: event array [n].

    size: (H, W) of the sensor.
    Raises DataFileError if 5 does not divide the number of bytes, and for an event outside the sensor.
    """
    data = np.fromfile(path, "u1")
    if len(data) % 5:
        raise DataFileError(path, len(data) // 5 * 5, f"{len(data) % 5} bytes", "events of 5 bytes")
    x, y, high, middle, low = data.reshape(-1, 5).T
    H, W = size
    outside = (x >= W) | (y >= H)
    if outside.any():
        i = int(outside.argmax())
        raise DataFileError(path, 5 * i, f"x = {x[i]}, y = {y[i]}", f"a place on the {H}×{W} sensor")
    events = np.empty(len(x), EVENT)
    events["x"] = x
    events["y"] = y
    events["t"] = (high & 0x7F).astype("i8") << 16 | middle.astype("i8") << 8 | low
    events["p"] = high >> 7
    return events


# ---------------------------------------------------------------- NumPy files


def _npy_fields(path: Path) -> dict[str, np.ndarray]:
    arrays = {path.name: read_array(path, path.name, path.read_bytes())}
    _expect_one_axis(path, arrays)
    return _fields(path, *arrays.values())


def _npz_fields(path: Path) -> dict[str, np.ndarray]:
    def choose(names: list[str]) -> list[str]:
        wanted = [*"xytp"] if {*"xytp"} <= {*names} else names
        if wanted != [*"xytp"] and len(wanted) != 1:
            found = f"arrays {', '.join(names)[:80]}"
            raise DataFileError(path, None, found, "arrays t, x, y and p, or one structured array")
        return wanted

    arrays = read_npz(path, choose)
    _expect_one_axis(path, arrays)
    return arrays if len(arrays) == 4 else _fields(path, *arrays.values())


def _expect_one_axis(path: Path, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.ndim != 1:
            found = f"{name} has the shape {list(array.shape)} of {array.dtype}"[:200]
            raise DataFileError(path, None, found, "one axis")


def _fields(path: Path, array: np.ndarray) -> dict[str, np.ndarray]:
    """Return the fields of a structured array."""
    if not {*"xytp"} <= {*(array.dtype.names or ())}:
        expected = "a structured array with the fields t, x, y and p, or an .npz of four arrays"
        raise DataFileError(path, None, f"an array of {array.dtype}"[:100], expected)
    return {name: array[name] for name in "xytp"}
