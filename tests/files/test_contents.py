"""What a checkpoint holds next to the weights, and two names for one thing."""

import pickle
import re
import zipfile

import numpy as np
import pytest

from data_utils.errors import DataFileError
from data_utils.npz import read_npz
from minispike.files.checkpoint import read_safetensors
from minispike.files.interop import load_official, read_weights, to_official
from minispike.files.picklemachine import Inert, run_pickle
from minispike.files.torchfile import FileFormatError, read_torch

from .common import same, small
from .edges import HEAD, NONE, OLD, ORDERED, V3, blank, npy, prefixed, safetensors_bytes, tensors, zip_of
from .torch_writer import (
    Call,
    Name,
    Storage,
    Tensor,
    pickled,
    tensor,
    write_legacy,
    write_torch,
)

# ---------------------------------------------------------------- two names for one thing

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
    zip_of(tmp_path / "x.npz", [("w.npy", npy(np.ones(2))), ("w", npy(np.zeros(2)))])  # np.load takes this w
    with pytest.raises(FileFormatError, match="x.npz: a zip archive with 2 entries of one name, w$"):
        read_weights(tmp_path / "x.npz")


@pytest.mark.parametrize("shape", [b"(-1,), }", b"(1,), } ", b"(3,), } "])
def test_the_shape_of_an_array_must_be_that_of_its_bytes(tmp_path, shape):
    """From a buffer, NumPy guesses a side of −1."""
    whole = npy(np.ones(2))
    assert b"(2,), } " in whole
    zip_of(tmp_path / "x.npz", [("w.npy", whole.replace(b"(2,), } ", shape))])
    with pytest.raises(FileFormatError, match="x.npz: w.npy has the shape .* of float64 and 16 bytes"):
        read_weights(tmp_path / "x.npz")


def test_an_array_in_each_place_of_an_array_is_no_dtype_that_numpy_writes(tmp_path):
    """The buffer would get more axes than the header says."""
    strange = npy(np.ones((2, 1), "f2")).replace(b"'<f2'", b"'1f2'")
    zip_of(tmp_path / "x.npz", [("w.npy", strange)])
    with pytest.raises(FileFormatError, match="x.npz: w.npy has the dtype"):
        read_weights(tmp_path / "x.npz")
    with pytest.raises(
        DataFileError, match="x.npz: w has the dtype .*; expected a dtype that np.save writes"
    ):
        read_npz(tmp_path / "x.npz", lambda names: names)


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
