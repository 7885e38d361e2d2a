"""Spike-aggregated self-attention (SASA), SAFormer's mixer: attention from Q and K alone.

    Q, K     = LIF(BN(X W))                            each its own, binary; there is no V and no softmax
    Y        = one of three interpretations, below      for each head, spikes
    SASA(X)  = LIF(BN((Y + DWC(K)) W))                 DWC: see dwc.py

    Pool     Y = LIF_0.5( s/r² · (Q K_Aᵀ) K_A )        K_A [n, d]: K summed over r×r cells of the token grid
    Global   Y = LIF_0.5( s · Q ⊙ Σ_N K )              one aggregate for all tokens, channel by channel
    Channel  Y = LIF_0.5( Σ_d Q ) · K                  each token of a head passes or is silent

SAFormer (arXiv 2412.13553) computes its weights from the spike matrices Q and K with a down-sampled
aggregation AG(·), in O(n D). No code was published: the equations are our interpretation. Pool is the most
literal one and the default; Channel is QKFormer's token attention.

A sum of spikes is a count, so everything between the neurons is additions of integers. Why s/r²: K_A is r²
times stronger and enters twice, and there are r² times fewer rows, n = N/r²: r² times SSA's input in total.
(Q K_Aᵀ) K_A costs 2·N·n·D, Q (K_Aᵀ K_A) costs (N + n)·d·D: `attend` takes the cheaper order.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, where
from ..nn import LIF, Linear, Module, Spiking
from .dwc import check_grid
from .ssa import attend, merge_heads, split_heads


class SASA(Module):
    """Mix tokens x [T, B, N, dim] -> spikes [T, B, N, dim].

    aggregate: Pool, Global or Channel, a module (q, k) [T, B, h, N, d] -> spikes of that shape.
    dwc: a module on K's tokens, added to the attention before the last map, or None (SASA alone).
    qkv_bias: whether the maps to q and k have a bias; the last map always has one.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        aggregate: Module,
        dwc: Module | None = None,
        qkv_bias: bool = True,
        *,
        neuron: Callable[..., LIF] = LIF,
        rng,
    ):
        if dim % num_heads:
            raise ValueError(f"{where()}SASA cannot split dim = {dim} into {num_heads} heads of equal width")
        self.num_heads, self.aggregate, self.dwc = num_heads, aggregate, dwc
        self.q = Spiking(Linear(dim, dim, qkv_bias, rng=rng), neuron())
        self.k = Spiking(Linear(dim, dim, qkv_bias, rng=rng), neuron())
        self.proj = Spiking(Linear(dim, dim, rng=rng), neuron())

    def forward(self, x) -> Tensor:
        q, k = self.q(x), self.k(x)  # [T, B, N, D]
        y = self.aggregate(*(split_heads(x, self.num_heads) for x in (q, k)))  # [T, B, h, N, d]
        y = merge_heads(y)  # [T, B, N, D]
        if self.dwc is not None:
            y = y + self.dwc(k)
        return self.proj(y)


# ---------------------------------------------------------------- three interpretations of AG


class Pool(Module):
    """Y = LIF_0.5( s/r² · (Q K_Aᵀ) K_A ), K_A = Σ of K over r×r cells of the grid; r a power of two."""

    def __init__(
        self, grid: tuple[int, int], r: int = 2, scale: float = 0.125, *, neuron: Callable[..., LIF] = LIF
    ):
        H, W = grid
        if r < 1 or r & (r - 1):
            raise ValueError(f"{where()}Pool needs r to be a power of two, got {r}")
        if H % r or W % r:
            raise ValueError(f"{where()}Pool cannot cut a {H}×{W} token grid into cells of {r}×{r}")
        self.grid, self.r, self.scale = grid, r, scale
        self.attention = neuron(v_threshold=0.5)

    def forward(self, q, k) -> Tensor:
        k_a = self.sums(k)  # [T, B, h, n, d]
        return self.attention((self.scale / self.r**2) * attend(q, k_a, k_a))

    def sums(self, k) -> Tensor:
        T, B, h, N, d = k.shape
        (H, W), r = self.grid, self.r
        check_grid("Pool", self.grid, N)
        k = k.reshape(T, B, h, H // r, r, W // r, r, d).sum((4, 6))  # [T, B, h, H/r, W/r, d]
        return k.reshape(T, B, h, N // r**2, d)


class Global(Module):
    """Y = LIF_0.5( s · Q ⊙ Σ_N K ): where Q fires, a channel gets the count of K's spikes."""

    def __init__(self, scale: float = 0.125, *, neuron: Callable[..., LIF] = LIF):
        self.scale = scale
        self.attention = neuron(v_threshold=0.5)

    def forward(self, q, k) -> Tensor:
        return self.attention(self.scale * (q * k.sum(3, keepdims=True)))


class Channel(Module):
    """Y = a · K, a = LIF_0.5( Σ_d Q ) [T, B, h, N, 1]: for each token a head passes K on, or is silent.

    With tau = 2 one spike among a token's d channels is enough: ½ ≥ 0.5.
    """

    def __init__(self, *, neuron: Callable[..., LIF] = LIF):
        self.attention = neuron(v_threshold=0.5)

    def forward(self, q, k) -> Tensor:
        return self.attention(q.sum(-1, keepdims=True)) * k
