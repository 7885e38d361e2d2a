"""Fixed linear transforms over tokens: Fourier (real part) and wavelets. No parameters, so one gradient each.

A linear map y = A x has the gradient gx = Aᵀ gy, its adjoint: ⟨A x, g⟩ = ⟨x, Aᵀ g⟩ for all x and g.

Fourier    Re(F_N x) = C x, with C[k, n] = cos(2πkn/N)/√N. C is symmetric, so backward is forward.
           In two axes Re(F_N x F_D) = C_N x C_D − S_N x S_D: symmetric in both, so again backward is forward.
Wavelet    y = W x, W the analysis matrix. Backward is Wᵀ, always. Wᵀ is W⁻¹, the synthesis, only for an
           orthogonal family; a biorthogonal one has another synthesis, and its inverse is not its gradient.
"""

from __future__ import annotations

from functools import cache
from math import log2, prod

import pywt

from ..autograd import Function, Tensor, expect
from ..backend import HOST, Array, get_device, get_xp
from ..parallel import get_threads

# ---------------------------------------------------------------- Fourier


PRODUCT_UP_TO = 196  # tokens: up to here half of C as a matrix is faster than the FFT (benchmarks/README.md)


class Fourier(Function):
    """y = Re(F x), orthonormal, along the tokens or along tokens and channels        gx = Re(F gy)"""

    def forward(self, x, *, axes):
        self.axes = axes
        return _along_tokens(self.xp, x) if axes == "tokens" else _along_both(self.xp, x)

    def backward(self, gy):
        return _along_tokens(self.xp, gy) if self.axes == "tokens" else _along_both(self.xp, gy)

    @staticmethod
    def cost(x: tuple, *, axes: str) -> int:
        """Multiply-accumulates of the fast transform: n·log₂ n for every n values transformed together."""
        n = x[-2] if axes == "tokens" else x[-2] * x[-1]
        return round(prod(x) * log2(n))

    @staticmethod
    def fan_out(x, *, axes) -> tuple[Array]:
        """For each value of x: how many outputs it reaches by a cosine other than 0, [N, 1] or [N, D].

        The value at n meets the phases kn/N for all k: multiples of 1/r, each N/r times, r = N / gcd(n, N).
        A cosine is 0 at the phases 1/4 and 3/4, which are among them where 4 divides r: 2/r of the outputs.
        In two axes the phases kn/N + lm/D are the multiples of 1/r for the least common multiple of both r.
        """
        xp, (N, D) = HOST.xp, x.shape[-2:]
        n, r = N, N // xp.gcd(xp.arange(N), N)[:, None]
        if axes != "tokens":
            n, r = N * D, xp.lcm(r, D // xp.gcd(xp.arange(D), D))
        return (get_xp(x).asarray(n - (r % 4 == 0) * (2 * n // r)),)


def fourier(x, axes: str = "tokens") -> Tensor:
    """Return the real part of the orthonormal Fourier transform of x [..., N, D].

    axes: "tokens" (along N) or "tokens and channels" (along N and D).
    """
    known = ("tokens", "tokens and channels")
    expect(axes in known, f"fourier has axes {known[0]!r} or {known[1]!r}, not {axes!r}")
    expect(len(x.shape) >= 2, f"fourier expects x [..., N, D], got {list(x.shape)}")
    return Fourier.apply(x, axes=axes)


def _along_tokens(xp, x: Array) -> Array:
    """Re F is even, y[N − k] = y[k]: only ⌊N/2⌋ + 1 rows are computed, the others are their mirror image.

    They come by one product with half of C or by the fast transform, whichever is cheaper for N tokens.
    """
    N = x.shape[-2]
    half, y = N // 2 + 1, xp.empty(x.shape, x.dtype)
    if N <= PRODUCT_UP_TO:
        y[..., :half, :] = xp.asarray(cosines(N)[:half], x.dtype) @ x
    else:
        y[..., :half, :] = _fft(x, (x.ndim - 2,)).real
    y[..., half:, :] = y[..., (N - 1) // 2 : 0 : -1, :]
    return y


def _along_both(xp, x: Array) -> Array:
    """Half of the channels by the real-input FFT; the others mirror them: y[k, l] = y[N − k, D − l].

    Here products with matrices of N×N and D×D would be needed, and at D = 384 the FFT is faster at every N
    that was tried (at D = 64 they are: benchmarks/README.md).
    """
    N, D = x.shape[-2:]
    half, y = D // 2 + 1, xp.empty(x.shape, x.dtype)
    y[..., :half] = _fft(x, (x.ndim - 2, x.ndim - 1)).real
    mirror = y[..., (D - 1) // 2 : 0 : -1]
    y[..., :1, half:] = mirror[..., :1, :]
    y[..., 1:, half:] = mirror[..., :0:-1, :]
    return y


def _fft(x: Array, axes: tuple[int, ...]) -> Array:
    device = get_device(x)
    workers = {"workers": get_threads()} if device is HOST else {}
    return device.fft.rfftn(x, axes=axes, norm="ortho", **workers)


@cache
def cosines(N: int) -> Array:
    """Return C [N, N] = cos(2πkn/N)/√N, on the host in float64."""
    xp = HOST.xp
    n = xp.arange(N)
    matrix = xp.cos(2 * xp.pi * (xp.outer(n, n) % N) / N) / N**0.5
    matrix.setflags(write=False)  # it is shared by every call
    return matrix


# ---------------------------------------------------------------- wavelets


class Wavelet(Function):
    """y = W x over a grid of tokens, level by level        gx = Wᵀ gy

    One level takes a grid's rows and columns each to averages (first half) and details (second half):
    sub = A_h sub A_wᵀ; the next level goes on with the averages of both, the upper left quarter.
    """

    def forward(self, x, *, grid, family, levels):
        self.grid, self.family, self.levels = grid, family, levels
        y = x.reshape(*x.shape[:-2], *grid, x.shape[-1]).copy()
        for level in range(levels):
            self.one_level(y, level, transpose=False)
        return y.reshape(x.shape)

    def backward(self, gy):
        gx = gy.reshape(*gy.shape[:-2], *self.grid, gy.shape[-1]).copy()
        for level in reversed(range(self.levels)):
            self.one_level(gx, level, transpose=True)
        return gx.reshape(gy.shape)

    def one_level(self, y: Array, level: int, transpose: bool) -> None:
        """Replace the upper left part of y [..., H, W, D] that belongs to this level."""
        h, w = (size >> level for size in self.grid)
        sub = y[..., :h, :w, :]
        if self.family in ("haar", "db1"):
            _haar(self.xp, sub, transpose)
            return
        rows, columns = (analysis(self.family, n) for n in (h, w))
        rows, columns = (self.xp.asarray(a.T if transpose else a, y.dtype) for a in (rows, columns))
        D = y.shape[-1]
        sub = rows @ sub.reshape(*sub.shape[:-3], h, w * D)  # [..., h, w·D]
        y[..., :h, :w, :] = columns @ sub.reshape(*sub.shape[:-2], h, w, D)  # [..., h, w, D]

    @staticmethod
    def cost(x: tuple, *, grid: tuple, family: str, levels: int) -> int:
        """Multiply-accumulates of a filter bank: all taps, over rows and columns, each level on a quarter.

        The small dense matrices used here multiply more.
        """
        taps = len(pywt.Wavelet(family).dec_lo)
        return sum(2 * taps * prod(x) // 4**level for level in range(levels))

    @staticmethod
    def fan_out(x, *, grid, family, levels) -> tuple[Array]:
        """For each value of x: how many coefficients it reaches by an entry of W other than 0, [N, 1]."""
        analysis = Wavelet()
        analysis.xp = HOST.xp
        matrix = analysis.forward(HOST.xp.eye(prod(grid)), grid=grid, family=family, levels=levels)  # [N, N]
        return (get_xp(x).asarray((abs(matrix) > 1e-12).sum(0)[:, None]),)


def _haar(xp, sub: Array, transpose: bool) -> None:
    """One level of Haar in place, by slicing: pairs (a, b) become (a + b)/√2 and (a − b)/√2, and back."""
    for axis in (-3, -2):
        pairs = xp.moveaxis(sub, axis, 0)
        half = len(pairs) // 2
        a, b = (pairs[:half], pairs[half:]) if transpose else (pairs[::2], pairs[1::2])
        average, detail = (a + b) * 0.5**0.5, (a - b) * 0.5**0.5
        if transpose:
            pairs[::2], pairs[1::2] = average, detail
        else:
            pairs[:half], pairs[half:] = average, detail


def wavelet(x, grid: tuple[int, int], family: str = "haar", levels: int = 1) -> Tensor:
    """Return the 2-D wavelet analysis of x [..., N, D] over its token grid (H, W), N = H·W, periodised.

    family: any discrete wavelet of PyWavelets: "haar", "db2", "bior2.2", … (dmey is orthogonal only nearly).
    levels: how often the averages are analysed again. The grid must be divisible by 2^levels.
    """
    check_wavelet(grid, family, levels)
    H, W = grid
    ok = len(x.shape) >= 2 and x.shape[-2] == H * W
    expect(ok, f"wavelet expects x [..., {H * W}, D] for a grid of {H}×{W}, got {list(x.shape)}")
    return Wavelet.apply(x, grid=(H, W), family=family, levels=levels)


def check_wavelet(grid: tuple[int, int], family: str, levels: int) -> None:
    """Raise unless there is such a family, and the grid (H, W) can be halved so often."""
    ok = family in pywt.wavelist(kind="discrete")
    expect(ok, f"no discrete wavelet family {family!r}; pywt.wavelist(kind='discrete') names them")
    H, W = grid
    ok = levels >= 1 and H % 2**levels == 0 and W % 2**levels == 0
    expect(ok, f"wavelet with {levels} levels needs a grid divisible by {2 ** max(levels, 0)}, got {H}×{W}")


@cache
def analysis(family: str, N: int) -> Array:
    """Return one level's analysis matrix [N, N], periodised: c[k] = Σ_j h[j] x[(2k + L/2 − j) mod N].

    h is a filter of length L: low-pass for rows 0 … N/2 − 1 (averages), high-pass for the others (details).
    """
    expect(N % 2 == 0, f"a wavelet halves its axis, which has {N} places: odd")
    filters = pywt.Wavelet(family)
    matrix = HOST.xp.zeros((N, N))
    for part, h in enumerate((filters.dec_lo, filters.dec_hi)):
        for k in range(N // 2):
            for j, tap in enumerate(h):
                matrix[part * N // 2 + k, (2 * k + len(h) // 2 - j) % N] += tap
    matrix.setflags(write=False)  # it is shared by every call
    return matrix
