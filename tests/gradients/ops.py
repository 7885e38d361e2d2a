"""Rows of the operations, the spike, the neuron, and batch norm and neuron in one: inputs are arrays."""

from functools import partial

import numpy as np

from minispike import LIF, BatchNorm, lif, lif_unrolled, ops
from minispike.fused import norm_lif
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle, spike

from .rows import op, positive

ROWS = {
    # elementwise
    "add": op(ops.add, (3, 4), (3, 4)),
    "add, broadcast": op(ops.add, (2, 3, 4), (3, 1)),
    "add a number": op(lambda x: 2 + x, (3, 4)),
    "sub": op(ops.sub, (3, 4), (3, 4)),
    "sub, broadcast": op(ops.sub, (4,), (2, 3, 4)),
    "sub from a number": op(lambda x: 2 - x, (3, 4)),
    "mul": op(ops.mul, (3, 4), (3, 4)),
    "mul, broadcast": op(ops.mul, (2, 1, 4), (3, 1)),
    "mul by itself": op(lambda x: x * x, (3, 4)),
    "div": op(ops.div, (3, 4), positive(3, 4)),
    "div, broadcast": op(ops.div, (3, 4), positive(4)),
    "div a number": op(lambda x: 2 / x, positive(3, 4)),
    "neg": op(ops.neg, (3, 4)),
    "power 2": op(lambda x: ops.power(x, 2), (3, 4)),
    "power ½": op(lambda x: ops.power(x, 0.5), positive(3, 4)),
    "power −1": op(lambda x: ops.power(x, -1), positive(3, 4)),
    "exp": op(ops.exp, (3, 4)),
    "log": op(ops.log, positive(3, 4)),
    "tanh": op(ops.tanh, (3, 4)),
    "relu": op(ops.relu, (3, 4)),
    # shape
    "reshape": op(lambda x: ops.reshape(x, (4, -1)), (2, 3, 4)),
    "transpose": op(lambda x: ops.transpose(x, (2, 0, 1)), (2, 3, 4)),
    "broadcast_to": op(lambda x: ops.broadcast_to(x, (5, 2, 3)), (2, 1)),
    "getitem, a number": op(lambda x: x[1], (3, 4)),
    "getitem, slices": op(lambda x: x[..., 1:, ::2], (2, 3, 4)),
    "take": op(lambda x: ops.take(x, np.array([4, 0, 3])), (2, 5, 3)),
    "put": op(lambda x: ops.put(x, np.array([4, 0, 3]), 5), (2, 3, 3)),
    "stack": op(lambda *xs: ops.stack(xs), (2, 3), (2, 3), (2, 3)),
    "stack, last axis": op(lambda *xs: ops.stack(xs, axis=2), (2, 3), (2, 3)),
    "sum": op(ops.sum, (2, 3, 4)),
    "sum, two axes": op(lambda x: ops.sum(x, (0, -1)), (2, 3, 4)),
    "sum, one axis kept": op(lambda x: ops.sum(x, 1, keepdims=True), (2, 3, 4)),
    "mean": op(lambda x: ops.mean(x, (0, 2)), (2, 3, 4)),
    # matmul
    "matmul": op(ops.matmul, (3, 4), (4, 5)),
    "matmul, broadcast": op(ops.matmul, (2, 1, 3, 4), (5, 4, 2)),
    "linear": op(ops.linear, (2, 3, 4), (4, 5), (5,)),
    "linear, no bias": op(ops.linear, (2, 3, 4), (4, 5)),
    # conv
    "conv2d 3×3": op(partial(ops.conv2d, padding=1), (2, 5, 4, 2), (3, 3, 2, 3)),
    "conv2d 3×3, bias": op(partial(ops.conv2d, padding=1), (2, 2, 4, 5, 2), (3, 3, 2, 3), (3,)),
    "conv2d 2×2, stride 2": op(partial(ops.conv2d, stride=2), (2, 4, 6, 2), (2, 2, 2, 3)),
    "conv2d 3×3, stride 2": op(partial(ops.conv2d, stride=2, padding=1), (2, 6, 5, 2), (3, 3, 2, 3)),
    # a place that the stride steps over lies in no window
    "conv2d 1×1, stride 2": op(partial(ops.conv2d, stride=2), (2, 4, 4, 2), (1, 1, 2, 3)),
    "conv2d 2×3": op(partial(ops.conv2d, padding=1), (2, 4, 4, 2), (2, 3, 2, 3)),
    "depthwise 3×3": op(partial(ops.depthwise_conv2d, padding=1), (2, 5, 4, 3), (3, 3, 3)),
    "depthwise 5×5, bias": op(partial(ops.depthwise_conv2d, padding=2), (2, 4, 4, 3), (5, 5, 3), (3,)),
    "depthwise 3×3, stride 2": op(
        partial(ops.depthwise_conv2d, stride=2, padding=1), (2, 6, 5, 3), (3, 3, 3)
    ),
    # pool
    "avg_pool2d": op(lambda x: ops.avg_pool2d(x, 2), (2, 4, 6, 3)),
    "avg_pool2d 3×3, stride 2": op(lambda x: ops.avg_pool2d(x, 3, stride=2, padding=1), (2, 6, 4, 3)),
    "max_pool2d": op(lambda x: ops.max_pool2d(x, 2), (2, 4, 6, 3)),
    "max_pool2d 3×3, stride 2": op(lambda x: ops.max_pool2d(x, 3, stride=2, padding=1), (2, 2, 6, 4, 3)),
    # transform
    "Fourier, 6 tokens": op(ops.fourier, (2, 6, 3)),
    "Fourier, 5 tokens": op(ops.fourier, (2, 5, 3)),
    "Fourier, tokens and channels": op(lambda x: ops.fourier(x, "tokens and channels"), (2, 6, 5)),
    "Fourier, tokens and even channels": op(lambda x: ops.fourier(x, "tokens and channels"), (2, 5, 4)),
    # loss
    "mse": op(ops.mse, (3, 4), (3, 4)),
    "cross-entropy": op(lambda x: ops.softmax_cross_entropy(x, np.array([1, 0, 3])), (3, 4)),
    "cross-entropy, smoothed": op(lambda x: ops.softmax_cross_entropy(x, np.array([1, 0, 3]), 0.1), (3, 4)),
    "cross-entropy, soft targets": op(
        lambda x: ops.softmax_cross_entropy(x, np.array([[0.5, 0, 0.5], [0.2, 0.7, 0.1]]), 0.1), (2, 3)
    ),
}

# wavelets: orthogonal families, biorthogonal ones, whose inverse is not their transpose, and several levels
for family, levels in [("haar", 1), ("haar", 2), ("db2", 1), ("db2", 2), ("sym4", 1), ("coif1", 2),
                       ("bior1.3", 1), ("bior2.2", 2), ("rbio2.2", 1)]:  # fmt: skip
    ROWS[f"wavelet {family}, {levels} levels"] = op(
        partial(ops.wavelet, grid=(4, 8), family=family, levels=levels), (2, 32, 3)
    )

# ---------------------------------------------------------------- batch norm

MEAN, VAR = np.array([0.5, -1.0, 2.0]), np.array([0.3, 1.0, 4.0])


def normalise(training: bool):
    """Return batch norm that uses the batch's statistics (training) or the running ones above."""
    return lambda x, gamma, beta: ops.batch_norm(x, gamma, beta, MEAN.copy(), VAR.copy(), training=training)


ROWS["batch_norm, training"] = op(normalise(True), (2, 4, 3), (3,), (3,))
ROWS["batch_norm, evaluating"] = op(normalise(False), (2, 4, 3), (3,), (3,))

# ---------------------------------------------------------------- spike and neuron

SMOOTH = dict(smooth=True, detach_reset=False)
SURROGATES = {"Sigmoid": Sigmoid(), "ATan": ATan(), "Triangle": Triangle(), "FastSigmoid": FastSigmoid()}
SURROGATES["Rectangle"] = Rectangle()  # has kinks, but random inputs do not lie on one
RESETS = {"hard reset": 0.0, "reset to −0.3": -0.3, "soft reset": None}
NEURONS = {
    "tau 1.2": dict(tau=1.2),
    "tau 5, soft reset": dict(tau=5.0, v_reset=None),
    "threshold 0.5": dict(v_threshold=0.5),
    "threshold 0.5, soft reset": dict(v_threshold=0.5, v_reset=None),
    "threshold 2, tau 3, reset to 0.4": dict(v_threshold=2.0, tau=3.0, v_reset=0.4),
}


def current(*shape: int):
    """Draw an input that takes membranes to both sides of the threshold."""
    return lambda rng: 1 + 2 * rng.standard_normal(shape)


for name, surrogate in SURROGATES.items():
    ROWS[f"spike, {name}"] = op(partial(spike, surrogate=surrogate, smooth=True), (3, 4))
    for reset, v_reset in RESETS.items():
        constants = SMOOTH | dict(surrogate=surrogate, v_reset=v_reset)
        ROWS[f"lif, {name}, {reset}"] = op(partial(lif, **constants), current(5, 3, 4))
for name, constants in NEURONS.items():
    ROWS[f"lif, {name}"] = op(partial(lif, **SMOOTH | constants), current(5, 3, 4))
ROWS["lif, one step"] = op(partial(lif, **SMOOTH), current(1, 3, 4))
for reset, v_reset in RESETS.items():
    ROWS[f"lif_unrolled, {reset}"] = op(partial(lif_unrolled, **SMOOTH, v_reset=v_reset), current(5, 12))

# ---------------------------------------------------------------- batch norm and neuron in one


def fused(T: int = 1, training: bool = True, **constants):
    """Return LIF(BN(x)), the one op that a brick runs, as a function of x, γ and β."""

    def function(x, gamma, beta):
        norm, neuron = BatchNorm(3).train(training), LIF(**SMOOTH | constants)
        norm.weight, norm.bias = gamma, beta
        norm.running_mean, norm.running_var = MEAN.copy(), VAR.copy()
        return norm_lif(x, norm, neuron, T)

    return function


ROWS |= {
    "norm_lif": op(fused(), current(4, 2, 3, 3), positive(3), (3,)),
    "norm_lif, static": op(fused(T=4), current(1, 2, 3, 3), positive(3), (3,)),
    "norm_lif, soft reset": op(fused(v_reset=None), current(4, 2, 3, 3), positive(3), (3,)),
    "norm_lif, ATan, tau 3": op(fused(surrogate=ATan(), tau=3.0), current(4, 2, 3, 3), positive(3), (3,)),
    "norm_lif, evaluating": op(fused(training=False), current(4, 2, 3, 3), positive(3), (3,)),
    "norm_lif, evaluating, static": op(fused(4, False), current(1, 2, 3, 3), positive(3), (3,)),
}
