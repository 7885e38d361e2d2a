"""Damage files and read them: python -m benchmarks.fuzz

Every reader of files (benchmarks/readers.py) gets files that were changed at random: bits flipped, ends cut
off, pieces moved, repeated or left out, lengths set to extremes; and whole files with strange contents.
For each file, the reader must return what the file says, or refuse it by an error of its own that names it:
FileFormatError, DataFileError, or a ValueError or FileNotFoundError. Meanwhile

    nothing may be executed or written    an audit hook sees imports by a pickle, commands and changed files
    memory stays below a bound            tracemalloc sees the peak of every EACHth file, in Python and NumPy;
                                          for all files, SPACE limits the process
    nothing may take long                 SECONDS for one file

The inputs depend on the seed, the reader and their number alone. Writes results/fuzz.json, after each reader.
A reader that is there already, recorded by the same command, is not run again unless it is named.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import tempfile
import time
import tracemalloc
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from zlib import crc32

from tqdm import tqdm

from benchmarks.ablations import machine
from data_utils.errors import DataFileError
from minispike.files.torchfile import FileFormatError

RESULTS = Path(__file__).parent / "results"
PART = 500  # inputs that one process reads before it reports
SECONDS = 5.0  # for one input, also on a machine that others use
WARM = 20  # inputs that are read before the others, and do not count
EACH = 16  # tracing memory takes as long as reading does
SPACE = 2**30  # bytes of address space that a process may take more than after its imports
SHOWN = 5  # faults of a reader that are recorded

# ---------------------------------------------------------------- a reader, and what it must do


@dataclass
class Reader:
    """A reader of files, and files for it.

    path: where each input is written.
    inputs: functions (rng) → bytes; each input comes from one of them, chosen at random.
    read: (path) → what the reader returns.
    right: (path, value) → whether the value is what the file says.
    bound: (factor, constant), the memory that the reader may take: factor × the file's size + constant.
    named: what the message of a ValueError or FileNotFoundError must contain; by default the file's name.
    """

    path: Path
    inputs: list[Callable[[random.Random], bytes]]
    read: Callable[[Path], object]
    right: Callable[[Path, object], bool]
    bound: tuple[float, int]
    named: str = ""


@dataclass
class Outcome:
    """What became of one input. fault: what the reader did wrong, "" if nothing; own: it raised its error."""

    fault: str
    own: bool
    peak: int
    allowed: int
    seconds: float


def attempt(reader: Reader, data: bytes, traced: bool) -> Outcome:
    """Let a reader read one input. traced: whether its memory is measured; otherwise the peak is 0."""
    reader.path.write_bytes(data)
    error = value = None
    if traced:
        tracemalloc.start()
    begin = time.perf_counter()
    with watched() as deeds:
        try:
            value = reader.read(reader.path)
        except BaseException as raised:  # also what no reader should raise
            if isinstance(raised, KeyboardInterrupt):
                raise
            error = raised
    seconds, peak = time.perf_counter() - begin, tracemalloc.get_traced_memory()[1]
    if traced:
        tracemalloc.stop()
    allowed = int(reader.bound[0] * len(data) + reader.bound[1])
    if deeds:
        fault = f"it did {deeds[0]}"
    elif peak > allowed or _of_memory(error):
        fault = f"{peak:,} bytes of memory, more than {allowed:,}"
    elif seconds > SECONDS:
        fault = f"{seconds:.1f} seconds"
    elif error is None:
        fault = judge(reader, value)
    else:
        own = is_own(error, reader.named or reader.path.name)
        fault = "" if own else f"{type(error).__name__}: {str(error)[:300]}"
    return Outcome(fault, error is not None, peak, allowed, seconds)


def judge(reader: Reader, value) -> str:
    """Return what is wrong with a value that a reader returned, "" if nothing."""
    try:
        right = reader.right(reader.path, value)
    except Exception as error:  # the other way to read the file refuses it
        return f"the value {value!r:.200}, of a file that is damaged ({type(error).__name__}: {error})"
    return "" if right else f"the value {value!r:.200}"


def is_own(error: BaseException, named: str) -> bool:
    """Return whether an error is one by which a reader refuses a file."""
    own = isinstance(error, FileFormatError | DataFileError)
    return (own or type(error) in (ValueError, FileNotFoundError)) and named in str(error)


def _of_memory(error: BaseException | None) -> bool:
    """Return whether an error comes from a MemoryError, which a reader may have turned into its own."""
    return error is not None and (isinstance(error, MemoryError) or _of_memory(error.__cause__))


# ---------------------------------------------------------------- nothing is executed or written

FORBIDDEN = re.compile(
    r"pickle\.find_class|os\.(system|exec|fork|forkpty|posix_spawn|startfile|kill|mkdir|rename|remove|rmdir|"
    r"link|symlink|chmod|chown|truncate|putenv)|subprocess\.\w+|shutil\.\w+|socket\.\w+|pty\.spawn"
)
HOMES = tuple(
    {str(Path(place).resolve()) for place in (sys.prefix, sys.base_prefix, Path(__file__).parents[1])}
)
_deeds: list[str] | None = None  # what the present reader did, if it is watched


def _watch(event: str, args: tuple) -> None:
    if _deeds is None:
        return
    writes = event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    foreign = event == "exec" and not args[0].co_filename.startswith(("<frozen", *HOMES))
    if writes or foreign or FORBIDDEN.fullmatch(event):
        _deeds.append(f"{event}{args!r:.100}")


@contextmanager
def watched():
    """Yield a list that grows by whatever the code inside executes, writes or asks the system to do."""
    global _deeds
    if not _installed:
        sys.addaudithook(_watch)  # it cannot be removed, so it does nothing outside
        _installed.append(True)
    _deeds = found = []
    try:
        yield found
    finally:
        _deeds = None


_installed: list[bool] = []

# ---------------------------------------------------------------- damage


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Return data with up to four changes; now and then unchanged."""
    changed = bytearray(data)
    for _ in range(rng.choice((0, 1, 1, 1, 1, 2, 2, 4))):
        rng.choice(CHANGES)(rng, changed)
    return bytes(changed)


def _place(rng: random.Random, data: bytearray) -> int:
    """Return a place in data, often near its beginning, which holds the structure."""
    return min(int(len(data) * rng.random() ** rng.choice((1, 4))), max(0, len(data) - 1))


def _piece(rng: random.Random, data: bytearray) -> slice:
    start = _place(rng, data)
    return slice(start, start + rng.choice((1, 2, 4, 8, 16, 64, 256)))


def _flip(rng, data):
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _replace(rng, data):
    data[_piece(rng, data)] = rng.randbytes(rng.randrange(1, 5))


def _cut(rng, data):
    del data[rng.randrange(len(data) + 1) :]


def _lengthen(rng, data):
    data += rng.choice((b"\0", b"\xff", b"\n", rng.randbytes(1))) * rng.choice((1, 4, 100))


def _leave_out(rng, data):
    del data[_piece(rng, data)]


def _repeat(rng, data):
    at = _place(rng, data)
    data[at:at] = data[_piece(rng, data)] * rng.choice((1, 1, 2, 30))


def _swap(rng, data):
    a, b = sorted((_piece(rng, data), _piece(rng, data)), key=lambda piece: piece.start)
    if a.stop <= b.start:
        data[a.start : b.stop] = data[b] + data[a.stop : b.start] + data[a]


def _extreme(rng, data):
    """Overwrite a field, as a length may be, by an extreme number."""
    size = rng.choice((1, 2, 4, 8))
    number = rng.choice(
        (0, 1, 2**7, 2**15, 2**31, 2**63, 2**31 - 1, 2**63 - 1, 2**64 - 1, rng.getrandbits(16))
    )
    field = (number % 256**size).to_bytes(size, rng.choice(("big", "little")))
    at = _place(rng, data) // size * size if rng.random() < 0.7 else _place(rng, data)
    data[at : at + size] = field


NUMBERS = b"0 1 -1 2 255 1e400 -1e400 NaN Infinity 1.5 99999999999999999999 9223372036854775807 00".split()
TOKENS = [*NUMBERS, *b'" \' { } [ ] ( ) , : ; # null true {} [] "" "a"'.split(), b"\n", b"\r\n", b"\t", b"\0",
          b"\xff", "ä".encode(), b"../", b"\xef\xbb\xbf"]  # fmt: skip


def _number(rng, data):
    """Replace a number that is written in digits."""
    found = list(re.finditer(rb"\d+", data[:4096]))
    if found:
        at = rng.choice(found)
        data[at.start() : at.end()] = rng.choice(NUMBERS)


def _token(rng, data):
    at = _place(rng, data)
    data[at : at + rng.choice((0, 1))] = rng.choice(TOKENS)


CHANGES = (
    _flip,
    _flip,
    _replace,
    _cut,
    _lengthen,
    _leave_out,
    _repeat,
    _swap,
    _extreme,
    _extreme,
    _number,
    _token,
)

# ---------------------------------------------------------------- many inputs


def read_part(name: str, seed: int, part: int, n: int) -> dict:
    """Let a reader read n inputs; return how many were right and refused, and what it did wrong."""
    from benchmarks.readers import READERS

    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        reader = READERS[name](Path(folder))
        return check(reader, n, seed=crc32(f"{seed} {name} {part}".encode()))


def check(reader: Reader, n: int, seed: int) -> dict:
    """As `read_part`, for a reader that is given."""
    rng, outcomes, faults = random.Random(seed), [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(WARM):  # imports what reading needs
            attempt(reader, rng.choice(reader.inputs)(rng), traced=False)
        for i in range(n):
            data = rng.choice(reader.inputs)(rng)
            outcome = attempt(reader, data, traced=i % EACH == 0)
            if outcome.fault:  # a machine that others use can be slow, or short of memory, once
                outcome = attempt(reader, data, traced=True)
            outcomes.append(outcome)
            if outcomes[-1].fault:
                faults.append({"fault": outcomes[-1].fault, "input": data[:4096].hex(), "bytes": len(data)})
    return {
        "inputs": n,
        "right": sum(not each.own and not each.fault for each in outcomes),
        "own_errors": sum(each.own and not each.fault for each in outcomes),
        "wrong": len(faults),
        "seconds": sum(each.seconds for each in outcomes),
        "slowest_ms": 1000 * max(each.seconds for each in outcomes),
        "peak_bytes": max(each.peak for each in outcomes),
        "peak_of_bound": max(each.peak / each.allowed for each in outcomes),
        "faults": faults[:SHOWN],
    }


def together(parts: list[dict]) -> dict:
    """Return the sum of what `read_part` returned."""
    sums = {key: sum(part[key] for part in parts) for key in ("inputs", "right", "own_errors", "wrong")}
    sums["seconds"] = round(sum(part["seconds"] for part in parts), 1)
    tops = {key: max(part[key] for part in parts) for key in ("slowest_ms", "peak_bytes", "peak_of_bound")}
    tops = {"slowest_ms": round(tops["slowest_ms"], 1), "peak_bytes": tops["peak_bytes"],
            "peak_of_bound": round(tops["peak_of_bound"], 3)}  # fmt: skip
    return sums | tops | {"faults": [fault for part in parts for fault in part["faults"]][:SHOWN]}


def limit_memory() -> None:
    """Keep a process that goes wrong from taking the machine's memory; show no bars of readers."""
    sys.stderr = open(os.devnull, "w", encoding="utf-8")
    import benchmarks.readers  # noqa: F401 (what it imports does not count)

    try:
        import resource
    except ImportError:  # on Windows
        return
    os.nice(5)
    here = (
        int(Path("/proc/self/statm").read_text().split()[0]) * 4096
        if Path("/proc/self/statm").exists()
        else 0
    )
    resource.setrlimit(resource.RLIMIT_AS, (here + SPACE, resource.RLIM_INFINITY))


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return 1 if a reader did something wrong."""
    from benchmarks.readers import READERS

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"by default all: {', '.join(READERS)}")
    parser.add_argument(
        "--inputs", type=int, default=100_000, help="inputs for each reader (default 100,000)"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes (default: one per core)")
    parser.add_argument("--results", type=Path, default=RESULTS / "fuzz.json", help="the file to write")
    args = parser.parse_args(arguments)
    unknown = [name for name in args.readers if name not in READERS]
    if unknown:
        parser.error(f"no reader {', '.join(unknown)}; there are {', '.join(READERS)}")
    record = {"command": f"python -m benchmarks.fuzz --inputs {args.inputs} --seed {args.seed}"}
    record |= {"date": str(date.today()), "machine": machine(), "readers": {}}
    if args.results.exists():
        before = json.loads(args.results.read_text("utf-8"))
        record["readers"] = before["readers"] if before["command"] == record["command"] else {}
    todo = args.readers or [name for name in READERS if name not in record["readers"]]
    with ProcessPoolExecutor(args.jobs, get_context("spawn"), limit_memory) as pool:
        for name in todo:
            sizes = [min(PART, args.inputs - start) for start in range(0, args.inputs, PART)]
            jobs = [pool.submit(read_part, name, args.seed, part, n) for part, n in enumerate(sizes)]
            shown = tqdm(as_completed(jobs), f"{name:<22}", len(jobs), disable=None, leave=False)
            found = together([job.result() for job in shown])
            record["readers"][name] = found
            args.results.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(line(name, found), flush=True)
    return int(any(found["wrong"] for found in record["readers"].values()))


def line(name: str, found: dict) -> str:
    """Return a reader's record as a line of text."""
    parts = f"{found['right']:>7,} right, {found['own_errors']:>7,} refused, {found['wrong']:,} wrong"
    cost = f"{found['seconds']:.0f} s, {found['peak_of_bound']:.0%} of the bound"
    return f"{name:<20} {found['inputs']:>9,} inputs: {parts}; {cost}"


def row(name: str, found: dict) -> str:
    """Return a reader's record as a row of the table in README.md."""
    numbers = (found["inputs"], found["right"], found["own_errors"], found["wrong"], round(found["seconds"]))
    return f"| {name} | {' | '.join(f'{n:,}' for n in numbers)} | {found['peak_of_bound']:.0%} |"


if __name__ == "__main__":
    sys.exit(main())
