"""Wavelet mixing, in the place of spiking self-attention: Mixer(X) = LIF(BN(W X)), and learned mixtures.

    2-D WT    W X               W the wavelet analysis of the token grid, rows and columns
    DWT-C     Σ_i a_i LT_i(X)   a few fixed bases, combined by learned weights a_i

Attention-free Spikformer (arXiv 2308.02557; FWformer, 2403.18228). The bases, levels and the combination's
form are our reading: no code was published. SSA makes its basis from Q and K anew for every image; these are
fixed.
"""

from __future__ import annotations

from ..autograd import Tensor, expect
from ..backend import ones
from ..nn import Parameter, Transform
from ..ops import wavelet
from ..ops.transform import check_wavelet


class WaveletMix(Transform):
    """Mix tokens x [T, B, N, dim] over their grid (H, W) by a wavelet family of PyWavelets."""

    def __init__(self, dim: int, grid: tuple[int, int], family: str = "haar", levels: int = 1):
        super().__init__(dim)
        check_wavelet(grid, family, levels)
        self.grid, self.family, self.levels = grid, family, levels

    def transform(self, x) -> Tensor:
        return wavelet(x, self.grid, self.family, self.levels)


class Mixture(Transform):
    """Mix tokens by a learned combination Σ_i a_i LT_i(x); it starts as the transforms' mean, a_i = 1/n."""

    def __init__(self, dim: int, bases: list[Transform]):
        super().__init__(dim)
        expect(len(bases) >= 1, "Mixture needs at least one basis")
        self.bases, self.a = bases, Parameter(ones(len(bases)) / len(bases))

    def transform(self, x) -> Tensor:
        y = self.a[0] * self.bases[0](x)
        for i, basis in enumerate(self.bases[1:], 1):
            y = y + self.a[i] * basis(x)
        return y
