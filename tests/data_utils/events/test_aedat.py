"""AEDAT files: byte for byte by hand, both directions, and no damaged file gets past or does harm."""

import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_utils.errors import DataFileError
from data_utils.events.aedat import (
    CHUNK,
    HEADER2,
    HEADER3,
    read_aedat2,
    read_aedat3,
    write_aedat2,
    write_aedat3,
)
from data_utils.events.frames import EVENT, make_events

READERS = {"2.0": read_aedat2, "3.1": read_aedat3}
WRITERS = {"2.0": write_aedat2, "3.1": write_aedat3}
HEADERS = {"2.0": HEADER2, "3.1": HEADER3}
both = pytest.mark.parametrize("version", ["2.0", "3.1"])


fuzzed = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recording.aedat"


def some_events(n, seed=0, last=2_000_000):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 128, (2, n))
    return make_events(x, y, np.sort(rng.integers(0, last, n)), rng.random(n) < 0.5)


def packet(records=b"", kind=1, source=1, size=8, t_offset=4, overflow=0, counts=None):
    n = len(records) // 8
    capacity, number, valid = counts or (n, n, n)
    return struct.pack("<hhiiiiii", kind, source, size, t_offset, overflow, capacity, number, valid) + records


def polarity(x, y, t, p, valid=1):
    return struct.pack("<Ii", x << 17 | y << 2 | p << 1 | valid, t)


# ---------------------------------------------------------------- what the bytes mean


def test_aedat2_by_hand(path):
    def record(xr, yr, bit0, t, external=0):  # the address as the camera sends it
        return struct.pack(">II", external << 15 | yr << 8 | xr << 1 | bit0, t)

    header = b"#!AER-DAT2.0\r\n# any comment\r\n"
    body = record(0, 0, 0, 5) + record(127, 1, 1, 9) + record(3, 3, 0, 10, external=1) + record(0, 90, 0, 9)
    path.write_bytes(header + body)
    events = read_aedat2(path)
    assert events.dtype == EVENT
    assert events.tolist() == [(127, 127, 5, True), (126, 0, 9, False), (37, 127, 9, True)]


def test_aedat3_by_hand(path):
    body = packet(polarity(5, 7, 100, 1) + polarity(127, 0, 100, 0) + polarity(1, 1, 101, 1, valid=0),
                  counts=(3, 3, 2))  # fmt: skip
    body += packet(b"\xff" * 30, kind=0, size=10, counts=(3, 0, 0))  # another type: passed over
    body += packet(polarity(2, 3, 7, 0) + b"\xff" * 16, overflow=3, counts=(3, 1, 1))  # one of three used
    path.write_bytes(HEADER3 + body)
    t = 3 * 2**31 + 7
    assert read_aedat3(path).tolist() == [(5, 7, 100, True), (127, 0, 100, False), (2, 3, t, False)]


@both
@pytest.mark.parametrize("n", [0, 1, 1000, CHUNK, 2 * CHUNK + 1])
def test_events_come_back_as_written_and_files_too(version, n, path, tmp_path):
    events = some_events(n)
    WRITERS[version](path, events)
    assert np.array_equal(READERS[version](path), events)
    again = tmp_path / "again.aedat"
    WRITERS[version](again, READERS[version](path))
    assert again.read_bytes() == path.read_bytes()


wide = st.tuples(
    st.integers(0, 2**15 - 1), st.integers(0, 2**15 - 1), st.integers(0, 2**62 - 1), st.booleans()
)


@fuzzed
@given(st.lists(wide, max_size=30), st.integers(1, 9))
def test_aedat3_holds_large_sensors_and_long_times(path, rows, length):
    events = np.array(sorted(rows, key=lambda row: row[2]), EVENT)
    write_aedat3(path, events, length)
    assert np.array_equal(read_aedat3(path, (2**15, 2**15)), events)


def test_aedat3_packets_are_as_long_as_asked(path):
    sizes = []
    for length in (10, 100):
        write_aedat3(path, some_events(100), length)
        sizes.append(path.stat().st_size - len(HEADER3))
    assert sizes == [10 * 28 + 800, 28 + 800]


@fuzzed
@given(st.binary(max_size=80))
def test_any_aedat2_body_of_sixteen_bit_addresses_comes_back_bit_for_bit(path, noise):
    pairs = np.frombuffer(noise[: len(noise) // 4 * 4], ">u2").reshape(-1, 2)
    body = b"".join(struct.pack(">II", a & 0x7FFF, t) for a, t in pairs.tolist())
    path.write_bytes(HEADER2 + body)
    write_aedat2(path, read_aedat2(path))
    assert path.read_bytes() == HEADER2 + body


def test_writers_refuse_what_the_format_cannot_hold(path):
    with pytest.raises(ValueError, match="x = 128, y = 0 lies outside the 128×128 sensor"):
        write_aedat2(path, make_events([128], [0], [0], [0]))
    with pytest.raises(ValueError, match="times below 2³² µs, got 4294967296"):
        write_aedat2(path, make_events([0], [0], [2**32], [0]))
    with pytest.raises(ValueError, match="outside the 32768×32768 sensor"):
        write_aedat3(path, make_events([2**15], [0], [0], [0]))
    for times in ([5, 4], [0, 2**62]):
        with pytest.raises(ValueError, match="in order and below 2⁶² µs"):
            write_aedat3(path, make_events([0, 0], [0, 0], times, [0, 0]))
    with pytest.raises(ValueError, match="packet=0"):
        write_aedat3(path, some_events(1), 0)
    assert not path.exists()


# ---------------------------------------------------------------- what is refused


def refuses(path, version, data, message, **options):
    path.write_bytes(data)
    with pytest.raises(DataFileError, match=message) as caught:
        READERS[version](path, **options)
    assert str(caught.value).startswith(f"{path}, byte ")


def test_damaged_aedat2_is_refused_by_name_and_offset(path):
    good = HEADER2 + struct.pack(">II", 0, 0)
    n = len(HEADER2)
    refuses(path, "2.0", b"", "byte 0: b''; expected header lines, one of which starts with #!AER-DAT2.0 or")
    refuses(path, "2.0", HEADER3, "byte 0: a header of AEDAT '3.1'; expected #!AER-DAT2.0")
    refuses(path, "2.0", good[n:], "byte 0: .*; expected header lines")
    refuses(path, "2.0", b"#!AER-DAT2.0\r\n# no end", "byte 14: .*; expected a header line")
    refuses(path, "2.0", b"#!AER-DAT2.0\r\n#" + b"x" * 70_000, "byte 14: .*; expected a header line")
    refuses(path, "2.0", good + b"\0" * 3, f"byte {n}: 11 bytes; expected records of 8 bytes")
    high = good + struct.pack(">II", 1 << 16, 0)
    refuses(path, "2.0", high, f"byte {n + 8}: 0x10000; expected a DVS128 address of 16 bits")
    refuses(path, "2.0", good, "x up to 127, .*; expected 1 events within 34×34", size=(34, 34))


def test_damaged_aedat3_is_refused_by_name_and_offset(path):
    n, one = len(HEADER3), polarity(1, 2, 3, 1)
    refuses(path, "3.1", HEADER2, "byte 0: a header of AEDAT '2.0'; expected #!AER-DAT3.1")
    refuses(path, "3.1", b"#!AER-DAT3.1\r\n" + packet(one), "byte 14: .*; expected a header line")
    packed = HEADER3.replace(b"RAW", b"SerializedTS")
    refuses(path, "3.1", packed, "byte 14: b'#Format: SerializedTS.*; expected #Format: RAW")
    for damaged, message in {
        packet(one)[:20]: "20 bytes; expected a packet header of 28 bytes",
        packet(one)[:-1]: "1 events of 8 bytes; expected at most the 7 bytes that are left",
        packet(one, counts=(2**31 - 1, 1, 1)): "2147483647 events of 8 bytes; expected at most the 8 bytes",
        packet(one, kind=0, size=2**31 - 1, counts=(2**31 - 1, 1, 1)): "at most the 8 bytes that are left",
        packet(one, counts=(1, 2, 1)): "valid 1, number 2, capacity 1; expected 0 <= valid <= number",
        packet(one, counts=(1, 1, 2)): "valid 2, number 1, capacity 1; expected 0 <= valid <= number",
        packet(one, counts=(1, 1, -1)): "valid -1, number 1, capacity 1; expected 0 <= valid <= number",
        packet(one, counts=(-1, -1, -1)): "valid -1, number -1, capacity -1; expected 0 <= valid <= number",
        packet(one, counts=(1, 1, 0)): "1 valid events; expected 0 valid events, as the packet says",
        packet(
            one, size=16, counts=(0, 0, 0)
        ): "events of 16 bytes .*; expected polarity events of 8 bytes with their time at byte 4",
        packet(one, t_offset=0): "events of 8 bytes with their time at byte 0; expected polarity events",
        packet(one, size=0): "events of at least one byte",
        packet(one, kind=-1): "no negative number",
        packet(one, source=-1): "no negative number",
        packet(one, overflow=-1): "no negative number",
        packet(polarity(1, 2, -3, 1)): "the time -3; expected times of 31 bits",
        packet(polarity(128, 2, 3, 1)): "x up to 128, y up to 2; expected 1 events within 128×128",
        packet(polarity(1, 128, 3, 1)): "x up to 1, y up to 128; expected 1 events within 128×128",
    }.items():
        refuses(path, "3.1", HEADER3 + packet(one) + damaged, f"byte {n + 36}: .*{message}")


@both
def test_time_may_step_back_as_far_as_the_format_lets_it(version, path):
    def write(times):
        if version == "2.0":
            path.write_bytes(HEADER2 + b"".join(struct.pack(">II", 0, t) for t in times))
        else:
            path.write_bytes(HEADER3 + b"".join(packet(polarity(0, 0, t, 1)) for t in times))

    read = READERS[version]
    write([5, 2_000_000, 1_000_000, 1_999_999])
    if version == "2.0":
        assert read(path)["t"].tolist() == [5, 2_000_000, 1_000_000, 1_999_999]  # the file's order
    with pytest.raises(
        DataFileError, match="a step back by 1000000 µs; expected .* step back by at most 0 µs"
    ):
        read(path, max_step_back=0)
    assert len(read(path, max_step_back=1_000_000)) == 4
    write([5, 2_000_000, 999_999])
    with pytest.raises(DataFileError, match="step back"):
        read(path)


def test_a_step_back_is_seen_across_chunks(path):
    times = [3_000_000] * CHUNK + [0]
    path.write_bytes(HEADER2 + b"".join(struct.pack(">II", 0, t) for t in times))
    with pytest.raises(
        DataFileError, match="a step back by 3000000 µs; expected 1 events whose times step back"
    ):
        read_aedat2(path)


@both
@fuzzed
@given(steps=st.lists(st.sampled_from([0, 1, 70_000, -1, -500_000, -1_000_000, -1_000_001]), max_size=12))
def test_a_recording_is_refused_exactly_where_time_steps_back_too_far(version, path, steps):
    times = np.cumsum([10**8, *steps]).tolist()
    if version == "2.0":
        path.write_bytes(HEADER2 + b"".join(struct.pack(">II", 0, t) for t in times))
    else:
        path.write_bytes(HEADER3 + packet(b"".join(polarity(0, 0, t, 1) for t in times)))
    back = (np.maximum.accumulate(times) - times).max()
    if back > 1_000_000 * (version == "2.0"):
        with pytest.raises(DataFileError, match="recording.aedat, byte .* step back"):
            READERS[version](path)
    else:
        assert READERS[version](path)["t"].tolist() == times


@both
@fuzzed
@given(places=st.lists(st.tuples(*[st.integers(0, 127)] * 2), max_size=6), size=st.integers(1, 128))
def test_a_recording_is_refused_exactly_where_it_leaves_the_sensor(version, path, places, size):
    x, y = np.array(places, int).reshape(-1, 2).T
    events = make_events(x, y, np.arange(len(places)), np.ones(len(places), bool))
    WRITERS[version](path, events)
    if (x >= size).any() or (y >= 100).any():
        with pytest.raises(DataFileError, match="recording.aedat, byte"):
            READERS[version](path, (100, size))
    else:
        assert np.array_equal(READERS[version](path, (100, size)), events)


# ---------------------------------------------------------------- hostile files


def read_or_refuse(path, version, data):
    """Whatever the bytes: events of the sensor, or the reader's own error; never much memory."""
    path.write_bytes(data)
    tracemalloc.start()
    try:
        events = READERS[version](path)
        assert events.dtype == EVENT and 8 * len(events) <= len(data)
        assert not len(events) or (events["x"].max() < 128 and events["y"].max() < 128)
        assert not len(events) or events["t"].min() >= 0
    except DataFileError as error:
        assert str(path) in str(error)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= 2 * len(data) + (4 << 20)


@both
@fuzzed
@given(cut=st.integers(0, 900))
def test_truncated_files(version, path, cut):
    WRITERS[version](path, some_events(90))
    data = path.read_bytes()
    read_or_refuse(path, version, data[:cut])
    if len(HEADERS[version]) < cut < len(data) and (cut - len(HEADERS[version])) % 8:
        with pytest.raises(DataFileError):
            READERS[version](path)


@both
@fuzzed
@given(flips=st.lists(st.integers(0, 8 * 400 - 1), min_size=1, max_size=5))
def test_flipped_bits(version, path, flips):
    WRITERS[version](path, some_events(60))
    data = bytearray(path.read_bytes())
    for bit in flips:
        data[bit // 8] ^= 1 << bit % 8
    read_or_refuse(path, version, bytes(data))


@both
@fuzzed
@given(noise=st.binary(max_size=300), headed=st.booleans())
def test_random_bytes(version, path, noise, headed):
    read_or_refuse(path, version, HEADERS[version] * headed + noise)


edges = st.sampled_from([-(2**31), -1, 0, 1, 8, 2**31 - 1]) | st.integers(-(2**31), 2**31 - 1)


@fuzzed
@given(
    kind=st.integers(-2, 3),
    size=edges,
    overflow=edges,
    counts=st.tuples(edges, edges, edges),
    body=st.binary(max_size=64),
)
def test_packet_headers_that_claim_anything(path, kind, size, overflow, counts, body):
    claim = packet(kind=kind, size=size, overflow=overflow, counts=counts)
    read_or_refuse(path, "3.1", HEADER3 + claim + body)


@both
def test_memory_stays_within_twice_the_file(version, path):
    n = 1_000_000
    WRITERS[version](path, some_events(n))
    size = path.stat().st_size
    tracemalloc.start()
    events = READERS[version](path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 8_000_000 and len(events) == n
    assert events.nbytes <= peak <= 2 * size + (4 << 20)


@both
def test_room_that_is_not_needed_is_given_back(version, path):
    external = struct.pack(">II", 1 << 15, 0)
    other = packet(bytes(80_000), kind=2)
    path.write_bytes(HEADERS[version] + (external * 10_000 if version == "2.0" else other))
    tracemalloc.start()
    events = READERS[version](path)
    left = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(events) == 0 and left < 20_000


def test_a_fault_in_a_later_chunk_is_named_with_that_chunks_offset(path):
    times = [3_000_000] * CHUNK + [0]
    path.write_bytes(HEADER2 + b"".join(struct.pack(">II", 0, t) for t in times))
    with pytest.raises(DataFileError, match=f"byte {len(HEADER2) + 8 * CHUNK:,}: .*; expected 1 events"):
        read_aedat2(path)


def test_a_packet_may_be_longer_than_a_chunk(path):
    events = some_events(CHUNK + 7)
    write_aedat3(path, events, packet=len(events))
    assert np.array_equal(read_aedat3(path), events)


@pytest.mark.parametrize(
    "version, times", [("2.0", [0, 2**31, 2**32 - 1]), ("3.1", [2**31 - 1, 2**31, 2**32])]
)
def test_times_at_the_edges_of_31_and_32_bits_come_back(version, times, path):
    WRITERS[version](path, make_events([1] * 3, [2] * 3, times, [1] * 3))
    assert READERS[version](path)["t"].tolist() == times
