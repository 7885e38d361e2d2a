"""Each surrogate's g' belongs to its g; the step fires at exactly the threshold."""

import numpy as np
import pytest

from minispike import Tensor, check_grads
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Triangle, spike

ALL = [Sigmoid(), ATan(), Triangle(), Rectangle(), FastSigmoid()]
STEEPER = [Sigmoid(8.0), ATan(5.0), Triangle(3.0), Rectangle(2.5), FastSigmoid(9.0)]
u = np.linspace(-3, 3, 1201) + 1.23e-4  # no point stands on a kink


@pytest.mark.parametrize("surrogate", ALL + STEEPER, ids=repr)
def test_g_prime_is_the_derivative_of_g(surrogate):
    eps = 1e-6
    numeric = (surrogate.g(u + eps) - surrogate.g(u - eps)) / (2 * eps)
    np.testing.assert_allclose(surrogate.g_prime(u.copy()), numeric, atol=1e-8)
    check_grads(lambda x: spike(x, surrogate, smooth=True), u)


@pytest.mark.parametrize("surrogate", ALL + STEEPER, ids=repr)
def test_g_is_a_smooth_step(surrogate):
    g = surrogate.g(u)
    assert (np.diff(g) >= 0).all() and surrogate.g(np.zeros(1)) == 0.5
    np.testing.assert_allclose(g + surrogate.g(-u), 1, atol=1e-12)  # symmetric
    far = surrogate.g(np.array([-1e5, 1e5]))
    assert far[0] < 1e-4 and far[1] > 1 - 1e-4
    assert np.isfinite(surrogate.g_prime(np.array([-1e30, 1e30]))).all()


def test_the_slopes_at_the_threshold_are_the_stated_ones():
    slopes = [float(surrogate.g_prime(np.zeros(1))[0]) for surrogate in ALL]
    assert slopes == [1.0, 1.0, 1.0, 1.0, 1.0]  # Sigmoid(4): 4/4, ATan(2): 2/2, …
    assert slopes == [float(surrogate.g_prime(np.array(0.0))) for surrogate in ALL]  # of one value alone, too
    slopes = [float(surrogate.g_prime(np.zeros(1))[0]) for surrogate in STEEPER]
    assert slopes == [2.0, 2.5, 3.0, 2.5, 4.5]


def test_values_worked_out_by_hand():
    at = np.array([0.25])
    assert abs(Sigmoid(4.0).g(at)[0] - 1 / (1 + np.exp(-1.0))) < 1e-15
    assert abs(Triangle(1.0).g(at)[0] - (0.5 + 0.25 - 0.5 * 0.0625)) < 1e-15
    assert Triangle(1.0).g_prime(at) == 0.75 and Rectangle(1.0).g(at) == 0.75
    assert Rectangle(1.0).g_prime(np.array([0.49, 0.51])).tolist() == [1, 0]
    assert abs(FastSigmoid(2.0).g_prime(at)[0] - 1 / 1.5**2) < 1e-15
    assert abs(ATan(2.0).g_prime(at)[0] - 1 / (1 + (np.pi / 4) ** 2)) < 1e-15


def test_a_spike_fires_at_exactly_the_threshold():
    at = np.array([-np.finfo(float).tiny, 0.0, np.finfo(float).tiny])
    assert spike(Tensor(at)).data.tolist() == [0, 1, 1]


def test_spiking_mode_has_the_surrogates_gradient(rng):
    x = Tensor(rng.standard_normal(50), requires_grad=True)
    gy = rng.standard_normal(50)
    y = spike(x, ATan(3.0))
    y.backward(gy)
    assert set(y.data) == {0.0, 1.0}
    np.testing.assert_allclose(x.grad, gy * ATan(3.0).g_prime(x.data))


@pytest.mark.parametrize("surrogate", ALL, ids=repr)
def test_float32_stays_float32(surrogate):
    x = u.astype("float32")
    assert surrogate.g(x).dtype == "float32" and surrogate.g_prime(x).dtype == "float32"


@pytest.mark.parametrize("cls", Surrogate.__subclasses__())
def test_alpha_must_be_positive(cls):
    with pytest.raises(ValueError, match=f"{cls.__name__} needs alpha > 0, got -1"):
        cls(-1.0)


def test_the_rectangle_ends_before_its_corners():
    assert Rectangle(1.0).g_prime(np.array([-0.5, 0.5])).tolist() == [0, 0]


@pytest.mark.parametrize("alpha", [0.0, float("nan")])
def test_a_step_needs_some_steepness(alpha):
    with pytest.raises(ValueError, match=f"Sigmoid needs alpha > 0, got {alpha}"):
        Sigmoid(alpha)
