"""The checkers themselves: they pass what is right and, above all, catch what is wrong."""

from functools import partial

import numpy as np
import pytest

from minispike import Function, Linear, Parameter, Tensor, check_grads, compare, lif, ops


class Cube(Function):
    """y = x³, with the derivative that the test asks for."""

    def forward(self, x, slope):
        self.x, self.slope = x, slope
        return x**3

    def backward(self, gy):
        return gy * self.slope(self.x)


def test_the_right_derivative_passes_and_wrong_ones_are_caught(rng):
    x = rng.standard_normal((3, 4))
    check_grads(lambda x: Cube.apply(x, slope=lambda x: 3 * x**2), x)
    for wrong in (lambda x: 2 * x**2, lambda x: -3 * x**2, lambda x: 3 * x**2 * (1 + 1e-4), lambda x: 0 * x):
        with pytest.raises(AssertionError, match="finite difference .* backward"):
            check_grads(lambda x, wrong=wrong: Cube.apply(x, slope=wrong), x)


def test_one_wrong_component_among_thousands_is_caught(rng):
    def slope(x):
        g = 3 * x**2
        g[7, 11] += 0.01
        return g

    with pytest.raises(AssertionError):
        check_grads(lambda x: Cube.apply(x, slope=slope), rng.standard_normal((50, 50)))


def test_a_small_gradient_is_checked_in_its_own_size(rng):
    def check(wrong):  # a sum of order one, whose derivatives are of order 1e-3, and wrong by a small share
        cube = partial(Cube.apply, slope=lambda x: 3 * x**2 * (1 + wrong))
        check_grads(lambda x: ops.sum(cube(x)) * 1e-4 + 1.0, rng.standard_normal(20))

    check(1e-7)
    with pytest.raises(AssertionError, match="apart by"):
        check(1e-3)


def test_what_goes_with_the_square_of_the_step_is_no_error():
    """At 0 the slope of x³ is 0 and its central difference ε²; a slope of 1e-9 in its place is caught."""
    at_0 = np.zeros(3)
    check_grads(lambda x: Cube.apply(x, slope=lambda x: 3 * x**2), at_0)
    with pytest.raises(AssertionError, match="apart by"):
        check_grads(lambda x: Cube.apply(x, slope=lambda x: 3 * x**2 + 1e-9), at_0)


def test_a_forgotten_sum_over_a_broadcast_axis_is_caught(rng):
    class Shift(Function):
        def forward(self, x, b):
            return x + b

        def backward(self, gy):
            return gy, gy[0]  # should be gy.sum(0)

    with pytest.raises(AssertionError, match=r"input 1 \[4\]"):
        check_grads(Shift.apply, rng.standard_normal((3, 4)), rng.standard_normal(4))


def test_a_wrong_bias_is_not_lost_beside_a_large_weight(rng):
    layer = Linear(200, 3, rng=rng)

    def f(x):
        y = ops.linear(x, layer.weight, layer.bias)
        return y + layer.bias.detach() * 1e-3  # a part of the bias whose gradient is lost

    with pytest.raises(AssertionError, match=r"input 2 \[3\]"):
        check_grads(f, rng.standard_normal((4, 200)), *layer.parameters())


def test_a_detached_reset_fails_finite_differences(rng):
    x = rng.standard_normal((4, 10)) + 1
    check_grads(lambda x: lif(x, smooth=True, detach_reset=False), x)
    with pytest.raises(AssertionError):
        check_grads(lambda x: lif(x, smooth=True, detach_reset=True), x)


def test_a_spike_fails_finite_differences(rng):
    with pytest.raises(AssertionError):
        check_grads(lambda x: lif(x), rng.standard_normal((4, 10)) + 1)


def test_parameters_are_perturbed_in_place_and_put_back(rng):
    p = Parameter(rng.standard_normal(5))
    before = p.data.copy()
    check_grads(lambda: p * p * p, p)
    assert np.array_equal(p.data, before)


def test_parameters_are_put_back_also_when_f_fails(rng):
    p = Parameter(rng.standard_normal(5))
    before, calls = p.data.copy(), []

    def f():
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("in the middle")
        return p * p

    with pytest.raises(RuntimeError, match="in the middle"):
        check_grads(f, p)
    assert np.array_equal(p.data, before)


def test_an_input_that_has_no_influence_has_gradient_zero(rng):
    check_grads(lambda x, unused: x * 2.0, rng.standard_normal(3), rng.standard_normal(3))


def test_float32_is_refused(rng):
    with pytest.raises(TypeError, match="needs float64"):
        check_grads(lambda x: x * 2.0, rng.standard_normal(3).astype("float32"))


def test_compare_sees_differences_in_value_and_in_gradient(rng):
    x = rng.standard_normal((3, 3))
    compare(lambda x: x * x, lambda x: x**2, x)
    with pytest.raises(AssertionError, match="value differs"):
        compare(lambda x: x * x, lambda x: x * x + 1e-6, x)
    with pytest.raises(AssertionError, match="gradient 0"):
        compare(lambda x: x * x, lambda x: x * x.detach(), x)
    with pytest.raises(AssertionError, match="gradient 1: one is .* the other None"):
        compare(lambda x, y: x + 0.0 * y, lambda x, y: x + 0.0, x, x)


def test_both_numbers_stand_in_the_message():
    with pytest.raises(AssertionError, match=r"finite difference -?\d+\.\d+, backward -?0, apart by"):
        check_grads(lambda x: Cube.apply(x, slope=lambda x: 0 * x), np.ones(1))


def test_tensor_inputs_come_as_tensors():
    check_grads(lambda x: x if isinstance(x, Tensor) else None, np.ones(2))


def test_nan_is_no_agreement():
    x = np.ones(3)
    with pytest.raises(AssertionError, match="backward nan"):
        check_grads(lambda x: Cube.apply(x, slope=lambda x: x * np.nan), x)
    with pytest.raises(AssertionError, match="value differs by nan"):
        compare(lambda x: x * np.nan, lambda x: x * 1.0, x)
    with pytest.raises(AssertionError, match="gradient 0 differs by nan"):
        compare(lambda x: Cube.apply(x, slope=lambda x: x * np.nan), lambda x: x**3, x)


def test_rounding_excuses_no_more_than_the_tolerance(rng):
    """A sum of 10,000 may be rounded by 1.4e-4 of slope; a tenth too much in slopes of 3e-4 is an error."""
    cube = partial(Cube.apply, slope=lambda x: 3 * x**2 * 1.1)
    with pytest.raises(AssertionError, match="apart by"):
        check_grads(lambda x: ops.sum(cube(x)) * 1e-4 + 1e4, rng.standard_normal(20))


def test_compare_takes_parameters(rng):
    p = Parameter(rng.standard_normal(3))
    p.grad = np.ones(3)  # of before, and no part of it
    compare(lambda: p * p, lambda: p**2, p)
    with pytest.raises(AssertionError, match="gradient 0"):
        compare(lambda: p * p, lambda: p * p.detach(), p)


def test_compare_sees_a_gradient_that_a_plain_sum_would_not(rng):
    """Σ (x − mean) is 0 whatever x: under a gy of ones no gradient at all would pass."""
    with pytest.raises(AssertionError, match="gradient 0 differs"):
        compare(lambda x: x - x.mean(), lambda x: (x - x.mean()).detach() + 0.0 * x, rng.standard_normal(5))
