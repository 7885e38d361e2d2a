"""The output of an event camera as one array of events, and the frames that a network gets instead.

In an event camera (a DVS, dynamic vision sensor), each pixel works on its own. When the brightness of a pixel
has changed by a set amount, the pixel sends one event (x, y, t, p): the place, the time, and whether it got
brighter or darker. A recording is the list of all events. A network with T time steps needs T pictures:
`events_to_frames` cuts the list into T slices and counts the events of each slice per pixel and polarity. No
event is dropped, so all frames together sum to the number of events.
"""

from __future__ import annotations

import numpy as np

EVENT = np.dtype([("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "?")])
"""One event, in 13 bytes: column, row, time in microseconds, polarity (True: brighter)."""

UNITS = {"s": 1e6, "ms": 1e3, "us": 1.0}
"""How many µs there are in each unit that float times may have."""


def make_events(x, y, t, p, unit: str | None = None) -> np.ndarray:
    """Return an event array [n] of columns x, rows y, times t and polarities p, all [n].

    x, y: whole numbers from 0 to 65535.
    t: integers, which are always µs; or floats, which are rounded to whole µs.
    p: values of {0, 1}, bool or {−1, 1}; 1 is "brighter".
    unit: of float times, "s", "ms" or "us".
    Raises ValueError, which names the field and its first wrong value, for anything else. So no value is
    truncated, and none wraps around.
    """
    fields = {name: np.asarray(values) for name, values in zip("xytp", (x, y, t, p), strict=True)}
    for name, values in fields.items():
        if values.ndim != 1 or values.dtype.kind not in ("biuf" if name == "p" else "iuf"):
            raise ValueError(f"{name} is {values.dtype} {list(values.shape)}; it must be numbers [n]")
    lengths = {name: len(values) for name, values in fields.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"x, y, t and p must have the same length, got {lengths}")
    events = np.empty(lengths["t"], EVENT)
    events["x"] = _whole("x", fields["x"])
    events["y"] = _whole("y", fields["y"])
    events["t"] = _microseconds(fields["t"], unit)
    events["p"] = _brighter(fields["p"])
    return events


def check_size(size: tuple[int, int]) -> None:
    """Raise ValueError if size is not (H, W), the rows and columns of a sensor."""
    if not (np.shape(size) == (2,) and all(isinstance(n, int | np.integer) and n >= 1 for n in size)):
        raise ValueError(f"size must be (H, W), two whole numbers from 1 on, got {size!r}")


def check_unit(unit: str | None) -> None:
    """Raise ValueError if unit is neither None nor one of UNITS."""
    if unit is not None and unit not in UNITS:
        raise ValueError(f"unit must be 's', 'ms' or 'us', got {unit!r}")


def _whole(name: str, values: np.ndarray) -> np.ndarray:
    good = (values >= 0) & (values <= 65535)
    if values.dtype.kind == "f":
        good &= np.floor(values) == values
    _refuse_first(~good, name, values, "a whole number from 0 to 65535")
    return values


def _microseconds(t: np.ndarray, unit: str | None) -> np.ndarray:
    check_unit(unit)
    if t.dtype.kind != "f":
        if unit not in (None, "us"):
            raise ValueError(f"t holds integers, which are µs; unit={unit!r} is for times that are floats")
        _refuse_first(t > np.iinfo("i8").max, "t", t, "below 2⁶³ µs")
        return t
    if unit is None and len(t):
        raise ValueError("t holds floats, so say their unit: unit='s', 'ms' or 'us'")
    with np.errstate(over="ignore"):  # an infinite time is refused in the next line
        t_us = np.rint(t.astype("float64") * UNITS[unit or "us"])
    _refuse_first(~(abs(t_us) < 2.0**63), "t", t, "a time below 2⁶³ µs")
    return t_us


def _brighter(p: np.ndarray) -> np.ndarray:
    brighter = p == 1
    darker = (p == 0) if not (p == -1).any() else (p == -1)  # 0 next to −1 is neither
    _refuse_first(~(brighter | darker), "p", p, "of {0, 1} or of {−1, 1}")
    return brighter


def _refuse_first(wrong: np.ndarray, name: str, values: np.ndarray, expected: str) -> None:
    if wrong.any():
        i = int(wrong.argmax())
        raise ValueError(f"{name}[{i}] is {values[i]}; it must be {expected}")


def check(events: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return the events if they are an event array [n] of a sensor of size (H, W); else raise ValueError.

    Times must be >= 0. They need not be in order, because time steps back a little in some recordings.
    """
    if not isinstance(events, np.ndarray) or events.dtype != EVENT or events.ndim != 1:
        got = f"{events.dtype} {list(events.shape)}" if isinstance(events, np.ndarray) else repr(type(events))
        raise ValueError(
            f"expected an event array [n] of x u2, y u2, t i8 (µs), p bool, as made by make_events; got {got}"
        )
    check_size(size)
    H, W = size
    outside = (events["x"] >= W) | (events["y"] >= H)
    if outside.any():
        i = int(outside.argmax())
        where = f"x = {events['x'][i]}, y = {events['y'][i]}"
        raise ValueError(f"event {i} of {len(events)} at {where} lies outside the {H}×{W} sensor")
    if len(events) and events["t"].min() < 0:
        i = int(events["t"].argmin())
        raise ValueError(f"event {i} of {len(events)} has the negative time {events['t'][i]} µs")
    return events


def check_framing(T: int, split_by: str, size: tuple[int, int]) -> None:
    """Raise ValueError, which names the argument, for what `events_to_frames` cannot do."""
    if not (isinstance(T, int | np.integer) and T >= 1):
        raise ValueError(f"frames need a whole number T >= 1, got {T!r}")
    if split_by not in ("number", "time"):
        raise ValueError(f"split_by must be 'number' or 'time', got {split_by!r}")
    check_size(size)


def events_to_frames(
    events: np.ndarray, T: int, split_by: str = "number", size: tuple[int, int] = (128, 128)
) -> np.ndarray:
    """Count events per slice, pixel and polarity; return frames float32 [T, H, W, 2].

    events: event array [n].    size: (H, W).    Channel 0 counts "darker" events, channel 1 "brighter" ones.

    split_by="number"   Each frame gets n // T events, in the array's order. The last frame also gets the
                        remainder. The papers split this way.
    split_by="time"     Frame i gets the events with first + i·dt <= t < first + (i + 1)·dt. Here first and
                        last are the smallest and the largest t, and dt = (last − first) // T. The last frame
                        also gets all later events.

    If there are fewer events than frames, or if dt is 0, the last frame gets all events. These are the rules
    of the library SpikingJelly.
    Raises ValueError for what `check_framing` or `check` refuses.
    """
    check_framing(T, split_by, size)
    check(events, size)
    n, (H, W) = len(events), size
    if split_by == "number":
        frame = np.arange(n) // (n // T) if n >= T else np.full(n, T - 1)
    else:
        elapsed = events["t"] - events["t"].min(initial=np.iinfo("i8").max)
        dt = int(elapsed.max(initial=0)) // T
        frame = elapsed // dt if dt else np.full(n, T - 1)
    frame = np.minimum(frame, T - 1).astype(np.intp)  # np.bincount takes the platform's index type alone
    place = ((frame * H + events["y"]) * W + events["x"]) * 2 + events["p"]  # [n], in flat [T, H, W, 2]
    return np.bincount(place, minlength=T * H * W * 2).reshape(T, H, W, 2).astype("float32")


def time_first(frames: np.ndarray) -> np.ndarray:
    """Return the frames of samples, [B, T, H, W, 2], as a batch for the models, [T, B, H, W, 2].

    Raises ValueError for another number of axes.
    """
    if frames.ndim != 5:
        raise ValueError(f"time_first takes frames [B, T, H, W, 2], got {list(frames.shape)}")
    return np.ascontiguousarray(frames.swapaxes(0, 1))
