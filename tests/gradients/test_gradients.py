"""Every gradient of minispike against finite differences: one test for each row of table.py.

Negative controls show that a wrong gradient fails; the last tests, that nothing is missing in the table.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import pytest

import minispike.models
from minispike import Function, Module, Tensor, check_grads, create_model, lif, list_models
from minispike.backend import plain
from minispike.configs import configuration

from . import blocks, models
from .rows import arguments, calls
from .table import OPS, PARTS, TABLE


@pytest.mark.parametrize("name", TABLE)
def test_gradients(name):
    check_grads(*arguments(TABLE, name))


@pytest.mark.parametrize("name", OPS)
def test_gradients_of_an_op_as_it_is_read(name):
    """Without its twin, which test_gradients may have run."""
    with plain():
        check_grads(*arguments(OPS, name))


# ---------------------------------------------------------------- negative controls


class TooSteep(Function):
    """y = x, with a gradient that is a thousandth too large."""

    def forward(self, x):
        return x

    def backward(self, gy):
        return 1.001 * gy


@pytest.mark.parametrize("name", TABLE)
def test_a_gradient_that_is_a_thousandth_too_large_fails(name):
    """So no row passes merely because its neurons are silent and its gradients are zero."""
    function, *inputs = arguments(TABLE, name)
    with pytest.raises(AssertionError, match="finite difference"):
        check_grads(lambda *xs: TooSteep.apply(function(*xs)), *inputs)


@pytest.mark.parametrize("v_reset", [0.0, -0.3, None])
def test_a_detached_reset_fails(rng, v_reset):
    """A detached reset leaves out a part of the derivative, on purpose."""
    x = 1 + 2 * rng.standard_normal((5, 3, 4))
    neuron = partial(lif, smooth=True, v_reset=v_reset)
    check_grads(partial(neuron, detach_reset=False), x)
    with pytest.raises(AssertionError, match="finite difference"):
        check_grads(partial(neuron, detach_reset=True), x)


def test_a_detached_reset_fails_in_a_network(rng):
    network = create_model("spikformer_1_64_digits", **models.SMALL | dict(detach_reset=True))
    with pytest.raises(AssertionError, match="finite difference"):
        check_grads(network, rng.standard_normal((2, 8, 8, 1)))


def test_a_spike_that_is_not_smooth_fails(rng):
    """A step's finite difference is zero; its surrogate gradient is not."""
    with pytest.raises(AssertionError, match="finite difference 0, backward"):
        check_grads(lif, rng.standard_normal((5, 3, 4)))


# ---------------------------------------------------------------- nothing is missing


def all_in(cls: type, *modules: str) -> Iterator[type]:
    """Yield every subclass that is defined in one of these modules, or in a module inside them."""
    for each in cls.__subclasses__():
        if any(f"{each.__module__}.".startswith(f"{module}.") for module in modules):
            yield each
        yield from all_in(each, *modules)


def test_every_op_has_a_row():
    """Each is run by a row of its own, not only inside a block. Twins have theirs in tests/kernels."""
    with plain():
        run = {op for name in OPS for op, _, _ in calls(*arguments(OPS, name))}
    parts = "minispike.ops", "minispike.surrogate", "minispike.neuron", "minispike.fused"
    missing = set(all_in(Function, *parts)) - run
    assert not missing and len(run) >= 30


def test_every_block_has_a_row():
    rows = (arguments(blocks.ROWS, name)[0].func for name in blocks.ROWS)  # each a module
    checked = {type(module) for row in rows for _, module in row.named_modules()}
    missing = set(all_in(Module, "minispike.blocks")) - checked
    assert not missing and len(checked) >= 20


def test_every_mixer_and_every_stem_has_a_row():
    mixers = {settings["mixer"] for settings in models.MIXERS.values()}
    stems = {settings["stem"] for settings in models.STEMS.values()}
    assert mixers >= set(minispike.models.MIXERS) and stems >= set(minispike.models.STEMS)
    for name in list_models():
        config = configuration(name)
        assert config.mixer in mixers and config.stem in stems, name


def test_the_table_has_a_hundred_rows_and_they_do_not_depend_on_each_other():
    assert 100 <= len(TABLE) == sum(len(part) for part in PARTS)  # no name stands for two rows
    for name in ("add", "SSA, N < d"):
        (_, *first), (_, *again) = arguments(TABLE, name), arguments(TABLE, name)
        assert all(np.array_equal(values(a), values(b)) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(arguments(TABLE, "add")[1], arguments(TABLE, "sub")[1])


def values(x):
    return x.data if isinstance(x, Tensor) else x
