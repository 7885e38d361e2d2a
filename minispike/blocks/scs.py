"""The spiking convolutional stem (SCS) of Spikformer V2: strides instead of max-pooling, and deeper stages.

    down     x = LIF(BN(Conv x))                             2×2, stride 2; or 3×3, stride 1
    pair     x = x + LIF(BN(Conv3×3 LIF(BN(Conv3×3 x))))     C → 4C → C, shaped like an MLP

Four stages of widths D/8, D/4, D/2, D; no position embedding. Spikformer V2 (arXiv 2401.02020) describes
strided convolutions and an MLP-like pair; no code was published. The kernel sizes and the expansion by 4
follow from the published parameter counts, which they meet exactly. The residual, which has no parameters,
and the stages that keep the grid are our interpretation. Tokens are 0, 1 or 2, as those of SPS.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, where
from ..nn import LIF, Conv2d, Module, Spiking
from ..visible import Visible


class SCS(Module):
    """Cut images [T, B, H, W, C] into tokens [T, B, N, dim], N = H·W / 4^(number of halvings).

    halves: for each of the four stages, whether its first convolution halves the grid.
    neuron: makes a layer of neurons; it is called once for each brick.
    """

    def __init__(
        self, in_channels: int, dim: int, halves: tuple[bool, ...], *, neuron: Callable[..., LIF] = LIF, rng
    ):
        if dim % 8 or len(halves) != 4:
            raise ValueError(f"{where()}SCS needs dim divisible by 8 and 4 stages, got {dim} and {halves}")
        widths = [in_channels, dim // 8, dim // 4, dim // 2, dim]
        self.stages = [
            Stage(n_in, n_out, half, neuron=neuron, rng=rng)
            for n_in, n_out, half in zip(widths, widths[1:], halves, strict=False)
        ]

    def forward(self, x, T: int = 1, visible: Visible | None = None) -> Tensor:
        """x: frames [T, B, H, W, C], or a static image [1, B, H, W, C] and T, how many steps to show it.

        visible: for masked images, the tokens that are visible. The rest is hidden from every layer, and only
        the visible tokens come out: [T, B, visible.per_sample, dim].
        """
        x = visible.hide(x) if visible else x
        for i, stage in enumerate(self.stages):
            x = stage(x, T if i == 0 else 1, visible)  # [T, B, H', W', C]
        T, B, *_, D = x.shape
        x = visible.take(x) if visible else x
        return x.reshape(T, B, -1, D)  # [T, B, N, D]


class Stage(Module):
    """Halve the grid, or keep it, then the MLP-like pair with its residual."""

    def __init__(self, n_in: int, n_out: int, half: bool, *, neuron: Callable[..., LIF], rng):
        self.half = half
        conv = Conv2d(n_in, n_out, 2, stride=2, padding=0, rng=rng) if half else Conv2d(n_in, n_out, rng=rng)
        self.down = Spiking(conv, neuron())
        self.expand = Spiking(Conv2d(n_out, 4 * n_out, rng=rng), neuron())
        self.contract = Spiking(Conv2d(4 * n_out, n_out, rng=rng), neuron())

    def forward(self, x, T: int, visible: Visible | None) -> Tensor:
        H, W = x.shape[2:4]
        if self.half and (H % 2 or W % 2):
            raise ValueError(f"{where()}this stage halves the grid, which is {H}×{W}: odd")
        run = visible.through if visible else Module.__call__  # run(brick, x)
        x = run(self.down, x, T)
        return x + run(self.contract, run(self.expand, x))
