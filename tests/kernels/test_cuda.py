"""The CUDA kernels, compiled by the system's C++ compiler: spike for spike what the readable ops compute.

Where there is a GPU, `device` also is one, and the same tests run there.
"""

import os
from itertools import product

import numpy as np
import pytest

from minispike import Tensor, backend, create_model, fit, lif, ops, optim, to_device, to_host
from minispike.fused import NormaliseAndFire
from minispike.kernels import cuda
from minispike.neuron import IntegrateAndFire, Neuron
from minispike.ops import norm
from minispike.ops.conv import ConvolveDepthwise2d
from minispike.ops.pool import MaxPool2d
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

from .. import cxx, stand_in

pytestmark = pytest.mark.skipif(not (cxx.COMPILER or os.environ.get("CI")), reason="no C++ compiler")

SURROGATES = Sigmoid(), ATan(), Triangle(1.5), Rectangle(1.0), FastSigmoid()
SETTINGS = list(product(("float64", "float32"), SURROGATES, (0.0, -0.2, None), (True, False)))
LAYERS = "norm and neuron", "static", "neuron"
TOLERANCE = {"float64": 1e-12, "float32": 2e-5}


def both(op, arrays, constants, device, gy=None, rng=None):
    """Run an op's two methods on the host, as it is written to be read, and its twin's on a device."""
    twin, results = cuda.TWINS[op], []
    for cls, place in ((op, "cpu"), (twin, device)):
        f = cls()
        f.xp, f.constants = backend.get_xp(to_device(arrays[0], place)), constants
        there = {k: to_device(v, place) if isinstance(v, np.ndarray) else v for k, v in constants.items()}
        inputs = [to_device(x, place) for x in arrays]
        assert twin.takes(*inputs, **there)
        y = f.forward(*inputs, **there)
        if gy is None:
            gy = (rng or np.random.default_rng(1)).standard_normal(y.shape).astype(y.dtype.name)
        back = f.backward(to_device(gy, place))
        results.append([to_host(a) for a in (y, *(back if isinstance(back, tuple) else (back,)))])
    return results


def layer(kind, dtype, shape, neuron, rng, own=True):
    """An op, its inputs and its constants: neurons over x [T, positions, C], with a norm or without."""
    T, *rest = shape
    x = 2 * rng.standard_normal((1 if kind == "static" else T, *rest))
    if kind == "neuron":
        return IntegrateAndFire, [x.astype(dtype)], {"neuron": neuron}
    C = shape[-1]
    arrays = [a.astype(dtype) for a in (x, rng.uniform(0.5, 3, C), rng.standard_normal(C))]
    mean, var = (a.astype(dtype) for a in (x.mean((0, 1)), x.var((0, 1)) + 0.1))
    settings = {"mean": mean, "var": var, "eps": 1e-5, "own": own, "T": T, "neuron": neuron}
    return NormaliseAndFire, arrays, settings


def assert_alike(one, two, tolerance):
    assert np.array_equal(one[0], two[0]), "spikes"
    assert 0 < one[0].mean() < 1
    for a, b in zip(one[1:], two[1:], strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, abs(a).max()))


def check(dtype, surrogate, v_reset, detached, device, rng):
    neuron = Neuron(v_reset=v_reset, detach_reset=detached, surrogate=surrogate)
    for kind in LAYERS:
        one, two = both(*layer(kind, dtype, (4, 37, 48), neuron, rng), device)
        assert_alike(one, two, TOLERANCE[dtype])


@pytest.mark.parametrize("setting", SETTINGS[::5], ids=str)
def test_some_settings_of_the_neuron(rng, device, setting):
    check(*setting, device, rng)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_all_settings_of_the_neuron(rng, device, setting):
    check(*setting, device, rng)


@pytest.mark.parametrize("shape", [(4, 1, 1), (4, 5, 3), (4, 9, 31), (4, 8, 32), (4, 70, 33), (4, 3, 257)])
@pytest.mark.parametrize("kind", LAYERS)
def test_sizes_that_do_not_fill_a_block(rng, device, kind, shape):
    for own in (True, False):
        shape = (shape[0], max(shape[1], 2), shape[2])
        one, two = both(*layer(kind, "float64", shape, Neuron(), rng, own), device)
        assert np.array_equal(one[0], two[0])
        for a, b in zip(one[1:], two[1:], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_more_rows_than_a_pass_of_blocks(rng, device, dtype):
    """Blocks walk over positions, and sums are flushed on the way."""
    positions = cuda.BLOCKS * cuda.ROWS * 3 + 5
    one, two = both(*layer("norm and neuron", dtype, (2, positions, 2), Neuron(), rng), device)
    assert_alike(one, two, TOLERANCE[dtype])


@pytest.mark.parametrize("tau", [1.5, 1.7, 3.0, 5.0])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_not_a_spike_flips_within_8_ulp_of_the_threshold(device, dtype, tau):
    """From rest a neuron fires when x / τ reaches the threshold, in the data's own dtype."""
    for v_threshold in (1.0, 0.7, 0.1):
        edge = np.array(tau * v_threshold, dtype)
        steps = np.arange(-8, 9)
        x = (edge.view(f"i{edge.itemsize}") + steps).astype(f"i{edge.itemsize}").view(dtype)
        x = np.stack([x, x, 0.9 * x, x])
        constants = {"neuron": Neuron(tau=tau, v_threshold=v_threshold)}
        one, two = both(IntegrateAndFire, [x.astype(dtype)], constants, device)
        assert np.array_equal(one[0], two[0])
        assert 0 < one[0][0].sum() < len(steps)


def test_what_rounding_once_would_flip(rng):
    """The control: with multiply-adds that round once, as a compiler likes them, spikes do flip."""
    if not cxx.COMPILER or not cxx.fuses():
        pytest.skip("this processor or compiler has no fused multiply-add")
    flips = {}
    for contract in ("off", "fast"):
        with cxx.compiled_with(f"-ffp-contract={contract}", "-mfma"):
            cuda.module.cache_clear()
            op, arrays, constants = layer("norm and neuron", "float32", (1, 4000, 32), Neuron(), rng)
            _, gamma, beta = arrays
            mean, deviation = constants["mean"], np.sqrt(constants["var"] + 1e-5)
            edge = mean + (2 - beta) / gamma * deviation  # what the neuron takes just to its threshold
            near = 1 + 2.0**-22 * rng.standard_normal((1, 4000, 32))
            one, two = both(op, [(edge * near).astype("float32"), gamma, beta], constants, "stand_in")
            flips[contract] = int((one[0] != two[0]).sum())
    cuda.module.cache_clear()
    assert flips["off"] == 0 < flips["fast"]


@pytest.mark.parametrize("v_reset", [0.0, -0.5, None])
def test_nan_and_infinity_are_reset_by_choice(device, v_reset):
    x = np.array([[np.inf, np.nan, -np.inf, 5.0], [0, 0, 0, 0], [4, 4, 4, 4]], "float32")
    with np.errstate(invalid="ignore"):
        one, two = both(IntegrateAndFire, [x], {"neuron": Neuron(v_reset=v_reset)}, device)
    assert np.array_equal(one[0], two[0]) and list(one[0][0]) == [1, 0, 0, 1]


@pytest.mark.parametrize("surrogate", SURROGATES, ids=str)
def test_the_slope_far_away_and_at_nan(device, surrogate):
    """∞ has the slope 0, and a NaN that of the readable op."""
    x = np.array([[np.inf, np.nan, -np.inf, 1e30, -1e30, 2.0]], "float32")
    constants = {"neuron": Neuron(surrogate=surrogate)}
    with np.errstate(all="ignore"):
        one, two = both(IntegrateAndFire, [x], constants, device, np.ones_like(x))
    np.testing.assert_allclose(one[1], two[1], rtol=1e-6)


def test_flushing_subnormals_changes_no_spike(rng):
    """A GPU's float32 code, as CuPy compiles it, takes numbers below 1.2e-38 as 0."""
    if not cxx.flushes():
        pytest.skip("only on x86: the processor must flush, too")
    tiny = np.array([1e-45, -1e-45, 1e-39, -1e-39, 1.1e-38, 3e-38], "float32")
    for v_threshold in (1e-30, 1e-3, 1.0):
        near = np.float32(2 * v_threshold) * (1 + np.arange(-4, 5) * np.float32(2**-23))
        x = np.concatenate([tiny, near.astype("float32"), near.astype("float32") + tiny[0]])
        x = np.stack([rng.permutation(x) for _ in range(6)])
        constants = {"neuron": Neuron(v_threshold=v_threshold)}
        with cxx.compiled_with("-DFLUSH"):
            cuda.module.cache_clear()
            one, two = both(IntegrateAndFire, [x], constants, "stand_in")
        cuda.module.cache_clear()
        assert np.array_equal(one[0], two[0]) and 0 < one[0].sum() < one[0].size


# ---------------------------------------------------------------- the other kernels


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows, C", [(1, 1), (2, 3), (511, 7), (5000, 33), (300, 1000), (40000, 2)])
def test_moments(rng, device, dtype, rows, C):
    x = (30 + rng.standard_normal((rows, C))).astype(dtype)
    found = [to_host(a) for a in cuda.moments(to_device(x, device))]
    tolerance = 4e-7 if dtype == "float32" else 1e-12
    for a, exact in zip(found, norm.moments(x.astype("float64")), strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a, exact, rtol=0, atol=tolerance * abs(exact).max() + 1e-30)


@pytest.mark.parametrize("value", [0.0, 1e6, -3.3, np.nan, np.inf])
def test_moments_of_equal_values(device, value):
    x = np.full((1000, 3), value, "float32")
    mean, var = (to_host(a) for a in cuda.moments(to_device(x, device)))
    if np.isfinite(value):
        assert np.array_equal(mean, x[0]) and (var >= 0).all() and (var <= 1e-9 * value**2).all()
    else:
        assert np.isnan(var).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_running_statistics_and_adamw_bit_for_bit(rng, device, dtype):
    running = [rng.standard_normal(301).astype(dtype) for _ in range(4)]
    there = [to_device(a.copy(), device) for a in running]
    norm.move_running(*running, 0.1, 1.25)
    cuda.move_running(*there, 0.1, 1.25)
    assert all(np.array_equal(a, to_host(b)) for a, b in zip(running, there, strict=True))

    arrays = [rng.uniform(0.1, 1, 1000).astype(dtype) for _ in range(4)]
    there = [to_device(a.copy(), device) for a in arrays]
    constants = 0.99, 0.1, 0.001, 0.03, 0.4, 1e-8
    optim.adamw(*arrays, *constants)
    cuda.adamw(*there, *constants)
    assert all(np.array_equal(a, to_host(b)) for a, b in zip(arrays, there, strict=True))


@pytest.mark.parametrize("k, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (2, 3, 1), (5, 2, 2)])
def test_max_pool_bit_for_bit_with_ties_nan_and_infinity(rng, device, k, stride, padding):
    x = rng.integers(0, 2, (2, 3, 7, 6, 33)).astype("float32")
    x[0, 0, 2, 2, 0], x[1, 1, 3, 3, 1], x[1, 1, 3, 4] = np.nan, -np.inf, np.inf
    constants = {"k": k, "stride": stride, "padding": padding}
    one, two = both(MaxPool2d, [x], constants, device)
    assert all(np.array_equal(a, b, equal_nan=True) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("kh, kw, stride, padding", [(3, 3, 1, 1), (5, 5, 1, 2), (3, 3, 2, 1), (2, 3, 3, 0)])
@pytest.mark.parametrize("bias", [True, False])
def test_depthwise_convolution(rng, device, kh, kw, stride, padding, bias):
    arrays = [rng.standard_normal(shape) for shape in ((2, 3, 7, 6, 33), (kh, kw, 33), (33,))[: 2 + bias]]
    one, two = both(ConvolveDepthwise2d, arrays, {"stride": stride, "padding": padding}, device)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


def test_the_weights_of_a_depthwise_convolution_in_float32(rng, device):
    """A hundred thousand windows: each block adds up in double what its threads have added up in float."""
    x, w = rng.standard_normal((60, 42, 42, 3)), rng.standard_normal((3, 3, 3))
    single = [a.astype("float32") for a in (x, w)]
    _, (_, _, gw) = both(ConvolveDepthwise2d, single, {"stride": 1, "padding": 1}, device)
    (_, _, exact), _ = both(
        ConvolveDepthwise2d, [a.astype("float64") for a in single], {"stride": 1, "padding": 1}, device
    )
    assert abs(gw - exact).max() < 3e-6 * abs(exact).max()


def test_any_layout(rng, device):
    """What is not contiguous is copied first."""
    x = rng.standard_normal((4, 6, 8))
    xs = to_device(x, device), to_device(np.asfortranarray(x), device)
    leaves = [Tensor(a, requires_grad=True) for a in (*xs, xs[0].transpose(0, 2, 1))]
    found = []
    for leaf in leaves:
        y = lif(leaf if leaf is not leaves[2] else leaf.transpose(0, 2, 1))
        y.backward(to_device(np.broadcast_to(0.5, y.shape).copy(), device))
        found.append([to_host(y.data), to_host(leaf.grad)])
    found[2][1] = found[2][1].transpose(0, 2, 1)
    assert all(np.array_equal(a, b) for other in found[1:] for a, b in zip(found[0], other, strict=True))


# ---------------------------------------------------------------- what the kernels do not take


class Steep(Sigmoid):
    """Somebody's own surrogate."""


@pytest.mark.parametrize(
    "neuron, T", [(Neuron(surrogate=Steep()), 4), (Neuron(smooth=True), 4), (Neuron(), 33)], ids=str
)
def test_what_the_kernels_do_not_take_runs_as_it_is_written(rng, neuron, T):
    x = to_device(rng.standard_normal((T, 5)), "stand_in")
    assert not cuda.IntegrateAndFireOnCuda.takes(x, neuron=neuron)
    with stand_in.counting() as counts:
        y = lif(x, **vars(neuron))
    assert not counts["launch", "normalise_and_fire"]
    assert np.array_equal(to_host(y.data), lif(to_host(x), **vars(neuron)).data)


def test_32_steps_are_taken(rng, device):
    one, two = both(*layer("norm and neuron", "float64", (32, 5, 3), Neuron(), rng), device)
    assert_alike(one, two, 1e-12)


def test_arrays_of_two_devices_are_refused(rng, monkeypatch):
    x = to_device(rng.standard_normal((4, 5)), "stand_in")
    monkeypatch.setattr(stand_in.XP.cuda, "Device", lambda: "another")
    with pytest.raises(
        ValueError, match="normalise_and_fire needs all arrays on the current device another, got cpu"
    ):
        lif(x)


# ---------------------------------------------------------------- a whole step


def second_step(model, plain=False, extra=None):
    """Count the launches of a training's second step; the first one also lays out the optimizer's arrays."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, *model.img_size, model.in_channels)).astype("float32")

    def batches(_):
        yield x, np.array([1, 2])
        stand_in.counted.clear()
        yield x, np.array([1, 2])

    def objective(model, images, labels):
        logits = model(images)
        if extra:
            extra(logits.data)
        return ops.softmax_cross_entropy(logits, labels), {}

    optimizer = optim.AdamW(model.to("stand_in").parameters())
    with stand_in.counting() as counts:
        if plain:
            with backend.plain():
                fit(model, optimizer, batches, epochs=1, objective=objective, progress=False)
        else:
            fit(model, optimizer, batches, epochs=1, progress=False)
    return counts["launches"], counts["synchronisations"]


@pytest.mark.parametrize("name", ["spikformer_4_384_cifar10", "saformer_4_384_cifar10"])
def test_a_step_of_4_384_has_at_most_700_launches_and_1_synchronisation(name):
    launches, waits = second_step(create_model(name))
    assert 500 < launches <= 700 and waits == 1


def test_the_counter_sees_the_array_path_and_a_deliberate_float():
    model = create_model("spikformer_2_256_cifar10dvs", depth=4, in_channels=3, img_size=32)
    launches, waits = second_step(model, plain=True, extra=lambda x: float(x.sum()))
    assert launches > 700 and waits == 2
