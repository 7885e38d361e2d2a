"""LIF: hand-computed numbers, a scalar loop, its unrolled twin, and finite differences, in every mode."""

from itertools import product

import numpy as np
import pytest

from minispike import Tensor, check_grads, compare, lif, lif_unrolled, no_grad
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

RESETS = {"hard": 0.0, "hard to -0.3": -0.3, "soft": None}
SURROGATES = [Sigmoid(), ATan(), Triangle(), Rectangle(), FastSigmoid()]
MODES = list(product(RESETS, (True, False), SURROGATES, (True, False)))


def test_numbers_worked_out_by_hand():
    """τ = 2, threshold 1. H = V + (X − V)/2: 0.75 | 0.75 + 0.875/2 … and so on, on paper."""
    x = np.array([1.5, 1.75, 1.0, 2.0])
    #  hard: H = 0.75, 1.25 (fires, V = 0), 0.5, 1.25 (fires)
    assert lif(x).data.tolist() == [0, 1, 0, 1]
    #  soft: H = 0.75, 1.25 (fires, V = 0.25), 0.625, 1.3125 (fires)
    assert lif(x, v_reset=None).data.tolist() == [0, 1, 0, 1]
    #  soft, 2.5 in: H = 1.25, 1.375, 1.4375: fires each time;  hard, 1.9 in: H = 0.95, 1.425: every other
    assert lif(np.full(3, 2.5), v_reset=None).data.tolist() == [1, 1, 1]
    assert lif(np.full(4, 1.9)).data.tolist() == [0, 1, 0, 1]


def test_gradients_worked_out_by_hand():
    """Rectangle(1): g' is 1 within ½ of the threshold. T = 2, x = (1.5, 1.5): H = 0.75, 1.125, spikes 0, 1.

    gH[1] = g'(0.125) = 1, gX[1] = ½, gV[0] = ½. Detached, ∂V/∂H = 1: gH[0] = g'(−0.25) + ½ = 1.5, gX[0] = ¾.
    Not detached, ∂V/∂H = 1 + (0 − 0.75)·1 = ¼: gH[0] = 1 + ⅛ = 1.125; gX[0] = 0.5625.
    """
    for detach_reset, expected in [(True, [0.75, 0.5]), (False, [0.5625, 0.5])]:
        x = Tensor(np.array([1.5, 1.5]), requires_grad=True)
        lif(x, surrogate=Rectangle(1.0), detach_reset=detach_reset).backward(np.ones(2))
        assert x.grad.tolist() == expected


def scalar_loop(x, tau, v_threshold, v_reset):
    rest = 0.0 if v_reset is None else v_reset
    spikes = np.zeros_like(x)
    for neuron in np.ndindex(*x.shape[1:]):
        v = rest
        for t in range(len(x)):
            h = v + (x[(t, *neuron)] - (v - rest)) / tau
            fires = h >= v_threshold
            spikes[(t, *neuron)] = fires
            v = (h - v_threshold if v_reset is None else v_reset) if fires else h
    return spikes


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("tau, v_threshold", [(2.0, 1.0), (2.0, 0.5), (1.1, 1.0), (5.0, 0.7)])
def test_lif_is_the_scalar_loop(rng, reset, tau, v_threshold):
    x = 2 * rng.standard_normal((6, 4, 5)) + 1
    spikes = lif(x, tau=tau, v_threshold=v_threshold, v_reset=RESETS[reset]).data
    np.testing.assert_array_equal(spikes, scalar_loop(x, tau, v_threshold, RESETS[reset]))
    assert 0.05 < spikes.mean() < 0.95


def test_it_fires_at_exactly_the_threshold():
    below = np.nextafter(2.0, 0)
    assert lif(np.array([2.0])).data == [1] and lif(np.array([below])).data == [0]
    assert lif(np.array([1.0]), v_threshold=0.5).data == [1]


@pytest.mark.parametrize("reset, detach, surrogate, smooth", MODES)
@pytest.mark.parametrize("tau", [2.0, 3.7])
def test_lif_is_its_unrolled_twin(rng, reset, detach, surrogate, smooth, tau):
    x = 2 * rng.standard_normal((5, 7)) + 1
    options = dict(tau=tau, v_reset=RESETS[reset], detach_reset=detach, surrogate=surrogate, smooth=smooth)
    compare(lambda x: lif(x, **options), lambda x: lif_unrolled(x, **options), x, tol=1e-12)


@pytest.mark.parametrize("reset", RESETS)
def test_in_float32_it_is_the_twin_bit_for_bit(rng, reset):
    """With a threshold that float32 rounds: every number is float32's, none of float64 comes between."""
    x, gy = (rng.standard_normal((8, 1000)).astype("float32") for _ in range(2))
    results = []
    for function in (lif, lif_unrolled):
        leaf = Tensor(1 + 2 * x, requires_grad=True)
        y = function(leaf, v_threshold=0.7, v_reset=RESETS[reset])
        y.backward(gy)
        results.append((y.data, leaf.grad))
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("reset", RESETS)
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_finite_differences_agree_in_smooth_mode(rng, reset, surrogate):
    x = 2 * rng.standard_normal((4, 9)) + 1
    for v_threshold in (1.0, 0.5):
        options = dict(v_threshold=v_threshold, v_reset=RESETS[reset], surrogate=surrogate)
        check_grads(lambda x, o=options: lif(x, smooth=True, detach_reset=False, **o), x)


@pytest.mark.parametrize("reset", RESETS)
def test_a_detached_reset_is_another_gradient(rng, reset):
    x = rng.standard_normal((4, 9)) + 1
    with pytest.raises(AssertionError):
        check_grads(lambda x: lif(x, v_reset=RESETS[reset], smooth=True, detach_reset=True), x)


def test_time_is_the_first_axis_and_every_other_position_a_neuron(rng):
    x = 2 * rng.standard_normal((4, 3, 2, 5)) + 1
    spikes = lif(x).data
    for b, i, j in np.ndindex(3, 2, 5):
        assert np.array_equal(spikes[:, b, i, j], lif(x[:, b, i, j]).data)
    later = x.copy()
    later[2] += 5  # a change at t = 2 is not seen before, and is seen then
    changed = lif(later).data != spikes
    assert not changed[:2].any() and changed[2].any()


def test_nothing_survives_a_call(rng):
    x = 2 * rng.standard_normal((4, 50))
    first = lif(x).data
    lif(x + 10)
    assert np.array_equal(lif(x).data, first)


def test_without_gradients_the_same_spikes_and_no_graph(rng):
    x = Tensor(2 * rng.standard_normal((4, 50)), requires_grad=True)
    with no_grad():
        quiet = lif(x)
    assert np.array_equal(quiet.data, lif(x).data) and quiet.creator is None


def test_a_broadcast_input_is_read_like_any_other(rng):
    x = rng.standard_normal((1, 6)) + 1.5
    wide = np.broadcast_to(x, (4, 6))
    assert np.array_equal(lif(wide).data, lif(wide.copy()).data)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("smooth", [True, False])
def test_the_dtype_is_kept(rng, dtype, smooth):
    x = Tensor((rng.standard_normal((4, 6)) + 1).astype(dtype), requires_grad=True)
    y = lif(x, tau=3.0, v_reset=-0.1, smooth=smooth)
    y.backward(np.ones_like(y.data))
    assert y.dtype == dtype and x.grad.dtype == dtype


def test_many_neurons(rng):
    x = 2 * rng.standard_normal((4, 3001)) + 1
    compare(lif, lif_unrolled, x)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(tau=1.0), "tau > 1, got 1.0"),
        (dict(tau=0.5), "tau > 1, got 0.5"),
        (dict(v_threshold=0.0), "v_threshold must lie above v_reset, got 0.0 and 0.0"),
        (dict(v_reset=2.0), "v_threshold must lie above v_reset, got 1.0 and 2.0"),
        (dict(v_threshold=-1.0, v_reset=None), "v_threshold must lie above v_reset, got -1.0 and None"),
    ],
)
def test_constants_that_make_no_neuron_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        lif(np.ones((4, 2)), **options)


def test_an_input_without_time_is_refused():
    with pytest.raises(ValueError, match=r"lif expects x \[T, …\] with T >= 1, got \[\]"):
        lif(np.array(1.0))
    with pytest.raises(ValueError, match=r"got \[0, 3\]"):
        lif(np.ones((0, 3)))
    with pytest.raises(TypeError, match="got int64"):
        lif(np.ones((4, 3), "int64"))


def test_at_exactly_the_threshold_the_hard_reset_lets_no_gradient_through():
    """H = 1, 1.25: at H = 1 exactly S = 1, so ∂V/∂H = 0 and gX[0] = g'(0)/τ, nothing from later."""
    for function in (lif, lif_unrolled):
        x = Tensor(np.array([2.0, 2.5]), requires_grad=True)
        function(x, surrogate=Rectangle(1.0)).backward(np.ones(2))
        assert x.grad.tolist() == [0.5, 0.5]
