"""Legacy files, of before PyTorch 1.6; and the memory that files may take."""

import io
import os
import pickle
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minispike.files.interop import describe, load_official, read_weights, to_official
from minispike.files.picklemachine import run_pickle
from minispike.files.torchfile import FileFormatError, read_torch

from .common import damage, fuzz, same, small
from .edges import NONE, ORDERED, V3, blank, memory_below, npy, tensors, zip_of
from .torch_writer import (
    PAYLOADS,
    TYPES,
    Call,
    Name,
    Storage,
    Tensor,
    tensor,
    write_legacy,
    write_torch,
)

# ---------------------------------------------------------------- files of before PyTorch 1.6


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_a_legacy_file_gives_the_same_as_a_zip_file(tmp_path, protocol):
    flat = np.arange(24, dtype="f4")
    storage = Storage("94312", "Float", flat.tobytes(), 24)
    tree = {
        "whole": Tensor(storage, 0, (4, 6), (6, 1)),
        "transposed": Tensor(storage, 0, (6, 4), (1, 6)),
        "part": Tensor(storage, 7, (2, 3), (6, 2)),
        **{dtype: tensor(np.arange(5).astype(dtype), f"k{dtype}") for dtype in TYPES},
        "empty": tensor(np.zeros((0, 3), "f4"), "e"),
        "scalar": tensor(np.array(7.5), "s"),
        "args": Call(Name("argparse", "Namespace"), 1),
        "epoch": 3,
    }
    write_torch(tmp_path / "new.pth", tree)
    write_legacy(tmp_path / "old.pth", tree, protocol=protocol)
    new, old = read_torch(tmp_path / "new.pth"), read_torch(tmp_path / "old.pth")
    assert list(new) == list(old) and old["epoch"] == 3 and old["args"].name == "argparse.Namespace"
    for name, array in new.items():
        if isinstance(array, np.ndarray):
            assert array.dtype == old[name].dtype and array.shape == old[name].shape, name
            assert np.array_equal(array, old[name]) and (old[name].size == 0 or not old[name].flags.writeable)
    assert np.array_equal(old["part"], [[7, 9, 11], [13, 15, 17]])
    assert np.shares_memory(old["whole"], old["transposed"])


def test_the_authors_weights_are_loaded_from_a_legacy_file(tmp_path):
    model, other = small(), blank()
    state = Call(ORDERED, [[name, value] for name, value in tensors(to_official(model)).items()])
    write_legacy(tmp_path / "x.pth", {"epoch": 1, "state_dict": state})
    load_official(tmp_path / "x.pth", other)
    assert same(model, other)


def test_a_legacy_file_of_python_2_with_parts_of_storages_and_a_class_is_read(tmp_path):
    """Text as byte strings, a storage that is a part of another one, a pickled model's class and source."""
    reference = b"(U\7storagectorch\nFloatStorage\nU\x0212U\3cpuK\6(U\x0213K\2K\3ttQ"
    weight = b"ctorch._utils\n_rebuild_tensor\n(" + reference + b"K\1K\2\x85K\1\x85tR"
    class_ = b"(U\6moduleclib\nNet\nU\4a.pyU\6sourcetQ"
    program = b"\x80\2}(U\1w" + weight + b"U\1c" + class_ + b"u."
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    data = (6).to_bytes(8, "little") + np.arange(6, dtype="f4").tobytes()
    path = tmp_path / "x.pth"
    path.write_bytes(b"".join([*head, program, b"\x80\2]U\x0212a.", data]))
    tree = read_torch(path)
    assert tree["w"].tolist() == [3, 4] and tree["c"].name == "lib.Net"
    path.write_bytes(path.read_bytes().replace(b"K\2K\3tt", b"K\2K\7tt"))
    with pytest.raises(FileFormatError, match="a part of storage 12 that reaches beyond its 6 values"):
        read_torch(path)


@pytest.mark.parametrize(
    "options, told",
    [
        (dict(version=7), "a legacy PyTorch file of an unknown version"),
        (dict(lengths={"0": 5}), "cut short: storage 0 ends at byte"),
        (dict(lengths={"0": 2**63}), "cut short: storage 0 ends at byte"),
        (dict(lengths={"0": 3}), "storage 0 has 12 bytes, expected 16"),
        (dict(keys=[]), "damaged"),
        (dict(keys=["0", "0"]), "a storage that is listed twice"),
        (dict(keys=["0", "1"]), ".*kind of numbers is not known"),
        (dict(keys=5), "damaged"),
    ],
    ids=str,
)
def test_a_legacy_file_that_lies_is_refused(tmp_path, options, told):
    options = {"keys": None} | options
    if options["keys"] == 5:
        write_legacy(tmp_path / "x.pth", {"w": tensor(np.ones(4, "f4"))}, keys=[])
        whole = (tmp_path / "x.pth").read_bytes()
        (tmp_path / "x.pth").write_bytes(whole[: -len(pickle.dumps([], 2))] + pickle.dumps(5, 2))
    else:
        write_legacy(tmp_path / "x.pth", {"w": tensor(np.ones(4, "f4"))}, **options)
    with memory_below(2**20), pytest.raises(FileFormatError, match=f"x.pth: {told}"):
        read_torch(tmp_path / "x.pth")


def test_a_legacy_pickle_is_as_long_as_tensors_need_and_no_longer(tmp_path):
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    for n, fits in ((3, True), (5, False)):
        program = b"\x80\2](" + n * (b"X\0\0\x10\0" + b"m" * 2**20) + b"NNe."
        (tmp_path / "x.pth").write_bytes(b"".join([*head, program, pickle.dumps([], 2)]))
        if fits:
            assert len(read_torch(tmp_path / "x.pth")) == n + 2
        else:
            with pytest.raises(FileFormatError, match="x.pth: its pickle is larger than 4,194,304 bytes"):
                read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("name", PAYLOADS)
def test_a_malicious_legacy_file_executes_nothing(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {})]
    evil = pickle.dumps(PAYLOADS[name], 2)
    for place in range(5):
        parts = [*head, pickle.dumps({"w": 1}, 2), pickle.dumps([], 2)]
        parts[place] = head[0] + evil if place == 0 else evil
        (tmp_path / "evil.pth").write_bytes(b"".join(parts))
        try:
            read_torch(tmp_path / "evil.pth")
        except FileFormatError:
            assert place != 3
        assert os.listdir(tmp_path) == ["evil.pth"]


@pytest.mark.parametrize(
    "reference, told",
    [
        (b"(X\5\0\0\0otherctorch\nFloatStorage\nX\1\0\0\0aNK\4tQ", "a reference to data outside the pickle"),
        (b"(X\7\0\0\0storagectorch\nFloatStorage\nK\1NK\4tQ", "a reference to data outside the pickle"),
        (b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aNJ\xff\xff\xff\xfftQ", "a reference to data"),
        (b"(X\7\0\0\0storageK\1X\1\0\0\0aNK\4tQ", "damaged"),
        (b"K\1Q", "damaged"),
        (b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0bNK\4tQ", "damaged .*no item named 'x/data/b'"),
    ],
)  # fmt: skip
def test_references_that_make_no_sense_are_refused(tmp_path, reference, told):
    program = b"ctorch._utils\n_rebuild_tensor\n(" + reference + b"K\0K\4\x85K\1\x85tR."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program), ("x/data/a", bytes(16))])
    with pytest.raises(FileFormatError, match=f"x.pth: {told}"):
        read_torch(tmp_path / "x.pth")


@fuzz
@given(st.data())
def test_a_damaged_legacy_file_gives_the_readers_own_error(tmp_path, data):
    whole = tmp_path / "whole.pth"
    if not whole.exists():
        arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(3), "b": np.ones(4, "f2")}
        write_legacy(whole, {"state_dict": tensors(arrays), "epoch": 1})
    path = tmp_path / "damaged.pth"
    path.write_bytes(damage(whole.read_bytes(), data))
    with memory_below(2**20):
        try:
            read_torch(path)
        except FileFormatError as error:
            assert str(error).startswith(f"{path}: ")


# ---------------------------------------------------------------- memory


def test_long_names_are_not_copied_again_and_again():
    """Each STACK_GLOBAL joins two texts that the memo holds: 5 bytes of pickle for any number of bytes."""
    text = b"X\0\0\x10\0" + b"m" * 2**20
    program = b"\x80\4" + text + b"\x940\x8c\1n\x940" + b"]" + b"h\0h\1\x93a" * 10_000 + b"."
    with memory_below(16 * 2**20), pytest.raises(FileFormatError, match="copy more than the file holds"):
        run_pickle(program, {})
    with pytest.raises(FileFormatError, match="a global whose name is not text"):
        run_pickle(b"]]\x93.", {})


COSTLY = {"set": b"\x8f", "dict": b"}", "frozenset": b"(\x91", "name": b"ca\nb\n", "call": b"h\1h\2R",
          "memo": b"\x94", "extension": b"\x82\1", "key": b"}h\2Ns", "tensor": b"h\1h\3R"}  # fmt: skip


@pytest.mark.parametrize("kind", COSTLY)
def test_every_instruction_costs_less_than_100_bytes_of_memory_per_byte(tmp_path, kind):
    reference = b"(X\7\0\0\0storagectorch\nFloatStorage\nX\1\0\0\0aNK\4tQ"
    start = b"ctorch._utils\n_rebuild_tensor\nq\1)q\2(" + reference + b"K\0K\4\x85K\1\x85tq\3"
    start = start.replace(b"ctorch._utils\n_rebuild_tensor", b"cother\nfunction") if kind == "call" else start
    program = b"](" + start + COSTLY[kind] * (2**15 // len(COSTLY[kind])) + b"e."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program), ("x/data/a", bytes(16))])
    with memory_below(100 * len(program) + 2 * (tmp_path / "x.pth").stat().st_size):
        assert len(read_torch(tmp_path / "x.pth")) > 5_000 or kind == "memo"


def test_records_share_what_they_record(tmp_path):
    """A long name, or a list, in the arguments of many calls that are not made costs nothing."""
    name = b"c" + b"m" * 2**20 + b"\nStorage\n"
    storage = b"(X\7\0\0\0storage" + name + b"X\1\0\0\0aNK\4tQq\0"
    call = b"ctorch._utils\n_rebuild_tensor\nq\1(h\0K\0)\x89tq\2"
    program = storage + b"0" + call + b"00]" + b"h\1h\2Ra" * 10_000 + b"."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program)])
    with memory_below(16 * 2**20):
        found = read_torch(tmp_path / "x.pth")
        assert len(found) == 10_000 and describe(found[0]).startswith("a tensor of mmm")


def test_tensors_cost_little_and_share_what_was_widened(tmp_path):
    storage = Storage("0", "BFloat16", bytes(2 * 2**19), 2**19)
    call = b"ctorch._utils\n_rebuild_tensor\nq\1("
    size = b"J\0\0\x08\0\x85K\1\x85tq\2"
    reference = b"(X\7\0\0\0storagectorch\nBFloat16Storage\nX\1\0\0\0aNJ\0\0\x08\0tQK\0"
    again = call + reference + size + b"00]" + b"h\1h\2Ra" * 5_000 + b"."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", again), ("x/data/a", storage.data)])
    with memory_below(3 * 2**20 + 100 * len(again)):
        found = read_torch(tmp_path / "x.pth")
    assert len(found) == 5_000 and np.shares_memory(found[0], found[-1]) and found[0].dtype == "float32"


def test_one_storage_is_widened_to_one_kind_only(tmp_path):
    storage = Storage("0", "Untyped", bytes(8), 8)
    as_dtype = lambda name: Call(V3, storage, 0, (2,), (1,), False, NONE, Name("torch", name))  # noqa: E731
    write_torch(tmp_path / "x.pth", [as_dtype("float8_e5m2"), as_dtype("uint32"), as_dtype("float8_e4m3fn")])
    with pytest.raises(FileFormatError, match="storage 0 is used as float8_e5m2 and as float8_e4m3"):
        read_torch(tmp_path / "x.pth")
    write_torch(tmp_path / "x.pth", [as_dtype("float8_e5m2"), as_dtype("uint32"), as_dtype("bool")])
    assert [array.dtype.name for array in read_torch(tmp_path / "x.pth")] == ["float16", "uint32", "bool"]


@pytest.mark.parametrize("at", [20, 24], ids=["packed", "unpacked"])
def test_an_archive_whose_directory_claims_more_bytes_than_it_has_is_refused(tmp_path, at):
    """zipfile would allocate what the directory claims, before it finds that the bytes are not there."""
    for name, write in (("x.pth", write_torch), ("x.npz", lambda path, tree: np.savez(path, w=np.ones(99)))):
        write(tmp_path / name, {"w": tensor(np.ones(99))})
        data = bytearray((tmp_path / name).read_bytes())
        place = data.index(b"PK\1\2") + at  # of the first entry in the directory
        data[place : place + 4] = (2**30).to_bytes(4, "little")
        (tmp_path / name).write_bytes(data)
        told = "claim more bytes|unpacked it is larger"
        with memory_below(2**20), pytest.raises(FileFormatError, match=f"{name}: .*({told})"):
            read_weights(tmp_path / name)


@pytest.mark.parametrize("shape", ["(10000000000,)", "(4294967296, 4294967296)", "(-3,)", "(3, 3)"])
def test_an_npz_whose_header_claims_more_than_its_bytes_is_refused(tmp_path, shape):
    whole = npy(np.ones(3))
    zip_of(
        tmp_path / "x.npz",
        [("w.npy", whole.replace(b"(3,), }" + b" " * (len(shape) - 4), f"{shape}, }}".encode()))],
    )
    with memory_below(2**20), pytest.raises(FileFormatError, match="x.npz: w.npy has the shape"):
        read_weights(tmp_path / "x.npz")


def test_arrays_of_every_layout_come_back_from_an_npz(tmp_path):
    arrays = {"f": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "big": np.arange(3, dtype=">i4"),
              "empty": np.zeros((0, 2)), "scalar": np.array(2.5, "f2")}  # fmt: skip
    np.savez(tmp_path / "x.npz", **arrays)
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.ones(2), version=(2, 0))
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("second.npy", stream.getvalue())
        archive.writestr("third.npy", stream.getvalue().replace(b"Y\2\0", b"Y\7\0"))
    with pytest.raises(FileFormatError, match="third.npy is of the unknown version"):
        read_weights(tmp_path / "x.npz")
    np.savez(tmp_path / "x.npz", **arrays)
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive:
        archive.writestr("second.npy", stream.getvalue())
    back = read_weights(tmp_path / "x.npz")
    for name, array in (arrays | {"second": np.ones(2)}).items():
        assert back[name].dtype == array.dtype and np.array_equal(back[name], array), name
