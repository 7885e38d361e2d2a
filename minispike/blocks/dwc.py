"""The depthwise convolution module (DWC) of SAFormer: each channel looks at its neighbours on the token grid.

    DWC(K) = LIF(BN(DepthwiseConv(K)))        K [T, B, N, D] spikes, laid out on the grid H×W

SAFormer (arXiv 2412.13553) adds it to the attention to restore the diversity of the features. That it acts on
K, is followed by BN and LIF, and has no bias is our reading: no code was published.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, expect
from ..nn import LIF, DepthwiseConv2d, Module, Spiking


class DWC(Module):
    """Filter tokens x [T, B, N, dim] by one k×k kernel for each channel -> spikes [T, B, N, dim].

    k: odd, so that the grid (H, W) keeps its size; beyond its borders there is silence.
    """

    def __init__(self, dim: int, grid: tuple[int, int], k: int = 3, *, neuron: Callable[..., LIF] = LIF, rng):
        expect(k >= 1 and k % 2 == 1, f"DWC needs an odd kernel to keep the token grid, got k = {k}")
        self.grid = grid
        self.conv = Spiking(DepthwiseConv2d(dim, k, rng=rng), neuron())

    def forward(self, x) -> Tensor:
        T, B, N, D = x.shape
        check_grid("DWC", self.grid, N)
        y = self.conv(x.reshape(T, B, *self.grid, D))  # [T, B, H, W, D]
        return y.reshape(T, B, N, D)


def check_grid(name: str, grid: tuple[int, int], n_tokens: int) -> None:
    """Raise unless n_tokens fill the grid (H, W)."""
    H, W = grid
    expect(H * W == n_tokens, f"{name} expects the {H * W} tokens of a {H}×{W} grid, got {n_tokens}")
