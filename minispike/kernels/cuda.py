"""Twins for CuPy arrays: the kernels of kernels.cu, which CuPy compiles when they are first used.

They keep to the readable ops' order of operations, so spikes are the same. `--fmad=false` keeps it so: a
product and a sum that are rounded once would flip spikes against the processor. What they do not take (a
surrogate of one's own, smooth neurons, T above 32) runs as it is written to be read, in array code.

Everything runs on CuPy's current stream. Any array module that offers CuPy's RawModule can run it: tests do
so on the host.
"""

from __future__ import annotations

from functools import cache, partial
from math import prod
from pathlib import Path

import numpy as np

from .. import optim
from ..backend import Array, get_xp
from ..fused import NormaliseAndFire
from ..neuron import IntegrateAndFire, Neuron
from ..ops import norm
from ..ops.conv import ConvolveDepthwise2d
from ..ops.matmul import column_sums
from ..ops.pool import MaxPool2d
from ..ops.windows import out_sizes
from .host import KINDS

SOURCE = (Path(__file__).parent / "kernels.cu").read_text("utf-8")
LANES, ROWS, MOST_STEPS = 32, 8, 32  # a block's channels and rows; more steps would not fit its registers
BLOCKS = 2048  # in a launch that walks over positions: enough to fill the largest GPU twice

# ---------------------------------------------------------------- compile and launch


@cache
def module(xp, dtype: str, T: int, static: bool, normed: bool, neuron: Neuron):
    """Return the module of kernels for these settings, which become constants in it."""
    numbers = {"TAU": neuron.tau, "V_THRESHOLD": neuron.v_threshold, "REST": neuron.rest}
    numbers |= {"LEAK": 1 - 1 / neuron.tau, "ALPHA": neuron.surrogate.alpha}
    numbers |= {"T_STEPS": T, "STATIC": static, "NORM": normed, "SOFT": neuron.v_reset is None}
    numbers |= {"DETACHED": neuron.detach_reset, "SURROGATE": KINDS[type(neuron.surrogate)]}
    defines = {"REAL": {"float32": "float", "float64": "double"}[dtype]}
    defines |= {name: repr(float(x) if isinstance(x, float) else int(x)) for name, x in numbers.items()}
    options = ("--fmad=false", *(f"-D{name}={value}" for name, value in defines.items()))
    return xp.RawModule(code=SOURCE, options=options)


def run(name: str, dtype, where: tuple, *arguments, settings: tuple = (1, False, False, Neuron())) -> None:
    """Launch a kernel on whole arrays and numbers, in a dtype, in which floats come, too.

    where: the grid of blocks, and the block.
    settings: T, whether x is static, whether batch norm comes before the neuron, and the neuron.
    Raises ValueError for arrays of several GPUs, or of one that is not the current one.
    """
    arrays = [x for x in arguments if not isinstance(x, (float, np.generic))]
    xp, real = get_xp(arrays[0]), np.dtype(dtype).type
    if any(x.device != xp.cuda.Device() for x in arrays):
        found = ", ".join(sorted({str(x.device) for x in arrays}))
        raise ValueError(f"{name} needs all arrays on the current device {xp.cuda.Device()}, got {found}")
    kernel = module(xp, real.__name__, *settings).get_function(name)
    kernel(*where, tuple(real(x) if isinstance(x, float) else x for x in arguments))


def tiles(channels: int, positions: int) -> tuple:
    """Return the grid of blocks that walk over positions, each with LANES of the channels; and the block."""
    columns = -(-channels // LANES)
    return (max(1, min(-(-positions // ROWS), BLOCKS // columns)), columns), (LANES, ROWS)


def over(channels: int, rows: int = 1) -> tuple:
    """Return grid and block where each channel and row has LANES threads, to add up what blocks found."""
    return (-(-channels // LANES), rows), (LANES, LANES)


def flat(n: int) -> tuple:
    """Return grid and block with a thread for each of n values."""
    return (-(-n // 256), 1), (256, 1)


def whole(x: Array) -> Array:
    """Return x contiguous, as kernels read it: a copy if it is not."""
    return get_xp(x).ascontiguousarray(x)


i32, i64 = np.int32, np.int64

# ---------------------------------------------------------------- neurons


def _takes(neuron: Neuron, T: int) -> bool:
    return not neuron.smooth and type(neuron.surrogate) in KINDS and T <= MOST_STEPS


class NormaliseAndFireOnCuda(NormaliseAndFire):
    """LIF(BN(x)) in one kernel; backward in three: through time, the sums over positions, the statistics."""

    @staticmethod
    def takes(x, gamma, beta, *, T, neuron, **_) -> bool:
        return _takes(neuron, T) and x.size > 0

    def forward(self, x, gamma, beta, *, mean, var, eps, own, T, neuron):
        self.x, self.own, self.steps, self.shape = whole(x), own, T, x.shape
        self.affine, self.eps = (whole(mean), whole(var), whole(gamma), whole(beta)), float(eps)
        self.settings = T, len(x) < T, True, neuron
        C, n = x.shape[-1], x[0].size
        s = self.xp.empty((T, *x.shape[1:]), x.dtype)
        arguments = self.x, *self.affine, self.eps, i64(n), i32(C), s
        run("normalise_and_fire", x.dtype, tiles(C, n // C), *arguments, settings=self.settings)
        return s

    def backward(self, gy):
        x, xp, (mean, var, gamma, beta) = self.x, self.xp, self.affine
        C, n = x.shape[-1], x[0].size
        gx, ggamma, gbeta = xp.empty_like(x), xp.empty_like(gamma), xp.empty_like(beta)
        where, sums = tiles(C, n // C), xp.empty((2, C), "float64")
        parts = xp.empty((where[0][0], 2, C), "float64")
        launch = partial(run, settings=self.settings)
        arguments = x, whole(gy), *self.affine, self.eps, i64(n), i32(C), gx, parts
        launch("back_through_time", x.dtype, where, *arguments)
        launch("add_up", x.dtype, over(C, 2), parts, i32(len(parts)), i32(C), sums)
        arguments = x, mean, var, gamma, sums, self.eps, i64(x.size), i32(C), i32(self.own), gx, ggamma, gbeta
        launch("spread", x.dtype, tiles(C, x.size // C), *arguments)
        return gx, ggamma, gbeta


class IntegrateAndFireOnCuda(IntegrateAndFire):
    """LIF alone: the same kernels without a norm, over values in rows of LANES."""

    @staticmethod
    def takes(x, *, neuron) -> bool:
        return _takes(neuron, len(x)) and x.size > 0

    def forward(self, x, *, neuron):
        self.x, self.settings = whole(x), (len(x), False, False, neuron)
        s, n = self.xp.empty_like(self.x), x[0].size
        arguments = self.x, *NO_NORM, i64(n), i32(LANES), s
        run("normalise_and_fire", x.dtype, tiles(LANES, -(-n // LANES)), *arguments, settings=self.settings)
        return s

    def backward(self, gy):
        x, gx, n = self.x, self.xp.empty_like(self.x), self.x[0].size
        arguments = x, whole(gy), *NO_NORM, i64(n), i32(LANES), gx, NOTHING
        run("back_through_time", x.dtype, tiles(LANES, -(-n // LANES)), *arguments, settings=self.settings)
        return gx


NOTHING = np.uintp(0)  # a null pointer, where a kernel does not look
NO_NORM = (NOTHING,) * 4 + (0.0,)

# ---------------------------------------------------------------- moments


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the biased variance of x [..., C] over all other axes, [C] each, in x's dtype."""
    x, C, xp = whole(x), x.shape[-1], get_xp(x)
    where, mean, var = tiles(C, x.size // C), xp.empty(C, x.dtype), xp.empty(C, x.dtype)
    parts = xp.empty((where[0][0], 3, C), "float64")
    run("moments", x.dtype, where, x, i64(x.size // C), i32(C), parts)
    run("merge_moments", x.dtype, over(C), parts, i32(len(parts)), i32(C), mean, var)
    return mean, var


def move_running(running_mean, running_var, mean, var, momentum: float, unbias: float) -> None:
    """Move the running statistics, in place, as norm.move_running does, bit for bit."""
    arguments = running_mean, running_var, mean, var, 1.0 - momentum, float(momentum), float(unbias)
    run("move_running", mean.dtype, flat(len(mean)), *arguments, i32(len(mean)))


# ---------------------------------------------------------------- depthwise convolution


class DepthwiseOnCuda(ConvolveDepthwise2d):
    """Each window once, all its taps at a time. Backward collects for x, and adds up for w tap by tap."""

    @staticmethod
    def takes(x, w, b=None, **_) -> bool:
        return 0 < x.size < 2**30 * x.shape[-1]  # places are counted in 32 bits

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.has_bias, C = whole(x), whole(w), b is not None, x.shape[-1]
        size = out_sizes(x.shape, w.shape[:2], stride, padding)
        y = self.xp.empty((*x.shape[:-3], *size, C), x.dtype)  # [..., H', W', C]
        self.sizes = *map(i32, (*x.shape[-3:], *w.shape[:2], stride, padding, *size)), i32(y.size // C)
        bias = NOTHING if b is None else whole(b)
        run("depthwise", x.dtype, tiles(C, y.size // C), self.x, self.w, bias, *self.sizes, y)
        return y

    def backward(self, gy):
        gy, C, taps = whole(gy), gy.shape[-1], prod(self.w.shape[:2])
        gx, sizes = self.xp.empty_like(self.x), (*self.sizes[:-1], i32(self.x.size // gy.shape[-1]))
        run("depthwise_back", gy.dtype, tiles(C, gx.size // C), gy, self.w, *sizes, gx)
        (blocks, columns), block = tiles(C, gy.size // C)
        parts, sums = self.xp.empty((blocks, taps, C), "float64"), self.xp.empty((taps, C), "float64")
        where = (blocks, columns, taps), block
        run("depthwise_weights", gy.dtype, where, self.x, gy, *self.sizes, parts)
        run("add_up", gy.dtype, over(C, taps), parts, i32(blocks), i32(C), sums)
        gw = sums.astype(gy.dtype).reshape(self.w.shape)
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)


# ---------------------------------------------------------------- max-pool


class MaxPool2dOnCuda(MaxPool2d):
    """Each window once; the winner's number is kept as a byte. In backward each place collects its own."""

    @staticmethod
    def takes(x, **_) -> bool:
        return 0 < x.size < 2**30 * x.shape[-1]  # places are counted in 32 bits

    def forward(self, x, *, k, stride, padding):
        self.shape, C = x.shape, x.shape[-1]
        size = out_sizes(x.shape, (k, k), stride, padding)
        y = self.xp.empty((*x.shape[:-3], *size, C), x.dtype)  # [..., H', W', C]
        self.winner, self.sizes = self.xp.empty(y.shape, "uint8"), (*x.shape[-3:], k, stride, padding, *size)
        sizes = *map(i32, self.sizes), i32(y.size // C)
        run("max_pool", x.dtype, tiles(C, y.size // C), whole(x), *sizes, float("-inf"), y, self.winner)
        return y

    def backward(self, gy):
        gx, C = self.xp.empty(self.shape, gy.dtype), self.shape[-1]
        sizes = *map(i32, self.sizes), i32(gx.size // C)
        run("max_pool_back", gy.dtype, tiles(C, gx.size // C), whole(gy), self.winner, *sizes, gx)
        return gx


# ---------------------------------------------------------------- AdamW


def adamw(p, g, m, v, *constants) -> None:
    """Move parameters p by their gradients g, in place, as optim.adamw does, bit for bit."""
    run("adamw", p.dtype, flat(p.size), p, g, m, v, *map(float, constants), i64(p.size))


TWINS = {
    NormaliseAndFire: NormaliseAndFireOnCuda,
    IntegrateAndFire: IntegrateAndFireOnCuda,
    ConvolveDepthwise2d: DepthwiseOnCuda,
    MaxPool2d: MaxPool2dOnCuda,
    norm.moments: moments,
    norm.move_running: move_running,
    optim.adamw: adamw,
}
