"""PyTorch's .pth files, read without PyTorch and without executing them.

Since PyTorch 1.6 a .pth file is a zip archive: `data.pkl`, a pickle, describes the object, and `data/0`,
`data/1`, … hold the tensors' bytes. Before that it was a row of pickles with the bytes behind them; such a
file is called legacy here, as in PyTorch. `picklemachine` runs the pickles. This file has the two containers,
the functions that rebuild a dense tensor, and the kinds of numbers:

    a tensor of real or complex numbers                      →  a read-only array, a view of its storage
    a sparse, quantised or meta tensor, any other object     →  an `Inert` record of what was asked

Every fault in a file ends in a FileFormatError. Memory is bounded by the file's size, by three times that
where bfloat16 and float8 are widened, plus about 100 bytes per byte of pickle, which PROGRAM limits.
"""

from __future__ import annotations

import zipfile
from collections import Counter
from dataclasses import dataclass
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from ..backend import Array
from .picklemachine import PROGRAM, FileFormatError, Inert, call, ordered_dict, run_pickle


def read_torch(path: str | Path) -> Any:
    """Return what torch.save wrote: dicts, lists, tuples, numbers, text, and tensors as read-only arrays.

    NumPy's dtypes are kept; bfloat16 becomes float32, float8_e4m3fn and float8_e5m2 become float16, exactly.
    Raises FileFormatError for a truncated, damaged, compressed or oversized file, and for one of another
    kind, which it names.
    """
    path = existing(path)
    with path.open("rb") as file:
        start = file.read(SIGNATURE)
    try:
        if start.startswith(b"PK\x03\x04"):
            if not zipfile.is_zipfile(path):
                raise FileFormatError(f"damaged: a zip archive without its end; {AGAIN}")
            with zipfile.ZipFile(path) as archive:
                return _Archive(archive, path.stat().st_size).load()
        if any(magic in start[:32] for magic in MAGIC):
            return _Legacy(path.read_bytes()).load()
        raise FileFormatError(f"not a PyTorch file but {what_it_is(start)}")
    except FileFormatError as error:
        raise FileFormatError(f"{path}: {error}") from error
    except Exception as error:  # zipfile, zlib, pickletools and NumPy each raise errors of their own
        raise FileFormatError(f"{path}: damaged ({type(error).__name__}: {error})") from error


# ---------------------------------------------------------------- numbers

KINDS = [  # PyTorch's storage and dtype, safetensors' name, and what NumPy reads
    ("FloatStorage", "float32", "F32", "f4"),
    ("DoubleStorage", "float64", "F64", "f8"),
    ("HalfStorage", "float16", "F16", "f2"),
    ("BFloat16Storage", "bfloat16", "BF16", "bfloat16"),
    (None, "float8_e4m3fn", "F8_E4M3", "float8_e4m3"),
    (None, "float8_e5m2", "F8_E5M2", "float8_e5m2"),
    ("LongStorage", "int64", "I64", "i8"),
    ("IntStorage", "int32", "I32", "i4"),
    ("ShortStorage", "int16", "I16", "i2"),
    ("CharStorage", "int8", "I8", "i1"),
    (None, "uint64", "U64", "u8"),
    (None, "uint32", "U32", "u4"),
    (None, "uint16", "U16", "u2"),
    ("ByteStorage", "uint8", "U8", "u1"),
    ("BoolStorage", "bool", "BOOL", "?"),
    ("ComplexFloatStorage", "complex64", "C64", "c8"),
    ("ComplexDoubleStorage", "complex128", None, "c16"),
    ("UntypedStorage", None, None, "u1"),  # the dtype stands with the tensor
    *((f"{name}Storage", None, None, bits) for name, bits in [  # quantised: the integers, without their scale
        ("QInt8", "i1"), ("QUInt8", "u1"), ("QInt32", "i4"), ("QUInt4x2", "u1"), ("QUInt2x4", "u1"),
    ]),
]  # fmt: skip
OF_STORAGE = {storage: numpy for storage, _, _, numpy in KINDS if storage}
OF_DTYPE = {f"torch.{dtype}": numpy for _, dtype, _, numpy in KINDS if dtype}
OF_SAFETENSORS = {name: numpy for _, _, name, numpy in KINDS if name}
WIDENED = {"bfloat16": "u2", "float8_e4m3": "u1", "float8_e5m2": "u1"}  # NumPy lacks them: read as bits


def bits(kind: str, byte_order: str = "<") -> np.dtype:
    """Return the dtype in which a kind of numbers lies in a file."""
    return np.dtype(byte_order + WIDENED.get(kind, kind))


def widen(flat: Array, kind: str) -> Array:
    """Return an array of bits as the numbers that they mean: the next wider float, exactly."""
    if kind == "bfloat16":  # the upper half of a float32
        return (flat.astype("u4") << 16).view("f4")
    if kind == "float8_e5m2":  # the upper half of a float16
        return (flat.astype("u2") << 8).view("f2")
    if kind == "float8_e4m3":  # an exponent's bit less than float16, so a bias of 7 instead of 15
        flat = flat.astype("u2")
        numbers = ((flat & 0x80) << 8 | (flat & 0x7F) << 7).view("f2") * np.float16(256)
        numbers[flat & 0x7F == 0x7F] = np.nan
        return numbers
    return flat


# ---------------------------------------------------------------- tensors


@dataclass(eq=False, slots=True)
class Storage:
    """The bytes that tensors are views of, by the key under which the file holds them."""

    key: str
    kind: str
    length: int
    view: tuple | None = None  # in files before PyTorch 0.4: (key, first number, how many) of a part


class _File:
    """What both containers share: storages, and the tensors on them."""

    byte_order = "<"

    def __init__(self, size: int):
        self.size = size
        self.raw: dict[str, bytes] = {}
        self.widened: dict[str, tuple[str, Array]] = {}
        self.calls = {
            "collections.OrderedDict": ordered_dict,
            "collections.defaultdict": lambda *_: {},
            "torch.Size": tuple,
            "torch._utils._rebuild_tensor": self.tensor,
            "torch._utils._rebuild_tensor_v2": self.tensor,
            "torch._utils._rebuild_tensor_v3": self.tensor_of_dtype,
        }
        for module in ("torch._tensor", "torch.tensor"):
            for name in ("_rebuild_from_type", "_rebuild_from_type_v2"):
                self.calls[f"{module}.{name}"] = self.tensor_of_class
        for name in (
            "torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state",
            "torch._utils._rebuild_device_tensor_from_cpu_tensor", "torch.nn.parameter.Parameter",
        ):  # fmt: skip
            self.calls[name] = lambda data, *_: data

    def bytes_of(self, key: str) -> bytes:
        """Return the bytes of a storage."""
        raise NotImplementedError

    def storage(self, reference: tuple) -> Storage | Inert:
        """Return what ("storage", type, key, device, length) refers to; a type that is not known is inert."""
        if reference[0] == "module":  # of a pickled model: its class, and the source code of that
            return reference[1]
        what, type_, key, _, length, *view = reference
        if what != "storage" or not isinstance(key, str) or not _sound(length):
            raise FileFormatError("a reference to data outside the pickle that makes no sense")
        kind = OF_STORAGE.get(type_.name.rpartition(".")[2])
        if kind is None:
            return Inert(type_.name, (key, length))
        return Storage(key, kind, length, view[0] if view else None)

    def numbers(self, storage: Storage, kind: str) -> Array:
        """Return a storage as a flat array of a kind of numbers. Its bytes are read once."""
        key = storage.key
        if key not in self.raw:
            self.raw[key] = self.bytes_of(key)
        found, expected = len(self.raw[key]), storage.length * bits(storage.kind).itemsize
        if found != expected:
            raise FileFormatError(f"storage {key} has {found} bytes, expected {expected}")
        flat = np.frombuffer(self.raw[key], bits(kind, self.byte_order))
        if kind in WIDENED:
            known, flat = self.widened.get(key) or (kind, widen(flat, kind))
            if known != kind:
                raise FileFormatError(f"storage {key} is used as {known} and as {kind}")
            flat.flags.writeable = False
            self.widened[key] = kind, flat
        if storage.view is None:
            return flat
        _, first, count = storage.view
        if not _sound(first, count) or first + count > len(flat):
            raise FileFormatError(f"a part of storage {key} that reaches beyond its {len(flat)} values")
        return flat[first : first + count]

    def tensor(self, storage: Any, offset: int, size: tuple, stride: tuple, *more: Any) -> Array | Inert:
        """Return a tensor of its storage's kind. `more`: requires_grad, hooks, and perhaps metadata."""
        if isinstance(storage, Inert):
            return Inert("a tensor of", (storage,))
        if not isinstance(storage, Storage):
            raise FileFormatError(f"damaged: a tensor on a {type(storage).__name__} instead of a storage")
        if any(more[2:3]):
            return Inert("a tensor to be conjugated or negated")
        return self.view(storage, storage.kind, offset, size, stride)

    def tensor_of_dtype(self, storage: Any, offset, size, stride, grad, hooks, dtype, *more) -> Array | Inert:
        """Return a tensor whose storage is only bytes, as PyTorch writes its newer dtypes."""
        kind = OF_DTYPE.get(dtype.name)
        if kind is None or not isinstance(storage, Storage) or any(more[:1]):
            return Inert("a tensor of", (dtype,))
        return self.view(storage, kind, offset, size, stride)

    def tensor_of_class(self, function: Inert, class_: Any, args: tuple, *state: Any) -> Array | Inert:
        """Return the tensor that a subclass of Tensor wraps, or that has attributes of its own."""
        if "_rebuild_" not in function.name:
            raise FileFormatError(f"a tensor made by {function.name}")
        return call(function, args, self.calls)

    def view(self, storage: Storage, kind: str, offset: int, size: tuple, stride: tuple) -> Array | Inert:
        """Return a tensor as a view of its storage: element i lies at offset + Σ iₖ·strideₖ."""
        if not (len(size) == len(stride) <= 32 and _sound(offset, *size, *stride)):
            raise FileFormatError("a tensor whose size, stride or offset makes no sense")
        flat = self.numbers(storage, kind)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        count = prod(size)
        if count and last >= len(flat):
            raise FileFormatError(f"a tensor of size {size} reaches beyond its {len(flat)} values")
        if count * bits(kind).itemsize > self.size:  # its values are repeated, with strides of 0
            return Inert("a tensor that claims more memory than the file has")
        if not count:
            return np.empty(size, flat.dtype)
        steps = tuple(step * flat.itemsize for step in stride)
        return np.ndarray(size, flat.dtype, flat, offset * flat.itemsize, steps)


def _sound(*numbers: Any) -> bool:
    return all(isinstance(n, int) and 0 <= n < 2**63 for n in numbers)


# ---------------------------------------------------------------- the two containers


class _Archive(_File):
    """A zip file: it holds the program, and the storages that the program names."""

    def __init__(self, archive: zipfile.ZipFile, size: int):
        super().__init__(size)
        self.archive, entries = archive, archive.infolist()
        refuse_twins(archive.namelist())
        programs = [entry for entry in entries if entry.filename.split("/")[-1] == "data.pkl"]
        if len(programs) != 1:
            raise FileFormatError(_what_archive(archive.namelist(), len(programs)))
        self.prefix = programs[0].filename.removesuffix("data.pkl")
        if f"{self.prefix}constants.pkl" in archive.namelist():
            raise FileFormatError(TORCHSCRIPT)
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
            raise FileFormatError("has compressed entries, which torch.save never writes")
        if claimed(entries) > size:
            raise FileFormatError("its entries claim more bytes than the file has")
        if programs[0].file_size > PROGRAM:
            raise FileFormatError(f"its data.pkl is larger than {PROGRAM:,} bytes: more than tensors need")
        if f"{self.prefix}byteorder" in archive.namelist():
            self.byte_order = {b"little": "<", b"big": ">"}[archive.read(f"{self.prefix}byteorder")]

    def load(self) -> Any:
        return run_pickle(self.archive.read(f"{self.prefix}data.pkl"), self.calls, self.storage)

    def bytes_of(self, key: str) -> bytes:
        return self.archive.read(f"{self.prefix}data/{key}")


class _Legacy(_File):
    """A row of pickles: magic number, version, system, the object, the storages' keys; then their bytes.

    A storage's bytes follow its length, which counts numbers. Only the object's pickle tells the kind of the
    numbers. So that pickle is run twice: to learn the kinds, and again when it is known where the bytes are.
    """

    def __init__(self, whole: bytes):
        super().__init__(len(whole))
        self.whole, self.stream, self.places = memoryview(whole), BytesIO(whole), {}
        _, version, _ = (run_pickle(self.stream, {}) for _ in range(3))
        if version != 1001:
            raise FileFormatError("a legacy PyTorch file of an unknown version; expected 1001")
        self.program, kinds = self.stream.tell(), {}

        def note(reference: tuple) -> Any:
            storage = self.storage(reference)
            if isinstance(storage, Storage):
                kinds.setdefault(storage.key, storage.kind)
            return storage

        run_pickle(self.stream, {}, note)
        for key in run_pickle(self.stream, {}):
            if key in self.places or key not in kinds:
                raise FileFormatError("a storage that is listed twice, or whose kind of numbers is not known")
            at = self.stream.tell() + 8
            end = at + int.from_bytes(self.stream.read(8), "little") * bits(kinds[key]).itemsize
            if end > len(whole):
                raise FileFormatError(f"cut short: storage {key} ends at byte {end:,} of {len(whole):,}")
            self.places[key] = slice(at, end)
            self.stream.seek(end)

    def load(self) -> Any:
        self.stream.seek(self.program)
        return run_pickle(self.stream, self.calls, self.storage)

    def bytes_of(self, key: str) -> bytes:
        return self.whole[self.places[key]]


def claimed(entries: list[zipfile.ZipInfo]) -> int:
    """Return how many bytes of memory zipfile may take to read all entries, by what the archive says."""
    return sum(max(entry.file_size, entry.compress_size) for entry in entries)


def refuse_twins(names: list[str]) -> None:
    """Raise FileFormatError for a zip archive with two entries of one name, of which the last would win."""
    name, count = Counter(names).most_common(1)[0] if names else ("", 0)
    if count > 1:
        raise FileFormatError(f"a zip archive with {count} entries of one name, {name}")


# ---------------------------------------------------------------- which file it is instead

SIGNATURE = 512  # bytes at a file's start that tell its kind
MAGIC = (b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19", b"L119547037146038801333356L")  # 0x1950a86a20f9469cfc6c
AGAIN = "download or copy it again"
TORCHSCRIPT = (
    "a TorchScript program, not a state_dict. In PyTorch write its weights to a new file: "
    'torch.save(torch.jit.load(file, map_location="cpu").state_dict(), new_file)'
)
EXPORTED = (
    "a program of torch.export, not a state_dict. In PyTorch write its weights to a new file: "
    "torch.save(torch.export.load(file).state_dict, new_file)"
)
PICKLE = (
    "a plain pickle, written by pickle.dump and not by torch.save. If you trust it, because Python executes "
    'what it holds, write a new file in PyTorch: torch.save(pickle.load(open(file, "rb")), new_file)'
)
SIGNS = [  # what stands at which byte; what the file is, and what to do
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself: get that with `git lfs pull`"),
    (0, b"\x1f\x8b", "a file compressed by gzip: unpack it first, with gunzip or tar -xzf"),
    (0, b"BZh", "a file compressed by bzip2: unpack it first, with bunzip2 or tar -xjf"),
    (0, b"\xfd7zXZ\0", "a file compressed by xz: unpack it first, with unxz or tar -xJf"),
    (0, b"\x28\xb5\x2f\xfd", "a file compressed by zstd: unpack it first, with unzstd"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and take the checkpoint in it"),
    (0, b"Rar!", "a RAR archive: unpack it and take the checkpoint in it"),
    (257, b"ustar", "a tar archive: unpack it, with tar -xf, and take the checkpoint in it"),
    (0, b"PK\x05\x06", "an empty zip archive"),
    (0, b"\x93NUMPY", "a single NumPy array without a name: write all of them with numpy.savez"),
    (0, b"\x89PNG", "a picture, of the kind PNG"),
    (0, b"\xff\xd8\xff", "a picture, of the kind JPEG"),
    (0, b"#!AER-DAT", "a recording of events, of the kind AEDAT"),
    (0, b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (0, b"PK\x03\x04", "a zip archive, as torch.save and numpy.savez write it"),
    *(
        (at, magic, "a legacy PyTorch file, written before version 1.6")
        for at in (0, 2, 11)
        for magic in MAGIC
    ),
    (0, b"\x80", PICKLE),
]


def what_it_is(start: bytes) -> str:
    """Return what a file is that cannot be read, from its first bytes, and what to do about it."""
    for at, sign, what in SIGNS:
        if start[at:].startswith(sign):
            return what
    if not start.strip(b"\0"):
        return f"one that begins with zeros only: {AGAIN}" if start else f"an empty one: {AGAIN}"
    text = start.decode("utf-8", "replace").lstrip("\ufeff \r\n\t")
    if text.lower().startswith(("<!doctype html", "<html", "<head", "<?xml")):
        return f"a web page, perhaps one that reports an error: {AGAIN}, by the file's own address"
    if all(c.isprintable() or c.isspace() for c in text):
        return f"a text that begins with {text[:40]!r}"
    return "one of an unknown kind"


def _what_archive(names: list[str], programs: int) -> str:
    if programs:
        return f"not a PyTorch file: {programs} entries named data.pkl, expected one"
    if any(name.endswith("models/model.json") for name in names):
        return EXPORTED
    listed = ", ".join(name[:80] for name in names[:4]) + (", …" if len(names) > 4 else "")
    return f"a zip archive of other files ({listed}): unpack it and take the checkpoint in it"


def existing(path: str | Path) -> Path:
    """Return a path to a file. FileNotFoundError without one, IsADirectoryError for a folder."""
    path = Path(path)
    if not path.is_dir():
        if not path.is_file():
            raise FileNotFoundError(f"no file {path}")
        return path
    hint = ": give a file in it"
    if (path / "checkpoint.safetensors").is_file():
        hint = f", a run of minispike; its model is {path / 'checkpoint.safetensors'}"
    elif (path / "data.pkl").is_file():
        hint = f", an unpacked .pth: {AGAIN} without unpacking it"
    raise IsADirectoryError(f"{path} is a folder{hint}")
