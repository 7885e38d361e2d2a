"""Files of event recordings: AEDAT 2.0 (CIFAR10-DVS) and AEDAT 3.1 (DVS128 Gesture).

    AEDAT 2.0    Header lines "#…\\r\\n", then records of 8 bytes, big-endian: u4 address, u4 time in µs.
    AEDAT 3.1    Header lines "#…\\r\\n" up to the line "#!END-HEADER", then packets, little-endian. A packet
                 is a header of 28 bytes and room for `capacity` records. The first `number` of them are in
                 use. The record of a polarity event is u4 data, i4 time in µs.

The readers refuse a damaged file with a DataFileError. They decode CHUNK records at a time. Whatever the
headers of a file claim, a reader takes at most 2 × the file's size + 4 MiB of memory: an event takes 13
bytes, a record 8. For each format, reader and writer are inverses, bit for bit, in both directions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ..errors import DataFileError
from .frames import EVENT, check

CHUNK = 1 << 15  # records decoded at a time: they and their columns fit into the processor's cache
VERSION = b"#!AER-DAT"  # the version follows

# ---------------------------------------------------------------- what both formats share


class _Output:
    """An event array that grows; it starts with room for as many events as the file can hold."""

    def __init__(self, path: Path, room: int, size: tuple[int, int], max_step_back: int):
        self.path = path
        self.size = size
        self.max_step_back = max_step_back
        self.events = np.empty(room, EVENT)
        self.n = 0  # how many events there are
        self.latest = 0  # the largest time

    def add(self, x, y, t, p, offset: int) -> None:
        """Append events, given as columns [n]; their records are in the file at byte `offset` or after."""
        H, W = self.size
        if len(t) == 0:
            return
        if x.max() >= W or y.max() >= H:
            found = f"x up to {x.max()}, y up to {y.max()}"
            raise DataFileError(self.path, offset, found, f"{len(t)} events within {H}×{W}")
        latest = np.maximum.accumulate(t)
        np.maximum(latest, self.latest, out=latest)
        step = int((latest - t).max())
        if step > self.max_step_back:
            expected = f"{len(t)} events whose times step back by at most {self.max_step_back} µs"
            raise DataFileError(self.path, offset, f"a step back by {step} µs", expected)
        new = self.events[self.n : self.n + len(t)]
        new["x"], new["y"], new["t"], new["p"] = x, y, t, p
        self.n += len(t)
        self.latest = int(latest[-1])

    def close(self) -> np.ndarray:
        """Return the events. If most of the room is unused, return a copy, which gives the room back."""
        events = self.events[: self.n]
        return events if 5 * self.n > len(self.events) else events.copy()


def _header_line(file: BinaryIO, path: Path) -> bytes:
    start = file.tell()
    line = file.readline()
    if not line.startswith(b"#") or not line.endswith(b"\n"):
        raise DataFileError(path, start, repr(line[:20]), "a header line, # … \\r\\n")
    return line


def aedat_version(file: BinaryIO, path: Path) -> str:
    """Return the version, such as "2.0", that a header states, and leave the file after this line.

    Comments may come before the line "#!AER-DAT<version>", and text may follow the version in this line.
    Raises DataFileError if no header line states a version.
    """
    while file.peek(1)[:1] == b"#":
        line = _header_line(file, path)
        if line.startswith(VERSION):
            words = line.removeprefix(VERSION).split() or [b""]
            return words[0].decode("ascii", "replace")
    expected = "header lines, one of which starts with #!AER-DAT2.0 or #!AER-DAT3.1"
    raise DataFileError(path, file.tell(), repr(file.peek(20)[:20]), expected)


def _expect_version(file: BinaryIO, path: Path, expected: str) -> None:
    found = aedat_version(file, path)
    if found != expected:
        raise DataFileError(path, 0, f"a header of AEDAT {found[:20]!r}", f"#!AER-DAT{expected}")


# ---------------------------------------------------------------- AEDAT 2.0

RECORD2 = np.dtype([("address", ">u4"), ("t", ">u4")])
HEADER2 = (
    b"#!AER-DAT2.0\r\n"
    b"# This is a raw AE data file - do not edit\r\n"
    b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
    b"# Timestamps tick is 1 us\r\n"
)


def read_aedat2(
    path: str | Path, size: tuple[int, int] = (128, 128), max_step_back: int = 1_000_000
) -> np.ndarray:
    """Return the events in the AEDAT 2.0 file of a DVS128 camera: event array [n], in the file's order.

    size: (H, W) of the sensor.
    max_step_back: µs. This format does not promise that times are in order, and cameras are known to deliver
        an event late. If a time is smaller than an earlier one by more than this, the file is refused: it is
        damaged, or the clock has wrapped.

    The bits of an address, as the authors of the spiking transformers decode them:

        0       1 for darker
        1–7     127 − y
        8–14    127 − x
        15      1 for an external event; these events are dropped, which is our choice

    Raises DataFileError for a higher bit in an address, for events outside the sensor, and for damage.
    """
    path = Path(path).expanduser()
    with path.open("rb") as file:
        _expect_version(file, path, "2.0")
        while file.peek(1)[:1] == b"#":  # no record starts with "#": the upper bytes of an address are 0
            _header_line(file, path)
        offset, end = file.tell(), path.stat().st_size
        if (end - offset) % 8:
            found = f"{end - offset} bytes"
            raise DataFileError(path, offset, found, "records of 8 bytes to the end of the file")
        n = (end - offset) // 8
        output = _Output(path, n, size, max_step_back)
        for records in _records(file, path, RECORD2, n):
            address, t = records["address"].astype("u4"), records["t"].astype("i8")
            if (address >> 16).any():
                i = int((address >> 16 > 0).argmax())
                raise DataFileError(path, offset + 8 * i, hex(address[i]), "a DVS128 address of 16 bits")
            if (address & 0x8000).any():
                internal = address & 0x8000 == 0
                address, t = address[internal], t[internal]
            mirrored_y = (address & 0xFE) >> 1
            mirrored_x = (address & 0x7F00) >> 8
            output.add(127 - mirrored_x, 127 - mirrored_y, t, address & 1 == 0, offset)
            offset += records.nbytes
    return output.close()


def _records(file: BinaryIO, path: Path, dtype: np.dtype, n: int) -> Iterator[np.ndarray]:
    """Yield the next n records in chunks."""
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            raise DataFileError(path, file.tell(), "the end of the file", f"{n - start} more records")
        yield np.frombuffer(data, dtype)


def write_aedat2(path: str | Path, events: np.ndarray) -> None:
    """Write events so that `read_aedat2` reads them back.

    events: event array [n] of a sensor of at most 128×128 pixels, with 0 <= t < 2³² µs.
    Raises ValueError for events that this format cannot hold.
    """
    check(events, (128, 128))
    if len(events) and events["t"].max() >= 1 << 32:
        raise ValueError(f"AEDAT 2.0 holds times below 2³² µs, got {events['t'].max()}")
    records = np.empty(len(events), RECORD2)
    mirrored_y = 127 - events["y"].astype("u4")
    mirrored_x = 127 - events["x"].astype("u4")
    records["address"] = (mirrored_x << 8) | (mirrored_y << 1) | ~events["p"]
    records["t"] = events["t"]
    Path(path).write_bytes(HEADER2 + records.tobytes())


# ---------------------------------------------------------------- AEDAT 3.1

PACKET = struct.Struct("<hhiiiiii")  # type, source, size, timestamp offset, overflow, capacity, number, valid
POLARITY = 1
RECORD3 = np.dtype([("data", "<u4"), ("t", "<i4")])
HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def read_aedat3(path: str | Path, size: tuple[int, int] = (128, 128), max_step_back: int = 0) -> np.ndarray:
    """Return the polarity events in an AEDAT 3.1 file: event array [n], in the file's order.

    size: (H, W) of the sensor.
    max_step_back: µs. The packets of this format are in order of time, so by default a file is refused if a
        time is smaller than an earlier one.

    The bits of a record's data: 0 valid (else the event is dropped), 1 brighter, 2–16 y, 17–31 x. The time of
    an event is the record's time + overflow · 2³¹, with the overflow from the packet's header. Packets of
    other types are skipped.

    Raises DataFileError for events outside the sensor, and for damage.
    """
    path = Path(path).expanduser()
    with path.open("rb") as file:
        _expect_version(file, path, "3.1")
        line = b""
        while line.rstrip() != b"#!END-HEADER":
            line = _header_line(file, path)
            if line.startswith(b"#Format:") and line.split(b":")[1].strip() != b"RAW":
                raise DataFileError(path, file.tell() - len(line), repr(line[:40]), "#Format: RAW")
        end = path.stat().st_size
        output = _Output(path, (end - file.tell()) // 8, size, max_step_back)
        while (offset := file.tell()) < end:
            kind, overflow, capacity_bytes, number, valid = _packet_header(file, path, offset, end)
            if kind == POLARITY:
                found = 0
                for records in _records(file, path, RECORD3, number):
                    data, t = records["data"], records["t"]
                    if t.min() < 0:
                        raise DataFileError(path, offset, f"the time {t.min()}", "times of 31 bits")
                    if not (data & 1).all():
                        data, t = data[data & 1 == 1], t[data & 1 == 1]
                    t = t.astype("i8") | overflow << 31
                    output.add(data >> 17, (data >> 2) & 0x7FFF, t, data & 2 > 0, offset)
                    found += len(t)
                if found != valid:
                    expected = f"{valid} valid events, as the packet says"
                    raise DataFileError(path, offset, f"{found} valid events", expected)
            file.seek(offset + PACKET.size + capacity_bytes)
    return output.close()


def _packet_header(file: BinaryIO, path: Path, offset: int, end: int) -> tuple[int, int, int, int, int]:
    """Return (type, overflow, bytes that follow, number, valid) of the packet at `offset`, all checked."""
    raw = file.read(PACKET.size)
    if len(raw) < PACKET.size:
        raise DataFileError(path, offset, f"{len(raw)} bytes", f"a packet header of {PACKET.size} bytes")
    kind, source, size, t_offset, overflow, capacity, number, valid = PACKET.unpack(raw)
    if kind < 0 or source < 0 or size < 1 or overflow < 0:
        found = f"type {kind}, source {source}, event size {size}, overflow {overflow}"
        expected = "a packet header (no negative number, events of at least one byte)"
        raise DataFileError(path, offset, found, expected)
    if kind == POLARITY and (size, t_offset) != (8, 4):
        found = f"events of {size} bytes with their time at byte {t_offset}"
        expected = "polarity events of 8 bytes with their time at byte 4"
        raise DataFileError(path, offset, found, expected)
    if not 0 <= valid <= number <= capacity:
        found = f"valid {valid}, number {number}, capacity {capacity}"
        raise DataFileError(path, offset, found, "0 <= valid <= number <= capacity")
    left = end - offset - PACKET.size
    if capacity * size > left:
        found = f"{capacity} events of {size} bytes"
        raise DataFileError(path, offset, found, f"at most the {left} bytes that are left")
    return kind, overflow, capacity * size, number, valid


def write_aedat3(path: str | Path, events: np.ndarray, packet: int = 4096) -> None:
    """Write events in packets of at most `packet` events, so that `read_aedat3` reads them back.

    events: event array [n] with x and y < 2¹⁵ and 0 <= t < 2⁶² µs, in order of time.
    A packet ends early where t crosses a multiple of 2³¹, because a packet has only one overflow count.
    Raises ValueError for events that this format cannot hold, and for packet < 1.
    """
    check(events, (1 << 15, 1 << 15))
    if packet < 1:
        raise ValueError(f"a packet holds at least one event, got packet={packet}")
    t = np.ascontiguousarray(events["t"])  # a copy in one piece, because every packet searches it
    if len(t) and ((np.diff(t) < 0).any() or t[-1] >= 1 << 62):
        raise ValueError(f"AEDAT 3.1 holds times in order and below 2⁶² µs, got {t.min()} … {t.max()}")
    records = np.empty(len(events), RECORD3)
    x, y, p = (events[name].astype("u4") for name in "xyp")
    records["data"] = x << 17 | y << 2 | p << 1 | 1
    records["t"] = t & 0x7FFFFFFF
    with Path(path).open("wb") as file:
        file.write(HEADER3)
        start = 0
        while start < len(t):
            overflow = int(t[start]) >> 31
            stop = min(start + packet, int(np.searchsorted(t, (overflow + 1) << 31)))
            n = stop - start
            file.write(PACKET.pack(POLARITY, 1, 8, 4, overflow, n, n, n))
            file.write(records[start:stop].tobytes())
            start = stop
