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

from ..autograd import Function, Tensor, where
from ..backend import HOST, Array, get_device, get_xp
from ..parallel import get_threads, threads_start

# ---------------------------------------------------------------- Fourier


class Fourier(Function):
    """y = Re(F x), orthonormal, along the tokens or along tokens and channels        gx = Re(F gy)"""

    def forward(self, x, *, axes):
        self.axes = axes
        N, D = x.shape[-2:]
        C, S = (self.xp.asarray(matrix, x.dtype) for matrix in (cosines(N), sines(N)))
        if axes == "tokens":
            return C @ x
        C_D, S_D = (self.xp.asarray(matrix, x.dtype) for matrix in (cosines(D), sines(D)))
        return C @ x @ C_D - S @ x @ S_D

    def backward(self, gy):
        return self.forward(gy, axes=self.axes)

    @staticmethod
    def cost(x: tuple, *, axes: str) -> int:
        """Return the multiply-accumulates of the fast transform: n·log₂ n for each n values."""
        n = x[-2] if axes == "tokens" else x[-2] * x[-1]
        return round(prod(x) * log2(n))

    @staticmethod
    def fan_out(x, *, axes) -> tuple[Array]:
        """Return, for each value of x, how many outputs it reaches by a non-zero cosine: [N, 1] or [N, D].

        The value at n meets the phases kn/N for all k: multiples of 1/r, each N/r times, r = N / gcd(n, N).
        A cosine is 0 at the phases 1/4 and 3/4, which are among them where 4 divides r: 2/r of the outputs.
        In two axes the phases kn/N + lm/D are the multiples of 1/r for the least common multiple of both r.
        """
        xp, (N, D) = HOST.xp, x.shape[-2:]
        n, r = N, N // xp.gcd(xp.arange(N), N)[:, None]
        if axes != "tokens":
            n, r = N * D, xp.lcm(r, D // xp.gcd(xp.arange(D), D))
        return (get_xp(x).asarray(n - (r % 4 == 0) * (2 * n // r)),)


class Fourier_fast(Fourier):
    """The same with half of the work: Re F is even, y[−k] = y[k], so the other half is a mirror image."""

    def forward(self, x, *, axes):
        self.axes = axes
        return self.along_tokens(x) if axes == "tokens" else self.along_both(x)

    def along_tokens(self, x: Array) -> Array:
        """Compute ⌊N/2⌋ + 1 rows by a product; y[N − k] = y[k] gives the others."""
        N = x.shape[-2]
        half, y = N // 2 + 1, self.xp.empty(x.shape, x.dtype)
        y[..., :half, :] = self.xp.asarray(cosines(N)[:half], x.dtype) @ x
        y[..., half:, :] = y[..., (N - 1) // 2 : 0 : -1, :]
        return y

    def along_both(self, x: Array) -> Array:
        """Compute half of the channels by the real-input FFT; y[N − k, D − l] = y[k, l] gives the others.

        Products would need matrices of N×N and D×D. At D = 384 the FFT is faster at every N that was tried
        (at D = 64 they are: benchmarks/README.md).
        """
        device, D = get_device(x), x.shape[-1]
        workers = {"workers": get_threads() if threads_start() else 1} if device is HOST else {}
        half, y = D // 2 + 1, self.xp.empty(x.shape, x.dtype)
        y[..., :half] = device.fft.rfftn(x, axes=(x.ndim - 2, x.ndim - 1), norm="ortho", **workers).real
        mirror = y[..., (D - 1) // 2 : 0 : -1]
        y[..., :1, half:] = mirror[..., :1, :]
        y[..., 1:, half:] = mirror[..., :0:-1, :]
        return y


def fourier(x, axes: str = "tokens") -> Tensor:
    """Return the real part of the orthonormal Fourier transform of x [..., N, D].

    axes: "tokens" (along N) or "tokens and channels" (along N and D).
    """
    known = ("tokens", "tokens and channels")
    if axes not in known:
        raise ValueError(f"{where()}fourier has axes {known[0]!r} or {known[1]!r}, not {axes!r}")
    if len(x.shape) < 2:
        raise ValueError(f"{where()}fourier expects x [..., N, D], got {list(x.shape)}")
    return Fourier_fast.apply(x, axes=axes)


def _wave(N: int, function) -> Array:
    """Return f(2πkn/N)/√N for k, n = 0 … N − 1: [N, N], on the host, in float64."""
    xp = HOST.xp
    n = xp.arange(N)
    matrix = function(2 * xp.pi * (xp.outer(n, n) % N) / N) / N**0.5
    matrix.setflags(write=False)  # every call shares it
    return matrix


@cache
def cosines(N: int) -> Array:
    """Return C [N, N] = cos(2πkn/N)/√N, on the host, in float64."""
    return _wave(N, HOST.xp.cos)


@cache
def sines(N: int) -> Array:
    """Return S [N, N] = sin(2πkn/N)/√N, on the host, in float64."""
    return _wave(N, HOST.xp.sin)


# ---------------------------------------------------------------- wavelets


class Wavelet(Function):
    """y = W x over a grid of tokens, level by level        gx = Wᵀ gy

    One level turns a grid's rows and columns into averages (first half) and details (second half):
    part → A_h part A_wᵀ. The next level goes on with the averages of both, the upper left quarter.
    """

    def forward(self, x, *, grid, family, levels):
        self.grid, self.family, self.levels = grid, family, levels
        y = x.reshape(*x.shape[:-2], *grid, x.shape[-1]).copy()  # [..., H, W, D]
        for level in range(levels):
            part, rows, columns = self.at_level(y, level)
            part[...] = along_rows_and_columns(part, rows, columns)
        return y.reshape(x.shape)

    def backward(self, gy):
        gx = gy.reshape(*gy.shape[:-2], *self.grid, gy.shape[-1]).copy()
        for level in reversed(range(self.levels)):
            part, rows, columns = self.at_level(gx, level)
            part[...] = along_rows_and_columns(part, rows.T, columns.T)
        return gx.reshape(gy.shape)

    def at_level(self, y: Array, level: int) -> tuple[Array, Array, Array]:
        """Return the part of y [..., H, W, D] that a level works on, a view, and its matrices A_h and A_w."""
        h, w = (size >> level for size in self.grid)
        rows, columns = (self.xp.asarray(analysis(self.family, n), y.dtype) for n in (h, w))
        return y[..., :h, :w, :], rows, columns

    @staticmethod
    def cost(x: tuple, *, grid: tuple, family: str, levels: int) -> int:
        """Return the multiply-accumulates of a filter bank: all taps, over rows and columns, level by level.

        Each level has a quarter of the values. The small dense matrices used here multiply more.
        """
        taps = len(pywt.Wavelet(family).dec_lo)
        return sum(2 * taps * prod(x) // 4**level for level in range(levels))

    @staticmethod
    def fan_out(x, *, grid, family, levels) -> tuple[Array]:
        """Return, for each value of x, how many coefficients it reaches by a non-zero entry of W: [N, 1]."""
        analysis = Wavelet()
        analysis.xp = HOST.xp
        matrix = analysis.forward(HOST.xp.eye(prod(grid)), grid=grid, family=family, levels=levels)  # [N, N]
        return (get_xp(x).asarray((abs(matrix) > 1e-12).sum(0)[:, None]),)


class Wavelet_fast(Wavelet):
    """The same; for Haar without matrices: pairs (a, b) become (a + b)/√2 and (a − b)/√2, and back."""

    def forward(self, x, *, grid, family, levels):
        if family not in HAAR:
            return super().forward(x, grid=grid, family=family, levels=levels)
        self.grid, self.family, self.levels = grid, family, levels
        y = x.reshape(*x.shape[:-2], *grid, x.shape[-1]).copy()
        for level in range(levels):
            for pairs in self.axes_of(y, level):
                half, a, b = len(pairs) // 2, pairs[::2], pairs[1::2]
                pairs[:half], pairs[half:] = (a + b) * 0.5**0.5, (a - b) * 0.5**0.5
        return y.reshape(x.shape)

    def backward(self, gy):
        if self.family not in HAAR:
            return super().backward(gy)
        gx = gy.reshape(*gy.shape[:-2], *self.grid, gy.shape[-1]).copy()
        for level in reversed(range(self.levels)):
            for pairs in self.axes_of(gx, level):
                half = len(pairs) // 2
                average, detail = pairs[:half], pairs[half:]
                pairs[::2], pairs[1::2] = (average + detail) * 0.5**0.5, (average - detail) * 0.5**0.5
        return gx.reshape(gy.shape)

    def axes_of(self, y: Array, level: int) -> list[Array]:
        """Return views of a level's part of y [..., H, W, D], once its rows first and once its columns."""
        h, w = (size >> level for size in self.grid)
        return [self.xp.moveaxis(y[..., :h, :w, :], axis, 0) for axis in (-3, -2)]


HAAR = ("haar", "db1")  # two names of one family


def along_rows_and_columns(x: Array, rows: Array, columns: Array) -> Array:
    """Return A_h x A_wᵀ for each channel of x [..., h, w, D], A_h [h, h] and A_w [w, w]."""
    *lead, h, w, D = x.shape
    y = rows @ x.reshape(*lead, h, w * D)  # [..., h, w·D]
    return columns @ y.reshape(*lead, h, w, D)  # [..., h, w, D]


def wavelet(x, grid: tuple[int, int], family: str = "haar", levels: int = 1) -> Tensor:
    """Return the 2-D wavelet analysis of x [..., N, D] over its token grid (H, W), N = H·W, periodised.

    family: any discrete wavelet of PyWavelets: "haar", "db2", "bior2.2", …
    ("dmey" is orthogonal only nearly).
    levels: how many times the averages are analysed again. The grid must be divisible by 2^levels.
    """
    check_wavelet(grid, family, levels)
    H, W = grid
    if len(x.shape) < 2 or x.shape[-2] != H * W:
        expected = f"x [..., {H * W}, D] for a grid of {H}×{W}"
        raise ValueError(f"{where()}wavelet expects {expected}, got {list(x.shape)}")
    return Wavelet_fast.apply(x, grid=(H, W), family=family, levels=levels)


def check_wavelet(grid: tuple[int, int], family: str, levels: int) -> None:
    """Raise ValueError unless the family exists and the grid (H, W) can be halved `levels` times."""
    if family not in pywt.wavelist(kind="discrete"):
        names = "pywt.wavelist(kind='discrete') names them"
        raise ValueError(f"{where()}no discrete wavelet family {family!r}; {names}")
    H, W = grid
    if levels < 1 or H % 2**levels or W % 2**levels:
        needed = f"a grid divisible by {2 ** max(levels, 0)}"
        raise ValueError(f"{where()}wavelet with {levels} levels needs {needed}, got {H}×{W}")


@cache
def analysis(family: str, N: int) -> Array:
    """Return one level's analysis matrix [N, N], periodised: c[k] = Σ_j h[j] x[(2k + L/2 − j) mod N].

    h is a filter of length L: low-pass for rows 0 … N/2 − 1 (averages), high-pass for the others (details).
    ValueError for an odd N.
    """
    if N % 2:
        raise ValueError(f"{where()}a wavelet halves its axis, which has {N} places: odd")
    filters = pywt.Wavelet(family)
    matrix = HOST.xp.zeros((N, N))
    for part, h in enumerate((filters.dec_lo, filters.dec_hi)):
        for k in range(N // 2):
            for j, tap in enumerate(h):
                matrix[part * N // 2 + k, (2 * k + len(h) // 2 - j) % N] += tap
    matrix.setflags(write=False)  # every call shares it
    return matrix
