"""The depthwise convolution module (DWC) of SAFormer: each channel looks at its neighbours on the token grid.

    DWC(K) = LIF(BN(DepthwiseConv(K)))        K [T, B, N, D] spikes, laid out on the grid H×W

SAFormer (arXiv 2412.13553) adds the module to the attention to restore the diversity of the features. No code
was published. Our interpretation: the module acts on K, is followed by BN and LIF, and has no bias.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, where
from ..nn import LIF, DepthwiseConv2d, Module, Spiking


class DWC(Module):
    """Filter tokens x [T, B, N, dim] with one k×k kernel for each channel -> spikes [T, B, N, dim].

    k: odd, so that the grid (H, W) keeps its size. Outside the grid there are zeros.
    """

    def __init__(self, dim: int, grid: tuple[int, int], k: int = 3, *, neuron: Callable[..., LIF] = LIF, rng):
        if k < 1 or k % 2 == 0:
            raise ValueError(f"{where()}DWC needs an odd kernel to keep the token grid, got k = {k}")
        self.grid = grid
        self.conv = Spiking(DepthwiseConv2d(dim, k, rng=rng), neuron())

    def forward(self, x) -> Tensor:
        T, B, N, D = x.shape
        check_grid("DWC", self.grid, N)
        y = self.conv(x.reshape(T, B, *self.grid, D))  # [T, B, H, W, D]
        return y.reshape(T, B, N, D)


def check_grid(name: str, grid: tuple[int, int], n_tokens: int) -> None:
    """Raise ValueError unless n_tokens fill the grid (H, W)."""
    H, W = grid
    if H * W != n_tokens:
        raise ValueError(f"{where()}{name} expects the {H * W} tokens of a {H}×{W} grid, got {n_tokens}")
