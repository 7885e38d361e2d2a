"""Spikformer in PyTorch, written from the paper's equations under the authors' names: the oracle's side.

Channels first, time and batch flattened for every layer, as PyTorch wants them; so nothing of minispike's way
of computing is repeated here. `neuron` makes the LIF: a plain differentiable one, or SpikingJelly's.
"""

import torch
from torch import nn


class Step(torch.autograd.Function):
    """Heaviside forward, α σ(1 − σ) backward, α = 4."""

    @staticmethod
    def forward(ctx, u):
        ctx.save_for_backward(u)
        return (u >= 0).to(u)

    @staticmethod
    def backward(ctx, gy):
        s = torch.sigmoid(4 * ctx.saved_tensors[0])
        return gy * 4 * s * (1 - s)


class PlainLIF(nn.Module):
    """τ = 2, hard reset to 0, detached, over the first axis."""

    def __init__(self, v_threshold=1.0):
        super().__init__()
        self.v_threshold = v_threshold

    def forward(self, x):
        v, spikes = torch.zeros_like(x[0]), []
        for current in x:
            h = v + (current - v) / 2
            s = Step.apply(h - self.v_threshold)
            v = h * (1 - s.detach())
            spikes.append(s)
        return torch.stack(spikes)


def jelly_lif(v_threshold=1.0):
    """SpikingJelly's multi-step neuron with the paper's constants."""
    from spikingjelly.activation_based import neuron, surrogate

    return neuron.LIFNode(
        tau=2.0, v_threshold=v_threshold, v_reset=0.0, detach_reset=True, step_mode="m",
        surrogate_function=surrogate.Sigmoid(alpha=4.0),
    )  # fmt: skip


def over_time(layer, x):
    """Apply a layer to [T, B, …] as one batch of T·B."""
    y = layer(x.flatten(0, 1))
    return y.reshape(*x.shape[:2], *y.shape[1:])


class PatchEmbed(nn.Module):
    """Four times Conv 3×3 → BN → LIF (→ max-pool 3×3, stride 2), then x + LIF(BN(Conv 3×3))."""

    def __init__(self, channels, dim, pools, neuron):
        super().__init__()
        widths = [channels, dim // 8, dim // 4, dim // 2, dim]
        for i, (a, b) in enumerate(zip(widths, widths[1:], strict=False)):
            setattr(self, f"proj_conv{i or ''}", nn.Conv2d(a, b, 3, padding=1, bias=False))
            setattr(self, f"proj_bn{i or ''}", nn.BatchNorm2d(b))
            setattr(self, f"proj_lif{i or ''}", neuron())
        self.rpe_conv, self.rpe_bn, self.rpe_lif = (
            nn.Conv2d(dim, dim, 3, padding=1, bias=False),
            nn.BatchNorm2d(dim),
            neuron(),
        )
        self.pools = pools

    def brick(self, name, i, x):
        conv, norm, lif = (getattr(self, f"{name}_{part}{i}") for part in ("conv", "bn", "lif"))
        return lif(over_time(lambda y: norm(conv(y)), x))

    def forward(self, x):
        for i, pool in enumerate(self.pools):
            x = self.brick("proj", i or "", x)
            if pool:
                x = over_time(nn.MaxPool2d(3, 2, 1), x)
        x = x + self.brick("rpe", "", x)
        return x.flatten(3)  # [T, B, C, N]


def linear(kind, a, b, bias=True):
    """A linear map over channels of [n, C, N], in one of the two ways of writing it."""
    return nn.Linear(a, b, bias=bias) if kind == "linear" else nn.Conv1d(a, b, 1, bias=bias)


class Sublayer(nn.Module):
    """The parts of attention and MLP: LIF(BN(linear x)), kept under the authors' names in the parent."""

    def add(self, name, kind, a, b, neuron, bias=True):
        setattr(self, f"{name}_{kind}", linear(kind, a, b, bias))
        setattr(self, f"{name}_bn", nn.BatchNorm1d(b))
        setattr(self, f"{name}_lif", neuron())
        self.kind = kind

    def brick(self, name, x):
        map, norm, lif = (getattr(self, f"{name}_{part}") for part in (self.kind, "bn", "lif"))

        def layer(y):
            y = map(y.transpose(1, 2)).transpose(1, 2) if self.kind == "linear" else map(y)
            return norm(y)

        return lif(over_time(layer, x))


class Attention(Sublayer):
    """LIF(BN(W LIF_0.5(s (QKᵀ) V)))"""

    def __init__(self, dim, heads, scale, kind, qkv_bias, neuron):
        super().__init__()
        for name in "qkv":
            self.add(name, kind, dim, dim, neuron, qkv_bias)
        self.attn_lif = neuron(0.5)
        self.add("proj", kind, dim, dim, neuron)
        self.heads, self.scale = heads, scale

    def forward(self, x):
        T, B, C, N = x.shape
        q, k, v = (self.brick(name, x).reshape(T, B, self.heads, C // self.heads, N) for name in "qkv")
        y = torch.einsum("tbhdn,tbhdm,tbhem->tbhen", q, k, v) * self.scale
        return self.brick("proj", self.attn_lif(y.contiguous()).reshape(T, B, C, N))


class MLP(Sublayer):
    def __init__(self, dim, hidden, kind, neuron):
        super().__init__()
        self.add("fc1", kind, dim, hidden, neuron)
        self.add("fc2", kind, hidden, dim, neuron)

    def forward(self, x):
        return self.brick("fc2", self.brick("fc1", x))


class Block(nn.Module):
    def __init__(self, dim, heads, ratio, scale, kind, qkv_bias, neuron):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)  # built and never called, as published
        self.attn = Attention(dim, heads, scale, kind, qkv_bias, neuron)
        self.mlp = MLP(dim, int(dim * ratio), kind, neuron)

    def forward(self, x):
        x = x + self.attn(x)
        return x + self.mlp(x)


class Spikformer(nn.Module):
    """images [B, C, H, W], repeated T times, or frames [T, B, C, H, W] -> logits [B, classes]"""

    def __init__(
        self, *, channels, dim, pools, depth, heads, ratio, scale, kind, qkv_bias, classes, T, neuron
    ):
        super().__init__()
        self.patch_embed = PatchEmbed(channels, dim, pools, neuron)
        self.block = nn.ModuleList(
            Block(dim, heads, ratio, scale, kind, qkv_bias, neuron) for _ in range(depth)
        )
        self.head, self.T = nn.Linear(dim, classes), T
        if kind == "dvs":  # as published: two more that are built and never called
            self.norm, self.pos_embed = nn.LayerNorm(dim), nn.Parameter(torch.zeros(1, 64, dim))

    def forward(self, x):
        if x.ndim == 4:
            x = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        x = self.patch_embed(x)
        for block in self.block:
            x = block(x)
        return self.head(x.mean(-1).mean(0))
