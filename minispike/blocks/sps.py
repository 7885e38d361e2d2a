"""Spiking patch splitting (SPS), Spikformer's stem: an image becomes a grid of spiking tokens.

    stage    x = pool?( LIF(BN(Conv3×3 x)) )          four of them, widths D/8, D/4, D/2, D
    tokens   x = x + LIF(BN(Conv3×3 x))               the relative position embedding, RPE

Spikformer (arXiv 2209.15425) §3.2. The places of the pools, and that they act on binary spikes, are from the
authors' code. The pool is 3×3 with stride 2. Tokens are 0, 1 or 2: the sum of two binary maps. There is no
other position embedding.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, where
from ..nn import LIF, Conv2d, Module, Spiking
from ..ops import max_pool2d


class SPS(Module):
    """Cut images [T, B, H, W, C] into tokens [T, B, N, dim], N = H·W / 4^(number of pools).

    pools: for each of the four stages, whether it halves the grid.
    neuron: makes a layer of neurons; it is called once for each brick.
    """

    def __init__(
        self, in_channels: int, dim: int, pools: tuple[bool, ...], *, neuron: Callable[..., LIF] = LIF, rng
    ):
        if dim % 8 or len(pools) != 4:
            raise ValueError(f"{where()}SPS needs dim divisible by 8 and 4 pools, got {dim} and {pools}")
        widths = [in_channels, dim // 8, dim // 4, dim // 2, dim]
        self.stages = [
            Spiking(Conv2d(n_in, n_out, rng=rng), neuron())
            for n_in, n_out in zip(widths, widths[1:], strict=False)
        ]
        self.rpe = Spiking(Conv2d(dim, dim, rng=rng), neuron())
        self.pools = tuple(pools)

    def forward(self, x, T: int = 1) -> Tensor:
        """x: frames [T, B, H, W, C], or a static image [1, B, H, W, C] and T, how many steps to show it."""
        x = self.stages[0](x, T=T)  # [T, B, H, W, D/8]
        x = self.pool(x, 0)
        for i in (1, 2, 3):
            x = self.pool(self.stages[i](x), i)
        x = x + self.rpe(x)  # [T, B, H', W', D]
        return x.reshape(*x.shape[:2], -1, x.shape[-1])  # [T, B, N, D]

    def pool(self, x, i: int) -> Tensor:
        if not self.pools[i]:
            return x
        h, w = x.shape[2:4]
        if h % 2 or w % 2:
            raise ValueError(f"{where()}the pool after stages.{i} halves the grid, which is {h}×{w}: odd")
        return max_pool2d(x, 3, stride=2, padding=1)
