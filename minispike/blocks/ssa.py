"""Spiking self-attention (SSA), Spikformer's mixer.

    Q, K, V = LIF(BN(X W))                      each with its own W, binary
    Y       = LIF_0.5( s · (Q Kᵀ) V )           for each head; LIF_0.5 fires at 0.5
    SSA(X)  = LIF(BN(Y W))

Spikformer (arXiv 2209.15425) §3.3, eqs. 5–9. Q Kᵀ counts the channels in which two tokens fire together:
integers that are never negative, so no softmax is needed. The scale s keeps the product where the neuron's
surrogate gradient is not near 0. Tokens meet only tokens of the same time step; only neurons mix time.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Tensor, where
from ..nn import LIF, Linear, Map, Module, Spiking


class SSA(Module):
    """Mix tokens x [T, B, N, dim] -> spikes [T, B, N, dim].

    qkv_bias: whether the maps to q, k, v have a bias (CIFAR: yes; ImageNet and DVS: no). The last map always
    has one.
    frozen: the maps to q and k keep the weights that are drawn here, and everything else learns. This is a
    control: with it, which tokens attend to which is not learned (STEP benchmark; see control.py).
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        scale: float = 0.125,
        qkv_bias: bool = True,
        frozen: bool = False,
        *,
        neuron: Callable[..., LIF] = LIF,
        rng,
    ):
        if dim % num_heads:
            raise ValueError(f"{where()}SSA cannot split dim = {dim} into {num_heads} heads of equal width")
        self.num_heads, self.scale = num_heads, scale
        self.q = Spiking(Linear(dim, dim, qkv_bias, rng=rng), neuron())
        self.k = Spiking(Linear(dim, dim, qkv_bias, rng=rng), neuron())
        self.v = Spiking(Linear(dim, dim, qkv_bias, rng=rng), neuron())
        self.attention = neuron(v_threshold=0.5)
        self.proj = Spiking(Linear(dim, dim, rng=rng), neuron())
        for brick in (self.q, self.k) if frozen else ():
            freeze(brick.map)

    def forward(self, x) -> Tensor:
        q, k, v = (split_heads(brick(x), self.num_heads) for brick in (self.q, self.k, self.v))
        y = self.attention(self.scale * attend(q, k, v))  # [T, B, h, N, d]
        return self.proj(merge_heads(y))  # [T, B, N, D]


def freeze(map: Map) -> None:
    """Make a map's weight and bias plain arrays: saved and moved as before, but not trained."""
    map.weight = map.weight.data
    map.bias = None if map.bias is None else map.bias.data


def split_heads(x, num_heads: int) -> Tensor:
    """Return tokens [T, B, N, h·d] head by head: [T, B, h, N, d]."""
    T, B, N, D = x.shape
    return x.reshape(T, B, N, num_heads, D // num_heads).transpose(0, 1, 3, 2, 4)


def merge_heads(x) -> Tensor:
    """Return heads [T, B, h, N, d] next to each other: [T, B, N, h·d]."""
    T, B, h, N, d = x.shape
    return x.transpose(0, 1, 3, 2, 4).reshape(T, B, N, h * d)


def attend(q, k, v) -> Tensor:
    """Return (Q Kᵀ) V, or Q (Kᵀ V) where that is cheaper, for q [.., N, d] and k, v [.., n, d].

    There is no softmax between the products, so they associate: 2·N·n·d multiply-accumulates per head, or
    (N + n)·d². On spikes both give the same integers. In SSA n = N, so the choice depends on N and d.
    """
    (N, d), n = q.shape[-2:], k.shape[-2]
    k_t = k.transpose(0, 1, 2, 4, 3)  # [T, B, h, d, n]
    return (q @ k_t) @ v if 2 * N * n <= d * (N + n) else q @ (k_t @ v)
