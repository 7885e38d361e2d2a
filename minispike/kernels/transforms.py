"""Twins in array code, for every device: half of a Fourier transform, and Haar by pairs."""

from __future__ import annotations

from functools import cache

from ..backend import HOST, Array, get_device, to_device
from ..ops.transform import Fourier, Wavelet, cosines
from ..parallel import get_threads, threads_start


class HalfFourier(Fourier):
    """The same with half of the work: Re F is even, y[−k] = y[k], so the other half is a mirror image."""

    def forward(self, x, *, axes):
        self.axes = axes
        return self.along_tokens(x) if axes == "tokens" else self.along_both(x)

    def along_tokens(self, x: Array) -> Array:
        """Compute ⌊N/2⌋ + 1 rows by a product; y[N − k] = y[k] gives the others."""
        N = x.shape[-2]
        half, y = N // 2 + 1, self.xp.empty(x.shape, x.dtype)
        y[..., :half, :] = half_of_cosines(N, get_device(x).name, x.dtype.name) @ x
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


@cache
def half_of_cosines(N: int, device: str, dtype: str) -> Array:
    """Return the rows of C [N, N] up to ⌊N/2⌋, on a device."""
    return to_device(cosines(N)[: N // 2 + 1].astype(dtype), device)


class PairwiseHaar(Wavelet):
    """Haar without matrices: pairs (a, b) become (a + b)/√2 and (a − b)/√2, and back."""

    @staticmethod
    def takes(x, *, grid, family, levels) -> bool:
        return family in ("haar", "db1")  # two names of one family

    def forward(self, x, *, grid, family, levels):
        self.grid, self.family, self.levels = grid, family, levels
        y = x.reshape(*x.shape[:-2], *grid, x.shape[-1]).copy()
        for level in range(levels):
            for pairs in self.axes_of(y, level):
                half, a, b = len(pairs) // 2, pairs[::2], pairs[1::2]
                pairs[:half], pairs[half:] = (a + b) * 0.5**0.5, (a - b) * 0.5**0.5
        return y.reshape(x.shape)

    def backward(self, gy):
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
