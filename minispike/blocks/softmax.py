"""Softmax attention as a mixer of spiking tokens: a reference that SSA can be measured against.

    Q, K, V = X W                                each its own, real numbers: no neuron
    Y       = softmax( Q Kᵀ / √d ) V             for each head
    mixer   = LIF(BN(Y W))

Vaswani et al. (arXiv 1706.03762) with the end that all our mixers have. It is not spike-driven: its two
products multiply real numbers, and its exponentials and divisions are not counted as energy.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt

from ..autograd import Tensor, where
from ..nn import LIF, Linear, Module, Spiking
from .decoder import softmax
from .ssa import merge_heads, split_heads


class SoftmaxAttention(Module):
    """Mix tokens x [T, B, N, dim] -> spikes [T, B, N, dim]."""

    def __init__(self, dim: int, num_heads: int, *, neuron: Callable[..., LIF] = LIF, rng):
        if dim % num_heads:
            raise ValueError(f"{where()}SoftmaxAttention cannot split dim = {dim} into {num_heads} heads")
        self.num_heads = num_heads
        self.q, self.k, self.v = (Linear(dim, dim, rng=rng) for _ in range(3))
        self.proj = Spiking(Linear(dim, dim, rng=rng), neuron())

    def forward(self, x) -> Tensor:
        q, k, v = (split_heads(map(x), self.num_heads) for map in (self.q, self.k, self.v))
        weights = softmax(q @ k.transpose(0, 1, 2, 4, 3) / sqrt(q.shape[-1]))  # [T, B, h, N, N]
        return self.proj(merge_heads(weights @ v))
