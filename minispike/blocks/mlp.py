"""The MLP of a block: two bricks, one to a wider layer and one back.

MLP(X) = LIF(BN( LIF(BN(X W₁ + b₁)) W₂ + b₂ ))        Spikformer (arXiv 2209.15425) §3.1
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor
from ..nn import LIF, Linear, Module, Spiking


class MLP(Module):
    """Map each token by itself: x [T, B, N, dim] -> spikes [T, B, N, dim], through `hidden` channels."""

    def __init__(self, dim: int, hidden: int, *, neuron: Callable[..., LIF] = LIF, rng):
        self.fc1 = Spiking(Linear(dim, hidden, rng=rng), neuron())
        self.fc2 = Spiking(Linear(hidden, dim, rng=rng), neuron())

    def forward(self, x) -> Tensor:
        return self.fc2(self.fc1(x))
