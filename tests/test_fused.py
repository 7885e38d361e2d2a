"""Batch norm and neuron in one pass, against the two ops in a row and against finite differences."""

from itertools import product

import numpy as np
import pytest

from minispike import LIF, BatchNorm, Tensor, check_grads, no_grad, ops, parallel, set_threads
from minispike.fused import NormaliseAndFire_fast, norm_lif
from minispike.neuron import Neuron
from minispike.surrogate import ATan, Rectangle, Sigmoid

MODES = [
    dict(),
    dict(v_reset=None),
    dict(v_reset=-0.2, detach_reset=False),
    dict(tau=3.0, v_threshold=0.5, surrogate=ATan()),
    dict(surrogate=Rectangle(), detach_reset=False, v_reset=None),
    dict(smooth=True, detach_reset=False),
]


def pair(rng, C, dtype="float64", training=True, **neuron):
    norm = BatchNorm(C).train(training)
    norm.weight.data[...] = rng.uniform(1, 3, C)
    norm.bias.data[...] = rng.standard_normal(C)
    norm.running_mean[...], norm.running_var[...] = rng.standard_normal(C), rng.uniform(0.5, 2, C)
    return norm.to(dtype=dtype), LIF(**neuron)


def one_after_the_other(x, norm, neuron, T):
    y = norm(x, repeats=T)
    return neuron(ops.broadcast_to(y, (T, *y.shape[1:])) if T > 1 else y)


def run(function, x, gy, norm, neuron, T):
    """Spikes, the three gradients and the running statistics that a call leaves."""
    before = norm.running_mean.copy(), norm.running_var.copy()
    leaf = Tensor(x, requires_grad=True)
    s = function(leaf, norm, neuron, T)
    s.backward(gy)
    found = [
        s.data,
        leaf.grad,
        norm.weight.grad,
        norm.bias.grad,
        norm.running_mean.copy(),
        norm.running_var.copy(),
    ]
    norm.running_mean[...], norm.running_var[...] = before
    norm.weight.grad = norm.bias.grad = None
    return found


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("neuron", MODES, ids=str)
def test_it_is_the_two_ops_one_after_the_other(rng, neuron, static, training):
    T, shape = (4, (1, 3, 5, 6)) if static else (1, (4, 3, 5, 6))
    x, gy = 2 + 3 * rng.standard_normal(shape), rng.standard_normal((4, 3, 5, 6))
    layers = pair(rng, 6, training=training, **neuron)
    one, two = (run(f, x, gy, *layers, T) for f in (norm_lif, one_after_the_other))
    assert np.array_equal(one[0], two[0]) and 0.02 < one[0].mean() < 0.98
    for a, b in zip(one[1:], two[1:], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("static", [False, True])
@pytest.mark.parametrize("training", [True, False])
def test_its_gradients_are_the_finite_differences(rng, static, training):
    T, shape = (3, (1, 2, 4, 5)) if static else (1, (3, 2, 4, 5))
    for neuron in (dict(v_reset=None), dict(), dict(v_reset=-0.3, tau=1.5)):
        norm, lif = pair(rng, 5, training=training, smooth=True, detach_reset=False, **neuron)
        x = rng.standard_normal(shape)
        check_grads(lambda x, norm=norm, lif=lif: norm_lif(x, norm, lif, T), x, norm.weight, norm.bias)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("static", [False, True])
def test_large_arrays_in_float32(monkeypatch, threads, static):
    """Over many chunks: the spikes bit for bit, the gradients to float32's rounding, 2e-6 of the largest."""
    monkeypatch.setattr(parallel, "CHUNK_BYTES", 2**14)
    before = parallel.get_threads()
    set_threads(threads)
    rng = np.random.default_rng(0)
    T, shape = (4, (1, 40, 9, 32)) if static else (1, (4, 40, 9, 32))
    x = (30 + rng.standard_normal(shape)).astype("float32")
    gy = rng.standard_normal((4, 40, 9, 32)).astype("float32")
    layers = pair(rng, 32, "float32", surrogate=Sigmoid())
    one, two, again = (run(f, x, gy, *layers, T) for f in (norm_lif, one_after_the_other, norm_lif))
    set_threads(before)
    assert np.array_equal(one[0], two[0]) and one[0].dtype == one[1].dtype == np.float32
    for a, b, c in zip(one, two, again, strict=True):
        assert abs(a - b).max() <= 2e-6 * abs(b).max() and np.array_equal(a, c)


def test_it_keeps_its_input_alone(rng):
    norm, neuron = pair(rng, 6)
    x = rng.standard_normal((4, 3, 5, 6))
    function = norm_lif(Tensor(x, requires_grad=True), norm, neuron).creator
    kept = [value for value in vars(function).values() if isinstance(value, np.ndarray)]
    assert sum(a.size for a in kept) == x.size + 4 * 6  # γ, β, μ, r


def layouts(a):
    """The same values in row-major order, in column-major order, backwards, every other one, not to write."""
    wide = np.repeat(a, 2, -1)
    wide.flags.writeable = False
    return a, np.asfortranarray(a), np.flip(np.flip(a).copy()), wide[..., ::2]


@pytest.mark.parametrize("static", [False, True])
def test_any_layout_twice_and_nothing_of_the_callers_is_written(rng, monkeypatch, static):
    monkeypatch.setattr(parallel, "CHUNK_BYTES", 1000)
    x, gy = rng.standard_normal((1 if static else 4, 3, 7, 5)), rng.standard_normal((4, 3, 7, 5))
    neuron = Neuron(v_reset=-0.3, detach_reset=False)
    own = dict(mean=x.mean((0, 1, 2)), var=x.var((0, 1, 2)), eps=1e-5, own=True)
    found = []
    for some_x, some_gy in product(layouts(x), layouts(gy)):
        function = NormaliseAndFire_fast()
        function.xp = np
        spikes = function.forward(some_x, np.full(5, 2.0), np.ones(5), T=4, neuron=neuron, **own)
        found += [(spikes, *function.backward(some_gy)) for _ in range(2)]
        assert np.array_equal(some_x, x) and np.array_equal(some_gy, gy)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-12)


def test_no_gradient_for_an_input_that_wants_none(rng):
    norm, neuron = pair(rng, 6)
    x = rng.standard_normal((4, 3, 5, 6))
    norm_lif(x, norm, neuron).sum().backward()
    weight, bias = norm.weight.grad, norm.bias.grad
    norm.weight.grad = norm.bias.grad = None
    norm_lif(Tensor(x, requires_grad=True), norm, neuron).sum().backward()
    assert np.array_equal(weight, norm.weight.grad) and np.array_equal(bias, norm.bias.grad)
    with no_grad():
        assert norm_lif(x, norm, neuron).creator is None
