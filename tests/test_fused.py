"""Batch norm and neuron as one op, against the two ops in a row and against finite differences."""

import numpy as np
import pytest

from minispike import LIF, BatchNorm, Linear, Spiking, Tensor, check_grads, no_grad, ops, trace
from minispike.fused import norm_lif
from minispike.surrogate import ATan, Rectangle

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


def test_it_runs_under_the_names_of_its_two_layers(rng):
    """So that traces find neurons at their place, whatever computes them."""
    norm, neuron = pair(rng, 6)
    brick, places = Spiking(Linear(6, 6, rng=rng), neuron), []
    brick.norm = norm
    with trace(lambda function, inputs, y, path: places.append((path, function.name))):
        brick(rng.standard_normal((4, 3, 6)))
    assert places == [("map", "MatMulAdd"), ("neuron", "NormaliseAndFire")]


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
