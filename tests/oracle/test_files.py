"""Files that PyTorch itself has written, of every kind, and the advice for those that are not read."""

import pickle
import re
import warnings
from collections import OrderedDict

import numpy as np
import pytest

from minispike.files.checkpoint import read_safetensors
from minispike.files.interop import load_official, read_weights, to_official
from minispike.files.picklemachine import Inert
from minispike.files.torchfile import FileFormatError, read_torch

from ..files.common import same, small
from ..files.edges import blank
from ..files.test_foreign import average

pytestmark = pytest.mark.oracle
torch = pytest.importorskip("torch", reason="PyTorch is not installed (see test_oracle.py's first lines)")
nn = torch.nn

ZIP_OR_LEGACY = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
DTYPES = [
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64,
    torch.bool, torch.complex64, torch.complex128,
]  # fmt: skip


def write(tree, path, new=True, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a pickled model's class cannot be copied into the file
        torch.save(tree, path, _use_new_zipfile_serialization=new, **options)


def numbers(value) -> np.ndarray:
    """Return a tensor as float64, complex128 or exact integers."""
    if value.dtype.is_complex:
        return value.to(torch.complex128).numpy()
    return (value.double() if value.dtype.is_floating_point else value).numpy()


def official(model) -> dict:
    return {name: torch.tensor(array) for name, array in to_official(model).items()}


@ZIP_OR_LEGACY
@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
def test_every_dtype_that_torch_writes_is_read(tmp_path, new, protocol):
    base = torch.tensor(np.random.default_rng(0).uniform(0, 100, (4, 6)))
    tree = {str(dtype): base.to(dtype) for dtype in DTYPES}
    tree |= {f"{dtype} transposed": base.to(dtype).t() for dtype in DTYPES}
    write(tree, tmp_path / "x.pth", new, pickle_protocol=protocol)
    back = read_torch(tmp_path / "x.pth")
    for name, value in tree.items():
        found = back[name]
        exact = (
            found if found.dtype.kind in "iub" else found.astype("c16" if found.dtype.kind == "c" else "f8")
        )
        assert np.array_equal(exact, numbers(value)) and found.shape == value.shape, name
        same_dtype = str(value.dtype) == f"torch.{found.dtype.name}"
        assert same_dtype or value.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2)


def test_every_bit_pattern_of_the_narrow_floats_is_torchs(tmp_path):
    save_file = pytest.importorskip("safetensors.torch").save_file
    words = {torch.bfloat16: torch.arange(2**16, dtype=torch.int32).to(torch.uint16)}
    words |= dict.fromkeys((torch.float8_e4m3fn, torch.float8_e5m2), torch.arange(256, dtype=torch.uint8))
    tree = {str(dtype): word.view(dtype) for dtype, word in words.items()}
    tree = {name: value.clone() for name, value in tree.items()}  # a storage of its own for each
    write(tree, tmp_path / "x.pth")
    save_file(tree, tmp_path / "x.safetensors")
    for back in (read_torch(tmp_path / "x.pth"), read_safetensors(tmp_path / "x.safetensors")[0]):
        for name, value in tree.items():
            expected = value.double().numpy()
            known = ~np.isnan(expected)
            assert np.array_equal(np.isnan(back[name]), ~known)
            assert np.array_equal(back[name][known].astype("f8"), expected[known])


class Tagged(torch.Tensor):
    """A subclass of Tensor, as a library may define one."""


@ZIP_OR_LEGACY
def test_what_wraps_a_dense_tensor_yields_it(tmp_path, new):
    base = torch.arange(6.0).reshape(2, 3)
    tagged, parameter, noted = nn.Parameter(base.clone()), nn.Parameter(base.clone()), base.clone()
    tagged.tag = noted.note = "x"
    tree = {"tagged": tagged, "parameter": parameter, "noted": noted, "buffer": nn.Buffer(base.clone())}
    tree |= {"subclass": base.clone().as_subclass(Tagged), "no grad": nn.Parameter(base.clone(), False)}
    tree |= {"int": nn.Parameter(torch.arange(6).reshape(2, 3), requires_grad=False)}
    write(tree, tmp_path / "x.pth", new)
    back = read_torch(tmp_path / "x.pth")
    for name in tree:
        assert np.array_equal(back[name], base.numpy()), name


def odd_tensors() -> dict:
    eye, rng = torch.eye(3), torch.Generator().manual_seed(0)
    x = torch.view_as_complex(torch.rand(3, 2, generator=rng))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse CSR is in beta, quantisation deprecated
        return {
            "coo": (eye.to_sparse(), "a sparse tensor"),
            "csr": (eye.to_sparse_csr(), "a sparse tensor"),
            "quantised": (torch.quantize_per_tensor(eye, 0.1, 3, torch.qint8), "a quantised tensor"),
            "by channel": (
                torch.quantize_per_channel(eye, torch.ones(3), torch.zeros(3), 0, torch.quint8),
                "a quantised tensor",
            ),
            "meta": (torch.empty(3, device="meta"), "a tensor on PyTorch's meta device"),
            "nested": (
                torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
                "torch._utils._rebuild_nested_",
            ),
            "bits": (torch.arange(4, dtype=torch.uint8).view(torch.bits8), "a tensor of torch.bits8"),
            "conjugated": (x.conj(), "a tensor to be conjugated or negated"),
            "negated": (x.conj().imag, "a tensor to be conjugated or negated"),
            "e8m0": (torch.ones(4).to(torch.float8_e8m0fnu), "a tensor of torch.float8_e8m0fnu"),
        }


@ZIP_OR_LEGACY
@pytest.mark.parametrize("kind", odd_tensors())
def test_what_is_not_dense_stays_inert_and_is_named_where_it_is_needed(tmp_path, kind, new):
    value, told = odd_tensors()[kind]
    model, other = small(), blank()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        write({"state_dict": official(model), "odd": value}, tmp_path / "beside.pth", new)
        write(official(model) | {"head.bias": value}, tmp_path / "needed.pth", new)
    report = load_official(tmp_path / "beside.pth", other)
    assert same(model, other) and len(report.passed_over) == 1 and told in report.passed_over[0]
    with pytest.raises(ValueError, match=f"head.bias is {re.escape(told)}"):
        load_official(tmp_path / "needed.pth", other)


@ZIP_OR_LEGACY
def test_a_training_checkpoint_of_either_container_is_read(tmp_path, new):
    model, other = small(), blank()
    parameter = nn.Parameter(torch.ones(3))
    optimizer = torch.optim.AdamW([parameter])
    parameter.sum().backward()
    optimizer.step()
    tree = {
        "epoch": 3, "best": torch.tensor(0.9), "sets": {frozenset([1]): {1, 2}, (1, 2): range(3)},
        "model": OrderedDict((f"module._orig_mod.{name}", value) for name, value in official(model).items()),
        "model_ema": OrderedDict((name, value + 1) for name, value in official(model).items()),
        "optimizer": optimizer.state_dict(), "class": nn.Linear, "layer": nn.Linear(2, 2),
        "dtype": torch.half, "device": torch.device("cpu"), "size": torch.Size([2]), "numpy": np.arange(3),
        "scalar": np.float64(2), "rng": torch.get_rng_state(), "storage": torch.ones(3).untyped_storage(),
    }  # fmt: skip
    write(tree, tmp_path / "x.pth", new)
    report = load_official(tmp_path / "x.pth", other)
    assert same(model, other) and (report.entry, report.others) == ("model", ["model_ema"])
    assert "layer (torch.nn.modules.linear.Linear)" in report.passed_over
    load_official(tmp_path / "x.pth", other, entry="model_ema")
    expected = average(to_official(model))
    assert all(np.array_equal(array, expected[name]) for name, array in to_official(other).items())
    back = read_torch(tmp_path / "x.pth")
    exp_avg = back["optimizer"]["state"][0]["exp_avg"]
    assert np.allclose(exp_avg, optimizer.state[parameter]["exp_avg"]) and back["size"] == (2,)


@ZIP_OR_LEGACY
def test_views_share_their_storage_as_in_torch(tmp_path, new):
    base = torch.arange(24.0).reshape(4, 6)
    tree = {"base": base, "part": base[1:3, ::2], "row": base[2], "expanded": base[:, :1].expand(4, 3),
            "scalar": base[3, 5], "empty": base[:0], "mask": torch.ones(1).expand(3000, 3000)}  # fmt: skip
    write(tree, tmp_path / "x.pth", new)
    back = read_torch(tmp_path / "x.pth")
    for name in list(tree)[:-1]:
        assert np.array_equal(back[name], tree[name].numpy()) and back[name].shape == tree[name].shape, name
    assert isinstance(back["mask"], Inert) and np.shares_memory(back["base"], back["part"])


# ---------------------------------------------------------------- the advice works


def advised(error: FileFormatError, **names):
    """Run the line of Python in an error's message, with `file` and `new_file` as given."""
    line = re.search(r"torch\.save\(.*new_file\)", str(error)).group()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(line, {"torch": torch, "pickle": pickle}, names)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(2, 3)

    def forward(self, x):
        return self.head(x)


def script(net, path):
    torch.jit.save(torch.jit.script(net), path)


def export(net, path):
    torch.export.save(torch.export.export(net, (torch.ones(1, 2),)), path)


def plain_pickle(net, path):
    path.write_bytes(pickle.dumps(dict(net.state_dict())))


@pytest.mark.parametrize("make", [script, export, plain_pickle, write, lambda *a: write(*a, new=False)])
def test_the_advice_for_a_file_that_is_not_read_makes_one_that_is(tmp_path, make):
    net, path, new = Net(), tmp_path / "x.pt2", tmp_path / "new.pth"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        make(net, path)
    with pytest.raises(FileFormatError, match="x.pt2") as caught:
        load_official(path, small())
    advised(caught.value, file=path, new_file=new)
    back = read_weights(new)
    assert {name: array.tolist() for name, array in back.items()} == {
        name: value.tolist() for name, value in net.state_dict().items()
    }
