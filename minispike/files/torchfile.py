"""PyTorch's .pth files, read without PyTorch and without executing them.

A .pth file is a zip archive: `data.pkl`, a pickle, describes the object, and `data/0`, `data/1`, … hold the
tensors' bytes. A pickle is a program for a small stack machine, and two of its instructions can do anything:
GLOBAL fetches a function by name, REDUCE calls it. So this file has a machine of its own, with the
instructions that torch.save writes and no way to import:

    the name of a tensor, a storage, an OrderedDict, a Size    →  the arrays, dicts and tuples that it means
    any other name, and whatever is done with it               →  an `Inert` record of what was asked

Every fault in a file ends in a FileFormatError. Memory is bounded by the file's size plus about 100 bytes per
byte of pickle, which PROGRAM limits.
"""

from __future__ import annotations

import pickletools
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array

PROGRAM = 2**22  # bytes of a pickle, 4 MiB: a tensor takes about 150, so 20,000 tensors fit


class FileFormatError(ValueError):
    """A file that cannot be read as what it claims to be. The message says which file, and why."""


@dataclass(eq=False)
class Inert:
    """A global that a pickle asked for and did not get: its name, and what would have been done with it."""

    name: str
    args: tuple = ()
    state: Any = None
    items: list = field(default_factory=list)


def read_torch(path: str | Path) -> Any:
    """Return what torch.save wrote: dicts, lists, tuples, numbers, text, and tensors as read-only arrays.

    float16, float32, float64, integers and bool keep their dtype; bfloat16 becomes float32.
    Raises FileFormatError for a legacy (non-zip), truncated, damaged, compressed or oversized file.
    """
    path = Path(path)
    with path.open("rb") as file:
        start = file.read(16)
    if not start.startswith(b"PK\x03\x04"):
        raise FileFormatError(f"{path}: {_what_it_is(start)}")
    try:
        with zipfile.ZipFile(path) as archive:
            return _Archive(archive, path.stat().st_size).load()
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, zlib, pickletools and NumPy each raise errors of their own
        raise FileFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from error


def _what_it_is(start: bytes) -> str:
    if start.startswith(b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19") or start[:1] == b"\x80":
        return (
            "a legacy PyTorch file (a bare pickle, written before version 1.6): not read. "
            "In PyTorch, torch.save(torch.load(file), new_file) turns it into the zip format"
        )
    return "not a PyTorch file (a zip archive was expected)"


# ---------------------------------------------------------------- the archive

DTYPES = {
    "FloatStorage": "f4", "DoubleStorage": "f8", "HalfStorage": "f2", "BFloat16Storage": "u2",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "?",
}  # fmt: skip


class _Archive:
    """The zip file around the pickle: it holds the program, and the storages that the program names."""

    def __init__(self, archive: zipfile.ZipFile, file_size: int):
        self.archive, self.file_size, self.storages = archive, file_size, {}
        entries = archive.infolist()
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise FileFormatError("has compressed entries, which torch.save never writes")
        if sum(entry.file_size for entry in entries) > file_size:
            raise FileFormatError("its entries claim more bytes than the file has")
        programs = [entry.filename for entry in entries if entry.filename.split("/")[-1] == "data.pkl"]
        if len(programs) != 1:
            raise FileFormatError(f"not a PyTorch file: {len(programs)} entries named data.pkl, expected one")
        if archive.getinfo(programs[0]).file_size > PROGRAM:
            raise FileFormatError(f"its data.pkl is larger than {PROGRAM:,} bytes: more than tensors need")
        self.prefix = programs[0].removesuffix("data.pkl")
        self.byte_order = "<"
        if f"{self.prefix}byteorder" in archive.namelist():
            self.byte_order = {b"little": "<", b"big": ">"}[archive.read(f"{self.prefix}byteorder")]

    def load(self) -> Any:
        calls = {
            "collections.OrderedDict": _ordered_dict,
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_parameter": lambda data, *_: data,
        }
        return run_pickle(self.archive.read(f"{self.prefix}data.pkl"), calls, self.storage)

    def storage(self, reference: tuple) -> Array:
        """Return the flat array that ("storage", type, key, device, length) refers to; each is read once."""
        kind, type_, key, _, length = reference
        name = type_.name.removeprefix("torch.")
        if kind != "storage" or name not in DTYPES or not isinstance(key, str):
            raise FileFormatError(f"a storage of unknown kind: {name}")
        if (key, name) not in self.storages:
            dtype = np.dtype(self.byte_order + DTYPES[name])
            data = self.archive.read(f"{self.prefix}data/{key}")
            if len(data) != length * dtype.itemsize:
                raise FileFormatError(f"storage {key} has {len(data)} bytes, expected {length} of {name}")
            flat = np.frombuffer(data, dtype)
            if name == "BFloat16Storage":  # the upper half of a float32
                flat = (flat.astype("u4") << 16).view("f4")
            self.storages[key, name] = flat
        return self.storages[key, name]

    def tensor(self, storage: Array, offset: int, size: tuple, stride: tuple, *_) -> Array:
        """Return a tensor as a view of its storage: element i lies at offset + Σ iₖ·strideₖ."""
        numbers = (offset, *size, *stride)
        sound = len(size) == len(stride) <= 32 and all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers)
        if not sound:
            raise FileFormatError("a tensor whose size, stride or offset makes no sense")
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = 1
        for n in size:
            count *= n
        if count and last >= len(storage):
            raise FileFormatError(f"a tensor of size {size} reaches beyond its {len(storage)} values")
        if count * storage.itemsize > self.file_size:
            raise FileFormatError(f"a tensor of size {size} claims more memory than the file has")
        steps = tuple(step * storage.itemsize for step in stride)
        if not count:
            return np.empty(size, storage.dtype)
        return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


# ---------------------------------------------------------------- the stack machine


def run_pickle(program: bytes, calls: dict, persistent: Any = None) -> Any:
    """Run a pickle on a machine that imports nothing; return what is left on the stack.

    calls: the globals that may be called, "module.name": function. All others become Inert.
    persistent: resolves persistent ids, which refer to data outside the pickle.
    """
    stack: list = []
    marks: list[int] = []  # the position on the stack of each open MARK
    memo: dict[int, Any] = {}
    copied = 0

    def since_mark() -> list:
        at = marks.pop()
        values = stack[at:]
        del stack[at:]
        return values

    for opcode, arg, _ in pickletools.genops(program):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case "STOP":
                if len(stack) != 1 or marks:
                    raise FileFormatError("the pickle ends with a stack of more than one value")
                return stack.pop()
            # constants
            case "NONE":
                stack.append(None)
            case "NEWTRUE":
                stack.append(True)
            case "NEWFALSE":
                stack.append(False)
            case "BININT" | "BININT1" | "BININT2" | "LONG1" | "BINFLOAT":
                stack.append(arg)
            case "BINUNICODE" | "SHORT_BINUNICODE" | "BINUNICODE8" | "BINBYTES" | "SHORT_BINBYTES":
                stack.append(arg)
            # containers
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(since_mark()))
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                n = int(opcode.name[-1])
                stack[-n:] = [tuple(_top(stack, n))]
            case "APPEND":
                _extend(stack[-2], [stack.pop()])
            case "APPENDS":
                values = since_mark()
                _extend(stack[-1], values)
            case "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set(stack[-1], [key, value])
            case "SETITEMS":
                values = since_mark()
                _set(stack[-1], values)
            # the memo
            case "BINPUT" | "LONG_BINPUT":
                memo[arg] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[arg])
            # names and calls: where an ordinary unpickler imports and executes
            case "GLOBAL":
                stack.append(Inert(arg.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = stack.pop(), stack.pop()
                stack.append(Inert(f"{module}.{name}"))
            case "REDUCE" | "NEWOBJ":
                args, function = stack.pop(), stack.pop()
                stack.append(_call(function, args, calls))
                copied += sum(len(arg) for arg in args if isinstance(arg, (list, tuple)))
                if copied > len(program):  # by fetching one long list from the memo again and again
                    raise FileFormatError("its calls copy more than the file holds")
            case "BUILD":
                state = stack.pop()
                if isinstance(stack[-1], Inert):
                    stack[-1].state = state
                elif not isinstance(stack[-1], dict):  # an OrderedDict's attributes (_metadata) are left out
                    raise FileFormatError(f"state for a {type(stack[-1]).__name__}")
            case "BINPERSID":
                if persistent is None:
                    raise FileFormatError("refers to data outside the pickle")
                stack.append(persistent(stack.pop()))
            case _:
                raise FileFormatError(f"the pickle instruction {opcode.name}, which torch.save never writes")
    raise FileFormatError("the pickle has no end")


def _top(stack: list, n: int) -> list:
    if len(stack) < n:
        raise FileFormatError("the pickle takes from an empty stack")
    return stack[-n:]


def _call(function: Any, args: Any, calls: dict) -> Any:
    if not isinstance(function, Inert) or not isinstance(args, tuple):
        raise FileFormatError(f"calls a {type(function).__name__}")
    if function.name in calls:
        return calls[function.name](*args)
    return Inert(function.name, args)


def _ordered_dict(pairs: Any = ()) -> dict:
    result: dict = {}
    for key, value in pairs:
        _set(result, [key, value])
    return result


def _extend(target: Any, values: list) -> None:
    if isinstance(target, Inert):
        target.items += values
    elif isinstance(target, list):
        target += values
    else:
        raise FileFormatError(f"appends to a {type(target).__name__}")


def _set(target: Any, values: list) -> None:
    pairs = list(zip(values[::2], values[1::2], strict=True))
    if isinstance(target, Inert):
        target.items += pairs
        return
    for key, value in pairs:
        if not isinstance(target, dict) or not isinstance(key, (str, int, float, type(None))):
            raise FileFormatError(f"sets an item of a {type(target).__name__} by a {type(key).__name__}")
        target[key] = value
