"""The two controls of every comparison of mixers: no mixing at all, and random mixing.

The STEP benchmark reports 95.12 % for Spikformer on CIFAR-10, and 94.96 % for the same network when the maps
to q and k keep their random initial weights and everything else is trained. So a mixer has to be compared
with controls. Identity leaves every token alone. RandomMix mixes tokens by a matrix that does not depend on
the image; unlike attention with frozen q and k, it has no published accuracy.
"""

from __future__ import annotations

from ..autograd import Tensor, as_tensor
from ..backend import make_rng, orthogonal
from ..nn import Module
from ..ops import matmul


class Identity(Module):
    """Return the tokens as they are: y = x."""

    def __init__(self, dim: int):
        self.out_channels = dim

    def forward(self, x) -> Tensor:
        return as_tensor(x)


class RandomMix(Module):
    """Mix N tokens by one fixed random orthogonal matrix, y = M x, the same for every image."""

    def __init__(self, dim: int, n_tokens: int, *, rng):
        self.out_channels = dim
        self.matrix = orthogonal(n_tokens, make_rng(rng))

    def forward(self, x) -> Tensor:
        return matmul(self.matrix, x)
