"""Wavelet mixing instead of spiking self-attention: Mixer(X) = LIF(BN(W X)), and learned mixtures.

    2-D WT    W X               W the wavelet analysis of the token grid, rows and columns
    DWT-C     Σ_i a_i LT_i(X)   a few fixed bases, combined by learned weights a_i

Attention-free Spikformer (arXiv 2308.02557; FWformer, 2403.18228). No code was published: the bases, the
levels and the form of the combination are our interpretation. SSA makes its basis from Q and K for every
image; these bases are fixed.
"""

from __future__ import annotations

from ..autograd import Tensor, where
from ..backend import ones
from ..nn import Module, Parameter
from ..ops import wavelet
from ..ops.transform import check_wavelet


class WaveletMix(Module):
    """Mix tokens x [T, B, N, dim] over their grid (H, W) by a wavelet family of PyWavelets."""

    def __init__(self, dim: int, grid: tuple[int, int], family: str = "haar", levels: int = 1):
        self.out_channels = dim
        check_wavelet(grid, family, levels)
        self.grid, self.family, self.levels = grid, family, levels

    def forward(self, x) -> Tensor:
        return wavelet(x, self.grid, self.family, self.levels)


class Mixture(Module):
    """Mix tokens by a learned combination Σ_i a_i LT_i(x), which starts as the mean of the transforms."""

    def __init__(self, dim: int, bases: list[Module]):
        self.out_channels = dim
        if not bases:
            raise ValueError(f"{where()}Mixture needs at least one basis")
        self.bases, self.a = bases, Parameter(ones(len(bases)) / len(bases))

    def forward(self, x) -> Tensor:
        y = self.a[0] * self.bases[0](x)
        for i, basis in enumerate(self.bases[1:], 1):
            y = y + self.a[i] * basis(x)
        return y
