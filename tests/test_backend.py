"""Devices side by side: the whole library on an array that refuses NumPy; threads; memory."""

import ast
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest

from minispike import (
    Tensor,
    backend,
    create_model,
    lif,
    lif_unrolled,
    no_grad,
    ops,
    optim,
    surrogate,
    to_device,
    to_host,
)

from . import stand_in
from .blocks.test_blocks import lively

SOURCE = Path(backend.__file__).parent


OPS = {
    "add": (ops.add, (3, 4), (4,)),
    "sub": (ops.sub, (3, 4), (3, 1)),
    "mul": (ops.mul, (3, 4), (4,)),
    "div": (ops.div, (4,), (3, 4)),
    "numbers": (lambda x: 2 - 3 / (1 + x * 2) - -x, (3,)),
    "power": (lambda x: x**3, (3,)),
    "exp, log, tanh": (lambda x: ops.tanh(ops.exp(x) + ops.log(x)), (3,)),
    "reshape, transpose": (lambda x: x.transpose(1, 0).reshape(2, -1), (3, 4)),
    "broadcast_to": (lambda x: ops.broadcast_to(x, (5, 3, 4)), (3, 1)),
    "getitem": (lambda x: x[1:, ::2], (3, 4)),
    "stack": (lambda x, w: ops.stack([x, w], 1), (3, 4), (3, 4)),
    "sum, mean": (lambda x: x.sum(0) * x.mean(), (3, 4)),
    "matmul": (ops.matmul, (2, 3, 4), (4, 5)),
    "linear": (ops.linear, (2, 3, 4), (4, 5), (5,)),
    "conv2d": (lambda x, w, b: ops.conv2d(x, w, b, stride=2, padding=1), (2, 5, 5, 3), (3, 3, 3, 4), (4,)),
    "depthwise_conv2d": (lambda *a: ops.depthwise_conv2d(*a, padding=1), (2, 5, 5, 3), (3, 3, 3), (3,)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), (2, 6, 6, 3)),
    "avg_pool2d": (lambda x: ops.avg_pool2d(x, 2), (2, 6, 6, 3)),
    "fourier": (ops.fourier, (2, 6, 5)),
    "fourier, fast": (ops.fourier, (300, 2)),
    "fourier, two axes": (lambda x: ops.fourier(x, "tokens and channels"), (2, 6, 5)),
    "wavelet": (lambda x: ops.wavelet(x, (4, 8), "db2", 2), (2, 32, 3)),
    "cross entropy": (lambda z: ops.softmax_cross_entropy(z, np.array([1, 0, 2]), 0.1), (3, 4)),
    "mse": (ops.mse, (3, 4), (3, 4)),
    "lif": (lif, (4, 10)),
    "lif soft, smooth": (lambda x: lif(x, v_reset=None, smooth=True, detach_reset=False), (4, 10)),
    "lif to -0.1": (lambda x: lif(x, v_reset=-0.1, detach_reset=False), (4, 10)),
    "lif unrolled": (lif_unrolled, (4, 10)),
}
for cls in surrogate.Surrogate.__subclasses__():
    OPS[f"spike {cls.__name__}"] = (lambda x, cls=cls: surrogate.spike(x - 1.0, cls()), (9,))
    OPS[f"smooth {cls.__name__}"] = (lambda x, cls=cls: surrogate.spike(x - 1.0, cls(), smooth=True), (9,))


@pytest.mark.parametrize("name", OPS)
def test_every_op_gives_the_same_on_a_device(rng, device, name):
    f, *shapes = OPS[name]
    inputs = [rng.uniform(0.5, 1.5, shape) for shape in shapes]
    results = []
    for place, storey in (("cpu", nullcontext), (device, nullcontext), (device, backend.plain)):
        leaves = [Tensor(to_device(x.copy(), place), requires_grad=True) for x in inputs]
        with storey():
            y = f(*leaves)
        assert backend.get_device(y.data).name == place
        y.backward(to_device(np.full(y.shape, 0.7), place))
        results.append([to_host(y.data)] + [to_host(leaf.grad) for leaf in leaves])
    for a, *others in zip(*results, strict=True):
        for b in others:
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", OPS)
def test_every_op_keeps_float32(rng, name):
    f, *shapes = OPS[name]
    leaves = [Tensor(rng.uniform(0.5, 1.5, s).astype("float32"), requires_grad=True) for s in shapes]
    y = f(*leaves)
    y.backward(np.ones(y.shape, "float32"))
    assert y.dtype == "float32" and all(leaf.grad.dtype == "float32" for leaf in leaves)


def test_batch_norm_gives_the_same_on_a_device(rng, device):
    inputs = rng.standard_normal((6, 3)), rng.uniform(0.5, 1.5, 3), rng.standard_normal(3)
    for training in (True, False):
        results = []
        for place in ("cpu", device):
            leaves = [Tensor(to_device(x.copy(), place), requires_grad=True) for x in inputs]
            mean, var = (to_device(a, place) for a in (np.zeros(3), np.ones(3)))
            y = ops.batch_norm(*leaves, mean, var, training=training)
            y.backward(to_device(np.ones(y.shape), place))
            results.append([to_host(a) for a in (y.data, mean, var, *(leaf.grad for leaf in leaves))])
        for a, b in zip(*results, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def test_a_whole_model_trains_on_a_device_as_on_the_host(rng, device):
    x, labels = rng.standard_normal((4, 8, 8, 1)), np.array([1, 2, 3, 4])
    results = []
    for place in ("cpu", device):
        model = lively(
            create_model("spikformer_1_64_digits", dtype="float64", embed_dim=16), np.random.default_rng(1)
        )
        optimizer = optim.AdamW(model.to(place).parameters(), 1e-3)
        losses = []
        for images in (x, np.repeat(x[None], 3, 0), x):
            optimizer.zero_grad()
            loss = ops.softmax_cross_entropy(model(to_device(images, place)), labels, 0.1)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        with no_grad():
            logits = to_host(model.eval()(to_device(x, place)).data)
        weights = to_host(model.to("cpu").stem.stages[0].map.weight.data)
        results.append((losses, logits, weights))
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mixer", ["fft1d", "wavelets", "identity", "random"])
def test_an_attention_free_model_runs_on_a_device_as_on_the_host(rng, device, mixer):
    x, results = rng.standard_normal((2, 8, 8, 1)), []
    for place in ("cpu", device):
        model = create_model(
            "attention_free_fft1d_1_64_digits", mixer=mixer, embed_dim=16, dtype="float64"
        ).to(place)
        loss = model(to_device(x, place)).sum()
        loss.backward()
        results.append((loss.item(), to_host(model.stem.stages[0].map.weight.grad)))
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-9)
    np.testing.assert_allclose(results[0][1], results[1][1], rtol=1e-7, atol=1e-10)


def test_arrays_of_two_devices_do_not_mix(rng):
    x = to_device(np.ones(3), "stand_in")
    with pytest.raises(
        TypeError, match=r"Add got float64\[3\] on stand_in together with float64\[3\] on cpu"
    ):
        Tensor(x) + Tensor(np.ones(3))
    model = create_model("spikformer_1_64_digits").to("stand_in")
    with pytest.raises(TypeError, match=r"stages.0.map \(Conv2d\): .* on cpu together with .* on stand_in"):
        model(np.zeros((1, 8, 8, 1), "float32"))


# ---------------------------------------------------------------- the stand-in refuses what CuPy refuses


@pytest.mark.parametrize(
    "use",
    [
        lambda x: np.exp(x),
        lambda x: np.sum(x),
        lambda x: np.asarray(x),
        lambda x: np.stack([x, x]),
        lambda x: x + np.ones(3),
        lambda x: np.ones(3) + x,
        lambda x: x[np.array([0])],
        lambda x: stand_in.XP.maximum(x, np.zeros(3)),
        lambda x: x.__setitem__(0, np.ones(1)),
    ],
)
def test_the_stand_in_lets_no_numpy_through(use):
    with pytest.raises(TypeError):
        use(to_device(np.ones(3), "stand_in"))


def xp_names() -> set[str]:
    """Every NAME in `xp.NAME`, `self.xp.NAME`, `get_xp(…).NAME` in the source."""
    names = set()
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute):
                owner = node.value
                called = (
                    isinstance(owner, ast.Call)
                    and getattr(owner.func, "id", getattr(owner.func, "attr", "")) == "get_xp"
                )
                if called or getattr(owner, "id", getattr(owner, "attr", "")) == "xp":
                    names.add(node.attr)
    return names


@pytest.mark.gpu
def test_every_name_asked_of_an_array_module_exists_in_cupy():
    import cupy

    missing = [name for name in xp_names() if not hasattr(cupy, name)]
    assert not missing and hasattr(cupy.lib.stride_tricks, "as_strided")


def test_the_names_are_found():
    assert {"exp", "zeros", "matmul", "broadcast_to", "tanh", "isfinite", "sqrt"} <= xp_names()
    only_cupy = {"RawModule", "cuda"}
    assert all(hasattr(np, name) for name in xp_names() - only_cupy)


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="expected an array .* got list"):
        backend.get_xp([1.0])


def test_cuda_without_cupy_says_what_to_install(monkeypatch):
    import builtins

    real = builtins.__import__

    def no_cupy(name, *args, **kwargs):
        if name == "cupy":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", no_cupy)
    monkeypatch.delitem(backend.DEVICES, "cuda", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[cuda12\]'"):
        to_device(np.ones(1), "cuda")
