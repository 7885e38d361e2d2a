"""Files: ours come back from the file alone; the authors' names and layouts; PyTorch's zip, and hostile ones.

The .pth files are written here byte by byte, as torch.save writes them; the oracle tests read torch's own.
"""

import argparse
import collections
import io
import json
import os
import pickle
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minispike import create_model, no_grad
from minispike.files.checkpoint import FORMAT, checksum, load, save
from minispike.files.interop import Report, find_state_dict, load_official, to_official
from minispike.files.torchfile import PROGRAM, FileFormatError, Inert, read_torch, run_pickle
from minispike.masked import masked_autoencoder
from minispike.runs.cli import main
from minispike.surrogate import ATan

from ..blocks.test_blocks import lively

HUGE = {"img_size": 2**20}
SMALL = dict(embed_dim=16, num_heads=4, mlp_ratio=2, depth=2)
fuzz = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def small(**overrides):
    """A small model whose parameters and statistics are of no particular kind."""
    model = create_model("spikformer_1_64_digits", **SMALL | overrides)
    rng = np.random.default_rng(1)
    for path, array in lively(model, rng).state_dict().items():
        if "running" in path:
            array[...] = rng.uniform(0.5, 1.5, array.shape)
    return model


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return list(a) == list(b) and all(np.array_equal(a[k], b[k]) and a[k].dtype == b[k].dtype for k in a)


# ---------------------------------------------------------------- our own files


@pytest.mark.parametrize(
    "overrides",
    [{}, dict(dtype="float64", T=2), dict(surrogate=ATan(3.0), v_reset=None, tau=3.0), dict(img_size=(4, 8))],
    ids=str,
)
def test_a_model_comes_back_from_the_file_alone(tmp_path, rng, overrides):
    model = small(**overrides)
    save(model, tmp_path / "model.safetensors")
    back = load(tmp_path / "model.safetensors")
    assert same(model, back) and back.config == model.config and os.listdir(tmp_path) == ["model.safetensors"]
    x = rng.standard_normal((3, *model.img_size, 1)).astype(model.head.weight.dtype)
    with no_grad():
        assert np.array_equal(model.eval()(x).data, back.eval()(x).data)


def test_saving_replaces_a_file_and_takes_a_model_from_any_device(tmp_path):
    path = tmp_path / "model.safetensors"
    save(small(T=2), path)
    model = small()
    save(model.to("stand_in"), path)
    assert same(load(path), model.to("cpu"))


def test_a_model_without_configuration_is_refused(tmp_path):
    model = small()
    model.config = None
    with pytest.raises(ValueError, match="made by create_model"):
        save(model, tmp_path / "x")
    model.config = {"family": "spikformer", "surrogate": object()}
    with pytest.raises(ValueError, match="a object in a model's configuration"):
        save(model, tmp_path / "x")


def test_files_that_are_not_ours_are_refused(tmp_path):
    from safetensors.numpy import save_file

    path = tmp_path / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        load(path)
    path.write_bytes(b"hello, this is no checkpoint")
    with pytest.raises(FileFormatError, match="x.safetensors: not a readable safetensors file"):
        load(path)
    save_file({"a": np.ones(3)}, path)
    with pytest.raises(FileFormatError, match="no minispike configuration"):
        load(path)
    config = '{"family": "perceptron", "pools": []}'
    crc = checksum({"a": np.ones(3)}, config + "{}")
    save_file({"a": np.ones(3)}, path, {"format": FORMAT, "config": config, "crc32": crc})
    with pytest.raises(FileFormatError, match="unknown family 'perceptron'; known: spikformer"):
        load(path)
    save_file({"a": np.ones(3)}, path, {"format": "minispike", "config": config, "crc32": crc})
    with pytest.raises(FileFormatError, match="of an older minispike, whose checksum"):
        load(path)


def test_a_masked_autoencoder_comes_back_though_its_encoder_has_a_large_head(tmp_path):
    """The head is in the configuration, for the classifier to come, and not in the file."""
    model = masked_autoencoder("spikformer_v2_1_64_digits", num_classes=10_000)
    save(model, tmp_path / "x.safetensors")
    back = load(tmp_path / "x.safetensors")
    assert same(model, back) and back.config == model.config


def test_a_wrong_bit_in_a_weight_is_noticed(tmp_path):
    path = tmp_path / "model.safetensors"
    save(small(), path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 1]) + whole[-4:])
    with pytest.raises(FileFormatError, match="the checksum differs"):
        load(path)


@pytest.mark.parametrize("right, wrong", [(b'T\\": 1', b'T\\": 3'), (b'_heads\\": 4', b'_heads\\": 0')])
def test_a_wrong_bit_in_the_configuration_is_noticed(tmp_path, right, wrong):
    path = tmp_path / "model.safetensors"
    save(small(T=1), path)
    whole = path.read_bytes()
    assert whole.count(right) == 1
    path.write_bytes(whole.replace(right, wrong))
    with pytest.raises(FileFormatError, match="the checksum differs"):
        load(path)


@pytest.mark.parametrize(
    "change, told",
    [
        ({"embed_dim": 10**6}, "asks for more weights than the file holds"),
        ({"depth": 10**9}, "asks for more weights than the file holds"),
        ({"num_classes": 10**9}, "asks for more weights than the file holds"),
        ({"in_channels": 0}, "from 1 on"),
        ({"num_heads": 0}, "modulo"),
        ({"family": "attention_free_spikformer", "mixer": "random", "num_heads": None} | HUGE, "more"),
        ({"decoder_depth": 10**9}, "asks for more weights than the file holds"),
        ({"decoder_dim": 10**9}, "need positions"),
        ({"masked": True} | HUGE, "images of 1048576×1048576 need positions"),
        ({"pools": [10**10, 0, 0, 0]}, "pools are true or false"),
    ],
)  # fmt: skip
def test_a_configuration_cannot_ask_for_more_memory_than_the_file_justifies(tmp_path, change, told):
    """With a checksum that is right: as a file would come that someone made on purpose."""
    from safetensors.numpy import save_file

    path, masked = tmp_path / "x.safetensors", "masked" in change or "decoder" in str(change)
    model = masked_autoencoder("spikformer_v2_1_64_digits") if masked else small()
    change = {key: value for key, value in change.items() if key != "masked"}
    config = json.loads(json.dumps(model.config))
    inner = config["encoder"] if masked and "img_size" in change else config
    inner |= change
    config = json.dumps({key: value for key, value in config.items() if value is not None})
    arrays = model.state_dict()
    metadata = {"format": FORMAT, "config": config, "crc32": checksum(arrays, config + "{}")}
    save_file(arrays, path, metadata)
    tracemalloc.start()
    with pytest.raises(FileFormatError, match=told):
        load(path)
    assert tracemalloc.get_traced_memory()[1] < 8 * path.stat().st_size + 2**20
    tracemalloc.stop()


@fuzz
@given(st.data())
def test_a_damaged_file_of_ours_gives_the_readers_own_error(tmp_path, data):
    path = tmp_path / "model.safetensors"
    if not path.exists():
        save(create_model("spikformer_1_64_digits", embed_dim=8, num_heads=1, depth=0), path)
        (tmp_path / "whole").write_bytes(path.read_bytes())
    path.write_bytes(damage((tmp_path / "whole").read_bytes(), data))
    try:
        load(path)
    except FileFormatError:
        pass


def damage(whole: bytes, data) -> bytes:
    """Cut a file short, or flip a few bits, mostly in its first bytes, where the structure stands."""
    if data.draw(st.booleans()):
        return whole[: data.draw(st.integers(0, len(whole) - 1))]
    broken = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.one_of(st.integers(0, min(3000, len(whole) - 1)), st.integers(0, len(whole) - 1)))
        broken[at] ^= 1 << data.draw(st.integers(0, 7))
    return bytes(broken)


# ---------------------------------------------------------------- the authors' names and layouts

THEIRS = {
    "patch_embed.proj_conv.weight": (2, 1, 3, 3),
    "patch_embed.proj_conv3.weight": (16, 8, 3, 3),
    "patch_embed.proj_bn1.running_var": (4,),
    "patch_embed.rpe_conv.weight": (16, 16, 3, 3),
    "patch_embed.rpe_bn.bias": (16,),
    "block.1.attn.proj_bn.weight": (16,),
    "block.1.mlp.fc1_bn.running_mean": (32,),
    "head.weight": (10, 16),
    "head.bias": (10,),
}
LINEAR = {
    "cifar": {"block.0.attn.q_linear.weight": (16, 16), "block.0.mlp.fc1_linear.weight": (32, 16)},
    "dvs": {"block.0.attn.q_conv.weight": (16, 16, 1), "block.0.mlp.fc1_conv.weight": (32, 16, 1)},
    "imagenet": {"block.0.attn.q_conv.weight": (16, 16, 1), "block.0.mlp.fc1_conv.weight": (32, 16, 1, 1)},
}


@pytest.mark.parametrize("layout", LINEAR)
def test_the_round_trip_through_the_authors_layout_is_exact(layout):
    model, other = small(), small()
    for parameter in other.parameters():
        parameter.data[...] = 0
    theirs = to_official(model, layout)
    assert {name: theirs[name].shape for name in THEIRS} == THEIRS
    assert {name: theirs[name].shape for name in LINEAR[layout]} == LINEAR[layout]
    assert len(theirs) == len(model.state_dict())
    report = load_official(theirs, other)
    assert same(model, other) and set(report.matched) == set(theirs) and not report.ignored


def test_the_layout_follows_from_the_model():
    assert "block.0.attn.q_linear.bias" in to_official(small())
    assert to_official(small(qkv_bias=False))["block.0.mlp.fc1_conv.weight"].ndim == 4
    assert to_official(small(qkv_bias=False, in_channels=2))["block.0.mlp.fc1_conv.weight"].ndim == 3
    with pytest.raises(ValueError, match="layout must be one of cifar, dvs, imagenet, got 'mnist'"):
        to_official(small(), "mnist")


def test_weights_arrive_where_they_belong():
    model = small()
    theirs = to_official(model)
    w = np.arange(32 * 16.0).reshape(32, 16)
    theirs["block.1.mlp.fc1_linear.weight"] = w
    k = np.arange(2 * 9.0).reshape(2, 1, 3, 3)
    theirs["patch_embed.proj_conv.weight"] = k
    load_official(theirs, model)
    np.testing.assert_array_equal(model.blocks[1].mlp.fc1.map.weight.data, w.T)
    np.testing.assert_array_equal(model.stem.stages[0].map.weight.data[1, 2, 0], k[:, 0, 1, 2])


def test_prefixes_unused_layers_and_counters_are_passed_over():
    model = small()
    theirs = {f"module.{name}": array for name, array in to_official(model).items()}
    extra = ["block.0.norm1.weight", "block.1.norm2.bias", "patch_embed.proj_bn.num_batches_tracked"]
    extra += ["norm.weight", "norm.bias", "pos_embed"]  # of the code for events
    theirs |= {name: np.ones(1) for name in extra}
    report = load_official({"epoch": 3, "state_dict": theirs, "args": object()}, model)
    assert report.ignored == extra and len(report.matched) == len(model.state_dict())
    text = str(report)
    assert f"{len(report.matched)} entries matched, 6 ignored" in text
    assert "module.head.bias" in text and "→ head.bias" in text and str(Report()).startswith("0 entries")


def test_what_is_missing_left_over_or_misshapen_is_named_and_nothing_is_written():
    model, theirs = small(), to_official(small())
    before = {path: array.copy() for path, array in model.state_dict().items()}
    wrong = dict(theirs)
    del wrong["head.bias"]
    wrong["patch_embed.proj_conv9.weight"] = np.ones(2)
    with pytest.raises(ValueError, match="missing head.bias; unexpected patch_embed.proj_conv9.weight"):
        load_official(wrong, model)
    with pytest.raises(ValueError, match=r"head.weight is \[16, 7\], expected \[16, 10\]"):
        load_official(theirs | {"head.weight": np.ones((7, 16))}, model)
    with pytest.raises(
        ValueError, match="missing block.1.attn.q_linear.weight.*missing block.1.mlp.fc2_bn.running_var"
    ):
        load_official({k: v for k, v in theirs.items() if "block.1" not in k}, model)
    with pytest.raises(ValueError, match="unexpected head.bias"):
        load_official(theirs | {"head.bias": "text"}, model)
    assert all(np.array_equal(before[path], array) for path, array in model.state_dict().items())


def test_a_checkpoint_without_weights_says_what_it_holds():
    with pytest.raises(FileFormatError, match="no state_dict in this checkpoint; it holds: epoch, arch"):
        find_state_dict({"epoch": 1, "arch": "x"})
    with pytest.raises(FileFormatError, match="it holds: list"):
        find_state_dict([1, 2])


# ---------------------------------------------------------------- PyTorch's files

TYPES = {"f4": "Float", "f8": "Double", "f2": "Half", "i8": "Long", "i4": "Int", "i2": "Short", "i1": "Char",
         "u1": "Byte", "b1": "Bool"}  # fmt: skip


def function(module, name):
    """A global that pickles as module.name without there being such a module."""
    return type(name, (), {"__module__": module, "__qualname__": name})


class Tensor:
    """Pickles as torch._utils._rebuild_tensor_v2 on a storage."""

    def __init__(self, storage, offset, size, stride):
        self.parts = storage, offset, size, stride, False, collections.OrderedDict()


class Storage:
    """Pickles as a persistent id; its bytes go to data/<key>."""

    def __init__(self, key, kind, data, length):
        self.key, self.kind, self.data, self.length = key, kind, data, length


def write_torch(path, tree, *, compress=zipfile.ZIP_STORED, extra=(), byteorder=b"little"):
    """Write a tree of dicts, lists, numbers, text and Tensors as torch.save does (protocol 2)."""
    out, storages = io.BytesIO(), {}

    class Pickler(pickle._Pickler):
        def persistent_id(self, value):
            if isinstance(value, Storage):
                storages[value.key] = value.data
                return ("storage", Name("torch", f"{value.kind}Storage"), value.key, "cpu", value.length)

        def save(self, value, save_persistent_id=True):
            if isinstance(value, Name):
                self.write(b"c" + f"{value.module}\n{value.name}\n".encode())
            elif isinstance(value, Tensor):
                self.save(Name("torch._utils", "_rebuild_tensor_v2"))
                self.save(value.parts)
                self.write(b"R")
            elif isinstance(value, Call):
                self.save(value.function)
                self.save(value.args)
                self.write(b"R")
            else:
                super().save(value, save_persistent_id)

    Pickler(out, protocol=2).dump(tree)
    with zipfile.ZipFile(path, "w", compress) as archive:
        archive.writestr("archive/data.pkl", out.getvalue())
        archive.writestr("archive/byteorder", byteorder)
        for key, data in storages.items():
            archive.writestr(f"archive/data/{key}", data)
        archive.writestr("archive/version", b"3")
        for name, data in extra:
            archive.writestr(name, data)


class Name:
    """The name of a global, written as it is."""

    def __init__(self, module, name):
        self.module, self.name = module, name


class Call:
    """A call of a global, written as GLOBAL … REDUCE."""

    def __init__(self, function, *args):
        self.function, self.args = function, args


def tensor(array, key="0"):
    array = np.ascontiguousarray(array)
    strides = tuple(step // array.itemsize for step in array.strides)
    storage = Storage(key, TYPES[array.dtype.str[1:]], array.tobytes(), array.size)
    return Tensor(storage, 0, array.shape, strides)


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


@pytest.mark.parametrize("kind", ["pth", "npz", "safetensors"])
def test_official_weights_are_loaded_from_every_kind_of_file(tmp_path, kind, capsys):
    model = small()
    theirs, path = to_official(model), tmp_path / f"official.{kind}"
    if kind == "pth":
        write_torch(path, {"state_dict": {n: tensor(a, str(i)) for i, (n, a) in enumerate(theirs.items())}})
    elif kind == "npz":
        np.savez(path, **theirs)
    else:
        from safetensors.numpy import save_file

        save_file(theirs, path)
    other = create_model("spikformer_1_64_digits", rng=5, **SMALL)
    load_official(path, other)
    assert same(model, other)


# ---------------------------------------------------------------- hostile files


class Evil:
    """What a malicious checkpoint holds: a call that an ordinary unpickler makes."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


MARKER = "minispike_was_here"
PAYLOADS = {
    "os.system": Evil(os.system, f"touch {MARKER}"),
    "eval": Evil(eval, f"open('{MARKER}', 'w')"),
    "exec": Evil(exec, f"open('{MARKER}', 'w')"),
    "open": Evil(open, MARKER, "w"),
    "getattr chain": Evil(getattr, Evil(__import__, "os"), "system"),
    "in a list": [1, {"deep": (Evil(os.mkdir, MARKER),)}],
}


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


def test_an_authors_checkpoint_with_a_payload_beside_its_weights_is_loaded_and_harmless(
    tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    model = small()
    theirs = {name: tensor(array, str(i)) for i, (name, array) in enumerate(to_official(model).items())}
    call = Call(Name("posix", "system"), f"touch {MARKER}")
    write_torch(tmp_path / "x.pth", {"args": call, "state_dict": theirs})
    load_official(tmp_path / "x.pth", small())
    assert os.listdir(tmp_path) == ["x.pth"]


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
        (b"\x80\x02(ios\nsystem\n.", "instruction INST"),
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


def test_a_pickle_alone_can_be_run_too():
    assert run_pickle(pickle.dumps({"a": [1, 2.5, ("x", None, True)]}, 2), {}) == {
        "a": [1, 2.5, ("x", None, True)]
    }
    with pytest.raises(FileFormatError, match="outside the pickle"):
        run_pickle(b"\x80\x02K\x01Q.", {})


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda s: Tensor(s, 0, (5,), (1,)), "reaches beyond its 4 values"),
        (lambda s: Tensor(s, 3, (2,), (1,)), "reaches beyond"),
        (lambda s: Tensor(s, 0, (10**12,), (0,)), "claims more memory than the file has"),
        (lambda s: Tensor(s, 0, (-1,), (1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1,), (-1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1, 1), (1,)), "makes no sense"),
        (lambda s: Tensor(s, 0, (1,) * 40, (1,) * 40), "makes no sense"),
        (lambda s: Tensor(s, 0, (2**80,), (1,)), "makes no sense"),
        (lambda s: Tensor(s, "0", (1,), (1,)), "makes no sense|damaged"),
        (lambda s: Tensor("no storage", 0, (1,), (1,)), "damaged"),
        (lambda s: Tensor(Storage("0", "Float", b"123", 4), 0, (1,), (1,)), "storage 0 has 3 bytes"),
        (
            lambda s: Tensor(Storage("0", "Quantised", b"1234", 1), 0, (1,), (1,)),
            "unknown kind: QuantisedStorage",
        ),
    ],
)
def test_tensors_that_lie_are_refused(tmp_path, make, message):
    write_torch(tmp_path / "x.pth", make(Storage("0", "Float", np.ones(4, "f4").tobytes(), 4)))
    with pytest.raises(FileFormatError, match=message):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("name", ["torch\nSize", "collections\nOrderedDict"])
def test_a_program_cannot_copy_one_list_again_and_again(name):
    many = b"]q\x00(" + b"K\x01K\x02\x86" * 5000 + b"e"
    copies = b"".join(b"c" + name.encode() + b"\nh\x00\x85R" for _ in range(5000))
    with pytest.raises(FileFormatError, match="its calls copy more than the file holds"):
        run_pickle(b"\x80\x02" + many + copies + b".", {"torch.Size": tuple, "collections.OrderedDict": dict})


def test_a_deeply_nested_key_does_not_break_the_stack(tmp_path):
    """Hashing a tuple of tuples of … a million deep overflows C's stack: such keys are refused unhashed."""
    deep = b")" + b"\x85" * 1_000_000
    for program in (
        b"\x80\x02}" + deep + b"K\x01s.",
        b"\x80\x02ccollections\nOrderedDict\n]" + deep + b"K\x01\x86a\x85R.",
    ):
        with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
            archive.writestr("archive/data.pkl", program)
        with pytest.raises(FileFormatError, match="by a tuple"):
            read_torch(tmp_path / "x.pth")


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
    with pytest.raises(FileFormatError, match="0 entries named data.pkl"):
        read_torch(path)


def test_legacy_and_foreign_files_are_refused_clearly(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"...")
    with pytest.raises(
        FileFormatError, match=r"old.pth: a legacy PyTorch file .* torch.save\(torch.load\(file\)"
    ):
        read_torch(path)
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
def test_a_damaged_pth_gives_the_readers_own_error(tmp_path, data):
    whole = tmp_path / "whole.pth"
    if not whole.exists():
        arrays = {"w": np.arange(6, dtype="f4").reshape(2, 3), "n": np.array(3), "b": np.ones(4, "f2")}
        write_torch(whole, {"state_dict": {k: tensor(a, k) for k, a in arrays.items()}, "epoch": 1})
    path = tmp_path / "damaged.pth"
    path.write_bytes(damage(whole.read_bytes(), data))
    try:
        load_official(path, small_once())
    except (FileFormatError, ValueError) as error:  # ValueError: read, but no Spikformer
        assert type(error) is FileFormatError or "does not fit" in str(error)


@fuzz
@given(st.data())
def test_a_damaged_program_gives_the_readers_own_error(tmp_path, data):
    """The zip's checksums hide the pickle from most damage; here it is damaged under a good checksum."""
    program = pickle.dumps(
        {"a": [1, 2.5], "b": ("x", {"y": None}), "c": b"123"}, data.draw(st.sampled_from([2, 4]))
    )
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as archive:
        archive.writestr("archive/data.pkl", damage(program, data))
    try:
        read_torch(tmp_path / "x.pth")
    except FileFormatError:
        pass


@fuzz
@given(st.data())
def test_a_damaged_npz_gives_the_readers_own_error(tmp_path, data):
    whole = tmp_path / "whole.npz"
    if not whole.exists():
        np.savez(whole, w=np.arange(6.0), b=np.ones((2, 2), "f4"))
    path = tmp_path / "damaged.npz"
    path.write_bytes(damage(whole.read_bytes(), data))
    try:
        load_official(path, small_once())
    except (FileFormatError, ValueError) as error:
        assert type(error) is FileFormatError or "does not fit" in str(error)


def test_a_compressed_npz_is_refused(tmp_path):
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros(10**6))
    with pytest.raises(FileFormatError, match="bomb.npz: unpacked it is larger: write it by savez"):
        load_official(tmp_path / "bomb.npz", small_once())


_small: list = []


def small_once():
    if not _small:
        _small.append(small())
    return _small[0]


# ---------------------------------------------------------------- the command line


def test_import_from_the_command_line(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", rng=4)
    theirs = to_official(model)
    write_torch(tmp_path / "a.pth.tar", {n: tensor(a, str(i)) for i, (n, a) in enumerate(theirs.items())})
    out = tmp_path / "model.safetensors"
    assert (
        main(["import", str(tmp_path / "a.pth.tar"), "--model", "spikformer_1_64_digits", "--out", str(out)])
        == 0
    )
    printed = capsys.readouterr().out
    assert f"{len(theirs)} entries matched" in printed and "96,258 parameters written to" in printed
    assert same(load(out), model)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--model", "spikformer_1_64_digits"], "no state_dict|no file"),
        (["--model", "spikformer_9"], "no model 'spikformer_9'"),
        (["--model", "spikformer_1_64_digits", "--num-classes", "3"], "no file"),
    ],
)
def test_a_failed_import_says_why_and_writes_nothing(tmp_path, capsys, arguments, message):
    assert main(["import", str(tmp_path / "none.pth"), *arguments, "--out", str(tmp_path / "out")]) == 1
    import re

    assert re.search(f"error: .*({message})", capsys.readouterr().err) and not os.listdir(tmp_path)


def test_other_numbers_of_classes_can_be_imported(tmp_path, capsys):
    model = create_model("spikformer_1_64_digits", num_classes=3)
    np.savez(tmp_path / "a.npz", **to_official(model))
    name = ["--model", "spikformer_1_64_digits", "--out", str(tmp_path / "out")]
    assert main(["import", str(tmp_path / "a.npz"), *name]) == 1
    assert "head.weight is [64, 3], expected [64, 10]" in capsys.readouterr().err
    assert main(["import", str(tmp_path / "a.npz"), *name, "--num-classes", "3"]) == 0
    assert load(tmp_path / "out").head.out_channels == 3


def test_checkpoints_under_the_key_model_are_found():
    assert find_state_dict({"epoch": 1, "model": {"w": np.ones(2)}})["w"].tolist() == [1, 1]
    assert find_state_dict({"state_dict": {"model": {"w": np.ones(2)}}})["w"].tolist() == [1, 1]


def test_a_pickle_in_an_npz_is_not_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("evil.npz", w=np.array([PAYLOADS["os.system"]], object))
    with pytest.raises(FileFormatError, match="evil.npz: damaged"):
        load_official(tmp_path / "evil.npz", small_once())
    assert os.listdir(tmp_path) == ["evil.npz"]


def test_blocks_from_the_tenth_on_have_two_digits():
    model, other = small(depth=11), small(depth=11)
    for parameter in other.parameters():
        parameter.data[...] = 0
    theirs = to_official(model) | {"block.10.norm1.weight": np.ones(16)}
    assert "block.10.attn.q_linear.weight" in theirs
    assert load_official(theirs, other).ignored == ["block.10.norm1.weight"] and same(model, other)


def test_a_storage_longer_than_it_says_is_refused(tmp_path):
    write_torch(tmp_path / "x.pth", Tensor(Storage("0", "Float", bytes(8), 1), 0, (1,), (1,)))
    with pytest.raises(FileFormatError, match="storage 0 has 8 bytes, expected 1 of FloatStorage"):
        read_torch(tmp_path / "x.pth")


def test_a_tensors_memory_is_counted_in_bytes(tmp_path):
    path = tmp_path / "x.pth"
    write_torch(path, Tensor(Storage("0", "Double", bytes(8), 1), 0, (500,), (0,)))
    assert 500 < path.stat().st_size < 4000
    with pytest.raises(FileFormatError, match="claims more memory than the file has"):
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


def test_what_an_object_would_have_held_is_on_record():
    found = run_pickle(pickle.dumps(argparse.Namespace(lr=0.1), 2), {})
    assert isinstance(found, Inert) and found.state == {"lr": 0.1}
