"""Fourier mixing instead of spiking self-attention: Mixer(X) = LIF(BN(Re(F X))).

    1-D    Re(F_N X)          along the tokens
    2-D    Re(F_N X F_D)      along tokens and channels

Attention-free Spikformer (arXiv 2308.02557; FWformer, 2403.18228) replaces the whole SSA by a linear
transform without parameters. No code was published. Our interpretation: the mixer takes the real part of the
orthonormal transform and ends, as SSA does, in one BN and LIF. Only the even part of X passes the real part;
the residual around the mixer keeps the rest.
"""

from __future__ import annotations

from ..autograd import Tensor
from ..nn import Module
from ..ops import fourier


class FourierMix(Module):
    """Mix tokens x [T, B, N, dim] by Re(F ·) along axes "tokens" or "tokens and channels"."""

    def __init__(self, dim: int, axes: str = "tokens"):
        self.out_channels = dim
        self.axes = axes

    def forward(self, x) -> Tensor:
        return fourier(x, self.axes)
