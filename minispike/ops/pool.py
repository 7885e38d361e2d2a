"""Pooling over [..., H, W, C], tap by tap (windows.py): y[out] collects x[at], or is compared with it."""

from __future__ import annotations

from ..autograd import Function, Tensor, where
from .windows import check_window, out_sizes, taps


class AvgPool2d(Function):
    """y = (Σ_taps x[at]) / k²        gx[at] += gy[out] / k²        (padding counts as zeros)"""

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.taps = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = out_sizes(x.shape, (k, k), stride, padding)
        y = self.xp.zeros((*x.shape[:-3], *size, x.shape[-1]), x.dtype)  # [..., H', W', C]
        for _, _, out, at in self.taps:
            y[out] += x[at]
        return y / (k * k)

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        for _, _, out, at in self.taps:
            gx[at] += gy[out] / (self.k * self.k)
        return gx


class MaxPool2d(Function):
    """y = max_taps x[at]        gx[at] += gy[out] where `at` was the window's first maximum, row by row

    On binary spikes most windows tie, so the rule for ties decides where gradients go: the first maximum
    takes all, as in PyTorch. `winner` holds the number of each window's winning tap. Padding never wins.
    """

    def forward(self, x, *, k, stride, padding):
        self.k, self.shape = k, x.shape
        self.taps = taps(*x.shape[-3:-1], k, k, stride, padding)
        size = out_sizes(x.shape, (k, k), stride, padding)
        y = self.xp.full((*x.shape[:-3], *size, x.shape[-1]), -float("inf"), x.dtype)  # [..., H', W', C]
        self.winner = self.xp.zeros(y.shape, "uint8")
        for i, j, out, at in self.taps:
            self.winner[out] = self.xp.where(x[at] > y[out], i * k + j, self.winner[out])
            y[out] = self.xp.maximum(y[out], x[at])
        return y

    def backward(self, gy):
        gx = self.xp.zeros(self.shape, gy.dtype)
        for i, j, out, at in self.taps:
            gx[at] += gy[out] * (self.winner[out] == i * self.k + j)
        return gx


def avg_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Average each k×k window of x [..., H, W, C]; stride defaults to k, padding counts as zeros."""
    return _pool(AvgPool2d, "avg_pool2d", x, k, stride, padding)


def max_pool2d(x, k: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Take the maximum of each k×k window of x [..., H, W, C]; stride defaults to k, padding never wins."""
    return _pool(MaxPool2d, "max_pool2d", x, k, stride, padding)


def _pool(function, name, x, k, stride, padding):
    stride = k if stride is None else stride
    check_window(name, x, None, (k, k), stride, padding)
    if k > 15 or 2 * padding > k:
        raise ValueError(f"{where()}{name} needs k <= 15 and padding <= k / 2, got k={k}, padding={padding}")
    return function.apply(x, k=k, stride=stride, padding=padding)
