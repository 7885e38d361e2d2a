"""A block of the encoder: tokens meet in the mixer, channels meet in the MLP, both added to the stream.

    X = X + mixer(X)        X = X + MLP(X)                Spikformer (arXiv 2209.15425) §3.1, eqs. 2–3

No normalisation stands before a sub-layer. Each adds a spike at most, so after b blocks the stream holds
integers from 0 to 2 + 2·b, the tokens' {0, 1, 2} included.
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
