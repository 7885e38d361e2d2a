"""Recordings of event cameras as files: AEDAT 2.0 (CIFAR10-DVS) and AEDAT 3.1 (DVS128 Gesture).

AEDAT 2.0       header lines #…\\r\\n, then records of 8 bytes, big-endian:      u4 address, u4 µs
AEDAT 3.1       header lines #…\\r\\n to #!END-HEADER, then packets, little-endian: a header of 28 bytes,
                then `capacity` records, `number` of them in use: polarity events are   u4 data, i4 µs

The readers refuse a damaged file with an AedatError that names the file, the offset in it and what was
expected there. They read in pieces of CHUNK records, and no file, whatever its headers claim, makes them
take more memory than 2 × its own size + 4 MiB (an event is 13 bytes, a record 8). Writers and readers are
inverses, bit for bit, in both directions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .frames import EVENT, check

CHUNK = 1 << 15  # records decoded at a time: they and their columns stay in the processor's cache
LONGEST_LINE = 1 << 16  # of a header


class AedatError(ValueError):
    """A file that is not the recording it claims to be: which file, at which offset, what was expected."""


# ---------------------------------------------------------------- what both formats share


class _Output:
    """The event array as it grows: at first with room for all that the file could hold."""

    def __init__(self, path: Path, room: int, size: tuple[int, int], max_step_back: int):
        self.path, self.size, self.max_step_back = path, size, max_step_back
        self.events, self.n, self.latest = np.empty(room, EVENT), 0, 0

    def add(self, x, y, t, p, offset: int) -> None:
        """Append columns [n]; they stand in the file's records at `offset` and after."""
        H, W = self.size
        if len(t) == 0:
            return
        if x.max() >= W or y.max() >= H:
            expected = f"{len(t)} events within {H}×{W}"
            _fail(self.path, offset, expected, f"x up to {x.max()}, y up to {y.max()}")
        latest = np.maximum.accumulate(t)
        np.maximum(latest, self.latest, out=latest)
        step = int((latest - t).max())
        if step > self.max_step_back:
            expected = f"{len(t)} events whose times step back by at most {self.max_step_back} µs"
            _fail(self.path, offset, expected, f"a step back by {step} µs")
        new = self.events[self.n : self.n + len(t)]
        new["x"], new["y"], new["t"], new["p"] = x, y, t, p
        self.n, self.latest = self.n + len(t), int(latest[-1])

    def close(self) -> np.ndarray:
        self.events.resize(self.n, refcheck=False)  # gives back the unused room without a copy
        return self.events


def _fail(path: Path, offset: int, expected: str, got: str):
    raise AedatError(f"{path}: at byte {offset} expected {expected}, got {got}")


def _header_line(file: BinaryIO, path: Path) -> bytes:
    start = file.tell()
    line = file.readline(LONGEST_LINE)
    if not line.startswith(b"#") or not line.endswith(b"\n"):
        _fail(path, start, "a header line, # … \\r\\n", repr(line[:20]))
    return line


def _version(file: BinaryIO, path: Path, version: bytes) -> None:
    first = file.readline(LONGEST_LINE)
    if first.rstrip() != b"#!AER-DAT" + version:
        _fail(path, 0, f"the line #!AER-DAT{version.decode()}", repr(first[:20]))


# ---------------------------------------------------------------- AEDAT 2.0

RECORD2 = np.dtype([("address", ">u4"), ("t", ">u4")])
HEADER2 = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"
HEADER2 += b"# Data format is int32 address, int32 timestamp (8 bytes total), repeated for each event\r\n"
HEADER2 += b"# Timestamps tick is 1 us\r\n"


def read_aedat2(
    path: str | Path, size: tuple[int, int] = (128, 128), max_step_back: int = 1_000_000
) -> np.ndarray:
    """Read a DVS128's AEDAT 2.0 file -> event array [n] (`events.EVENT`), in the file's order.

    Address bits, as the spiking transformers' authors decode them: 0 is 1 for darker, 1–7 are 127 − y, 8–14
    are 127 − x. Bit 15 marks an external event, which is dropped (our choice); a higher bit is refused.

    max_step_back: this format promises no order of time, and cameras are known to deliver an event late. The
    file's order is kept; a step back by more µs than this is damage or a clock that wrapped, and refused.
    """
    path = Path(path)
    with path.open("rb") as file:
        _version(file, path, b"2.0")
        while file.peek(1)[:1] == b"#":  # no address begins so: its upper bytes are 0
            _header_line(file, path)
        offset, end = file.tell(), path.stat().st_size
        if (end - offset) % 8:
            _fail(path, offset, "records of 8 bytes to the end of the file", f"{end - offset} bytes")
        output = _Output(path, (end - offset) // 8, size, max_step_back)
        for records in _records(file, path, RECORD2, (end - offset) // 8):
            address, t = records["address"].astype("u4"), records["t"].astype("i8")
            if (address >> 16).any():
                i = int((address >> 16 > 0).argmax())
                _fail(path, offset + 8 * i, "a DVS128 address of 16 bits", hex(address[i]))
            if (address & 0x8000).any():
                internal = address & 0x8000 == 0
                address, t = address[internal], t[internal]
            xr, yr = (address & 0xFE) >> 1, (address & 0x7F00) >> 8
            output.add(127 - yr, 127 - xr, t, address & 1 == 0, offset)
            offset += records.nbytes
    return output.close()


def _records(file: BinaryIO, path: Path, dtype: np.dtype, n: int) -> Iterator[np.ndarray]:
    """Yield the next n records in chunks."""
    for start in range(0, n, CHUNK):
        count = min(CHUNK, n - start)
        data = file.read(count * dtype.itemsize)
        if len(data) < count * dtype.itemsize:
            _fail(path, file.tell(), f"{n - start} more records", "the end of the file")
        yield np.frombuffer(data, dtype)


def write_aedat2(path: str | Path, events: np.ndarray) -> None:
    """Write events of a sensor of up to 128×128, 0 <= t < 2³² µs, as `read_aedat2` reads them."""
    check(events, (128, 128))
    if len(events) and events["t"].max() >= 1 << 32:
        raise ValueError(f"AEDAT 2.0 holds times below 2³² µs, got {events['t'].max()}")
    records = np.empty(len(events), RECORD2)
    xr, yr = 127 - events["y"].astype("u4"), 127 - events["x"].astype("u4")
    records["address"] = (yr << 8) | (xr << 1) | ~events["p"]
    records["t"] = events["t"]
    Path(path).write_bytes(HEADER2 + records.tobytes())


# ---------------------------------------------------------------- AEDAT 3.1

PACKET = struct.Struct("<hhiiiiii")  # type, source, size, timestamp offset, overflow, capacity, number, valid
POLARITY = 1
RECORD3 = np.dtype([("data", "<u4"), ("t", "<i4")])
HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def read_aedat3(path: str | Path, size: tuple[int, int] = (128, 128), max_step_back: int = 0) -> np.ndarray:
    """Read the polarity events of an AEDAT 3.1 file -> event array [n] (`events.EVENT`).

    Record bits: 0 valid (else dropped), 1 brighter, 2–16 y, 17–31 x; t = ts | overflow << 31. Packets of
    other types are passed over.

    max_step_back: this format's packets are in order of time, so by default no step back is accepted.
    """
    path = Path(path)
    with path.open("rb") as file:
        _version(file, path, b"3.1")
        line = b""
        while line.rstrip() != b"#!END-HEADER":
            line = _header_line(file, path)
            if line.startswith(b"#Format:") and line.split(b":")[1].strip() != b"RAW":
                _fail(path, file.tell() - len(line), "#Format: RAW", repr(line[:40]))
        end = path.stat().st_size
        output = _Output(path, (end - file.tell()) // 8, size, max_step_back)
        while (offset := file.tell()) < end:
            kind, overflow, capacity_bytes, number, valid = _packet_header(file, path, offset, end)
            if kind == POLARITY:
                found = 0
                for records in _records(file, path, RECORD3, number):
                    data, t = records["data"], records["t"]
                    if t.min() < 0:
                        _fail(path, offset, "times of 31 bits", str(t.min()))
                    if not (data & 1).all():
                        data, t = data[data & 1 == 1], t[data & 1 == 1]
                    t = t.astype("i8") | overflow << 31
                    output.add(data >> 17, (data >> 2) & 0x7FFF, t, data & 2 > 0, offset)
                    found += len(t)
                if found != valid:
                    _fail(path, offset, f"{valid} valid events, as the packet says", str(found))
            file.seek(offset + PACKET.size + capacity_bytes)
    return output.close()


def _packet_header(file: BinaryIO, path: Path, offset: int, end: int) -> tuple[int, int, int, int, int]:
    """Return (type, overflow, bytes that follow, number, valid) of the packet at `offset`, all believable."""
    raw = file.read(PACKET.size)
    if len(raw) < PACKET.size:
        _fail(path, offset, f"a packet header of {PACKET.size} bytes", f"{len(raw)}")
    kind, source, size, t_offset, overflow, capacity, number, valid = PACKET.unpack(raw)
    if kind < 0 or source < 0 or size < 1 or overflow < 0:
        got = f"type {kind}, source {source}, event size {size}, overflow {overflow}"
        _fail(path, offset, "a packet header (no negative number, events of a byte or more)", got)
    if kind == POLARITY and (size, t_offset) != (8, 4):
        _fail(path, offset, "polarity events of 8 bytes with their time at byte 4", f"{size} and {t_offset}")
    if not 0 <= valid <= number <= capacity:
        _fail(path, offset, "0 <= valid <= number <= capacity", f"{valid}, {number}, {capacity}")
    left = end - offset - PACKET.size
    if capacity * size > left:
        _fail(path, offset, f"at most the {left} bytes that are left", f"{capacity} events of {size} bytes")
    return kind, overflow, capacity * size, number, valid


def write_aedat3(path: str | Path, events: np.ndarray, packet: int = 4096) -> None:
    """Write events, 0 <= t < 2⁶² µs in order, x and y < 2¹⁵, in packets of up to `packet` events.

    A packet ends early where t crosses a multiple of 2³¹, since one overflow count serves a whole packet.
    """
    check(events, (1 << 15, 1 << 15))
    if packet < 1:
        raise ValueError(f"a packet holds at least one event, got packet={packet}")
    t = np.ascontiguousarray(events["t"])  # searched once a packet
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
