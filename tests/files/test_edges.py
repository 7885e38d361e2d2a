"""Real files: what people have, what lies beside the weights, and which other file it is."""

import gzip
import io
import json
import os
import pickle
import re
import struct
import tarfile
import tracemalloc
import warnings
import zipfile
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.numpy import load as library_load
from safetensors.numpy import save_file

from minispike import create_model
from minispike.files.checkpoint import load, read_safetensors, save
from minispike.files.interop import describe, find_state_dict, load_official, read_weights, to_official
from minispike.files.picklemachine import Inert, run_pickle
from minispike.files.torchfile import KINDS, FileFormatError, read_torch
from minispike.runs.cli import main

from .common import damage, fuzz, same, small, small_once
from .torch_writer import (
    PAYLOADS,
    TYPES,
    Call,
    Name,
    Storage,
    Tensor,
    pickled,
    tensor,
    write_legacy,
    write_torch,
)

OLD = Name("torch._utils", "_rebuild_tensor")
V3 = Name("torch._utils", "_rebuild_tensor_v3")
ORDERED = Name("collections", "OrderedDict")


@contextmanager
def memory_below(limit):
    """Fail if more than `limit` bytes are allocated at any moment inside."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < limit
    finally:
        tracemalloc.stop()


def tensors(state: dict, first=0) -> dict:
    """Return a state dict for write_torch: each array on a storage of its own."""
    return {name: tensor(array, f"{first + i}") for i, (name, array) in enumerate(state.items())}


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: value for name, value in state.items()}


def blank():
    """Return a model like `small` whose parameters and buffers are 0."""
    model = small()
    for array in model.state_dict().values():
        array[...] = 0
    return model


def safetensors_bytes(header: dict | str, data: bytes = b"") -> bytes:
    text = (header if isinstance(header, str) else json.dumps(header)).encode()
    return len(text).to_bytes(8, "little") + text + data


def zip_of(path, entries):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # of a name that is there twice
        for name, data in entries:
            archive.writestr(name, data)


def npy(array) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


# ---------------------------------------------------------------- two names for one thing

HEAD = "head.weight"
TWINS = {  # what becomes of {"head.weight": …, …}: both names in the message
    "DataParallel": (lambda s: s | {f"module.{HEAD}": s[HEAD]}, [HEAD, f"module.{HEAD}"]),
    "torch.compile": (lambda s: s | {f"_orig_mod.{HEAD}": s[HEAD]}, [HEAD, f"_orig_mod.{HEAD}"]),
    "both": (
        lambda s: prefixed(s, "module.") | {f"_orig_mod.module.{HEAD}": s[HEAD]},
        [f"module.{HEAD}", f"_orig_mod.module.{HEAD}"],
    ),
    "Lightning": (
        lambda s: prefixed(s, "model.") | prefixed(s, "net."),
        ["model.block.0.mlp.fc1_bn.bias", "net.block.0.mlp.fc1_bn.bias"],
    ),
    "a compiled layer": (
        lambda s: s | {"block.0._orig_mod.attn.q_bn.bias": s["block.0.attn.q_bn.bias"]},
        ["block.0.attn.q_bn.bias", "block.0._orig_mod.attn.q_bn.bias"],
    ),
    "layouts": (
        lambda s: s | {"block.1.attn.q_conv.weight": s["block.1.attn.q_linear.weight"][..., None]},
        ["block.1.attn.q_linear.weight", "block.1.attn.q_conv.weight"],
    ),
    "two keys": (lambda s: {"model": s, "net": dict(s)}, [f"model.{HEAD}", f"net.{HEAD}"]),
    "one key and none": (lambda s: s | {"state_dict": dict(s)}, [f"state_dict.{HEAD}", HEAD]),
    "a key and a prefix": (lambda s: {"model": s, f"model.{HEAD}": s[HEAD]}, [f"model.{HEAD}"]),
    "two averages": (lambda s: {"ema": s, "model_ema": dict(s)}, [f"ema.{HEAD}", f"model_ema.{HEAD}"]),
    "an average twice": (lambda s: {"ema": s, f"ema.{HEAD}": s[HEAD]}, [f"ema.{HEAD}"]),
}


@pytest.mark.parametrize("kind", TWINS)
def test_an_entry_under_two_names_is_refused_and_nothing_is_written(kind):
    make, names = TWINS[kind]
    model = blank()
    with pytest.raises(ValueError, match="two entries") as caught:
        load_official(make(to_official(small())), model)
    assert all(name in str(caught.value) for name in names)
    assert same(model, blank())


@pytest.mark.parametrize(
    "tree, told",
    [
        (Call(ORDERED, [["head.bias", 1], ["head.bias", 2]]), "two entries of one name, head.bias"),
        (Call(ORDERED, [[7, 1], [7, 2]]), "two entries of one name, 7"),
        (Call(ORDERED, [[Name("torch", "float16"), 1]] * 2), "two entries of one name, torch.float16"),
    ],
    ids=["text", "number", "object"],
)
def test_a_pickled_dict_with_two_entries_of_one_name_is_refused(tmp_path, tree, told):
    write_torch(tmp_path / "x.pth", tree)
    with pytest.raises(FileFormatError, match=f"x.pth: has {told}"):
        read_torch(tmp_path / "x.pth")


def test_dicts_of_every_instruction_refuse_two_entries_of_one_name():
    for program in (
        b"}X\1\0\0\0aNsX\1\0\0\0aNs.",
        b"}(X\1\0\0\0aNX\1\0\0\0aNu.",
        b"(X\1\0\0\0aNX\1\0\0\0aNd.",
    ):
        with pytest.raises(FileFormatError, match="two entries of one name, a"):
            run_pickle(program, {})


def test_archives_with_two_entries_of_one_name_are_refused(tmp_path):
    program, storages = pickled({HEAD: tensor(np.ones(2, "f4"))})
    files = [("x/data.pkl", program), ("x/data/0", storages["0"].data)]
    for twin in ("x/data.pkl", "x/data/0", "x/version"):
        zip_of(tmp_path / "x.pth", [*files, ("x/version", b"3"), (twin, b"other")])
        with pytest.raises(FileFormatError, match=f"x.pth: a zip archive with 2 entries of one name, {twin}"):
            read_torch(tmp_path / "x.pth")
    zip_of(tmp_path / "x.npz", [("w.npy", npy(np.ones(2))), ("w.npy", npy(np.zeros(2)))])
    with pytest.raises(FileFormatError, match="x.npz: a zip archive with 2 entries of one name, w.npy"):
        read_weights(tmp_path / "x.npz")


@pytest.mark.parametrize(
    "header, twin",
    [
        ('{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},'
         '"w":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "w"),
        ('{"w":{"dtype":"F32","dtype":"I32","shape":[2],"data_offsets":[0,8]}}', "dtype"),
        ('{"__metadata__":{"a":"1","a":"2"},"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', "a"),
    ],
)  # fmt: skip
def test_a_safetensors_header_with_two_entries_of_one_name_is_refused(tmp_path, header, twin):
    (tmp_path / "x.safetensors").write_bytes(safetensors_bytes(header, bytes(8)))
    with pytest.raises(FileFormatError, match=f"x.safetensors: .*two entries of one name, {twin}"):
        read_safetensors(tmp_path / "x.safetensors")


# ---------------------------------------------------------------- what lies beside the weights

NONE = Call(ORDERED)
UNTYPED = Storage("u", "Untyped", bytes(range(6)), 6)
BESIDE = {  # a value, and what it is called; no module of these names exists
    "uint16": (Call(V3, UNTYPED, 0, (3,), (1,), False, NONE, Name("torch", "uint16")), None),
    "bits8": (
        Call(V3, UNTYPED, 0, (6,), (1,), False, NONE, Name("torch", "bits8")), "a tensor of torch.bits8",
    ),
    "set": ({1, 2}, "__builtin__.set"),
    "frozenset": (frozenset([3]), "__builtin__.frozenset"),
    "class": (Call(Name("timm.optim", "Lion"), 0.1), "timm.optim.Lion"),
    "object": (Call(Name("copyreg", "_reconstructor"), Name("args", "Options"), None, None), "args.Options"),
    "complex": (complex(1, 2), "__builtin__.complex"),
    "bytes": (b"\xff", "_codecs.encode"),
    "a number of 400 digits": (10**400, None),
    "storage": (Storage("s", "Float", bytes(8), 2), None),
    "future storage": (
        Tensor(Storage("s", "Posit", bytes(8), 1), 0, (1,), (1,)), "a tensor of torch.PositStorage",
    ),
    "expanded": (Tensor(Storage("s", "Float", bytes(4), 1), 0, (10**6, 10**6), (0, 0)), "claims more memory"),
    "negated": (
        Call(Name("torch._utils", "_rebuild_tensor_v2"), UNTYPED, 0, (1,), (1,), False, NONE, {"neg": True}),
        "a tensor to be conjugated or negated",
    ),
    "sparse": (
        Call(Name("torch._utils", "_rebuild_sparse_tensor"), Name("torch", "sparse_coo"), ()),
        r"a sparse tensor \(in PyTorch, to_dense\(\)",
    ),
    "quantised": (
        Call(Name("torch._utils", "_rebuild_qtensor"), Storage("q", "QInt8", bytes(2), 2), 0, (2,), (1,), ()),
        r"a quantised tensor \(in PyTorch, dequantize\(\)",
    ),
    "meta": (
        Call(Name("torch._utils", "_rebuild_meta_tensor_no_storage"), Name("torch", "half"), (2,), (1,), 0),
        "on PyTorch's meta device",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", BESIDE)
def test_what_lies_beside_the_weights_is_passed_over_and_reported(tmp_path, kind):
    value, told = BESIDE[kind]
    model = small()
    write_torch(tmp_path / "x.pth", {"other": value, "state_dict": tensors(to_official(model)), (3, 4): "x"})
    other = blank()
    report = load_official(tmp_path / "x.pth", other)
    assert same(model, other) and len(report.passed_over) == 2
    assert report.passed_over[1] == "[a tuple]"
    if told is None:
        assert report.passed_over[0] == "other"
    else:
        assert re.fullmatch(rf"other \(.*{told}.*\)", report.passed_over[0])
    assert report.entry == "state_dict" and "taken: state_dict\npassed over: other" in str(report)


KEYS = {"tuple": (1, 2), "bytes": b"k", "None": None, "class": Name("torch", "float32"), "float": 1.5,
        "frozenset": frozenset([1]), "nested": (1, (2, (3,)))}  # fmt: skip


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_every_hashable_kind_are_kept(tmp_path, kind, protocol):
    program, storages = pickled({KEYS[kind]: 1, "w": tensor(np.ones(2, "f4"))}, protocol=protocol)
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program), ("x/data/0", storages["0"].data)])
    tree = read_torch(tmp_path / "x.pth")
    key = next(iter(tree))
    assert list(tree.values())[0] == 1 and tree["w"].tolist() == [1, 1]
    if kind in ("None", "float") or (kind == "bytes" and protocol > 2):
        assert key == KEYS[kind]
    elif kind in ("tuple", "nested"):
        assert isinstance(key, Inert) and key.args == (KEYS[kind],)
    else:
        assert isinstance(key, Inert)


def test_what_python_cannot_hash_is_no_key():
    for key in (b"]", b"}"):
        with pytest.raises(FileFormatError, match="sets an item of a dict by a (list|dict)"):
            run_pickle(b"}" + key + b"Ns.", {})


@pytest.mark.parametrize("protocol", range(6))
def test_every_instruction_of_python_is_run_or_kept_inert(protocol):
    """The values of every protocol come back; sets, and objects, are records of what they would have been."""

    class Old:  # as pickled by __reduce__ with state, list items and dict items
        def __reduce__(self):
            return (Old.__new__, (), {"a": 1}, iter([5, 6]), iter([("k", 7)]))

    plain = {"i": [0, 255, 65535, -1, 2**31, -(2**70), 2**3000, True, False, None, 1.5, 1e300],
             "s": ["", "ä😀", "x" * 300, "line\nbreak"], "t": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
             "d": {"a": {}, 1: {2: 3}}, "l": [[], [[]]]}  # fmt: skip
    shared = [1]
    plain |= {"same": [shared, shared]}
    found = run_pickle(pickle.dumps(plain, protocol), {})
    assert found == plain and found["same"][0] is found["same"][1]
    record = run_pickle(pickle.dumps({1, 2}, protocol), {})
    assert record.name.endswith("set") and [1, 2] in (record.items, *record.args)
    loop = [()]
    loop[0] = (loop,)  # a tuple in itself, by way of a list: POP or POP_MARK
    found = run_pickle(pickle.dumps(loop, protocol), {})
    assert found[0][0] is found
    if protocol >= 2:
        import argparse

        found = run_pickle(pickle.dumps(argparse.Namespace(lr=1), protocol), {})
        assert found.name == "argparse.Namespace" and found.state == {"lr": 1}
    assert run_pickle(pickle.dumps(bytearray(b"ab"), 5), {}) == b"ab"


def test_instructions_of_python_2_and_of_extensions_are_kept_inert():
    assert run_pickle(b"U\x02hiT\x03\0\0\0abc\x86.", {}) == ("hi", "abc")
    assert run_pickle(b"U\x02\xc3\xa4.", {}) == "ä" and run_pickle(b"U\x01\xff.", {}) == b"\xff"
    assert run_pickle(b"S'it'\n.", {}) == "it" and run_pickle(b"I01\n.", {}) is True
    for program in (b"(cold\nStyle\nK\x01o}X\1\0\0\0aK\2sb.", b"(K\x01iold\nStyle\n}X\1\0\0\0aK\2sb."):
        found = run_pickle(program, {"old.Style": print})
        assert (found.name, found.args, found.state) == ("old.Style", (1,), {"a": 2})
    assert run_pickle(b"\x82\x07.", {}).name == "copyreg.extension_7"
    found = run_pickle(b"ca\nB\nK\1\x85}\x92.", {})
    assert found.name == "a.B" and found.args == ((1,), {})
    assert run_pickle(b"K\1K\2(K\3K\x0410.", {}) == 1 and run_pickle(b"K\1(0.", {}) == 1
    assert run_pickle(b"K\x012\x86.", {}) == (1, 1)


def test_what_an_object_would_contain_is_on_record():
    found = run_pickle(b"caddict\nDict\n)R(K\1K\2u]K\3a\x86.", {})
    assert found[0].items == [(1, 2)] and found[1] == [3]
    assert run_pickle(b"clib\nList\n)R(K\1K\2eK\3a.", {}).items == [1, 2, 3]
    write = Call(Name("collections", "defaultdict"), Name("builtins", "list"))
    program, _ = pickled(write)
    assert run_pickle(program[:-1] + b"K\1K\2s.", {"collections.defaultdict": lambda *_: {}}) == {1: 2}


DENSE = np.arange(6, dtype="f4").reshape(2, 3)
PARAMETER = Name("torch._utils", "_rebuild_parameter_with_state")
WRAPPED = {
    "_rebuild_tensor": Call(OLD, tensor(DENSE).parts[0], 0, (2, 3), (3, 1)),
    "_rebuild_parameter": Call(Name("torch._utils", "_rebuild_parameter"), tensor(DENSE), True, NONE),
    "_rebuild_parameter_with_state": Call(PARAMETER, tensor(DENSE), True, NONE, {"tag": 1}),
    "_rebuild_from_type": Call(
        Name("torch._tensor", "_rebuild_from_type"), Name("torch._utils", "_rebuild_tensor_v2"),
        Name("my", "Tensor"), tensor(DENSE).parts, {"tag": 1},
    ),
    "_rebuild_from_type_v2": Call(
        Name("torch._tensor", "_rebuild_from_type_v2"), PARAMETER, Name("my", "Parameter"),
        (tensor(DENSE), True, NONE, {}), {"tag": 1},
    ),
    "in PyTorch 1.7": Call(
        Name("torch.tensor", "_rebuild_from_type"), Name("torch._utils", "_rebuild_tensor_v2"),
        Name("torch", "Tensor"), tensor(DENSE).parts, {},
    ),
    "_rebuild_device_tensor": Call(
        Name("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"), tensor(DENSE),
        Name("torch", "float32"), "xla:0", False,
    ),
    "Parameter": Call(Name("torch.nn.parameter", "Parameter"), tensor(DENSE), True),
    "_rebuild_tensor_v3": Call(
        V3, Storage("0", "Untyped", DENSE.tobytes(), 24), 0, (2, 3), (3, 1), False, NONE,
        Name("torch", "float32"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRAPPED)
def test_functions_that_wrap_a_dense_tensor_yield_it(tmp_path, name):
    for write in (write_torch, write_legacy):
        write(tmp_path / "x.pth", {"w": WRAPPED[name]})
        found = read_torch(tmp_path / "x.pth")["w"]
        assert found.dtype == "float32" and np.array_equal(found, DENSE)


def test_a_wrapper_calls_no_other_function_and_ends(tmp_path):
    wrapper = Name("torch._tensor", "_rebuild_from_type_v2")
    write_torch(tmp_path / "x.pth", Call(wrapper, ORDERED, Name("a", "B"), ([[1, 2]],), None))
    with pytest.raises(FileFormatError, match="x.pth: a tensor made by collections.OrderedDict"):
        read_torch(tmp_path / "x.pth")
    write_torch(
        tmp_path / "x.pth", Call(wrapper, Name("os", "_rebuild_system"), Name("a", "B"), ("ls",), None)
    )
    assert read_torch(tmp_path / "x.pth").name == "os._rebuild_system"
    deep = b"ctorch._tensor\n_rebuild_from_type_v2\nq\0" + b"(h\0N" * 3000 + b"N" + b"Nt" * 3000 + b"R."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", deep)])
    with pytest.raises(FileFormatError, match="x.pth: .*"):
        read_torch(tmp_path / "x.pth")


NEEDED = {
    "sparse": r"head.bias is a sparse tensor \(in PyTorch, to_dense\(\)",
    "quantised": r"head.bias is a quantised tensor \(in PyTorch, dequantize\(\)",
    "meta": "head.bias is a tensor on PyTorch's meta device, which has no numbers",
    "bits8": "head.bias is a tensor of torch.bits8",
    "future storage": "head.bias is a tensor of torch.PositStorage",
    "expanded": "head.bias is a tensor that claims more memory than the file has",
    "negated": "head.bias is a tensor to be conjugated or negated",
    "class": "head.bias is timm.optim.Lion",
    "frozenset": "head.bias is __builtin__.frozenset",
    "complex numbers": "head.bias is an array of complex64",
    "None": "head.bias is a NoneType",
}


@pytest.mark.parametrize("kind", NEEDED)
def test_a_model_that_needs_what_is_no_dense_tensor_gets_an_error_that_names_the_key(tmp_path, kind):
    odd = {
        "complex numbers": Tensor(Storage("c", "ComplexFloat", bytes(80), 10), 0, (10,), (1,)),
        "None": None,
    }
    value = odd[kind] if kind in odd else BESIDE[kind][0]
    write_torch(tmp_path / "x.pth", tensors(to_official(small())) | {"head.bias": value})
    model = blank()
    with pytest.raises(ValueError, match=f"{NEEDED[kind]}.*, not a dense array of real numbers"):
        load_official(tmp_path / "x.pth", model)
    assert same(model, blank())


def test_odd_values_among_the_weights_are_passed_over_where_the_model_does_not_need_them(tmp_path):
    model, other = small(), blank()
    odd = {f"block.0.{kind}": BESIDE[kind][0] for kind in ("sparse", "class", "frozenset")}
    write_torch(tmp_path / "x.pth", {"model": tensors(to_official(model)) | odd | {"_extra_state": None}})
    report = load_official(tmp_path / "x.pth", other)
    assert same(model, other) and len(report.passed_over) == 4
    assert "block.0.class (timm.optim.Lion)" in report.passed_over and "_extra_state" in report.passed_over


def test_an_npz_with_a_pickled_array_and_a_note_beside_its_weights_is_read(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, other = small(), blank()
    beside = dict(args=np.array([{"lr": 1}], object), text=np.array("note"), epoch=3, best=np.ones(1))
    np.savez("x.npz", **beside, **to_official(model))
    with zipfile.ZipFile("x.npz", "a") as archive:
        archive.writestr("README.txt", "how these were made")
    report = load_official("x.npz", other)
    assert same(model, other)
    assert report.passed_over == ["args (a pickled array of objects)", "text", "epoch", "best"]
    np.savez("x.npz", best=np.ones(2), **to_official(model))
    with pytest.raises(ValueError, match="does not fit SpikingTransformer: unexpected best"):
        load_official("x.npz", other)


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
    with memory_below(2**20), pytest.raises(FileFormatError, match="x.npz: damaged"):
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


# ---------------------------------------------------------------- wrappers and prefixes


def average(state: dict) -> dict:
    """Return other numbers under the same names, as a moving average has them."""
    return {name: array + 1 for name, array in state.items()}


TREES = {  # how a state_dict s is wrapped: the entry that is taken, the averages that are not
    "itself": (lambda s: s, "", []),
    "timm": (lambda s: {"epoch": 1, "arch": "x", "state_dict": s, "state_dict_ema": average(s)},
             "state_dict", ["state_dict_ema"]),
    "DeiT": (lambda s: {"model": s, "model_ema": average(s), "optimizer": {"state": {0: {"v": np.ones(2)}}}},
             "model", ["model_ema"]),
    "BasicSR": (lambda s: {"params": s, "params_ema": average(s)}, "params", ["params_ema"]),
    "the first is the average": (lambda s: {"ema": average(s), "net": s}, "net", ["ema"]),
    "net": (lambda s: {"net": s, "acc": 93.1, "epoch": 7}, "net", []),
    "model_state_dict": (lambda s: {"model_state_dict": s, "loss": np.array(0.1)}, "model_state_dict", []),
    "module": (lambda s: {"module": s}, "module", []),
    "two layers": (lambda s: {"state_dict": {"model": s, "ema": {"decay": 0.9, "module": average(s)}}},
                   "state_dict.model", ["state_dict.ema.module"]),
    "an accuracy as tensor": (lambda s: {"best_acc1": np.array(93.1), "state_dict": s}, "state_dict", []),
    "settings under a usual key": (lambda s: {"params": {"lr": 0.1}, "model": {"T": 4}, "net": s}, "net", []),
    "the same dict twice": (lambda s: {"model": s, "state_dict": s}, "model", []),
    "only an average": (lambda s: {"ema_state_dict": s}, "ema_state_dict", []),
    "DataParallel": (lambda s: prefixed(s, "module."), "", []),
    "torch.compile": (lambda s: prefixed(s, "_orig_mod."), "", []),
    "all of them": (lambda s: {"state_dict": prefixed(s, "model._orig_mod.module.")}, "state_dict", []),
    "repeated": (lambda s: prefixed(s, "module.module."), "", []),
    "Lightning": (
        lambda s: {"state_dict": prefixed(s, "net.") | {"loss.weight": np.ones(10), "acc.total": np.array(3)},
                   "hyper_parameters": {"lr": 1}, "pytorch-lightning_version": "2.1"}, "state_dict", []),
    "Lightning with an average": (
        lambda s: {"state_dict": prefixed(s, "model.") | prefixed(average(s), "model_ema.module.")},
        "state_dict", ["state_dict.model_ema.module"]),
    "AveragedModel": (lambda s: prefixed(s, "module.") | {"n_averaged": np.array(5)}, "", []),
    "compiled layers": (
        lambda s: {name.replace("block.0.attn.", "block.0._orig_mod.attn._checkpoint_wrapped_module."): a
                   for name, a in s.items()}, "", []),
    "flat": (lambda s: prefixed(s, "state_dict.model.") | prefixed(average(s), "ema."), "", ["ema"]),
}  # fmt: skip


@pytest.mark.parametrize("kind", TREES)
def test_weights_are_found_in_the_wrappers_that_people_use(kind):
    make, entry, others = TREES[kind]
    model, other = small(), blank()
    report = load_official(make(to_official(model)), other)
    assert same(model, other) and (report.entry, report.others) == (entry, others)
    assert len(report.matched) == len(model.state_dict())
    if others:
        assert f"taken: {entry or 'the weights'}, not {others[0]}: --entry takes another" in str(report)


AVERAGES = [kind for kind, (_, _, others) in TREES.items() if others]


@pytest.mark.parametrize("kind", AVERAGES)
def test_the_average_is_taken_by_the_name_that_the_report_gives(kind):
    make, _, others = TREES[kind]
    other = blank()
    report = load_official(make(to_official(small())), other, entry=others[0])
    expected = average(to_official(small()))
    assert all(np.allclose(array, expected[name]) for name, array in to_official(other).items())
    assert report.entry == others[0] and not report.others


@pytest.mark.parametrize("kind", ["Lightning", "Lightning with an average", "flat", "AveragedModel"])
def test_every_kind_of_file_has_its_prefixes_taken_off(tmp_path, kind):
    model, (make, _, others) = small(), TREES[kind]
    flat = make(to_official(model))
    flat = {name: array.astype("f4") for name, array in flat.get("state_dict", flat).items()}
    write_torch(tmp_path / "x.pth", tensors(flat))
    write_legacy(tmp_path / "x.tar", tensors(flat))
    save_file(flat, tmp_path / "x.safetensors")
    np.savez(tmp_path / "x.npz", **flat)
    for name in os.listdir(tmp_path):
        other = blank()
        report = load_official(tmp_path / name, other)
        assert same(model, other) and len(report.others) == len(others), name
        if others:
            load_official(tmp_path / name, other, entry=report.others[0])
            np.testing.assert_allclose(other.head.bias.data, model.head.bias.data + 1)


def test_a_key_that_nobody_knows_is_taken_when_it_is_named():
    model, other = small(), blank()
    tree = {"epoch": 1, "best": {"student": to_official(model)}, "plain": to_official(model), "args": None}
    with pytest.raises(
        FileFormatError, match="it holds: epoch, best, plain, args; --entry takes one of plain"
    ):
        load_official(tree, other)
    for entry in ("plain", "best.student"):
        assert load_official(tree, blank(), entry=entry).entry == entry
    load_official(prefixed(to_official(model), "student."), other, entry="student")
    assert same(model, other)
    for entry in ("teacher", "best.teacher", "best.student.x", "epoch", ""):
        with pytest.raises(ValueError, match="no entry|it holds"):
            load_official(tree, other, entry=entry)
    with pytest.raises(ValueError, match="no entry 'ema' in this checkpoint; it holds: list"):
        find_state_dict([1], "ema")


def test_a_whole_model_that_was_pickled_is_recognised(tmp_path):
    state = {"training": True, "_parameters": {}, "_modules": {"head": 1}}
    program = b"\x80\2cnet\nSpikformer\n)\x81" + pickle.dumps(state, 2)[2:-1] + b"b"
    for whole, told in ((program + b".", "it holds: net.Spikformer"), (
        program[:2] + b"}X\5\0\0\0model" + program[2:] + b"s.", r"it holds: model \(net.Spikformer\)"
    )):  # fmt: skip
        zip_of(tmp_path / "x.pth", [("x/data.pkl", whole)])
        with pytest.raises(
            FileFormatError, match=rf"x.pth: no state_dict .*{told}\. A whole model.*\.state_dict"
        ):
            load_official(tmp_path / "x.pth", small_once())


def test_a_checkpoint_that_holds_itself_ends(tmp_path):
    program = b"\x80\2}q\0(X\5\0\0\0modelh\0X\3\0\0\0emah\0X\3\0\0\0neth\0u."
    zip_of(tmp_path / "x.pth", [("x/data.pkl", program)])
    with pytest.raises(FileFormatError, match="no state_dict"):
        load_official(tmp_path / "x.pth", small_once())
    deep: dict = {"w.x": np.ones(1)}
    for _ in range(50):
        deep = {"model": deep, "net": deep, "ema": deep}
    with pytest.raises(FileFormatError, match="no state_dict"):
        find_state_dict(deep)


def test_the_entry_is_an_option_of_import(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", rng=3)
    theirs = to_official(model)
    tree = {
        "model": tensors(theirs),
        "model_ema": tensors(average(theirs), 1000),
        "args": BESIDE["object"][0],
    }
    write_torch(tmp_path / "x.pth", tree)
    out = tmp_path / "new.safetensors"
    command = ["import", str(tmp_path / "x.pth"), "--model", "spikformer_1_64_digits", "--out", str(out)]
    assert main([*command, "--entry", "teacher"]) == 1 and not out.exists()
    holds = "it holds: model, model_ema, args (args.Options); --entry takes one of model, model_ema"
    assert f"no entry 'teacher' in this checkpoint; {holds}" in capsys.readouterr().err
    assert main(command) == 0 and same(load(out), model)
    printed = capsys.readouterr().out
    assert "taken: model, not model_ema: --entry takes another\npassed over: args (args.Options)" in printed
    assert main([*command, "--entry", "model_ema"]) == 0
    np.testing.assert_allclose(load(out).head.bias.data, model.head.bias.data + 1)
    assert "taken: model_ema\n" in capsys.readouterr().out


# ---------------------------------------------------------------- which file it is instead


def tar_of(content: bytes) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        info = tarfile.TarInfo("checkpoint/model.pth")
        info.size = len(content)
        archive.addfile(info, io.BytesIO(content))
    return stream.getvalue()


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 163215\n"
OTHERS = {  # a file's content, and what it is called and what to do
    "tar": (tar_of(b"x"), "a tar archive: unpack it, with tar -xf, and take the checkpoint in it"),
    "tar.gz": (gzip.compress(tar_of(b"x")), "a file compressed by gzip: unpack it first"),
    "bz2": (b"BZh91AY&SY", "a file compressed by bzip2"),
    "xz": (b"\xfd7zXZ\0\0\4", "a file compressed by xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\4", "a file compressed by zstd"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0", "a 7z archive"),
    "rar": (b"Rar!\x1a\7", "a RAR archive"),
    "empty": (b"", "an empty one: download or copy it again"),
    "zeros": (bytes(5000), "one that begins with zeros only: download or copy it again"),
    "lfs": (LFS, "a Git LFS pointer, not the file itself: get that with `git lfs pull`"),
    "html": (b"\n<!DOCTYPE html>\n<html><title>404</title>", "a web page, perhaps one that reports an error"),
    "html 2": (b"\xef\xbb\xbf<HTML><body>Quota exceeded", "a web page, perhaps one that reports an error"),
    "xml": (
        b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>",
        "a web page, perhaps one that reports an er",
    ),
    "hub": (b"Entry not found", "a text that begins with 'Entry not found'"),
    "json": (
        b'{"data":{"weight_map": {"head.weight": "1.bin"}}}',
        'a text that begins with \'{"data":{"weight',
    ),
    "source": ("# spikformer, vör\nimport torch\n".encode(), "a text that begins with '# spikformer, vör"),
    "hdf5": (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file, as Keras writes it"),
    "npy": (npy(np.ones(3)), "a single NumPy array without a name: write all of them with numpy.savez"),
    "pickle": (pickle.dumps({"w": [1, 2]}), "a plain pickle, written by pickle.dump"),
    "pickle 2": (pickle.dumps({"w": [1, 2]}, 2), r"a plain pickle, .*torch.save\(pickle.load\(open\(file"),
    "empty zip": (b"PK\5\6" + bytes(18), "an empty zip archive"),
    "picture": (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "one of an unknown kind"),
    "noise": (bytes(range(7, 256)), "one of an unknown kind"),
}


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("kind", OTHERS)
def test_another_file_is_called_by_its_kind_and_the_remedy_is_named(tmp_path, kind, name):
    content, told = OTHERS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"{name}: not a PyTorch file but {told}"):
        load_official(path, small_once())
    with pytest.raises(FileFormatError, match=f"{name}: not a readable safetensors file: {told}"):
        load(path)


ARCHIVES = {
    "TorchScript": (["x/data.pkl", "x/code/__torch__.py", "x/constants.pkl"],
                    r"a TorchScript program.*torch.save\(torch.jit.load\(file, map_location=.*state_dict"),
    "torch.export": (["x/data/weights/weight_0", "x/models/model.json"],
                     r"a program of torch.export.*torch.export.load\(file\).state_dict, new_file"),
    "zipped checkpoint": (["spikformer/best.pth", "spikformer/log.txt"],
                          r"a zip archive of other files \(spikformer/best.pth, .*log.txt\): unpack it"),
    "many files": (list("abcdef"), r"a zip archive of other files \(a, b, c, d, …\): unpack it"),
}  # fmt: skip


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("kind", ARCHIVES)
def test_another_zip_archive_is_called_by_its_kind(tmp_path, kind, compression):
    names, told = ARCHIVES[kind]
    with zipfile.ZipFile(tmp_path / "x.pth", "w", compression) as archive:
        for name in names:
            archive.writestr(name, b"content" * 50)
    with pytest.raises(FileFormatError, match=f"x.pth: {told}"):
        load_official(tmp_path / "x.pth", small_once())


def test_a_zip_file_that_is_cut_short_says_so(tmp_path):
    for name, write in (("x.pth", write_torch), ("x.npz", lambda path, tree: np.savez(path, w=np.ones(99)))):
        write(tmp_path / name, {"w": tensor(np.ones(99))})
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(
            FileFormatError, match=f"{name}: damaged: a zip archive without its end; download"
        ):
            load_official(tmp_path / name, small_once())


def test_our_own_checkpoint_given_to_import_says_that_it_is_one(tmp_path, capsys):
    path = tmp_path / "ours.safetensors"
    save(small(), path)
    with pytest.raises(
        FileFormatError, match="ours.safetensors: a model of minispike already.*minispike.load"
    ):
        load_official(path, small())
    out = tmp_path / "out"
    assert main(["import", str(path), "--model", "spikformer_1_64_digits", "--out", str(out)]) == 1
    assert "a model of minispike already" in capsys.readouterr().err and not out.exists()


@pytest.mark.parametrize(
    "write", [write_torch, write_legacy, lambda path, tree: np.savez(path, w=np.ones(2))]
)
def test_an_authors_checkpoint_given_to_load_says_to_import_it(tmp_path, write):
    path = tmp_path / "x.npz"
    write(path, {"w": tensor(np.ones(2))})
    with pytest.raises(
        FileFormatError, match="x.npz: .*: python -m minispike import FILE --model NAME --out"
    ):
        load(path)
    save_file({"w": np.ones(2)}, path)
    with pytest.raises(
        FileFormatError, match="x.npz: holds arrays but no .*: python -m minispike import FILE"
    ):
        load(path)


def test_a_folder_is_told_from_a_file(tmp_path):
    for read in (load, read_torch, read_safetensors, read_weights):
        with pytest.raises(FileNotFoundError, match="no file .*none"):
            read(tmp_path / "none")
        with pytest.raises(IsADirectoryError, match=f"{tmp_path.name} is a folder: give a file in it"):
            read(tmp_path)
    (tmp_path / "data.pkl").touch()
    with pytest.raises(IsADirectoryError, match="is a folder, an unpacked .pth: download or copy it again"):
        read_weights(tmp_path)
    (tmp_path / "checkpoint.safetensors").touch()
    with pytest.raises(IsADirectoryError, match="a run of minispike; its model is .*/checkpoint.safetensors"):
        load(tmp_path)


def test_a_file_of_ours_with_a_foreign_dtype_is_refused(tmp_path):
    save(small(), tmp_path / "x.safetensors")
    whole = (tmp_path / "x.safetensors").read_bytes()
    (tmp_path / "x.safetensors").write_bytes(whole.replace(b'"dtype":"F32"', b'"dtype":"X32"', 1))
    with pytest.raises(FileFormatError, match="is an array of X32, which minispike never writes"):
        load(tmp_path / "x.safetensors")
