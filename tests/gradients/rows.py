"""How a row of the table is written, and what it means.

A row is a function of a random generator. It draws its inputs and returns the arguments of check_grads: a
function, then the inputs whose gradients are checked. Every number is float64. Neurons are smooth and their
reset is not detached, so that the function has the derivative that backward claims.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from zlib import crc32

import numpy as np

from minispike import Function, Tensor, no_grad, ops, trace
from minispike.ops.norm import moments

from ..blocks.test_blocks import SMOOTH, lively

Row = Callable[[np.random.Generator], tuple]


def arguments(rows: dict[str, Row], name: str) -> tuple:
    """Return a row's function and inputs. They depend on the row's name alone, not on any other row."""
    return rows[name](np.random.default_rng(crc32(name.encode())))


# ---------------------------------------------------------------- three kinds of rows


def op(function: Callable[..., Tensor], *inputs) -> Row:
    """Check a function of arrays.

    inputs: for each array, its shape (values are standard normal), or a function of rng that draws the array.
    """

    def row(rng):
        return function, *(draw(rng) if callable(draw) else rng.standard_normal(draw) for draw in inputs)

    return row


def block(make: Callable, shape: tuple[int, ...], **settings) -> Row:
    """Check the module that make(neuron=…, rng=…) returns: its input x, of this shape, and its parameters.

    settings: keywords of the call, for example the T of a static image.
    """

    def row(rng):
        module = lively(make(neuron=SMOOTH, rng=rng), rng, gain=2.0)
        return partial(module, **settings), rng.standard_normal(shape), *module.parameters()

    return row


def model(make: Callable, shape: tuple[int, ...]) -> Row:
    """Check the loss of the network that make(rng=…) returns, on an image or on frames x of this shape.

    Its inputs are x and all parameters; for frames, x and the parameters of the stem's first stage, because
    after that stage nothing differs from an image.
    """

    def row(rng):
        network = lively(make(rng=rng), rng)
        labels = rng.integers(0, 10, shape[-4])
        checked = network.stem.stages[0] if len(shape) == 5 else network

        def loss(x):
            return ops.softmax_cross_entropy(network(x), labels, label_smoothing=0.1)

        return loss, rng.standard_normal(shape), *checked.parameters()

    return row


def positive(*shape: int) -> Callable:
    """Draw values between a half and two, for functions that are steep or undefined at zero."""
    return lambda rng: rng.uniform(0.5, 2.0, shape)


# ---------------------------------------------------------------- an op and its faster form


def calls(function: Callable[..., Tensor], *inputs) -> list[tuple]:
    """Run a function of arrays and return (op, inputs, constants) of each op that it applies."""
    found = []
    with no_grad(), trace(lambda op, xs, y, path: found.append((type(op), xs, op.constants))):
        function(*(Tensor(x) for x in inputs))
    return found


def plain_rows(rows: dict[str, Row]) -> dict[str, Row]:
    """Return one more row for each row that runs a faster form of an op, a subclass of the op.

    It runs the op itself, on the same inputs and constants.
    """
    found = {}
    for name in rows:
        for faster, inputs, constants in calls(*arguments(rows, name)):
            if faster.__base__ is not Function:
                found[f"{name}: {faster.__base__.__name__}"] = plain(faster.__base__, inputs, constants)
    return found


def plain(op: type[Function], inputs, constants: dict) -> Row:
    def function(*xs):
        # in training, batch norm's statistics are x's own: they move with x
        own = constants.get("own", False)
        statistics = dict(zip(("mean", "var"), moments(xs[0].data), strict=True)) if own else {}
        return op.apply(*xs, **constants | statistics)

    return lambda rng: (function, *(x.data for x in inputs))
