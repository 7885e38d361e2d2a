"""The controls of a comparison of mixers, from no mixing at all to mixing that is learned but not attention.

The STEP benchmark reports 95.12 % for Spikformer on CIFAR-10, and 94.96 % for the same network when the maps
to q and k keep their random initial weights and everything else is trained (SSA's `frozen`). So a mixer has
to be compared with controls:

    Identity     y = x                       every token alone
    RandomMix    y = M x, M random           the same mixture for every image, and not learned
    StaticMix    y = M x, M learned          the same mixture for every image
    MaxPoolMix   y = max over 3×3 tokens     neighbours only, nothing learned (cf. Max-Former)

Neighbours with learned weights are dwc.py's DWC alone. Apart from the frozen q and k, these controls have no
published accuracies for these networks.
"""

from __future__ import annotations

from ..autograd import Tensor, as_tensor
from ..backend import make_rng, orthogonal
from ..nn import Module, Parameter
from ..ops import matmul, max_pool2d
from .dwc import check_grid


class Identity(Module):
    """Return the tokens as they are: y = x."""

    def __init__(self, dim: int):
        self.out_channels = dim

    def forward(self, x) -> Tensor:
        return as_tensor(x)


class MaxPoolMix(Module):
    """Give each token the maximum, channel by channel, of the 3×3 tokens around it on the grid (H, W)."""

    def __init__(self, dim: int, grid: tuple[int, int]):
        self.out_channels, self.grid = dim, grid

    def forward(self, x) -> Tensor:
        T, B, N, D = x.shape
        check_grid("MaxPoolMix", self.grid, N)
        y = max_pool2d(x.reshape(T, B, *self.grid, D), 3, stride=1, padding=1)  # [T, B, H, W, D]
        return y.reshape(T, B, N, D)


class RandomMix(Module):
    """Mix N tokens by one fixed random orthogonal matrix, y = M x, the same for every image."""

    def __init__(self, dim: int, n_tokens: int, *, rng):
        self.out_channels = dim
        self.matrix = orthogonal(n_tokens, make_rng(rng))

    def forward(self, x) -> Tensor:
        return matmul(self.matrix, x)


class StaticMix(Module):
    """Mix N tokens by one learned matrix, y = M x, the same for every image. M starts random orthogonal."""

    def __init__(self, dim: int, n_tokens: int, *, rng):
        self.out_channels = dim
        self.matrix = Parameter(orthogonal(n_tokens, make_rng(rng)))

    def forward(self, x) -> Tensor:
        return matmul(self.matrix, x)
