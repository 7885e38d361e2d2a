"""Transformer blocks without spikes: the light decoder of masked image modelling is made of them.

    X = X + Attention(LN(X))        Attention: softmax(Q Kᵀ/√d) V for each head, then a linear map
    X = X + MLP(LN(X))              MLP: W₂ · gelu(W₁ ·)

Vaswani et al., arXiv 1706.03762, with the norm before the sub-layer. The decoder is used only in pre-training
and then discarded, so it is written simply rather than fast.
"""

from __future__ import annotations

from math import pi, sqrt

from ..autograd import Tensor, where
from ..backend import HOST, Array, ones, zeros
from ..nn import Linear, Module, Parameter
from ..ops import exp, tanh


class LayerNorm(Module):
    """Normalise each token over its channels: γ (x − μ)/√(σ² + eps) + β on the last axis."""

    def __init__(self, dim: int, eps: float = 1e-6):
        self.weight, self.bias, self.eps = Parameter(ones(dim)), Parameter(zeros(dim)), eps

    def forward(self, x) -> Tensor:
        x = x - x.mean(-1, keepdims=True)
        var = (x * x).mean(-1, keepdims=True)
        return x / (var + self.eps) ** 0.5 * self.weight + self.bias


class PlainBlock(Module):
    """Apply softmax attention, then an MLP of twice the width: x [B, N, dim] -> [B, N, dim]."""

    def __init__(self, dim: int, num_heads: int, *, rng):
        if dim % num_heads:
            raise ValueError(f"{where()}PlainBlock cannot split dim = {dim} into {num_heads} heads")
        self.num_heads = num_heads
        self.norm1, self.norm2 = LayerNorm(dim), LayerNorm(dim)
        self.q, self.k, self.v, self.proj = (Linear(dim, dim, rng=rng) for _ in range(4))
        self.fc1, self.fc2 = Linear(dim, 2 * dim, rng=rng), Linear(2 * dim, dim, rng=rng)

    def forward(self, x) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.fc2(gelu(self.fc1(self.norm2(x))))

    def attention(self, x) -> Tensor:
        B, N, D = x.shape
        h, d = self.num_heads, D // self.num_heads
        q, k, v = (f(x).reshape(B, N, h, d).transpose(0, 2, 1, 3) for f in (self.q, self.k, self.v))
        weights = softmax(q @ k.transpose(0, 1, 3, 2) / sqrt(d))  # [B, h, N, N]
        return self.proj((weights @ v).transpose(0, 2, 1, 3).reshape(B, N, D))


def softmax(x) -> Tensor:
    """Return eˣ/Σeˣ along the last axis. The largest entry is subtracted first, so that nothing overflows."""
    e = exp(x - x.data.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def gelu(x) -> Tensor:
    """Return x Φ(x), Φ the normal distribution function, by the tanh formula (arXiv 1606.08415)."""
    return 0.5 * x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x * x * x)))


def positions(grid: tuple[int, int], dim: int) -> Array:
    """Return fixed 2-D positions [N, dim]: half are sines and cosines of the row, half of the column.

    The dim/4 wavelengths of each half grow geometrically from 2π towards 10,000·2π.
    """
    if dim % 4:
        raise ValueError(f"{where()}2-D sin-cos positions need dim divisible by 4, got {dim}")
    xp, (H, W) = HOST.xp, grid
    frequency = 10_000.0 ** (-xp.arange(dim // 4) / (dim // 4))
    rows, columns = (xp.outer(xp.arange(n), frequency) for n in (H, W))  # [H, dim/4], [W, dim/4]
    rows, columns = (xp.concatenate([xp.sin(a), xp.cos(a)], 1) for a in (rows, columns))
    return xp.concatenate([rows.repeat(W, 0), xp.tile(columns, (H, 1))], 1)  # [N, dim]
