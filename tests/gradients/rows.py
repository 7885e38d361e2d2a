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

    inputs: for each array its shape, for standard normal values, or a function that draws it from a generator.
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
    """Check the loss of the network that make(rng=…) returns: images or frames of this shape, and parameters."""

    def row(rng):
        network = lively(make(rng=rng), rng)
        labels = rng.integers(0, 10, shape[-4])

        def loss(x):
            return ops.softmax_cross_entropy(network(x), labels, label_smoothing=0.1)

        return loss, rng.standard_normal(shape), *network.parameters()

    return row


def positive(*shape: int) -> Callable:
    """Draw values between a half and two, for functions that are steep or undefined at zero."""
    return lambda rng: rng.uniform(0.5, 2.0, shape)


# ---------------------------------------------------------------- an op and its faster form


def calls(function: Callable[..., Tensor], inputs) -> list[tuple]:
    """Run a function and return (op, inputs, constants) of each op that it applies."""
    found = []
    with no_grad(), trace(lambda op, xs, y, path: found.append((type(op), xs, op.constants))):
        function(*inputs)
    return found


def faster(op: type[Function]) -> bool:
    """Return whether an op is a faster form of another op, whose subclass it is."""
    return op.__base__ is not Function


def plain_rows(rows: dict[str, Row]) -> dict[str, Row]:
    """Return a row for each row that runs a faster form: the plain op, on the same inputs and constants."""
    found = {}
    for name in rows:
        for op, inputs, constants in calls(*split(arguments(rows, name))):
            if faster(op):
                found[f"{name}: {op.__base__.__name__}"] = plain(op.__base__, inputs, constants)
    return found


def split(row: tuple) -> tuple:
    return row[0], row[1:]


def plain(op: type[Function], inputs, constants: dict) -> Row:
    def function(*xs):
        own = dict(zip(("mean", "var"), moments(xs[0].data), strict=True)) if constants.get("own") else {}
        return op.apply(*xs, **constants | own)  # statistics of x's own move with x

    return lambda rng: (function, *(x.data for x in inputs))
