"""safetensors: the same values as from .pth files, and headers that lie."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load as library_load
from safetensors.numpy import save_file

from minispike.files.checkpoint import read_safetensors
from minispike.files.interop import load_official, read_weights, to_official
from minispike.files.picklemachine import Inert
from minispike.files.torchfile import KINDS, FileFormatError, read_torch

from .common import damage, fuzz, same, small
from .edges import HEAD, NONE, V3, blank, memory_below, safetensors_bytes
from .torch_writer import (
    Call,
    Name,
    Storage,
    Tensor,
    write_legacy,
    write_torch,
)

# ---------------------------------------------------------------- safetensors: the same values as from a .pth


def naive_bfloat16(word: int) -> float:
    return struct.unpack("<f", struct.pack("<HH", 0, word))[0]


def naive_float8(byte: int, exponent_bits: int) -> float:
    """By the definition: sign, exponent, fraction. E4M3 has no infinity and one NaN of each sign."""
    fraction_bits = 7 - exponent_bits
    bias, unit = 2 ** (exponent_bits - 1) - 1, 2**fraction_bits
    sign, exponent, fraction = -1.0 if byte >> 7 else 1.0, (byte & 127) >> fraction_bits, byte & (unit - 1)
    if exponent_bits == 4 and byte & 127 == 127:
        return np.nan
    if exponent_bits == 5 and exponent == 31:
        return np.nan if fraction else sign * np.inf
    if exponent == 0:
        return sign * fraction / unit * 2.0 ** (1 - bias)
    return sign * (1 + fraction / unit) * 2.0 ** (exponent - bias)


NARROW = {
    "BF16": (np.arange(2**16, dtype="u2"), naive_bfloat16, "float32"),
    "F8_E4M3": (np.arange(256, dtype="u1"), lambda b: naive_float8(b, 4), "float16"),
    "F8_E5M2": (np.arange(256, dtype="u1"), lambda b: naive_float8(b, 5), "float16"),
}
OF_TORCH = {safetensors: dtype for _, dtype, safetensors, _ in KINDS if safetensors}


@pytest.mark.parametrize("dtype", NARROW)
def test_every_narrow_float_becomes_the_number_that_it_means(tmp_path, dtype):
    words, naive, wide = NARROW[dtype]
    entry = {"dtype": dtype, "shape": list(words.shape), "data_offsets": [0, words.nbytes]}
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes({"w": entry}, words.tobytes()))
    found = read_safetensors(tmp_path / "x.safetensors")[0]["w"]
    expected = np.array([naive(int(word)) for word in words])
    number = ~np.isnan(expected)
    assert found.dtype == wide and np.array_equal(np.isnan(found), ~number)
    assert np.array_equal(found[number].astype("f8"), expected[number])
    assert np.array_equal(np.signbit(found)[number], np.signbit(expected)[number])


@pytest.mark.parametrize("dtype", OF_TORCH)
def test_pth_legacy_and_safetensors_give_the_same_values(tmp_path, rng, dtype):
    size = {"F8_E4M3": 1, "F8_E5M2": 1, "BOOL": 1, "BF16": 2, "C64": 8}.get(dtype) or int(dtype[1:]) // 8
    data = (rng.integers(0, 2, 24) if dtype == "BOOL" else rng.integers(0, 256, 24)).astype("u1").tobytes()
    n = 24 // size
    entry = {"dtype": dtype, "shape": [n // 3, 3], "data_offsets": [0, 24]}
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes({"w": entry}, data))
    found = [read_safetensors(tmp_path / "x.safetensors")[0]["w"]]
    name = Name("torch", OF_TORCH[dtype])
    trees = [Call(V3, Storage("0", "Untyped", data, 24), 0, (n // 3, 3), (3, 1), False, NONE, name)]
    storage = next((storage for storage, _, name, _ in KINDS if name == dtype), None)
    if storage:
        kind = storage.removesuffix("Storage")
        trees.append(Tensor(Storage("0", kind, data, n), 0, (n // 3, 3), (3, 1)))
    for tree in trees:
        for write in (write_torch, write_legacy):
            write(tmp_path / "x.pth", {"w": tree})
            found.append(read_torch(tmp_path / "x.pth")["w"])
    for array in found[1:]:
        assert array.dtype == found[0].dtype and array.tobytes() == found[0].tobytes()
    if dtype not in NARROW:
        library = library_load((tmp_path / "x.safetensors").read_bytes())["w"]
        assert library.dtype == found[0].dtype and library.tobytes() == found[0].tobytes()


def test_safetensors_arrays_can_be_written_and_keep_their_order_and_metadata(tmp_path):
    arrays = {"z": np.arange(3.0), "a": np.ones((2, 0), "f4"), "m": np.array(7, "i8"), "ä": np.ones(2, bool)}
    save_file(arrays, tmp_path / "x.safetensors", {"format": "pt", "note": "ä"})
    found, metadata = read_safetensors(tmp_path / "x.safetensors")
    assert metadata == {"format": "pt", "note": "ä"} and set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert np.array_equal(found[name], array) and found[name].flags.writeable
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes('{"__metadata__":null}  '))
    assert read_safetensors(tmp_path / "x.safetensors") == ({}, {})


def test_an_array_of_an_unknown_dtype_stays_inert_and_the_others_are_read(tmp_path):
    model, other = small(), blank()
    theirs, header, data = to_official(model), {}, b""
    for name, array in theirs.items():
        places = [len(data), len(data) + array.nbytes]
        header[name] = {"dtype": "F32", "shape": array.shape, "data_offsets": places}
        data += array.tobytes()
    header["scales"] = {"dtype": "F8_E8M0", "shape": [3], "data_offsets": [len(data), len(data) + 3]}
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, data + bytes(3)))
    report = load_official(tmp_path / "x.safetensors", other)
    assert same(model, other) and report.passed_over == ["scales (an array of F8_E8M0)"]
    header[HEAD]["dtype"] = "F4"
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, data + bytes(3)))
    with pytest.raises(ValueError, match="head.weight is an array of F4, not a dense array of real numbers"):
        load_official(tmp_path / "x.safetensors", other)


W = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    "header, told",
    [
        ({"w": W | {"data_offsets": [0, 9]}}, "w has 9 bytes, which is not F32"),
        ({"w": W | {"shape": [2**40]}}, "w has 8 bytes, which is not F32"),
        ({"w": W | {"shape": [-1, -2]}}, "w has a shape or a place that makes no sense"),
        ({"w": W | {"shape": [True, 2]}}, "w has a shape or a place that makes no sense"),
        ({"w": W | {"shape": [1] * 33 + [2]}}, "w has a shape or a place that makes no sense"),
        ({"w": W | {"shape": [2.0]}}, "w has a shape or a place that makes no sense"),
        ({"w": W | {"data_offsets": [8, 0]}}, "w begins at byte 8, where 0 is expected"),
        ({"w": W | {"data_offsets": [4, 12]}}, "w begins at byte 4, where 0 is expected"),
        ({"w": W, "v": W}, "v begins at byte 0, where 8 is expected"),
        ({"w": W, "v": W | {"data_offsets": [4, 12]}}, "v begins at byte 4, where 8 is expected"),
        ({"w": W | {"shape": [1], "data_offsets": [0, 4]}}, "its arrays have 4 bytes, the file has 8"),
        ({"w": W | {"shape": [4], "data_offsets": [0, 16]}}, "its arrays have 16 bytes, the file has 8"),
        ({"w": {"dtype": "F32", "shape": [2]}}, "KeyError"),
        ({"w": []}, "TypeError"),
        ({"w": W, "__metadata__": {"a": 1}}, "its metadata is not text"),
        ('{"w":' + "[" * 100_000, "RecursionError"),
        ('{"w": NaN, ', "JSONDecodeError"),
        ("{}" + " " * 6 + "\x00", "JSONDecodeError"),
    ],
)  # fmt: skip
def test_a_safetensors_header_that_lies_is_refused(tmp_path, header, told):
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors_bytes(header, bytes(8)))
    with pytest.raises(FileFormatError, match=f"x.safetensors: not a readable safetensors file.*{told}"):
        read_safetensors(path)


def test_a_safetensors_file_that_is_cut_short_is_refused(tmp_path):
    whole = safetensors_bytes({"w": W}, bytes(8))
    for n, told in (
        (len(whole) - 1, "its arrays have 8 bytes, the file has 7"),
        (20, "header of .* is cut short"),
    ):
        (tmp_path / "x.safetensors").write_bytes(whole[:n])
        with pytest.raises(FileFormatError, match=told):
            read_weights(tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((10**8 + 1).to_bytes(8, "little") + b"{")
    with pytest.raises(FileFormatError, match="unknown kind"):
        read_safetensors(tmp_path / "x.safetensors")


@fuzz
@given(st.data())
def test_damaged_safetensors_are_read_as_the_library_reads_them_or_refused(tmp_path, data):
    arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(3), "b": np.ones(4, "f2")}
    path = tmp_path / "x.safetensors"
    if not path.exists():
        save_file(arrays, path, {"a": "b"})
        (tmp_path / "whole").write_bytes(path.read_bytes())
    path.write_bytes(damage((tmp_path / "whole").read_bytes(), data))
    try:
        with memory_below(2**20):
            found, _ = read_safetensors(path)
    except FileFormatError as error:
        assert str(error).startswith(f"{path}: ")
        return
    try:
        expected = library_load(path.read_bytes())
    except (SafetensorError, KeyError):  # KeyError: its NumPy loader lacks the dtype
        assert any(isinstance(array, Inert) or array.dtype == "f2" for array in found.values())
        return
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert array.dtype == found[name].dtype and array.tobytes() == found[name].tobytes()
