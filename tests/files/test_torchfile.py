"""PyTorch's zip files: every dtype and layout is read, nothing is executed, files that lie are refused."""

import argparse
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minispike.files.interop import find_state_dict, load_official
from minispike.files.torchfile import PROGRAM, FileFormatError, Inert, read_torch, run_pickle

from .common import damage, fuzz, small
from .torch_writer import MARKER, PAYLOADS, TYPES, Call, Name, Storage, Tensor, tensor, write_torch

# ---------------------------------------------------------------- what torch.save writes


@pytest.mark.parametrize("dtype", TYPES)
def test_every_dtype_is_read(tmp_path, dtype):
    array = (np.arange(12).reshape(3, 4) % 5).astype(dtype)
    write_torch(tmp_path / "x.pth", {"a": tensor(array)})
    back = read_torch(tmp_path / "x.pth")["a"]
    assert back.dtype == array.dtype and np.array_equal(back, array) and not back.flags.writeable


def test_bfloat16_becomes_float32(tmp_path):
    exact = np.array([1.0, -2.5, 3.140625, 1e30], "float32")  # upper halves
    halves = (exact.view("u4") >> 16).astype("u2")
    write_torch(tmp_path / "x.pth", Tensor(Storage("0", "BFloat16", halves.tobytes(), 4), 0, (2, 2), (2, 1)))
    back = read_torch(tmp_path / "x.pth")
    assert back.dtype == "float32"
    np.testing.assert_array_equal(back.reshape(-1), (halves.astype("u4") << 16).view("f4"))


def test_big_endian_files_are_read(tmp_path):
    array = np.arange(5, dtype=">f4")
    storage = Storage("0", "Float", array.tobytes(), 5)
    write_torch(tmp_path / "x.pth", Tensor(storage, 0, (5,), (1,)), byteorder=b"big")
    assert read_torch(tmp_path / "x.pth").tolist() == [0, 1, 2, 3, 4]


def test_views_of_one_storage_share_it(tmp_path):
    flat = np.arange(24, dtype="f4")
    storage = Storage("0", "Float", flat.tobytes(), 24)
    tree = {
        "whole": Tensor(storage, 0, (4, 6), (6, 1)),
        "transposed": Tensor(storage, 0, (6, 4), (1, 6)),
        "part": Tensor(storage, 7, (2, 3), (6, 2)),
        "repeated": Tensor(storage, 5, (3,), (0,)),
        "scalar": Tensor(storage, 23, (), ()),
        "empty": Tensor(storage, 24, (0, 3), (3, 1)),
    }
    write_torch(tmp_path / "x.pth", tree)
    back = read_torch(tmp_path / "x.pth")
    whole = flat.reshape(4, 6)
    assert np.array_equal(back["whole"], whole) and np.array_equal(back["transposed"], whole.T)
    assert np.array_equal(back["part"], [[7, 9, 11], [13, 15, 17]])
    assert back["repeated"].tolist() == [5, 5, 5] and back["scalar"] == 23 and back["empty"].shape == (0, 3)
    assert np.shares_memory(back["whole"], back["transposed"])


def test_a_training_checkpoint_with_all_that_hangs_on_it(tmp_path):
    weight = Call(Name("torch._utils", "_rebuild_parameter"), tensor(np.ones((2, 2), "f4")), True, {})
    options = Call(
        Name("copyreg", "_reconstructor"), Name("argparse", "Namespace"), Name("builtins", "object"), None
    )
    tree = {
        "epoch": 3,
        "arch": "spikformer",
        "state_dict": Call(Name("collections", "OrderedDict"), [["w", weight]]),
        "optimizer": {"state": {0: {"step": 7}}, "param_groups": [{"lr": 5e-4, "betas": (0.9, 0.999)}]},
        "args": options,
        "size": Call(Name("torch", "Size"), (2, 2)),
        "metric": None,
        "version": 2**40,
    }
    write_torch(tmp_path / "x.pth.tar", tree)
    back = read_torch(tmp_path / "x.pth.tar")
    assert back["epoch"] == 3 and back["optimizer"]["param_groups"][0]["betas"] == (0.9, 0.999)
    assert (
        back["optimizer"]["state"] == {0: {"step": 7}} and back["size"] == (2, 2) and back["version"] == 2**40
    )
    assert np.array_equal(find_state_dict(back)["w"], np.ones((2, 2)))
    assert isinstance(back["args"], Inert) and back["args"].name == "copyreg._reconstructor"


def test_a_pickle_alone_can_be_run_too():
    assert run_pickle(pickle.dumps({"a": [1, 2.5, ("x", None, True)]}, 2), {}) == {
        "a": [1, 2.5, ("x", None, True)]
    }
    with pytest.raises(FileFormatError, match="outside the pickle"):
        run_pickle(b"\x80\x02K\x01Q.", {})


def test_what_an_object_would_have_held_is_on_record():
    found = run_pickle(pickle.dumps(argparse.Namespace(lr=0.1), 2), {})
    assert isinstance(found, Inert) and found.state == {"lr": 0.1}


# ---------------------------------------------------------------- hostile files


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
@pytest.mark.parametrize("name", PAYLOADS)
def test_a_malicious_pickle_executes_nothing(tmp_path, monkeypatch, name, protocol):
    monkeypatch.chdir(tmp_path)
    program = pickle.dumps(PAYLOADS[name], protocol)
    for attempt in (program, b"\x80\x02" + program):
        path = tmp_path / "evil.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", attempt)
        try:
            result = read_torch(path)
        except FileFormatError:
            result = None
        assert os.listdir(tmp_path) == ["evil.pth"]
        if protocol == 2 and attempt is program and name != "in a list":
            assert isinstance(result, Inert) and result.args  # what was asked for is on record


def test_the_payloads_are_real(tmp_path, monkeypatch):
    """Negative control: an ordinary unpickler does execute them."""
    monkeypatch.chdir(tmp_path)
    pickle.loads(pickle.dumps(PAYLOADS["os.system"], 2))
    assert os.listdir(tmp_path) == [MARKER]


@pytest.mark.parametrize(
    "program, message",
    [
        (b"\x80\x02X\x02\x00\x00\x00hi.", None),
        (b"\x80\x02", "no end|damaged"),
        (b".", "disorder|damaged"),
        (b"\x80\x02}}.", "disorder"),
        (b"\x80\x02(}.", "disorder"),
        (b"\x80\x02}K\x01K\x02ss.", "sets an item|damaged"),
        (b"\x80\x02]]K\x01s.", "damaged|sets an item"),
        (b"\x80\x02K\x01K\x02a.", "appends to a int"),
        (b"\x80\x02K\x01K\x02b.", "state for a int"),
        (b"\x80\x02K\x01)R.", "calls a int"),
        (b"\x80\x02cos\nsystem\nK\x01R.", "calls a Inert"),
        (b"\x80\x02h\x05.", "damaged"),
        (b"\x80\x02\x85.", "empty stack"),
        (b"\x80\x02i.", "damaged|instruction"),
        (b"\x80\x02Pabc\n.", "instruction PERSID"),
        (b"\x80\x02}}K\x01s.", "sets an item of a dict by a dict"),
        (b"\x80\x02K\x01Q.", "damaged"),
    ],
)
def test_programs_in_disorder_are_refused(tmp_path, program, message):
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", program)
    if message is None:
        assert read_torch(tmp_path / "x.pth") == "hi"
        return
    with pytest.raises(FileFormatError, match=message):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["torch\nSize", "collections\nOrderedDict"])
def test_a_program_cannot_copy_one_list_again_and_again(name):
    many = b"]q\x00(" + b"K\x01K\x02\x86" * 5000 + b"e"
    copies = b"".join(b"c" + name.encode() + b"\nh\x00\x85R" for _ in range(5000))
    with pytest.raises(FileFormatError, match="its calls copy more than the file holds"):
        run_pickle(b"\x80\x02" + many + copies + b".", {"torch.Size": tuple, "collections.OrderedDict": dict})


def test_a_deeply_nested_key_does_not_break_the_stack(tmp_path):
    """Hashing tuples nested so deep would overflow C's stack, so a tuple is a key inside an Inert."""
    deep = b")" + b"\x85" * 200_000
    for program in (
        b"\x80\x02}" + deep + b"K\x01s.",
        b"\x80\x02ccollections\nOrderedDict\n]" + deep + b"K\x01\x86a\x85R.",
    ):
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
            archive.writestr("archive/data.pkl", program)
        [(key, value)] = read_torch(tmp_path / "x.pth").items()
        assert isinstance(key, Inert) and isinstance(key.args[0], tuple) and value == 1


def test_a_program_is_as_long_as_tensors_need_and_no_longer(tmp_path):
    path = tmp_path / "x.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + b"}" * PROGRAM + b".")  # 64 bytes by each byte
    tracemalloc.start()
    with pytest.raises(FileFormatError, match="its data.pkl is larger than 4,194,304 bytes"):
        read_torch(path)
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02](" + b"N" * (PROGRAM - 6) + b"e.")
    assert len(read_torch(path)) == PROGRAM - 6


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: Tensor(s, 0, (5,), (1,)), "reaches beyond its 4 values"),
        (lambda s: Tensor(s, 3, (2,), (1,)), "reaches beyond"),
        (lambda s: Tensor(s, 0, (-1,), (1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1,), (-1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1, 1), (1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1,) * 40, (1,) * 40), "makes no sense"),
        (lambda s: Tensor(s, 0, (2**80,), (1,)), "makes no sense"),
        (lambda s: Tensor(s, "0", (1,), (1,)), "makes no sense|damaged"),
        (lambda s: Tensor("no storage", 0, (1,), (1,)), "damaged"),
        (lambda s: Tensor(Storage("0", "Float", b"123", 4), 0, (1,), (1,)), "storage 0 has 3 bytes"),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path, make, message):
    write_torch(tmp_path / "x.pth", make(Storage("0", "Float", np.ones(4, "f4").tobytes(), 4)))
    with pytest.raises(FileFormatError, match=message):
        read_torch(tmp_path / "x.pth")


def test_a_storage_longer_than_it_says_is_refused(tmp_path):
    write_torch(tmp_path / "x.pth", Tensor(Storage("0", "Float", bytes(8), 1), 0, (1,), (1,)))
    with pytest.raises(FileFormatError, match="storage 0 has 8 bytes, expected 4"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize(
    "dtype, n, size", [("Double", 1, (500,)), ("Float", 2, (10**12,)), ("Bool", 8, (2**62, 2))]
)
def test_a_tensor_larger_than_its_file_stays_inert(tmp_path, dtype, n, size):
    """PyTorch writes expand() as strides of 0, so such a tensor is no lie. Its memory is counted in bytes."""
    path = tmp_path / "x.pth"
    repeated = Tensor(Storage("1", dtype, bytes(8), n), 0, size, (0,) * len(size))
    write_torch(path, {"w": tensor(np.ones(2)), "mask": repeated})
    assert 500 < path.stat().st_size < 4000
    tree = read_torch(path)
    assert tree["w"].tolist() == [1, 1]
    assert isinstance(tree["mask"], Inert) and "claims more memory than the file has" in tree["mask"].name


# ---------------------------------------------------------------- zip files


def test_zip_files_that_torch_does_not_write_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    write_torch(path, {"a": tensor(np.zeros(10_000, "f4"))}, compress=zipfile.ZIP_DEFLATED)
    with pytest.raises(FileFormatError, match="x.pth: has compressed entries"):
        read_torch(path)
    write_torch(path, {}, extra=[("other/data.pkl", b"x")])
    with pytest.raises(FileFormatError, match="2 entries named data.pkl, expected one"):
        read_torch(path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")
    with pytest.raises(FileFormatError, match=r"a zip archive of other files \(readme.txt\): unpack it"):
        read_torch(path)


def test_entries_that_claim_more_than_the_file_has_are_refused(tmp_path):
    path = tmp_path / "x.pth"
    write_torch(path, {"a": tensor(np.ones(3, "f4"))})
    data = bytearray(path.read_bytes())
    at = data.rindex(b"PK\x01\x02")  # in the directory, of an entry that nothing reads
    data[at + 20 : at + 28] = 2 * (2**20).to_bytes(4, "little")  # its packed and unpacked size
    path.write_bytes(data)
    with pytest.raises(FileFormatError, match="its entries claim more bytes than the file has"):
        read_torch(path)


def test_foreign_files_are_refused_clearly(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(b"GIF89a")
    with pytest.raises(FileFormatError, match="not a PyTorch file"):
        load_official(path, small())
    path.write_bytes(b"")
    with pytest.raises(FileFormatError, match="not a PyTorch file"):
        load_official(path, small())
    with pytest.raises(FileNotFoundError, match="no file"):
        load_official(tmp_path / "none.pth", small())


@fuzz
@given(st.data())
def test_a_damaged_program_gives_the_readers_own_error(tmp_path, data):
    """A zip's checksum catches most damage to the pickle, so here the damaged pickle has a good checksum."""
    program = pickle.dumps(
        {"a": [1, 2.5], "b": ("x", {"y": None}), "c": b"123"}, data.draw(st.sampled_from([2, 4]))
    )
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", damage(program, data))
    try:
        read_torch(tmp_path / "x.pth")
    except FileFormatError:
        pass
