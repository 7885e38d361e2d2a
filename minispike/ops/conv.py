"""Two-dimensional convolutions over [..., H, W, C], channels last, hand-derived.

    y[p, q, o] = Σ_{i,j,c} x[p·s + i − pad, q·s + j − pad, c] · w[i, j, c, o]        (x is 0 outside)

For a fixed offset (i, j), a *tap*, this is a matrix product between the places that meet there. Let y[out]
meet x[at] (windows.py says which). Then forward is a sum over taps, and so are both gradients:

    y[out] += x[at] @ w[i, j]        gx[at] += gy[out] @ w[i, j]ᵀ        gw[i, j] = x[at]ᵀ @ gy[out]
"""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, where
from ..backend import Array
from .matmul import check_bias, column_sums
from .windows import check_window, out_sizes, reach, taps

# ---------------------------------------------------------------- convolution


class Convolve2d(Function):
    """y = Σ_taps x[at] @ w[i, j] + b, with the gradients above and gb = Σ gy over all places."""

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.has_bias = x, w, b is not None
        kh, kw, _, n_out = w.shape
        self.taps = taps(*x.shape[-3:-1], kh, kw, stride, padding)
        size = out_sizes(x.shape, (kh, kw), stride, padding)
        y = self.xp.zeros((*x.shape[:-3], *size, n_out), x.dtype)  # [..., H', W', out]
        for i, j, out, at in self.taps:
            y[out] += x[at] @ w[i, j]
        return y if b is None else y + b

    def backward(self, gy):
        _, _, n_in, n_out = self.w.shape
        gx, gw = self.xp.zeros_like(self.x), self.xp.zeros_like(self.w)
        for i, j, out, at in self.taps:
            gx[at] += gy[out] @ self.w[i, j].T
            gw[i, j] = self.x[at].reshape(-1, n_in).T @ gy[out].reshape(-1, n_out)
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = (), *, stride: int, padding: int) -> int:
        """Return the multiply-accumulates: output positions · k·k·C · out."""
        return prod(x[:-3]) * prod(out_sizes(x, w[:2], stride, padding)) * prod(w)

    @staticmethod
    def fan_out(x, w, b=None, *, stride, padding) -> tuple[Array]:
        """Return, for each value of x, how many outputs it reaches through a non-zero weight: [H, W, C]."""
        return reach(x, (w != 0).sum(-1), stride, padding)


def conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve x [..., H, W, C] with w [kh, kw, C, out], add b [out] or None -> [..., H', W', out]."""
    check_window("conv2d", x, w.shape[2], w.shape[:2], stride, padding)
    check_bias("conv2d", b, w)
    if 0 in x.shape:
        raise ValueError(f"{where()}conv2d got no images: x is {list(x.shape)}")
    kh, kw = w.shape[:2]
    if padding >= min(kh, kw):
        raise ValueError(f"{where()}conv2d's {kh}×{kw} windows would see padding {padding} alone")
    bias = () if b is None else (b,)
    return Convolve2d.apply(x, w, *bias, stride=stride, padding=padding)


# ---------------------------------------------------------------- depthwise convolution


class ConvolveDepthwise2d(Function):
    """y[p, q, c] = Σ_{i,j} x[p·s + i − pad, q·s + j − pad, c] · w[i, j, c] + b[c]: each channel by itself.

    Tap by tap:    y[out] += x[at] · w[i, j]    gx[at] += gy[out] · w[i, j]    gw[i, j] = Σ x[at] · gy[out]
    """

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.has_bias = x, w, b is not None
        kh, kw, c = w.shape
        self.taps = taps(*x.shape[-3:-1], kh, kw, stride, padding)
        size = out_sizes(x.shape, (kh, kw), stride, padding)
        y = self.xp.zeros((*x.shape[:-3], *size, c), x.dtype)  # [..., H', W', C]
        for i, j, out, at in self.taps:
            y[out] += x[at] * w[i, j]
        return y if b is None else y + b

    def backward(self, gy):
        gx, gw = self.xp.zeros_like(self.x), self.xp.zeros_like(self.w)
        for i, j, out, at in self.taps:
            gx[at] += gy[out] * self.w[i, j]
            gw[i, j] = column_sums(self.x[at] * gy[out])
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = (), *, stride: int, padding: int) -> int:
        """Return the multiply-accumulates: output positions · k·k · C."""
        return prod(x[:-3]) * prod(out_sizes(x, w[:2], stride, padding)) * prod(w)

    @staticmethod
    def fan_out(x, w, b=None, *, stride, padding) -> tuple[Array]:
        """Return, for each value of x, how many outputs it reaches through a non-zero weight: [H, W, C]."""
        return reach(x, (w != 0).astype("int64"), stride, padding)


def depthwise_conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve each channel of x [..., H, W, C] with its own kernel, w [kh, kw, C], add b [C] or None."""
    check_window("depthwise_conv2d", x, w.shape[2], w.shape[:2], stride, padding)
    check_bias("depthwise_conv2d", b, w)
    bias = () if b is None else (b,)
    return ConvolveDepthwise2d.apply(x, w, *bias, stride=stride, padding=padding)
