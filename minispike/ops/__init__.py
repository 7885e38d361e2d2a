"""The operations, and the one table that turns them into Tensor's operators and methods.

Reading order: elementwise, shape, matmul, windows, conv, pool, norm, transform, loss. Each file holds small
Function classes, forward next to backward, and under them the lowercase functions that people call. A class
that contracts also states its `cost` and `fan_out` (measure/energy.py).

An op is written once to be read, in plain array code. Where a faster form pays, it stands in kernels/: a
subclass of the op that overrides forward and backward alone. It is what runs, and tests hold the two equal.
"""

from ..autograd import Tensor
from .conv import conv2d, depthwise_conv2d
from .elementwise import add, div, exp, log, mul, neg, power, relu, sub, tanh
from .loss import mse, softmax_cross_entropy
from .matmul import linear, matmul
from .norm import batch_norm
from .pool import avg_pool2d, max_pool2d
from .shape import broadcast_to, getitem, mean, put, reshape, stack, sum, take, transpose
from .transform import fourier, wavelet

__all__ = [
    "add", "avg_pool2d", "batch_norm", "broadcast_to", "conv2d", "depthwise_conv2d", "div", "exp", "fourier",
    "getitem", "linear", "log", "matmul", "max_pool2d", "mean", "mse", "mul", "neg", "power", "put",
    "relu", "reshape", "softmax_cross_entropy", "stack", "sub", "sum", "take", "tanh", "transpose", "wavelet",
]  # fmt: skip

OPERATORS = {
    "__add__": add,
    "__radd__": lambda x, w: add(w, x),
    "__sub__": sub,
    "__rsub__": lambda x, w: sub(w, x),
    "__mul__": mul,
    "__rmul__": lambda x, w: mul(w, x),
    "__truediv__": div,
    "__rtruediv__": lambda x, w: div(w, x),
    "__matmul__": matmul,
    "__rmatmul__": lambda x, w: matmul(w, x),
    "__neg__": neg,
    "__pow__": power,
    "__getitem__": getitem,
    "reshape": lambda x, *shape: reshape(x, shape),
    "transpose": lambda x, *axes: transpose(x, axes),
    "sum": sum,
    "mean": mean,
}

for name, function in OPERATORS.items():
    setattr(Tensor, name, function)
