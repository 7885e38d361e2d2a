"""Devices side by side: the whole library on an array that refuses NumPy; threads; memory."""

import ast
import os
import signal
import time
from importlib import import_module
from pathlib import Path
from threading import Event, Thread, get_ident

import numpy as np
import pytest

from minispike import (
    LIF,
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
from .test_blocks import lively

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
    for place in ("cpu", device):
        leaves = [Tensor(to_device(x.copy(), place), requires_grad=True) for x in inputs]
        y = f(*leaves)
        assert backend.get_device(y.data).name == place
        y.backward(to_device(np.full(y.shape, 0.7), place))
        results.append([to_host(y.data)] + [to_host(leaf.grad) for leaf in leaves])
    for a, b in zip(*results, strict=True):
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


def test_only_backend_imports_an_array_library():
    for path in SOURCE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            foreign = {name.partition(".")[0] for name in names} & {"numpy", "cupy", "scipy"}
            assert not foreign or path.name == "backend.py", f"{path} imports {foreign}"


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


def test_every_name_asked_of_an_array_module_exists_in_cupy():
    cupy = pytest.importorskip("cupy", exc_type=ImportError)
    missing = [name for name in xp_names() if not hasattr(cupy, name)]
    assert not missing and hasattr(cupy.lib.stride_tricks, "sliding_window_view")


def test_the_names_are_found():
    assert {"exp", "zeros", "matmul", "broadcast_to", "tanh", "isfinite", "sqrt"} <= xp_names()
    assert all(hasattr(np, name) for name in xp_names())


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


# ---------------------------------------------------------------- threads


@pytest.fixture
def threads():
    """Let a test set the number of threads."""
    before = backend.get_threads()
    yield backend.set_threads
    backend.set_threads(before)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_every_index_is_visited_once_whatever_the_threads(threads, n):
    threads(n)
    assert backend.get_threads() == n
    for size in (0, 1, 7, 1000, 12345):
        counts = np.zeros(size, int)

        def work(chunks, counts=counts):
            for chunk in chunks:
                counts[chunk] += 1
            return sum(chunk.stop - chunk.start for chunk in chunks)

        totals = backend.parallel(work, size, backend.CHUNK_BYTES // 100, counts)
        assert (counts == 1).all() and sum(totals) == size and len(totals) <= n


def test_an_error_in_a_thread_comes_out(threads):
    threads(2)

    def work(chunks):
        if chunks[0].start:
            raise ValueError("second span")

    with pytest.raises(ValueError, match="second span"):
        backend.parallel(work, 1000, backend.CHUNK_BYTES, np.zeros(1))


def test_a_run_repeats_bit_for_bit_for_a_given_number_of_threads(threads, rng, monkeypatch):
    monkeypatch.setattr(backend, "CHUNK_BYTES", 4096)
    x, labels = rng.standard_normal((8, 8, 8, 1)).astype("float32"), np.arange(8)

    def gradients():
        model = lively(create_model("spikformer_1_64_digits"), np.random.default_rng(1))
        ops.softmax_cross_entropy(model(x), labels).backward()
        return [p.grad for p in model.parameters()]

    for n in (1, 2):
        threads(n)
        assert all(np.array_equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


def test_at_least_one_thread(threads):
    with pytest.raises(ValueError, match="n >= 1, got 0"):
        threads(0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_spikes_are_kept_as_bytes_and_nothing_else_is(rng, device, dtype):
    counts = backend.to_device(rng.integers(0, 256, (3, 5, 7)).astype(dtype), device)
    small = backend.as_bytes(counts)
    assert small.dtype == "uint8" and small.shape == counts.shape and small.nbytes == counts.size
    assert np.array_equal(to_host(small.astype(dtype)), to_host(counts))
    for odd in (0.5, -1, 256, np.nan, np.inf):
        other = counts.copy()
        other[-1, -1, -1] = odd
        assert backend.as_bytes(other) is other, odd


@pytest.mark.parametrize("T", [1, 40])  # in one span, and in one for each thread
def test_gradients_from_bytes_are_the_same_bit_for_bit(rng, monkeypatch, threads, T):
    threads(2)
    x = rng.integers(0, 4, (T, 8, 8, 8, 6)).astype("float32")
    kernel, matrix = (rng.standard_normal(shape).astype("float32") for shape in ((3, 3, 6, 4), (6, 4)))

    def gradients():
        inputs = [Tensor(a, requires_grad=True) for a in (x, kernel, matrix)]
        y = ops.conv2d(inputs[0], inputs[1], padding=1) * ops.linear(inputs[0], inputs[2])
        y.backward(np.ones(y.shape, "float32"))
        return [tensor.grad for tensor in inputs]

    from_bytes = gradients()
    for name in ("conv", "matmul"):
        monkeypatch.setattr(import_module(f"minispike.ops.{name}"), "as_bytes", lambda x: x)
    assert all(np.array_equal(a, b) for a, b in zip(from_bytes, gradients(), strict=True))


def test_freed_memory_can_be_kept_anywhere(monkeypatch):
    backend.keep_freed_memory()

    for error in (OSError, TypeError):  # TypeError: on Windows

        def nothing(*_, error=error):
            raise error

        monkeypatch.setattr(backend.ctypes, "CDLL", nothing)
        backend.keep_freed_memory()  # no C library of that kind: nothing happens


def test_two_callers_do_not_take_each_others_threads(threads):
    """The second goes its way alone, in the same pieces; BLAS has its threads back when both are done."""
    threads(2)
    waiting, go, seen, x = Event(), Event(), [], np.zeros(1)

    def slow(chunks):
        waiting.set()
        assert go.wait(10)
        return chunks

    def blas():
        return {lib["num_threads"] for lib in backend._blas().info() if lib["user_api"] == "blas"}

    n, each = 64, backend.CHUNK_BYTES // 4
    first = Thread(target=lambda: seen.append(backend.parallel(slow, n, each, x)))
    first.start()
    assert waiting.wait(10)
    inner = backend.parallel(lambda chunks: (get_ident(), chunks), n, each, x)
    assert {who for who, _ in inner} == {get_ident()} and len(inner) == 2
    go.set()
    first.join()
    assert seen == [[chunks for _, chunks in inner]] and blas() == {2}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are not forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of later Pythons
def test_a_forked_process_has_threads_of_its_own(threads):
    threads(2)
    x, n, each = np.zeros(1), 64, backend.CHUNK_BYTES // 4
    here = backend.parallel(lambda chunks: chunks, n, each, x)  # now there is a pool
    with backend._at_work:  # and somebody works with it
        child = os.fork()
        if not child:
            os._exit(backend.parallel(lambda chunks: chunks, n, each, x) != here or backend._at_work.locked())
    for _ in range(1000):
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            break
        time.sleep(0.01)
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done and status == 0


def test_a_neuron_layer_keeps_its_settings():
    layer = LIF(tau=3.0, smooth=True)
    x = np.linspace(0, 4, 20).reshape(4, 5)
    assert np.array_equal(layer(x).data, lif(x, tau=3.0, smooth=True).data)
