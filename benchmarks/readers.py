"""The readers of files that benchmarks/fuzz.py tests, with files for them and what these files say.

Where there is another way to read a format, its values are compared: loops over the bytes, NumPy's reader,
the library safetensors, Python's unpickler without the power to import. Elsewhere a file has a checksum, so
what is accepted must be what was written; or the value's kind and size are checked.
"""

from __future__ import annotations

import gzip
import io
import json
import pickle
import random
import struct
import warnings
import zipfile
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from zlib import crc32

import numpy as np
import safetensors.numpy as library

from benchmarks.fuzz import Reader, mutate
from data_utils.events import aedat, dvs, fashion_dvs
from data_utils.events.frames import EVENT
from data_utils.events.recordings import read_events
from data_utils.images import cifar, folders, mnist
from data_utils.images.idx import read_idx
from data_utils.own.arrays import Arrays
from data_utils.own.description import Description
from data_utils.own.pictures import Pictures
from data_utils.own.recordings import Recordings
from minispike import create_model
from minispike.files.checkpoint import FORMAT, checksum, load_all, read_safetensors, save
from minispike.files.interop import load_official, read_weights, to_official
from minispike.files.torchfile import Inert, read_torch
from minispike.nn import Linear, Module, Spiking
from minispike.runs import own
from minispike.runs.folder import Run, read_table
from minispike.runs.recipes import Recipe, resolve
from tests.data_utils.common import SMALL10, cifar_files, idx, tar, write_cifar, write_mnist
from tests.data_utils.images.common import write_image
from tests.files.torch_writer import PAYLOADS, Call, Name, tensor, write_legacy, write_torch

KIB, MIB = 2**10, 2**20
MODEL = dict(name="spikformer_1_64_digits", embed_dim=8, num_heads=1, mlp_ratio=1, depth=0)
Input = Callable[[random.Random], bytes]

# ---------------------------------------------------------------- ways to make inputs


def raw(data: bytes) -> Input:
    """Return a function that damages a whole file."""
    return partial(mutate, data=data)


def inside(parts: dict[str, bytes], pack: Callable[[dict[str, bytes]], bytes]) -> Input:
    """Return a function that damages one part of a file and packs all parts, with their checksums."""

    def make(rng: random.Random) -> bytes:
        name = rng.choice(list(parts))
        return pack(parts | {name: mutate(rng, parts[name])})

    return make


def zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return stream.getvalue()


def renamed(parts: dict[str, bytes]) -> Input:
    """Return a function that writes a zip archive with strange names, some of them twice."""

    def make(rng: random.Random) -> bytes:
        entries = [(mutate(rng, name.encode()).decode("latin-1"), data) for name, data in parts.items()]
        entries = rng.choices(entries, k=rng.randrange(len(entries) + 2)) or entries
        stream = io.BytesIO()
        with warnings.catch_warnings(), zipfile.ZipFile(stream, "w") as archive:
            warnings.simplefilter("ignore")  # of a name that is there twice
            for name, data in entries:
                archive.writestr(zipfile.ZipInfo(name.replace("\0", "") or "x"), data)
        return stream.getvalue()

    return make


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def written(write: Callable, path: Path, *arguments) -> bytes:
    """Return the bytes that write(path, …) writes."""
    write(path, *arguments)
    data = path.read_bytes()
    path.unlink()
    return data


def alike(a, b) -> bool:
    """Return whether two arrays have the same numbers; NaN equals NaN, and the type's size is equal."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and a.dtype == b.dtype and a.tobytes() == b.tobytes()


# ---------------------------------------------------------------- checkpoints of PyTorch

TREE = {"epoch": 3, "state_dict": {"a": tensor(np.arange(6, dtype="f4").reshape(2, 3), "0"),
        "b": tensor(np.arange(4, dtype="i8"), "1")},
        "args": Call(Name("argparse", "Namespace")), "best": 0.5}  # fmt: skip


def only_data(value, depth: int = 0) -> bool:
    """Return whether a value consists of plain data, arrays and inert records."""
    if isinstance(value, dict):
        return depth > 40 or all(only_data(each, depth + 1) for pair in value.items() for each in pair)
    if isinstance(value, list | tuple):
        return depth > 40 or all(only_data(each, depth + 1) for each in value)
    if isinstance(value, np.ndarray):
        return value.dtype.kind in "fiubc"
    return isinstance(value, str | bytes | bytearray | int | float | Inert | None)


def pth_zip(folder: Path) -> Reader:
    path = folder / "x.pth"
    whole = written(write_torch, path, TREE)
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(whole)
    good = read_torch(path)["state_dict"]
    evil = [
        partial(_with_program, program=pickle.dumps(each, n)) for each in PAYLOADS.values() for n in range(6)
    ]

    needed = [name for name in parts if not name.endswith("version")]  # which is not read

    def right(path, value) -> bool:
        with zipfile.ZipFile(path) as archive:
            same = archive.namelist() == [*parts] and all(
                archive.read(name) == parts[name] for name in needed
            )
        unchanged = same and all(alike(value["state_dict"][name], good[name]) for name in good)
        return unchanged if same else only_data(value)

    program = {"x/data.pkl": parts["archive/data.pkl"]} | {
        f"x/data/{i}": parts[f"archive/data/{i}"] for i in range(2)
    }
    inputs = [raw(whole), inside(parts, zipped), inside(program, zipped), renamed(parts)]
    return Reader(path, [*inputs, lambda rng: rng.choice(evil)(rng)], read_torch, right, (120, 256 * KIB))


def _with_program(rng: random.Random, program: bytes) -> bytes:
    return zipped({"x/data.pkl": mutate(rng, program)})


def pth_legacy(folder: Path) -> Reader:
    path = folder / "x.pth"
    inputs = [raw(written(lambda path, n=n: write_legacy(path, TREE, protocol=n), path)) for n in (2, 4)]
    programs = [pickle.dumps(each, 2) for each in PAYLOADS.values()]
    head = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {}))
    inputs.append(lambda rng: head + mutate(rng, rng.choice(programs)) + pickle.dumps([], 2))
    return Reader(path, inputs, read_torch, lambda _, value: only_data(value), (120, 256 * KIB))


class Powerless(pickle._Unpickler):
    """Python's own unpickler (the one in Python, whose memory is bounded), which imports nothing."""

    def find_class(self, module, name):
        raise pickle.UnpicklingError

    def persistent_load(self, pid):
        raise pickle.UnpicklingError


def random_tree(rng: random.Random, depth: int = 0):
    """Return random plain data as a pickle may hold it."""
    kind = rng.randrange(13 if depth < 4 else 8)
    some = range(rng.choice((0, 1, 2, 3, 5)))
    if kind < 8:
        return (None, rng.random() < 0.5, rng.getrandbits(rng.choice((3, 8, 16, 31, 70))) - 9, rng.random(),
                "text ä", rng.randbytes(3), "", -1.5)[kind]  # fmt: skip
    if kind == 8:
        return {rng.choice((str(i), i, i + 0.5)): random_tree(rng, depth + 1) for i in some}
    if kind == 9:
        return {*some}
    values = [random_tree(rng, depth + 1) for _ in some]
    return values if kind == 10 else tuple(values) if kind == 11 else [values, values]


ARGUMENTS = {  # of the instructions that have one
    b"K": b"\1", b"J": b"\1\0\0\0", b"M": b"\1\0", b"G": bytes(8), b"X": b"\1\0\0\0a", b"U": b"\1a",
    b"q": b"\1", b"h": b"\1", b"r": b"\1\0\0\0", b"j": b"\1\0\0\0", b"p": b"1\n", b"g": b"1\n",
    b"\x8c": b"\1b", b"B": b"\1\0\0\0b", b"C": b"\1b", b"\x80": b"\2", b"F": b"1.5\n", b"I": b"1\n",
    b"L": b"1L\n", b"S": b"'a'\n", b"V": b"a\n", b"c": b"os\nsystem\n", b"i": b"os\nsystem\n", b"P": b"1\n",
    b"\x95": bytes(8),
}  # fmt: skip
PLAIN = b"().}]N\x88\x89\x85\x86\x87esaubtld021\x8f\x90\x91\x94\x93RQo\x81\x92"
INSTRUCTIONS = [bytes([code]) for code in PLAIN] + list(ARGUMENTS)


def random_program(rng: random.Random) -> bytes:
    """Return random instructions of the pickle machine, most of them with arguments that fit."""
    codes = rng.choices(INSTRUCTIONS, k=rng.randrange(1, 24))
    body = (code + (ARGUMENTS.get(code, b"") if rng.random() < 0.98 else b"") for code in codes)
    return b"\x80\x02" + rng.choice((b"", b"(", b"}(", b"](")) + b"".join(body) + b"."


def same_data(a, b, depth: int = 0) -> bool:
    """Return whether what the machine found, a, is what Python's unpickler found, b."""
    if depth > 40 or isinstance(b, set | frozenset):
        return depth > 40 or isinstance(a, Inert)  # sets stay inert
    if isinstance(a, Inert) and a.name == "a key":
        a = a.args[0]
    if isinstance(b, dict):
        pairs = (
            zip(a.items(), b.items(), strict=True) if isinstance(a, dict) and len(a) == len(b) else [(a, b)]
        )
        return type(a) is dict and all(
            same_data(x, y, depth + 1) for each in pairs for x, y in zip(*each, strict=True)
        )
    if isinstance(b, list | tuple):
        parts = type(a) is type(b) and len(a) == len(b)
        return parts and all(same_data(x, y, depth + 1) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and repr(a) == repr(b)


def pickle_machine(folder: Path) -> Reader:
    path = folder / "x.pth"

    def right(path, value) -> bool:
        with zipfile.ZipFile(path) as archive:
            program = archive.read(archive.namelist()[0])
        try:
            expected = Powerless(io.BytesIO(program), encoding="utf-8").load()
        except Exception:  # it asks for more than plain data
            return only_data(value)
        return same_data(value, expected)

    def from_tree(rng):
        return zipped({"x/data.pkl": mutate(rng, pickle.dumps(random_tree(rng), rng.randrange(6)))})

    inputs = [from_tree, lambda rng: zipped({"x/data.pkl": random_program(rng)})]
    return Reader(path, inputs, read_torch, right, (120, 256 * KIB))


# ---------------------------------------------------------------- other checkpoints

ARRAYS = {"a": np.arange(6, dtype="f4").reshape(2, 3), "b.c": np.arange(4), "d": np.ones((2, 1), "f2"),
          "e": np.array([True, False]), "f": np.float64(3.0)}  # fmt: skip


def safetensors_header(header: str, data: bytes) -> bytes:
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def safetensors_file(folder: Path) -> Reader:
    whole = library.save({name: np.asarray(array) for name, array in ARRAYS.items()}, {"format": "pt"})
    n = int.from_bytes(whole[:8], "little")
    header, data = whole[8 : 8 + n], whole[8 + n :]

    def right(path, value) -> bool:
        arrays, metadata = value
        try:
            expected = library.load(path.read_bytes())
        except Exception:  # it is stricter in places, and lacks dtypes that NumPy lacks
            return all(isinstance(each, np.ndarray | Inert) for each in arrays.values())
        found = {name: each for name, each in arrays.items() if isinstance(each, np.ndarray)}
        return all(alike(found[name], expected[name]) for name in found) and arrays.keys() == expected.keys()

    def of_header(rng):
        text = mutate(rng, header).decode("utf-8", "replace")
        return safetensors_header(text, mutate(rng, data) if rng.random() < 0.1 else data)

    return Reader(folder / "x.safetensors", [raw(whole), of_header], read_safetensors, right, (150, 64 * KIB))


def npz_checkpoint(folder: Path) -> Reader:
    parts = {f"{name}.npy": npy(array) for name, array in ARRAYS.items()}
    parts["g.npy"] = npy(np.asfortranarray(np.arange(6.0).reshape(2, 3)))
    evil = {"a.npy": npy(np.array([PAYLOADS["os.system"], 1], object))}

    def right(path, value) -> bool:
        if not (
            isinstance(value, dict) and all(isinstance(each, np.ndarray | Inert) for each in value.values())
        ):
            return False
        with np.load(path, allow_pickle=False) as expected:
            for name, array in value.items():
                try:
                    there = expected[name]
                except Exception:  # objects, or an array of no dtype that NumPy maps
                    continue
                if isinstance(array, np.ndarray) and there.dtype.kind in "fiubc" and not alike(array, there):
                    return False
        return True

    inputs = [raw(zipped(parts)), inside(parts, zipped), inside(evil, zipped), renamed(parts)]
    return Reader(folder / "x.npz", inputs, read_weights, right, (60, 256 * KIB))


def our_checkpoint(folder: Path) -> Reader:
    path = folder / "x.safetensors"
    model = create_model(**MODEL)
    whole = written(lambda path: save(model, path, training={"progress": {"epoch": 3}}), path)
    path.write_bytes(whole)
    arrays, metadata = read_safetensors(path)

    def right(path, value) -> bool:
        found = library.load(path.read_bytes())
        state = value.model.state_dict()
        return state.keys() == found.keys() and all(alike(state[name], found[name]) for name in state)

    def of_configuration(rng):
        texts = [metadata["config"], metadata["training"]]
        i = rng.randrange(2)
        texts[i] = mutate(rng, texts[i].encode()).decode("utf-8", "replace")
        sums = {
            "format": FORMAT,
            "config": texts[0],
            "training": texts[1],
            "crc32": checksum(arrays, "".join(texts)),
        }
        return library.save(arrays, sums)

    return Reader(path, [raw(whole), of_configuration], load_all, right, (60, 2 * MIB))


class Little(Module):
    """A head and one map with its batch norm, under the names that they have in a Spikformer."""

    def __init__(self, seed: int):
        rng = np.random.default_rng(seed)
        self.head = Linear(4, 3, rng=rng)
        self.blocks = [Module()]
        self.blocks[0].mixer = Module()
        self.blocks[0].mixer.q = Spiking(Linear(4, 4, rng=rng))


def official_import(folder: Path) -> Reader:
    path = folder / "x.pth"
    state = to_official(Little(2), "cifar")
    model = Little(1)
    before = {name: array.copy() for name, array in model.state_dict().items()}
    parts = {f"{name}.npy": npy(array) for name, array in state.items()}

    def read(path):
        for name, array in model.state_dict().items():
            array[...] = before[name]
        try:
            load_official(path, model)
        except Exception:
            unchanged = all(alike(array, before[name]) for name, array in model.state_dict().items())
            assert unchanged, "weights were written before the file was refused"
            raise
        return to_official(model, "cifar")

    def right(path, value) -> bool:
        try:
            with np.load(path, allow_pickle=False) as archive:
                expected = {name.removesuffix(".npy"): archive[name] for name in archive.files}
        except Exception:
            expected = state
        shared = [name for name in value if name in expected]
        return all(
            np.array_equal(value[n], expected[n].astype(value[n].dtype), equal_nan=True) for n in shared
        )

    def wrapped(rng) -> bytes:
        tree = {
            rng.choice(("", "module.", "_orig_mod.")) + name: tensor(a, name) for name, a in state.items()
        }
        for _ in range(rng.randrange(4)):
            tree = {rng.choice(("net", "model", "state_dict", "ema", "other")): tree, "epoch": 1}
        return written(write_torch, folder / "y.pth", tree)

    rng = random.Random(0)
    several = [wrapped(rng) for _ in range(30)]
    inputs = [raw(zipped(parts)), inside(parts, zipped), renamed(parts)]
    inputs.append(lambda rng: mutate(rng, rng.choice(several)))
    return Reader(path, inputs, read, right, (60, 2 * MIB), named=" ")


# ---------------------------------------------------------------- a run's folder

TEXT = (150, 256 * KIB)  # the bound for text: Python's objects take up to 100 bytes per character


def run_config(folder: Path) -> Reader:
    text = resolve("digits").to_json().encode()

    def right(path, run) -> bool:
        found = json.loads(path.read_text("utf-8"))
        return all(repr(asdict(run.recipe)[name]) == repr(value) for name, value in found.items())

    return Reader(folder / "config.json", [raw(text)], lambda path: Run.open(path.parent), right, TEXT)


def run_table(folder: Path) -> Reader:
    text = b"epoch,loss,test_loss,seconds\r\n1,0.5,0.25,3.5\r\n2,0.25,1e-3,3.25\r\n"

    def right(path, rows) -> bool:
        return all(
            isinstance(key, str) and type(value) is float for row in rows for key, value in row.items()
        )

    return Reader(folder / "metrics.csv", [raw(text)], read_table, right, TEXT)


def run_data(folder: Path, root: Path, described: Description) -> Reader:
    """Return the reader of data.json of a run on one's own data, which is at root."""
    run = Run(folder, Recipe(model="spikformer_2_64_fashion", data=str(root)))

    def read(path):
        found = own.read_own(run)
        _, test, _ = own.loaders(run.recipe, found)
        return found, own.summary(found, test)

    def right(path, value) -> bool:
        return value[0].as_dict() == json.loads(path.read_text("utf-8"))

    return Reader(
        folder / own.FILE, [raw(described.to_json().encode())], read, right, (200, MIB), str(folder)
    )


def of_pictures(folder: Path) -> Reader:
    root, rng = folder / "root", np.random.default_rng(0)
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/4.png"):
        write_image(root / name, rng, (8, 8))
    return run_data(folder, root, Pictures.look_at(root, progress=False))


def of_arrays(folder: Path) -> Reader:
    root = folder / "mine.npz"
    np.savez(root, **own_arrays())
    return run_data(folder, root, Arrays.look_at(root))


def of_recordings(folder: Path) -> Reader:
    root = folder / "root"
    for name in ("a/1", "a/2", "b/3", "b/4"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", some_events())
    described = Recordings.look_at(root, T=1, progress=False)
    described.loaders(root, batch_size=1)  # the frames are kept, so reading writes nothing
    return run_data(folder, root, described)


def own_arrays() -> dict[str, np.ndarray]:
    return {"x": np.arange(6 * 4 * 4, dtype="u1").reshape(6, 4, 4), "y": np.array([0, 1, 1, 0, 0, 1])}


def own_npz(folder: Path) -> Reader:
    parts = {f"{name}.npy": npy(array) for name, array in own_arrays().items()}
    other = {"x.npy": npy(np.ones((4, 4, 4, 3), "f4")), "y.npy": npy(np.array(["cat", "dog", "dog", "cat"]))}
    evil = parts | {"y.npy": npy(np.array([PAYLOADS["os.system"]] * 6, object))}

    def read(path):
        return Arrays.look_at(path, size=4)

    def right(path, found) -> bool:
        with zipfile.ZipFile(path) as archive:  # np.load asks for more at the beginning
            names = [name for name in ("x", "x.npy", "y", "y.npy") if name in archive.namelist()]
            x, y = (np.load(io.BytesIO(archive.read(name))) for name in names)
        y = [name.decode() if isinstance(name, bytes) else str(name) for name in y.tolist()]
        counts = {name: y.count(name) for name in y}
        return (
            {*found.classes} == {*y}
            and len(found.train) + len(found.test) == len(x)
            and min(counts.values()) > 1
        )

    inputs = [
        raw(zipped(parts)),
        inside(parts, zipped),
        inside(other, zipped),
        inside(evil, zipped),
        renamed(parts),
    ]
    return Reader(folder / "x.npz", inputs, read, right, (1000, 4 * MIB))


def fashion_settings(folder: Path) -> Reader:
    held = dict(train=20, test=10, seed=0, aedat="2.0", **fashion_dvs.CAMERA, images="00000000")
    text = json.dumps(held, indent=1).encode()

    def read(path):
        try:
            return fashion_dvs.fashion_dvs(path.parent, train=True)
        except FileNotFoundError as error:
            if "expects 2 recordings" in str(error):  # the settings were good, there are no recordings
                return fashion_dvs.read_settings(path.parent)
            raise

    def right(path, value) -> bool:
        return value == json.loads(path.read_text("utf-8"))

    return Reader(folder / "settings.json", [raw(text)], read, right, TEXT, named=str(folder))


# ---------------------------------------------------------------- images


def naive_idx(data: bytes) -> np.ndarray:
    data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    shape = struct.unpack(f">{data[3]}I", data[4 : 4 + 4 * data[3]])
    return np.frombuffer(data[4 + 4 * data[3] :], "u1").reshape(shape)


def idx_file(folder: Path) -> Reader:
    images = idx(np.arange(60, dtype="u1").reshape(3, 4, 5))
    inputs = [
        raw(images),
        raw(gzip.compress(images)),
        inside({"": images}, lambda parts: gzip.compress(parts[""], 1)),
    ]
    inputs.append(inside({"": gzip.compress(images)}, lambda parts: parts[""] + gzip.compress(b"more")))

    def right(path, value) -> bool:
        return np.array_equal(value, naive_idx(path.read_bytes()))

    return Reader(folder / "x", inputs, partial(read_idx, ndim=3), right, (4 * 1032, 256 * KIB))


def mnist_folder(folder: Path) -> Reader:
    write_mnist(folder, np.random.default_rng(0), (2, 2))
    path = folder / mnist.FILES[3]
    data = path.read_bytes()

    def right(path, value) -> bool:
        (_, _), (images, labels) = value
        return images.shape == (2, 32, 32, 1) and labels.tolist() == naive_idx(path.read_bytes()).tolist()

    inputs = [raw(data), raw(gzip.compress(data))]
    return Reader(path, inputs, lambda path: mnist.load_mnist(path.parent), right, (4 * 1032, MIB))


def cifar_binary(folder: Path) -> Reader:
    layout = tiny_layout()
    files = cifar_files(layout, np.random.default_rng(0))
    write_cifar(folder, files)
    path = folder / layout.test

    def right(path, value) -> bool:
        (_, _), (images, labels) = value
        data = np.frombuffer(path.read_bytes(), "u1")
        return labels.tolist() == [data[0]] and np.array_equal(images[0].transpose(2, 0, 1).ravel(), data[1:])

    return Reader(
        path, [raw(files[layout.test])], lambda path: cifar._load(layout, path.parent), right, (20, MIB)
    )


def tiny_layout():
    return replace(SMALL10, train_records=1, test_records=1)


def cifar_archive(folder: Path) -> Reader:
    layout = tiny_layout()
    files = cifar_files(layout, np.random.default_rng(0))
    whole = tar({f"{layout.folder}/{name}": data for name, data in files.items()})
    evil = [pickle.dumps(each, 2) for each in PAYLOADS.values()]
    in_evil = tar({"cifar-10-batches-py/data_batch_1": evil[0]})

    def right(path, value) -> bool:
        (images, labels), (test, test_labels) = value
        return (
            images.shape == (5, 32, 32, 3)
            and test.shape == (1, 32, 32, 3)
            and max(*labels, *test_labels) < 10
        )

    inputs = [raw(whole), raw(gzip.compress(whole, 1)), lambda rng: gzip.compress(mutate(rng, whole), 1),
              lambda rng: mutate(rng, rng.choice(evil)), raw(in_evil)]  # fmt: skip
    read = partial(cifar._load, layout)
    return Reader(folder / layout.archive, inputs, read, right, (60, 2 * MIB))


def picture(folder: Path) -> Reader:
    from PIL import Image

    rng = np.random.default_rng(0)
    inputs = []
    for mode, form, options in [("RGB", "PNG", {}), ("RGBA", "PNG", {}), ("P", "PNG", {"transparency": 3}),
                                ("L", "PNG", {}), ("I;16", "PNG", {}), ("RGB", "JPEG", {}), ("L", "JPEG", {}),
                                ("CMYK", "JPEG", {}), ("1", "PNG", {})]:  # fmt: skip
        pixels = rng.integers(0, 256, (5, 7, 3), "u1")
        if mode == "I;16":
            image = Image.fromarray(pixels[..., 0].astype("u2") * 257)
        else:
            image = Image.fromarray(pixels).convert(mode)
        exif = Image.Exif()
        exif[folders.ORIENTATION] = 6
        stream = io.BytesIO()
        image.save(stream, form, exif=exif, **options)
        inputs.append(raw(stream.getvalue()))
        if form == "PNG":
            inputs.append(partial(_png, data=stream.getvalue()))

    def right(path, value) -> bool:
        with Image.open(path) as image:
            sides = sorted(image.size)
        return value.mode == "RGB" and sorted(value.size) == sides and np.asarray(value).shape[2] == 3

    # What Pillow allocates in C is not seen here: at most 2²⁶ pixels, below the limit of the process.
    return Reader(folder / "x.png", inputs, folders.read_image, right, (200, 2 * MIB))


def _png(rng: random.Random, data: bytes) -> bytes:
    """Damage the chunks of a PNG picture, but not their checksums."""
    chunks, at = [], 8
    while at < len(data):
        n = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + n]))
        at += 12 + n
    i = rng.randrange(len(chunks))
    chunks[i] = chunks[i][0], mutate(rng, chunks[i][1])
    if rng.random() < 0.2:
        rng.shuffle(chunks)
    packed = (
        len(body).to_bytes(4, "big") + kind + body + crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )
    return data[:8] + b"".join(packed)


def image_labels(folder: Path) -> Reader:
    for name in ("cat", "dog"):
        place = folder / "train" / name / "images"
        place.mkdir(parents=True)
        (place / "1.png").write_bytes(b"")
    (folder / "val" / "images").mkdir(parents=True)
    for name in ("1.png", "2.png", "3.png"):
        (folder / "val" / "images" / name).write_bytes(b"")
    text = b"1.png\tcat\t0\t0\t9\t9\n2.png\tdog\t0\t0\t9\t9\n3.png\tcat\n"

    def right(path, value) -> bool:
        rows = [line.decode("utf-8", "replace").split("\t") for line in path.read_bytes().splitlines()]
        _, val = value
        found = [(each.name, val.classes[label]) for each, label in zip(val.paths, val.labels, strict=True)]
        return len(found) > 0 and all((row[0], row[1].strip()) in found for row in rows if len(row) > 1)

    def read(path):
        return folders.load_image_folders(path.parents[1])

    return Reader(folder / "val" / "val_annotations.txt", [raw(text)], read, right, TEXT)


# ---------------------------------------------------------------- events


def some_events(n: int = 40, size: int = 34) -> np.ndarray:
    rng = np.random.default_rng(0)
    events = np.empty(n, EVENT)
    events["x"], events["y"] = rng.integers(0, size, (2, n))
    events["t"], events["p"] = np.sort(rng.integers(0, 300_000, n)), rng.integers(0, 2, n)
    return events


def same_events(events: np.ndarray, rows: list) -> bool:
    return [tuple(each) for each in events.tolist()] == rows


def naive_aedat2(data: bytes) -> list:
    while data[:1] == b"#":
        data = data[data.index(b"\n") + 1 :]
    pairs = struct.iter_unpack(">II", data)
    return [(127 - (a >> 8 & 127), 127 - (a >> 1 & 127), t, a & 1 == 0) for a, t in pairs if not a & 0x8000]


def naive_aedat3(data: bytes) -> list:
    while data[: data.index(b"\n")].rstrip() != b"#!END-HEADER":
        data = data[data.index(b"\n") + 1 :]
    data, rows = data[data.index(b"\n") + 1 :], []
    while data:
        kind, _, size, _, overflow, capacity, number, _ = struct.unpack_from("<hhiiiiii", data)
        for i in range(number if kind == 1 else 0):
            word, t = struct.unpack_from("<Ii", data, 28 + 8 * i)
            if word & 1:
                rows.append((word >> 17, word >> 2 & 0x7FFF, t + (overflow << 31), bool(word & 2)))
        data = data[28 + size * capacity :]
    return rows


def aedat_reader(folder: Path, read, write, naive, bound) -> Reader:
    path = folder / "x.aedat"
    whole = written(write, path, some_events())

    def right(path, events) -> bool:
        return same_events(events, naive(path.read_bytes()))

    head = whole[: whole.rindex(b"#")] + b"# a comment\r\n"
    inputs = [
        raw(whole),
        lambda rng: head + whole[len(head) - 13 :] if rng.random() < 0.01 else mutate(rng, whole),
    ]
    return Reader(path, inputs, read, right, bound)


def aedat2(folder: Path) -> Reader:
    return aedat_reader(folder, aedat.read_aedat2, aedat.write_aedat2, naive_aedat2, (2, 4 * MIB))


def aedat3(folder: Path) -> Reader:
    write = partial(aedat.write_aedat3, packet=7)
    return aedat_reader(folder, aedat.read_aedat3, write, naive_aedat3, (2, 4 * MIB))


def nmnist(folder: Path) -> Reader:
    rows = [struct.pack(">BBBH", x, y, p << 7 | t >> 16, t & 0xFFFF) for x, y, t, p in some_events().tolist()]

    def right(path, value) -> bool:
        if value[1] != (34, 34):  # the first bytes became those of another format
            return True
        found = struct.iter_unpack(">BBBH", path.read_bytes())
        return same_events(value[0], [(x, y, (h & 127) << 16 | t, h > 127) for x, y, h, t in found])

    return Reader(folder / "x.bin", [raw(b"".join(rows))], read_events, right, (40, 256 * KIB))


def right_fields(path: Path, value) -> bool:
    """Compare events of a NumPy file with what NumPy reads."""
    found = np.load(path, allow_pickle=False)
    if isinstance(found, np.lib.npyio.NpzFile) and not {*"xytp"} <= {*found.files}:
        found = found[found.files[0]]
    events = value[0]
    t = found["t"].astype("f8") if found["t"].dtype.kind == "f" else found["t"]
    times = np.array_equal(events["t"], np.rint(1000 * t) if t.dtype.kind == "f" else t)
    return times and all(np.array_equal(events[name], found[name]) for name in "xy")


def in_milliseconds(path: Path):
    return read_events(path, unit="ms" if b"f8" in path.read_bytes()[:400] else None)


def numpy_npy(folder: Path) -> Reader:
    evil = npy(np.array([PAYLOADS["os.system"]], object))
    floats = some_events().astype([("t", "f8"), ("p", "i1"), ("y", "i4"), ("x", "f4")])
    inputs = [raw(npy(some_events())), raw(npy(floats)), raw(evil)]
    return Reader(folder / "x.npy", inputs, in_milliseconds, right_fields, (60, 256 * KIB))


def numpy_npz(folder: Path) -> Reader:
    parts = {f"{name}.npy": npy(some_events()[name]) for name in "xytp"}
    deflated = partial(zipped, compression=zipfile.ZIP_DEFLATED)
    inputs = [raw(zipped(parts)), inside(parts, zipped), inside(parts, deflated), renamed(parts)]
    inputs += [raw(deflated(parts)), inside({"events.npy": npy(some_events())}, zipped)]
    inputs.append(raw(deflated(parts | {"t.npy": npy(np.zeros(2**22, "i8"))})))
    return Reader(folder / "x.npz", inputs, read_events, right_fields, (1000, 4 * MIB))


# ---------------------------------------------------------------- lists of an event set's folder


def gesture_folder(folder: Path) -> None:
    head = f"{dvs.LABELS_HEAD}\n"
    for name in ("user01", "user02", "user03"):
        aedat.write_aedat3(folder / f"{name}.aedat", some_events())
        (folder / f"{name}_labels.csv").write_text(f"{head}1,0,150000\n11,150000,400000\n", encoding="utf-8")
    (folder / "trials_to_test.txt").write_text("user03.aedat\n", encoding="utf-8")
    (folder / "trials_to_train.txt").write_text("user01.aedat\nuser02.aedat\n", encoding="utf-8")


def open_gesture(path: Path):
    return dvs.dvs128_gesture(path.parent, train=True, T=1)


def trial_list(folder: Path) -> Reader:
    gesture_folder(folder)
    for train in (True, False):
        dvs.dvs128_gesture(folder, train=train, T=1)  # its frames are kept, so reading writes nothing

    def right(path, value) -> bool:
        names = path.read_text("utf-8-sig").split()
        return [sample.source.name for sample in value.samples[::2]] == [Path(name).name for name in names]

    path = folder / "trials_to_train.txt"
    return Reader(path, [raw(path.read_bytes())], open_gesture, right, (200, MIB))


def gesture_labels(folder: Path) -> Reader:
    gesture_folder(folder)
    path = folder / "user01_labels.csv"

    def right(path, rows) -> bool:
        lines = [line.strip() for line in path.read_text("utf-8-sig").splitlines()]
        numbers = [[int(value) for value in line.split(",")] for line in lines[1:] if line]
        return [[label + 1, start, end] for label, start, end in rows] == numbers

    return Reader(path, [raw(path.read_bytes())], dvs.read_labels, right, TEXT)


def kept_frames(folder: Path) -> Reader:
    gesture_folder(folder)
    frames = open_gesture(folder / "trials_to_train.txt")
    path = frames.files[0]

    def right(path, found) -> bool:
        return found is None or found.dtype.kind == "u"  # None: the frames are made again

    return Reader(path, [raw(path.read_bytes())], dvs._load, right, (20, 2 * MIB))


READERS: dict[str, Callable[[Path], Reader]] = {
    ".pth, zip": pth_zip,
    ".pth, legacy": pth_legacy,
    "pickle machine": pickle_machine,
    ".safetensors": safetensors_file,
    ".npz of weights": npz_checkpoint,
    "our checkpoint": our_checkpoint,
    "import": official_import,
    "config.json": run_config,
    "metrics.csv": run_table,
    "data.json, pictures": of_pictures,
    "data.json, arrays": of_arrays,
    "data.json, events": of_recordings,
    "images .npz": own_npz,
    "settings.json": fashion_settings,
    "IDX": idx_file,
    "MNIST": mnist_folder,
    "CIFAR, binary": cifar_binary,
    "CIFAR, archive": cifar_archive,
    "picture": picture,
    "val_annotations.txt": image_labels,
    "AEDAT 2.0": aedat2,
    "AEDAT 3.1": aedat3,
    "N-MNIST .bin": nmnist,
    "events .npy": numpy_npy,
    "events .npz": numpy_npz,
    "trials_to_train.txt": trial_list,
    "labels.csv": gesture_labels,
    "frames .npy": kept_frames,
}
