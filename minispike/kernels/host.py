"""Compiled twins for NumPy arrays: batch norm and neurons, moments, depthwise convolution, max-pool, AdamW.

Each twin has one door, `ready`, behind which arrays are contiguous, aligned and writable: for anything else
Numba would compile another variant, or a slow one. Behind it a loop of loops.py gets whole arrays and, from
`spans`, a range for each thread.
"""

from __future__ import annotations

from math import pi, prod

import numpy as np

from .. import optim
from ..fused import NormaliseAndFire
from ..neuron import IntegrateAndFire, Neuron
from ..ops import norm
from ..ops.conv import ConvolveDepthwise2d
from ..ops.matmul import column_sums
from ..ops.pool import MaxPool2d
from ..ops.windows import out_sizes
from ..parallel import spans
from ..surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle
from .compiled import loops, worth

KINDS = {kind: number for number, kind in enumerate((Sigmoid, ATan, Triangle, Rectangle, FastSigmoid))}
SPAN = 2**14  # values for which it is worth to wake another thread


def ready(x: np.ndarray) -> np.ndarray:
    """Return x as loops take it: contiguous, aligned, writable; a copy if it is not."""
    return np.require(x, requirements=["C", "A", "W"])


def _constants(neuron: Neuron, dtype) -> np.ndarray:
    """Return a neuron's constants, and other numbers of its loops, in the order in which they are read."""
    alpha = neuron.surrogate.alpha
    leak = 1 - 1 / neuron.tau
    numbers = neuron.tau, neuron.v_threshold, neuron.rest, leak, alpha, 1, 0.5, 0.25, 0.5 * pi * alpha
    return np.array(numbers, dtype)


def _has_loop(neuron: Neuron, size: int) -> bool:
    return not neuron.smooth and type(neuron.surrogate) in KINDS and worth(size)


# ---------------------------------------------------------------- neurons


class CompiledNormaliseAndFire(NormaliseAndFire):
    """LIF(BN(x)) in one pass. Backward computes H again; what the statistics need comes in a second pass."""

    @staticmethod
    def takes(x, gamma, beta, *, T, neuron, **_) -> bool:
        return _has_loop(neuron, T * prod(x.shape[1:]))

    def forward(self, x, gamma, beta, *, mean, var, eps, own, T, neuron):
        self.gamma, self.own, self.T, self.neuron, self.shape = gamma, own, T, neuron, x.shape
        self.mean, self.r = ready(mean), 1 / np.sqrt(var + eps)
        self.x = ready(x).reshape(len(x), -1, x.shape[-1])  # [T or 1, positions, C]
        self.affine = self.mean, ready(gamma * self.r), ready(beta)
        s = fire(self.x, *self.affine, T, neuron)
        return s.reshape(T, *x.shape[1:])

    def backward(self, gy):
        gx, sums = back_through_time(self.x, gy, *self.affine, self.neuron)
        gbeta, ggamma = sums.astype(gy.dtype)
        ggamma *= self.r
        if not self.needs[0]:
            return None, ggamma, gbeta
        rows, n = self.x.reshape(-1, len(ggamma)), gx.size // len(ggamma)
        along, mean_g = (ggamma * self.r / n, gbeta / n) if self.own else (0 * gbeta, 0 * gbeta)

        def spread(start, stop):
            g = gx.reshape(rows.shape)
            loops("loops").spread(rows, g, along, mean_g, *self.affine[:2], start, stop)

        spans(spread, n, SPAN // len(ggamma) + 1)
        return gx.reshape(self.shape), ggamma, gbeta


class CompiledIntegrateAndFire(IntegrateAndFire):
    """LIF alone: the same loops, with a normalisation that changes nothing (mean 0, scale 1, shift 0)."""

    @staticmethod
    def takes(x, *, neuron) -> bool:
        return _has_loop(neuron, x.size)

    def forward(self, x, *, neuron):
        rows = ready(x).reshape(len(x), -1, 1)  # one channel, and each neuron is a position
        zero, one = np.zeros(1, x.dtype), np.ones(1, x.dtype)
        self.neuron, self.affine = neuron, (zero, one, zero)
        self.x, self.shape = rows if self.needs[0] else None, x.shape
        return fire(rows, *self.affine, len(x), neuron).reshape(x.shape)

    def backward(self, gy):
        return back_through_time(self.x, gy, *self.affine, self.neuron)[0].reshape(self.shape)


def _flat(x: np.ndarray) -> np.ndarray:
    """Return x [T, positions, C] as one row for each step."""
    return x.reshape(len(x), x[0].size)


def fire(x, mean, scale, shift, T: int, neuron: Neuron) -> np.ndarray:
    """Return the spikes [T, positions, C] of currents (x − mean) scale + shift, x [T or 1, positions, C]."""
    s, constants = np.empty((T, *x.shape[1:]), x.dtype), _constants(neuron, x.dtype)

    def work(start, stop):
        affine, soft = (mean, scale, shift), neuron.v_reset is None
        loops("loops").normalise_and_fire(_flat(x), *affine, constants, soft, _flat(s), start, stop)

    spans(work, x.shape[1], SPAN // (T * x.shape[2]) + 1)
    return s


def back_through_time(x, gy, mean, scale, shift, neuron: Neuron) -> tuple[np.ndarray, np.ndarray]:
    """Return the gradient of the current, in x's shape, and its sums [2, C]: alone, and times x − mean."""
    gy, gx = ready(gy).reshape(-1, *x.shape[1:]), np.empty_like(x)
    constants, kind = _constants(neuron, x.dtype), KINDS[type(neuron.surrogate)]
    settings = constants, neuron.v_reset is None, neuron.detach_reset, kind

    def work(start, stop):
        data, affine = map(_flat, (x, gy, gx)), (mean, scale, shift)
        return loops("loops").back_through_time(*data, *affine, *settings, start, stop)

    return gx, sum(spans(work, x.shape[1], SPAN // gy[:, 0].size + 1))


# ---------------------------------------------------------------- moments


def moments(x):
    """Return the mean and the biased variance of x [..., C] over all other axes, [C] each, in x's dtype."""
    if not worth(x.size):
        return norm.moments(x)
    rows = ready(x).reshape(-1, x.shape[-1])
    parts = spans(
        lambda start, stop: (stop - start, loops("loops").moments(rows, start, stop)),
        len(rows),
        SPAN // x.shape[-1] + 1,
    )
    n, (mean, squares) = parts[0]
    for k, (mean_k, squares_k) in parts[1:]:
        d = mean_k - mean
        mean, squares, n = mean + d * k / (n + k), squares + squares_k + d * d * n * k / (n + k), n + k
    return mean.astype(x.dtype), (np.maximum(squares, 0) / n).astype(x.dtype)


# ---------------------------------------------------------------- depthwise convolution


class CompiledDepthwise2d(ConvolveDepthwise2d):
    """Each window once, all its taps at a time. There is no form by events: a spike adds single numbers here,
    which vector instructions cannot gather.
    """

    @staticmethod
    def takes(x, w, b=None, **_) -> bool:
        return worth(x.size)

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.has_bias = ready(x).reshape(-1, *x.shape[-3:]), ready(w), b is not None
        self.settings, self.shape = (stride, padding), x.shape
        y = np.zeros((len(self.x), *out_sizes(x.shape, w.shape[:2], stride, padding), w.shape[2]), x.dtype)
        if b is not None:
            y += b
        depthwise = loops("loops").depthwise
        spans(lambda *at: depthwise(self.x, self.w, *self.settings, y, *at), len(y), SPAN // y[0].size + 1)
        return y.reshape(*x.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g, gx = ready(gy).reshape(len(self.x), *gy.shape[-3:]), np.zeros_like(self.x)
        back = loops("loops").depthwise_back
        parts = spans(
            lambda *at: back(self.x, self.w, g, *self.settings, gx, *at), len(g), SPAN // g[0].size + 1
        )
        gx, gw = gx.reshape(self.shape), sum(parts).astype(gy.dtype)
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)


# ---------------------------------------------------------------- max-pool


class CompiledMaxPool2d(MaxPool2d):
    """Each window once, all its taps at a time; the winner's number is kept as a byte."""

    @staticmethod
    def takes(x, *, k, stride, padding) -> bool:
        return worth(x.size)

    def forward(self, x, *, k, stride, padding):
        self.settings, self.shape = (k, stride, padding), x.shape
        images = ready(x).reshape(-1, *x.shape[-3:])
        y = np.empty((len(images), *out_sizes(x.shape, (k, k), stride, padding), x.shape[-1]), x.dtype)
        winner = np.empty(y.shape, "uint8")

        def work(start, stop):
            loops("loops").max_pool(images, *self.settings, y, winner, start, stop)

        spans(work, len(images), SPAN // images[0].size + 1)
        self.winner = winner if self.needs[0] else None
        return y.reshape(*x.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = ready(gy).reshape(self.winner.shape)
        gx = np.empty((len(g), *self.shape[-3:]), gy.dtype)

        def work(start, stop):
            loops("loops").max_pool_back(g, self.winner, *self.settings, gx, start, stop)

        spans(work, len(g), SPAN // gx[0].size + 1)
        return gx.reshape(self.shape)


# ---------------------------------------------------------------- AdamW


def adamw(p, g, m, v, *constants) -> None:
    """Move parameters p by their gradients g, in place, as optim.adamw does, bit for bit."""
    if not worth(p.size):
        return optim.adamw(p, g, m, v, *constants)
    numbers, step = tuple(np.array(constants, p.dtype)), 2**14

    def work(start, stop):
        for at in range(start, stop, step):
            piece = slice(at, min(stop, at + step))
            loops("loops").adamw(p[piece], g[piece], m[piece], v[piece], numbers)

    spans(work, p.size, SPAN)


TWINS = {
    NormaliseAndFire: CompiledNormaliseAndFire,
    IntegrateAndFire: CompiledIntegrateAndFire,
    ConvolveDepthwise2d: CompiledDepthwise2d,
    MaxPool2d: CompiledMaxPool2d,
    norm.moments: moments,
    optim.adamw: adamw,
}
