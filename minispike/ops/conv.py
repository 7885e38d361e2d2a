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
from ..parallel import as_bytes, parallel
from .matmul import check_bias, column_sums, column_sums_fast
from .windows import check_window, out_sizes, reach, taps, windows, windows_back

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


class Convolve2d_fast(Convolve2d):
    """The same by two large products. `unfold` lays every window's k·k·C values in a row:

        y = unfold(x) @ w        gw = unfold(x)ᵀ @ gy        gx = unfold(spread(gy)) @ w'

    The gradient of x is a convolution again. x[a, b] meets w[i, j] in the window that starts at a − i, b − j,
    so it collects from there: from gy with s − 1 zeros between its places, by the kernel turned round,
    w'[i, j, o, c] = w[k − 1 − i, k − 1 − j, c, o], at stride 1.

    Each thread takes a cache-sized chunk of images at a time. What is kept is x, as bytes where it holds
    spikes, and not its windows, which are k·k times larger: backward unfolds again.
    """

    def forward(self, x, w, b=None, *, stride, padding):
        self.x = as_bytes(x) if self.needs[1] else None
        self.w, self.padding, self.shape, self.has_bias = w, padding, x.shape, b is not None
        self.windows = over = windows(x.shape, w.shape[:2], stride, padding)
        x, matrix = x.reshape(-1, *x.shape[-3:]), w.reshape(-1, w.shape[-1])
        y = self.xp.empty((len(x), *over.size, w.shape[-1]), x.dtype)

        def work(chunks):
            for images, cols in over.unfold(x, chunks, x.dtype):
                self.xp.matmul(cols, matrix, out=y[images].reshape(-1, w.shape[-1]))
                if b is not None:
                    y[images] += b

        parallel(work, len(x), over.bytes_each(w.shape[2], x.dtype.itemsize), x)
        return y.reshape(*self.shape[:-3], *y.shape[1:])

    def backward(self, gy):
        g = gy.reshape(-1, *gy.shape[-3:])
        gx = self.gradient_of_x(g).reshape(self.shape) if self.needs[0] else None
        gw = self.gradient_of_w(g) if self.needs[1] else None
        if not self.has_bias:
            return gx, gw
        return gx, gw, column_sums_fast(gy.reshape(-1, gy.shape[-1])).astype(gy.dtype)

    def gradient_of_w(self, g):
        x, n_out = self.x.reshape(-1, *self.shape[-3:]), g.shape[-1]

        def work(chunks):
            unfolded = self.windows.unfold(x, chunks, g.dtype)
            return sum(cols.T @ g[images].reshape(-1, n_out) for images, cols in unfolded)

        bytes_each = self.windows.bytes_each(x.shape[-1], g.dtype.itemsize)
        return sum(parallel(work, len(x), bytes_each, g)).reshape(self.w.shape)

    def gradient_of_x(self, g):
        back = windows_back(self.shape, self.windows, self.padding)
        gx = self.xp.empty((len(g), *self.shape[-3:]), g.dtype)
        turned = self.w[::-1, ::-1].swapaxes(2, 3).reshape(-1, gx.shape[-1])  # [k·k·out, C]

        def work(chunks):
            for images, cols in back.unfold(g, chunks, g.dtype):
                self.xp.matmul(cols, turned, out=gx[images].reshape(-1, gx.shape[-1]))

        parallel(work, len(g), back.bytes_each(g.shape[-1], g.dtype.itemsize), g)
        return gx


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
    return Convolve2d_fast.apply(x, w, *bias, stride=stride, padding=padding)


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


class ConvolveDepthwise2d_fast(ConvolveDepthwise2d):
    """The same, each thread taking a cache-sized chunk of images through all taps."""

    def forward(self, x, w, b=None, *, stride, padding):
        self.x, self.w, self.has_bias = x, w, b is not None
        kh, kw, c = w.shape
        self.taps = taps(*x.shape[-3:-1], kh, kw, stride, padding)
        size = out_sizes(x.shape, (kh, kw), stride, padding)
        images = x.reshape(-1, *x.shape[-3:])
        y = self.xp.zeros((len(images), *size, c), x.dtype)

        def work(chunks):
            for chunk in chunks:
                for i, j, out, at in self.taps:
                    y[chunk][out] += images[chunk][at] * w[i, j]
                if b is not None:
                    y[chunk] += b

        parallel(work, len(images), 3 * prod(x.shape[-3:]) * x.dtype.itemsize, x)
        return y.reshape(*x.shape[:-3], *size, c)

    def backward(self, gy):
        images, g = self.x.reshape(-1, *self.x.shape[-3:]), gy.reshape(-1, *gy.shape[-3:])
        gx, c = self.xp.zeros_like(images), gy.shape[-1]

        def work(chunks):
            gw = self.xp.zeros(self.w.shape, "float64")
            for chunk in chunks:
                for i, j, out, at in self.taps:
                    gx[chunk][at] += g[chunk][out] * self.w[i, j]
                    gw[i, j] += column_sums_fast((images[chunk][at] * g[chunk][out]).reshape(-1, c))
            return gw

        gw = sum(parallel(work, len(g), 4 * prod(gy.shape[-3:]) * gy.dtype.itemsize, gy)).astype(gy.dtype)
        gx = gx.reshape(self.x.shape)
        return (gx, gw, column_sums_fast(gy.reshape(-1, c)).astype(gy.dtype)) if self.has_bias else (gx, gw)


def depthwise_conv2d(x, w, b=None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve each channel of x [..., H, W, C] with its own kernel, w [kh, kw, C], add b [C] or None."""
    check_window("depthwise_conv2d", x, w.shape[2], w.shape[:2], stride, padding)
    check_bias("depthwise_conv2d", b, w)
    bias = () if b is None else (b,)
    return ConvolveDepthwise2d_fast.apply(x, w, *bias, stride=stride, padding=padding)
