"""Each twin computes what its op does: value and gradient, any layout, every setting of the neuron."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minispike import Function, Tensor, backend, kernels, ops, parallel, trace
from minispike.fused import NormaliseAndFire, norm_lif
from minispike.kernels import compiled, events, host, unfolded
from minispike.neuron import IntegrateAndFire, Neuron, lif
from minispike.nn import LIF, BatchNorm
from minispike.ops.norm import moments
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

pytestmark = pytest.mark.skipif(compiled.why_not() is not None, reason="there is no Numba here")


@pytest.fixture(autouse=True)
def however_small(monkeypatch):
    """Let twins take arrays of any size, and cut them into spans for two threads."""
    monkeypatch.setattr(compiled, "LEAST", 1)
    monkeypatch.setattr(host, "SPAN", 1)
    monkeypatch.setattr(events, "SPAN", 1)
    before = parallel.get_threads()
    parallel.set_threads(2)
    yield
    parallel.set_threads(before)
    events.use_products(None)


def all_twins(base=Function):
    """Every twin in the library: a Function of minispike.kernels."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("minispike.kernels"):
            yield cls
        yield from all_twins(cls)


def normal(*shape):
    return lambda rng: rng.standard_normal(shape)


def spikes(*shape):
    return lambda rng: rng.integers(0, 3, shape).astype(float)


def loud_norm(training):
    """A batch norm after which neurons fire."""
    norm = BatchNorm(4).train(training)
    norm.weight.data[...] = 3
    return norm


SURROGATES = Sigmoid(), ATan(), Triangle(1.5), Rectangle(1.0), FastSigmoid()
NEURONS = [
    dict(zip(("v_reset", "detach_reset", "surrogate"), setting, strict=True))
    for setting in product((0.0, -0.2, None), (True, False), SURROGATES)
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
        f"fourier {axes}, N {N}, D {D}": (lambda x, a=axes: ops.fourier(x, a), normal(2, N, D))
        for axes in ("tokens", "tokens and channels")
        for N, D in [(1, 1), (2, 3), (6, 5), (7, 8), (16, 4), (200, 3)]
    },
    **{
        f"wavelet {family}, {levels} levels": (
            lambda x, f=family, n=levels: ops.wavelet(x, (8, 4), f, n),
            normal(2, 3, 32, 3),
        )
        for family, levels in [("haar", 1), ("haar", 2), ("db1", 1)]
    },
    **{f"lif {each}": (lambda x, n=each: lif(x, **n), normal(5, 3, 4)) for each in NEURONS},
    **{
        f"norm_lif, static {static}, training {training}, {each}": (
            lambda x, n=each, s=static, t=training: norm_lif(x, loud_norm(t), LIF(**n), 5 if s else 1),
            normal(1 if static else 5, 3, 4),
        )
        for static in (True, False)
        for training in (True, False)
        for each in NEURONS[::4]
    },
}  # fmt: skip


TABLE = {op: twin for op, twin in kernels.on_cpu().items() if isinstance(op, type)}


def call(name, rng):
    """Run a case; return the op that has a twin, its inputs (arrays) and its constants."""
    f, *draw = CASES[name]
    calls = []
    with backend.plain(), trace(lambda function, inputs, y, path: calls.append((function, inputs))):
        f(*(2 * each(rng) if "lif" in name else each(rng) for each in draw))
    function, inputs = next(each for each in calls if type(each[0]) in TABLE)
    return type(function), [x.data for x in inputs], function.constants


def form(op, arrays, constants):
    """Return the form of an op that apply runs."""
    twin = TABLE[op]
    while not twin.takes(*arrays, **constants):
        twin = twin.__base__
    return twin


def value_and_gradients(cls, arrays, constants, gy=None):
    """Call a Function's two methods as apply and backward do, but this form of the op and no other."""
    function = cls()
    function.xp, function.constants, function.needs = np, constants, (True,) * len(arrays)
    y = function.forward(*arrays, **constants)
    if gy is None:
        gy = np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)
    gradients = function.backward(gy)
    return [y, *(gradients if isinstance(gradients, tuple) else (gradients,))]


def in_float32(arrays, constants):
    single = {k: v.astype("float32") if isinstance(v, np.ndarray) else v for k, v in constants.items()}
    return [x.astype("float32") for x in arrays], single


# ---------------------------------------------------------------- equal


@pytest.mark.parametrize("name", CASES)
def test_in_float64_a_twin_is_its_op_to_1e_12(rng, name):
    op, arrays, constants = call(name, rng)
    forms = op, form(op, arrays, constants)
    pairs = zip(*(value_and_gradients(cls, arrays, constants) for cls in forms), strict=True)
    for number, (a, b) in enumerate(pairs):
        assert a.shape == b.shape and a.dtype == b.dtype == "float64"
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12 * max(1, abs(a).max()), err_msg=f"{number}")


@pytest.mark.parametrize("share", [0.0, 0.05, 1.0])
@pytest.mark.parametrize("name", CASES)
def test_in_float32_a_twin_errs_no_more_than_its_op(rng, monkeypatch, name, share):
    """Products to 4e-7 of the largest entry, at any active share. Gradients to 1e-6 of it, or to twice the
    readable op's error, whichever is larger.
    """
    monkeypatch.setattr(events.Events, "pay", lambda *_: True)
    op, arrays, constants = call(name, rng)
    if "spikes" in name:
        arrays[0] = arrays[0] * (rng.random(arrays[0].shape) < share)
    single = in_float32(arrays, constants)
    twin = form(op, *single)
    exact = value_and_gradients(op, [a.astype("float64") for a in single[0]], constants)
    plain, found = (value_and_gradients(cls, *single) for cls in (op, twin))
    for number, (a, b, c) in enumerate(zip(exact, plain, found, strict=True)):
        assert c.dtype == "float32" and c.shape == a.shape
        if "lif" in name and number == 0:
            assert np.array_equal(b, c)  # spikes: bit for bit
        elif "lif" not in name or np.array_equal(exact[0], plain[0]):
            bound = max((4e-7, 1e-6)[number > 0] * abs(a).max(), 2 * abs(b - a).max())
            assert abs(c - a).max() <= bound, (number, abs(c - a).max(), bound)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_spikes_are_equal_bit_for_bit_for_drawn_neurons_and_shapes(data):
    reset = data.draw(st.none() | st.floats(-1, 0.2))
    constants = {
        "tau": data.draw(st.sampled_from([1.7, 2.0]) | st.floats(1.01, 50)),
        "v_threshold": data.draw(st.sampled_from([0.3, 1.0]) | st.floats(0.21, 3)),
        "v_reset": reset,
        "detach_reset": data.draw(st.booleans()),
        "surrogate": data.draw(st.sampled_from(SURROGATES)),
    }
    T, positions, C = (data.draw(st.integers(1, n)) for n in (5, 7, 40))
    dtype, static = data.draw(st.sampled_from(["float32", "float64"])), data.draw(st.booleans())
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    x = data.draw(st.sampled_from([0.0, 1.0, 10.0])) * rng.standard_normal((1 if static else T, positions, C))
    arrays = [a.astype(dtype) for a in (x, rng.uniform(0.5, 3, C), rng.standard_normal(C))]
    mean, var = (a.astype(dtype) for a in (rng.standard_normal(C), rng.uniform(0.1, 2, C)))
    settings = dict(
        mean=mean, var=var, eps=1e-5, own=data.draw(st.booleans()), T=T, neuron=Neuron(**constants)
    )
    forms = NormaliseAndFire, host.CompiledNormaliseAndFire
    one, two = (value_and_gradients(cls, arrays, settings) for cls in forms)
    assert np.array_equal(one[0], two[0])
    for a, b in zip(one[1:], two[1:], strict=True):
        tolerance = 1e-12 if dtype == "float64" else 2e-5
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, abs(a).max()))


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (4, 1, 1), (3, 13, 11), (2, 5, 257)])
@pytest.mark.parametrize("level", [-9.0, 9.0])  # all silent, all firing
def test_odd_shapes_of_neurons_alone(rng, shape, level):
    x = (level + 0.1 * rng.standard_normal(shape)).astype("float32")
    for n in (Neuron(), Neuron(v_reset=None, detach_reset=False)):
        pair = (
            value_and_gradients(cls, [x], {"neuron": n})
            for cls in (IntegrateAndFire, host.CompiledIntegrateAndFire)
        )
        (s, gx), (s2, gx2) = pair
        assert np.array_equal(s, s2) and s.mean() == (level > 0)
        np.testing.assert_allclose(gx, gx2, rtol=1e-5, atol=4e-7)  # the largest slope is 1


@pytest.mark.parametrize("v_reset", [0.0, -0.5, None])
def test_nan_and_infinity_are_reset_by_choice(v_reset):
    """An infinite H fires and is reset; a NaN does not fire, and stays. In both storeys."""
    x = np.array([[np.inf, np.nan, -np.inf, 5.0], [0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    n = Neuron(v_reset=v_reset)
    with np.errstate(invalid="ignore"):
        one, two = (
            value_and_gradients(cls, [x], {"neuron": n})
            for cls in (IntegrateAndFire, host.CompiledIntegrateAndFire)
        )
    assert np.array_equal(one[0], two[0]) and list(one[0][0]) == [1, 0, 0, 1]
    if v_reset is not None:
        assert list(one[0][2]) == [1, 0, 0, 1]  # as if it had begun again


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, C", [(1, 1), (2, 3), (511, 7), (512, 1), (5000, 3), (300, 1000)])
def test_moments(rng, dtype, rows, C):
    x = (30 + rng.standard_normal((rows, C))).astype(dtype)
    tolerance = 4e-7 if dtype == "float32" else 1e-12
    with np.errstate(all="raise"):
        for a, b, exact in zip(host.moments(x), moments(x), moments(x.astype("float64")), strict=True):
            assert a.dtype == b.dtype == dtype
            np.testing.assert_allclose(a, exact, rtol=0, atol=tolerance * abs(exact).max() + 1e-30)


@pytest.mark.parametrize("value", [0.0, 1e6, -3.3])
def test_moments_of_equal_values(value):
    x = np.full((1000, 3), value, "float32")
    mean, var = host.moments(x)
    assert np.array_equal(mean, x[0]) and (var >= 0).all() and (var <= 1e-9 * value**2).all()


def test_max_pool_keeps_nan_and_gives_ties_to_the_first(rng):
    x = rng.integers(0, 2, (2, 6, 6, 5)).astype("float32")
    x[0, 2, 2, 0], x[1, 3, 3, 1] = np.nan, -np.inf
    constants = {"k": 3, "stride": 2, "padding": 1}
    one, two = (
        value_and_gradients(cls, [x], constants) for cls in (ops.pool.MaxPool2d, host.CompiledMaxPool2d)
    )
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two, strict=True))


# ---------------------------------------------------------------- any layout


def layouts(a):
    """The same values in row-major order, in column-major order, backwards, every other one, not to write."""
    wide = np.repeat(a, 2, -1)
    wide.flags.writeable = False
    fixed = a.copy()
    fixed.flags.writeable = False
    return a, np.asfortranarray(a), np.flip(np.flip(a).copy()), wide[..., ::2], fixed


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("op", TABLE, ids=lambda op: op.__name__)
def test_any_layout_twice_and_nothing_of_the_callers_is_written(rng, monkeypatch, op, dtype):
    monkeypatch.setattr(events.Events, "pay", lambda *_: True)
    name = next(name for name in CASES if call(name, rng)[0] is op)
    _, arrays, constants = call(name, rng)
    arrays = [a.astype(dtype) for a in arrays]
    constants = {k: v.astype(dtype) if isinstance(v, np.ndarray) else v for k, v in constants.items()}
    if op in events.TWINS:
        arrays[0] = rng.integers(0, 2, arrays[0].shape).astype(dtype)
    twin = form(op, arrays, constants)
    y = value_and_gradients(twin, arrays, constants)[0]
    gy = rng.standard_normal(y.shape).astype(dtype)
    found = []
    for x in layouts(arrays[0]):
        for g in (*layouts(gy), np.broadcast_to(gy, gy.shape)):
            inputs = [x, *arrays[1:]]
            found.append(value_and_gradients(twin, inputs, constants, g))
            assert np.array_equal(x, arrays[0]) and np.array_equal(g, gy)
    for other in found[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(found[0], other, strict=True))


def test_a_gradient_of_stride_zero(rng):
    """As the backward of a mean gives it."""
    x = Tensor(rng.standard_normal((4, 3, 5)), requires_grad=True)
    lif(x).mean().backward()
    with backend.plain():
        other = Tensor(x.data, requires_grad=True)
        lif(other).mean().backward()
    np.testing.assert_allclose(x.grad, other.grad, rtol=1e-12)


# ---------------------------------------------------------------- which form runs


def test_every_twin_is_in_a_table_and_has_a_case(rng):
    others = {twin for op, twin in kernels.on_cuda().items() if isinstance(op, type)}
    assert set(TABLE.values()) | others == set(all_twins())
    assert len(TABLE) == 8 and len(others - set(TABLE.values())) == 5  # four in test_cuda.py, and unfolded
    assert {call(name, rng)[0] for name in CASES} == TABLE.keys()


def test_apply_runs_the_twin_that_takes_the_input_and_plain_none(rng, monkeypatch):
    x, w = rng.standard_normal((2, 6, 6, 4)), rng.standard_normal((3, 3, 4, 5))

    def form(dtype):
        y = ops.conv2d(Tensor(x.astype(dtype), requires_grad=True), w.astype(dtype), padding=1)
        return type(y.creator)

    assert form("float32") is events.EventConvolve2d
    assert (
        form("float64") is unfolded.UnfoldedConvolve2d
    )  # events are for float32; the form above it takes it
    with backend.plain():
        assert form("float32") is form("float64") is ops.conv.Convolve2d
    monkeypatch.setattr(compiled, "LEAST", 10**6)
    assert form("float32") is unfolded.UnfoldedConvolve2d
    smooth = lif(Tensor(x, requires_grad=True), smooth=True)
    assert type(smooth.creator) is IntegrateAndFire  # smooth mode is readable code everywhere


def test_a_twin_changes_no_more_than_how_it_computes():
    """Cost, fan_out and name it inherits from the op."""
    for op, twin in TABLE.items():
        own = {name for name in vars(twin) if hasattr(op, name) and not name.startswith("__")}
        assert issubclass(twin, op) and own <= {"forward", "backward", "takes"} and twin.name == op.__name__


# ---------------------------------------------------------------- negative controls


def test_a_wrong_reset_would_be_seen(rng, monkeypatch):
    right = host._constants
    monkeypatch.setattr(
        host, "_constants", lambda n, dtype: right(n, dtype) + np.array([0, 0, 0.01] + [0] * 6, dtype)
    )
    with pytest.raises(AssertionError):
        test_in_float64_a_twin_is_its_op_to_1e_12(rng, "lif " + str(NEURONS[0]))


def test_a_dropped_row_would_be_seen(rng, monkeypatch):
    monkeypatch.setattr(host, "spans", lambda work, n, least=1: [work(0, n - 1)])
    with pytest.raises(AssertionError):
        test_moments(rng, "float64", 5000, 3)


def test_a_forgotten_event_would_be_seen(rng, monkeypatch):
    right = events.as_events

    def forgetful(x):
        found = right(x)
        if found:
            found.x.reshape(-1)[np.flatnonzero(found.x)[:1]] = 0
        return found

    monkeypatch.setattr(events, "as_events", forgetful)
    with pytest.raises(AssertionError):
        test_in_float32_a_twin_errs_no_more_than_its_op(rng, monkeypatch, "linear without bias, spikes", 1.0)
