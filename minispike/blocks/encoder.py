"""A block of the encoder: the mixer mixes tokens, the MLP mixes channels, and both are added to the stream.

    X = X + mixer(X)        X = X + MLP(X)                Spikformer (arXiv 2209.15425) §3.1, eqs. 2–3

Sub-layers have no normalisation before them. Each adds at most one spike. Tokens enter as 0, 1 or 2, so after
b blocks the stream holds integers from 0 to 2 + 2·b.
"""

from __future__ import annotations

from ..autograd import Tensor
from ..nn import Module


class Block(Module):
    """Apply a mixer and an MLP, each with its residual: x [T, B, N, D] -> [T, B, N, D]."""

    def __init__(self, mixer: Module, mlp: Module):
        self.mixer, self.mlp = mixer, mlp

    def forward(self, x) -> Tensor:
        x = x + self.mixer(x)
        return x + self.mlp(x)
