"""An event camera's output as one array, and the frames that a network is given instead.

Each pixel of an event camera (a DVS, dynamic vision sensor) speaks for itself: when its brightness has
changed by a set amount it sends one event (x, y, t, p), where and when, and up or down. A recording is the
list of them. A network with T time steps wants T pictures: `events_to_frames` counts events per pixel and
polarity in T slices of the list. Nothing is dropped: the frames sum to the number of events.
"""

from __future__ import annotations

import numpy as np

EVENT = np.dtype([("x", "u2"), ("y", "u2"), ("t", "i8"), ("p", "?")])
"""Column, row, microseconds, polarity (True: brighter). Packed: 13 bytes an event."""


def make_events(x, y, t, p) -> np.ndarray:
    """Return the event array of columns x, rows y, times t in µs and polarities p, all [n]."""
    events = np.empty(len(t), EVENT)
    for name, values in zip("xytp", (x, y, t, p), strict=True):
        events[name] = values
    return events


def check(events: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return events if they are an event array [n] of a sensor of size (H, W); else raise ValueError.

    Times are >= 0, but need not be in order: some recordings step back a little, and framing copes with it.
    """
    if not isinstance(events, np.ndarray) or events.dtype != EVENT or events.ndim != 1:
        got = f"{events.dtype} {list(events.shape)}" if isinstance(events, np.ndarray) else repr(type(events))
        raise ValueError(f"expected an event array [n] of x u2, y u2, t i8 (µs), p bool, got {got}")
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


def events_to_frames(
    events: np.ndarray, T: int, split_by: str = "number", size: tuple[int, int] = (128, 128)
) -> np.ndarray:
    """Count events per slice, pixel and polarity -> frames float32 [T, H, W, 2]; channel 1 is "brighter".

    split_by="number"   n // T events a frame in the array's order, the remainder in the last (the papers')
    split_by="time"     frame i holds first + i·dt <= t < first + (i + 1)·dt, dt = (last − first) // T, and
                        the last frame all that remains. first and last are the least and greatest t.

    Fewer events than frames, or a dt of 0, puts all in the last frame. These are SpikingJelly's rules.
    """
    if T < 1:
        raise ValueError(f"frames need T >= 1, got {T}")
    check(events, size)
    n, (H, W) = len(events), size
    if split_by == "number":
        frame = np.arange(n) // (n // T) if n >= T else np.full(n, T - 1)
    elif split_by == "time":
        elapsed = events["t"] - events["t"].min(initial=np.iinfo("i8").max)
        dt = int(elapsed.max(initial=0)) // T
        frame = elapsed // dt if dt else np.full(n, T - 1)
    else:
        raise ValueError(f"split_by must be 'number' or 'time', got {split_by!r}")
    frame = np.minimum(frame, T - 1)
    cell = ((frame * H + events["y"]) * W + events["x"]) * 2 + events["p"]  # [n], a place in [T, H, W, 2]
    return np.bincount(cell, minlength=T * H * W * 2).reshape(T, H, W, 2).astype("float32")


def time_first(frames: np.ndarray) -> np.ndarray:
    """Turn samples' frames [B, T, H, W, 2] into a batch [T, B, H, W, 2], as the models take it."""
    if frames.ndim != 5:
        raise ValueError(f"time_first takes frames [B, T, H, W, 2], got {list(frames.shape)}")
    return np.ascontiguousarray(frames.swapaxes(0, 1))
