"""Spike-aggregated self-attention (SASA), SAFormer's mixer: attention from Q and K alone.

    Q, K     = LIF(BN(X W))                            each its own, binary; there is no V and no softmax
    Y        = one of the three readings below         for each head, spikes
    SASA(X)  = LIF(BN((Y + DWC(K)) W))                 DWC: see dwc.py

    Pool     Y = LIF_0.5( s/r² · (Q K_Aᵀ) K_A )        K_A [n, d]: K summed over r×r cells of the token grid
    Global   Y = LIF_0.5( s · Q ⊙ Σ_N K )              one aggregate for all tokens, channel by channel
    Channel  Y = LIF_0.5( Σ_d Q ) · K                  each token of a head passes or is silent

SAFormer (arXiv 2412.13553) computes its weights from the spike matrices Q and K with a down-sampled
aggregation AG(·), in O(n D). The equations are our reading: no code was published. Pool, the most literal, is
the default; Channel is QKFormer's token attention.

A sum of spikes is a count, so everything between the neurons is additions of integers. With n = N/r² cells
Pool meets r² times as strong a K_A twice and r² times as few of them, hence s/r²: the neuron's mean input
stays SSA's. (Q K_Aᵀ) K_A costs 2·N·n·D, Q (K_Aᵀ K_A) costs (N + n)·d·D: `attend` takes the cheaper.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, expect
from ..nn import LIF, Linear, Module, Spiking
from .dwc import check_grid
from .ssa import attend, merge_heads, split_heads


class SASA(Module):
    """Mix tokens x [T, B, N, dim] -> spikes [T, B, N, dim].

    aggregate: the reading, a module (q, k) [T, B, h, N, d] -> spikes of that shape: Pool, Global or Channel.
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
        expect(dim % num_heads == 0, f"SASA cannot split dim = {dim} into {num_heads} heads of equal width")
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


# ---------------------------------------------------------------- the readings of AG


class Pool(Module):
    """Y = LIF_0.5( s/r² · (Q K_Aᵀ) K_A ), K_A = Σ of K over r×r cells of the grid; r a power of two."""

    def __init__(
        self, grid: tuple[int, int], r: int = 2, scale: float = 0.125, *, neuron: Callable[..., LIF] = LIF
    ):
        H, W = grid
        expect(r >= 1 and r & (r - 1) == 0, f"Pool needs r to be a power of two, got {r}")
        expect(H % r == 0 and W % r == 0, f"Pool cannot cut a {H}×{W} token grid into cells of {r}×{r}")
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
    """Y = LIF_0.5( s · Q ⊙ Σ_N K ): where Q fires, a channel is driven by how often its K fires anywhere."""

    def __init__(self, scale: float = 0.125, *, neuron: Callable[..., LIF] = LIF):
        self.scale = scale
        self.attention = neuron(v_threshold=0.5)

    def forward(self, q, k) -> Tensor:
        return self.attention(self.scale * (q * k.sum(3, keepdims=True)))


class Channel(Module):
    """Y = a · K, a = LIF_0.5( Σ_d Q ) [T, B, h, N, 1]: a head passes a token on, or is silent about it.

    With tau = 2 one spike among a token's d channels suffices: ½ ≥ 0.5.
    """

    def __init__(self, *, neuron: Callable[..., LIF] = LIF):
        self.attention = neuron(v_threshold=0.5)

    def forward(self, q, k) -> Tensor:
        return self.attention(q.sum(-1, keepdims=True)) * k
