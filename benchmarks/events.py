"""Compare the time of reading recordings with NumPy's bare reading: python -m benchmarks.events

This writes a recording of 12.5 million events (100 MB) in AEDAT 2.0 and in AEDAT 3.1. Each file is read by
our reader, which checks everything, and by np.fromfile and the format's bit masks, which check nothing. All
are timed in turn, round after round. events_to_frames is timed too, for both ways of splitting. The results
are written to results/events.json.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from datetime import date
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.ablations import machine
from data_utils.events.aedat import (
    HEADER2,
    HEADER3,
    PACKET,
    read_aedat2,
    read_aedat3,
    write_aedat2,
    write_aedat3,
)
from data_utils.events.frames import events_to_frames, make_events

PER_PACKET = 4096
RESULTS = Path(__file__).parent / "results"
READERS = "read_aedat2", "read_aedat3"
BARE = "np.fromfile and masks, 2.0", "np.fromfile and masks, 3.1"


def bare2(path: Path) -> tuple[np.ndarray, ...]:
    """Return columns x, y, t, p by np.fromfile and masks, without checks and not as one event array."""
    records = np.fromfile(path, ">u4", offset=len(HEADER2)).reshape(-1, 2)
    address, t = records[:, 0].astype("u4"), records[:, 1].astype("i8")
    return 127 - ((address & 0x7F00) >> 8), 127 - ((address & 0xFE) >> 1), t, address & 1 == 0


def bare3(path: Path) -> tuple[np.ndarray, ...]:
    """Return columns as bare2 does, for a file of full packets of PER_PACKET events without overflow.

    A last packet with fewer events is left out.
    """
    raw = np.fromfile(path, "u1", offset=len(HEADER3))
    whole = len(raw) // (PACKET.size + 8 * PER_PACKET)
    body = raw[: whole * (PACKET.size + 8 * PER_PACKET)].reshape(whole, -1)[:, PACKET.size :]
    records = np.ascontiguousarray(body).view("<u4").reshape(-1, 2)
    data = records[:, 0]
    return data >> 17, (data >> 2) & 0x7FFF, records[:, 1].astype("i8"), data & 2 > 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=12_500_000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    n = options.events
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 128, (2, n))
    events = make_events(x, y, np.sort(rng.integers(0, 10**8, n)), rng.random(n) < 0.5)
    with tempfile.TemporaryDirectory() as folder:
        file2 = Path(folder) / "2.aedat"
        file3 = Path(folder) / "3.aedat"
        write_aedat2(file2, events)
        write_aedat3(file3, events, PER_PACKET)
        assert np.array_equal(read_aedat2(file2), events)
        assert np.array_equal(read_aedat3(file3), events)
        tasks = {
            READERS[0]: lambda: read_aedat2(file2),
            BARE[0]: lambda: bare2(file2),
            READERS[1]: lambda: read_aedat3(file3),
            BARE[1]: lambda: bare3(file3),
            "events_to_frames, number": lambda: events_to_frames(events, 16),
            "events_to_frames, time": lambda: events_to_frames(events, 16, "time"),
        }
        times: dict[str, list[float]] = {name: [] for name in tasks}
        for i in range(options.rounds + 1):  # the first round is not counted
            for name, task in tasks.items():
                start = time.perf_counter()
                task()
                if i:
                    times[name].append(time.perf_counter() - start)
    found = {name: {"ms": round(1e3 * median(taken), 1)} for name, taken in times.items()}
    print(f"{machine()}; {n:,} events, medians of {options.rounds} rounds in turn")
    for name, row in found.items():
        row["million_events_a_second"] = round(n / median(times[name]) / 1e6, 1)
        print(f"{name:<28} {row['ms']:6.0f} ms  {row['million_events_a_second']:6.1f} million events/s")
    for reader, bare in zip(READERS, BARE, strict=True):
        ratio = median(a / b for a, b in zip(times[reader], times[bare], strict=True))
        found[reader]["of_bare"] = round(ratio, 2)
        print(f"{reader} takes {ratio:.2f} times as long as the bare reading")
    command = f"python -m benchmarks.events --events {n} --rounds {options.rounds}"
    record = {"command": command, "date": date.today().isoformat(), "machine": machine(), "found": found}
    (RESULTS / "events.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
