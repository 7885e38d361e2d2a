"""Each op's plain form, which is read, and its fast form, which runs, are equal in value and gradient."""

from itertools import product

import numpy as np
import pytest

from minispike import Function, Tensor, ops, parallel, trace
from minispike.fused import norm_lif
from minispike.neuron import lif
from minispike.nn import LIF, BatchNorm
from minispike.ops.matmul import column_sums, column_sums_fast
from minispike.ops.norm import moments, moments_fast
from minispike.ops.pool import MaxPool2d_fast
from minispike.surrogate import ATan, Rectangle


def fast_functions(base=Function):
    """Every fast form in the library: a Function whose class is not the one that names the op."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("minispike.") and cls.__name__ != cls.name:
            yield cls
        yield from fast_functions(cls)


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def spikes(*shape):
    return lambda rng: rng.integers(0, 3, shape).astype(float)


def loud_norm(training):
    """A batch norm after which neurons fire."""
    norm = BatchNorm(4).train(training)
    norm.weight.data[...] = 3
    return norm


NEURONS = [
    dict(zip(("v_reset", "detach_reset", "smooth", "surrogate"), setting, strict=True))
    for setting in product((0.0, -0.2, None), (True, False), (True, False), (ATan(), Rectangle(1.0)))
]

# the public function, and how its inputs are drawn
CASES = {
    "linear": (ops.linear, normal(3, 4, 5), normal(5, 6), normal(6)),
    "linear without bias, spikes": (ops.linear, spikes(3, 4, 5), normal(5, 6)),
    "linear of a vector": (ops.linear, normal(5), normal(5, 6), normal(6)),
    **{
        f"conv2d {kh}x{kw}, stride {stride}, padding {padding}": (
            lambda *a, s=stride, p=padding: ops.conv2d(*a, stride=s, padding=p),
            normal(2, 3, 7, 6, 4),
            normal(kh, kw, 4, 5),
            normal(5),
        )
        for kh, kw, stride, padding in [(3, 3, 1, 1), (3, 3, 2, 1), (2, 2, 2, 0), (3, 2, 3, 1), (1, 1, 1, 0)]
    },
    "conv2d without bias, spikes": (
        lambda *a: ops.conv2d(*a, padding=1), spikes(4, 5, 5, 2), normal(3, 3, 2, 3),
    ),
    "conv2d that steps over places": (
        lambda *a: ops.conv2d(*a, stride=3), normal(2, 8, 9, 2), normal(2, 2, 2, 3),
    ),
    **{
        f"depthwise {k}x{k}, stride {stride}": (
            lambda *a, s=stride, k=k: ops.depthwise_conv2d(*a, stride=s, padding=k // 2),
            normal(2, 3, 6, 7, 4),
            normal(k, k, 4),
            normal(4),
        )
        for k, stride in [(3, 1), (5, 1), (3, 2)]
    },
    "depthwise without bias": (lambda *a: ops.depthwise_conv2d(*a), normal(2, 5, 6, 3), normal(2, 3, 3)),
    "max_pool2d": (lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), normal(2, 2, 6, 8, 3)),
    "max_pool2d of spikes, which tie": (
        lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), spikes(4, 6, 6, 5),
    ),
    "max_pool2d without overlap": (lambda x: ops.max_pool2d(x, 2), normal(1, 4, 6, 2)),
    **{
        f"batch_norm, training {training}": (
            lambda *a, t=training: ops.batch_norm(*a, np.full(4, 0.3), np.full(4, 2.0), training=t),
            normal(3, 5, 4),
            normal(4),
            normal(4),
        )
        for training in (True, False)
    },
    **{
        f"fourier {axes}, N {N}, D {D}": (lambda x, a=axes: ops.fourier(x, a), normal(2, N, D))
        for axes in ("tokens", "tokens and channels")
        for N, D in [(1, 1), (2, 3), (6, 5), (7, 8), (16, 4), (200, 3)]
    },
    **{
        f"wavelet {family}, {levels} levels": (
            lambda x, f=family, n=levels: ops.wavelet(x, (8, 4), f, n),
            normal(2, 3, 32, 3),
        )
        for family, levels in [("haar", 1), ("haar", 2), ("db1", 1), ("db2", 2), ("bior2.2", 1)]
    },
    **{f"lif {each}": (lambda x, n=each: lif(x, **n), normal(5, 3, 4)) for each in NEURONS},
    **{
        f"norm_lif, static {static}, training {training}, {each}": (
            lambda x, n=each, s=static, t=training: norm_lif(x, loud_norm(t), LIF(**n), 5 if s else 1),
            normal(1 if static else 5, 3, 4),
        )
        for static in (True, False)
        for training in (True, False)
        for each in NEURONS[::3]
    },
}  # fmt: skip


def fast_call(name, rng):
    """Run a case; return the fast function's class, its inputs (arrays) and its constants."""
    f, *draw = CASES[name]
    calls = []
    with trace(lambda function, inputs, y, path: calls.append((function, inputs))):
        f(*(2 * each(rng) if "lif" in name else each(rng) for each in draw))
    function, inputs = next(call for call in calls if type(call[0]) in FAST)
    return type(function), [x.data for x in inputs], function.constants


FAST = set(fast_functions())


def value_and_gradients(cls, arrays, constants):
    leaves = [Tensor(x, requires_grad=True) for x in arrays]
    y = cls.apply(*leaves, **constants)
    y.backward(np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype))
    return [y.data, *(leaf.grad for leaf in leaves)]


@pytest.mark.parametrize("chunk_bytes", [2**22, 200])  # in one chunk, and in many
@pytest.mark.parametrize("name", CASES)
def test_the_fast_form_is_the_plain_one(rng, monkeypatch, name, chunk_bytes):
    monkeypatch.setattr(parallel, "CHUNK_BYTES", chunk_bytes)
    fast, arrays, constants = fast_call(name, rng)
    plain = fast.__base__
    assert Function in plain.__bases__ and fast.name == plain.__name__ == fast.__name__.removesuffix("_fast")
    pairs = zip(*(value_and_gradients(cls, arrays, constants) for cls in (plain, fast)), strict=True)
    for number, (a, b) in enumerate(pairs):
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(1, abs(a).max()), err_msg=f"{number}")


@pytest.mark.parametrize("name", [name for name in CASES if "lif" in name and "'smooth': False" in name])
def test_spikes_are_equal_bit_for_bit_in_float32(rng, name):
    fast, arrays, constants = fast_call(name, rng)
    arrays = [x.astype("float32") for x in arrays]
    constants = {k: v.astype("float32") if isinstance(v, np.ndarray) else v for k, v in constants.items()}
    one, two = (value_and_gradients(cls, arrays, constants)[0] for cls in (fast.__base__, fast))
    assert np.array_equal(one, two) and one.any() and one.dtype == "float32"


def test_every_fast_form_has_a_case(rng):
    assert {fast_call(name, rng)[0] for name in CASES} == FAST and len(FAST) == 9


def test_a_fast_form_overrides_forward_and_backward_alone():
    """All else, cost and fan_out included, it inherits from the op."""
    for cls in FAST:
        assert "forward" in vars(cls) or "backward" in vars(cls)
        shared = {name for name in vars(cls) if hasattr(cls.__base__, name) and not name.startswith("__")}
        assert shared <= {"forward", "backward"}, cls


def test_a_wrong_fast_form_would_be_seen(rng, monkeypatch):
    """Negative control: a pool that forgets the windows that their middle wins."""
    right = MaxPool2d_fast.backward
    wrong = lambda self, gy: right(self, gy * (self.winner.reshape(gy.shape) != 4))  # noqa: E731
    monkeypatch.setattr(MaxPool2d_fast, "backward", wrong)
    with pytest.raises(AssertionError):
        test_the_fast_form_is_the_plain_one(rng, monkeypatch, "max_pool2d", 2**22)


@pytest.mark.parametrize("rows", [1, 1023, 1024, 1025, 5000])
def test_sums_and_moments_are_those_of_the_plain_forms(rng, monkeypatch, rows):
    monkeypatch.setattr(parallel, "CHUNK_BYTES", 4096)
    x = 30 + rng.standard_normal((rows, 3))
    np.testing.assert_allclose(column_sums_fast(x), column_sums(x), rtol=1e-13)
    for a, b in zip(moments_fast(x), moments(x), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    assert (
        column_sums(x.astype("float32")).dtype == "float64"
        and moments(x.astype("float32"))[1].dtype == "float32"
    )
