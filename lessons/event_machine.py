"""A Spikformer run event by event: it knows spikes, weights and sums, and nothing of the library's ops.

    machine = EventMachine(model)
    logits = machine(images)
    machine.additions["blocks.0.mixer.q.map"]      additions into that layer's sums
    machine.spikes["blocks.0.mixer.q.neuron"]      [T, B, N, D]

Every spike looks up the weights that it leads to and adds them. What is multiplied: the image, in the first
convolution; by s, a power of two; by 1/2, in the neurons (τ = 2); and one division in the head. It is slow,
and meant to be read.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from minispike import LIF, Module
from minispike.blocks.ssa import SSA


class EventMachine:
    """Run a trained Spikformer (SPS, SSA, MLP; τ = 2, hard reset to 0) on static images [B, H, W, C].

    additions, products: how many, by layer: what went into its sums (biases and neurons are not counted).
    """

    def __init__(self, model: Module):
        modules = [module for _, module in model.named_modules()]
        known = all(m.tau == 2 and m.v_reset == 0 and not m.smooth for m in modules if isinstance(m, LIF))
        if not known or not all(isinstance(block.mixer, SSA) for block in model.blocks):
            raise ValueError("an EventMachine runs Spikformers with tau = 2, a hard reset to 0 and spikes")
        self.model = model
        self.dtype = model.head.weight.dtype
        self.additions, self.products, self.spikes = Counter(), Counter(), {}

    def __call__(self, images: np.ndarray) -> np.ndarray:
        x = self.stem(images[None].astype(self.dtype))  # [T, B, N, D]
        for i, block in enumerate(self.model.blocks):
            x = x + self.attention(f"blocks.{i}.mixer", block.mixer, x)
            hidden = self.brick(f"blocks.{i}.mlp.fc1", block.mlp.fc1, x)
            x = x + self.brick(f"blocks.{i}.mlp.fc2", block.mlp.fc2, hidden)
        head, (T, _, N, _) = self.model.head, x.shape
        counts = x.sum((0, 2))  # [B, D]: how often each channel fired
        return self.add_rows("head", counts, head.weight.data) / (T * N) + head.bias.data

    # ------------------------------------------------------------ the layers

    def stem(self, x):
        stem = self.model.stem
        for i, stage in enumerate(stem.stages):
            x = self.brick(f"stem.stages.{i}", stage, x, T=self.model.T if i == 0 else 1)
            x = self.pool(x) if stem.pools[i] else x
        x = x + self.brick("stem.rpe", stem.rpe, x)
        return x.reshape(*x.shape[:2], -1, x.shape[-1])  # [T, B, N, D]

    def brick(self, path, brick, x, T=1):
        scale, shift = brick.norm.fold()
        weight, bias = brick.map.weight.data * scale, brick.map.bias
        shift = shift if bias is None else shift + scale * bias.data
        add = self.add_rows if weight.ndim == 2 else self.add_windows
        current = np.repeat(add(f"{path}.map", x, weight) + shift, T, axis=0)
        return self.fire(f"{path}.neuron", current, brick.neuron.v_threshold)

    def fire(self, path, current, threshold):
        v, spikes = np.zeros_like(current[0]), []
        for x in current:
            h = v + (x - v) / 2
            fired = h >= threshold
            v = np.where(fired, 0, h).astype(self.dtype)
            spikes.append(fired)
        self.spikes[path] = np.array(spikes).astype(self.dtype)
        return self.spikes[path]

    def pool(self, x):
        T, B, H, W, C = x.shape
        y = np.zeros((T, B, H // 2, W // 2, C), self.dtype)
        for t, b, p, q, c in np.argwhere(x):  # a spike makes every 3×3 window fire that it lies in
            y[t, b, p // 2 : (p + 1) // 2 + 1, q // 2 : (q + 1) // 2 + 1, c] = 1
        return y

    def attention(self, path, ssa, x):
        q, k, v = (self.brick(f"{path}.{name}", getattr(ssa, name), x) for name in "qkv")
        T, B, N, D = q.shape
        q, k, v = (a.reshape(T, B, N, ssa.num_heads, -1).swapaxes(2, 3) for a in (q, k, v))
        y = np.zeros_like(q)  # [T, B, h, N, d]
        product = self.scores_first if N <= q.shape[-1] else self.values_first
        for at in np.ndindex(q.shape[:3]):
            product(path, q[at], k[at], v[at], y[at])
        y = self.fire(f"{path}.attention", ssa.scale * y, ssa.attention.v_threshold)
        return self.brick(f"{path}.proj", ssa.proj, y.swapaxes(2, 3).reshape(T, B, N, D))

    def scores_first(self, path, q, k, v, y):
        """Add (Q Kᵀ) V to y [N, d]."""
        scores = np.zeros((len(q), len(k)), self.dtype)
        for i, c in np.argwhere(q):
            self.add(path, scores[i], 1, np.flatnonzero(k[:, c]))  # a coincidence in channel c
        for j, c in np.argwhere(v):
            self.add(path, y[:, c], scores[:, j], np.flatnonzero(scores[:, j]))

    def values_first(self, path, q, k, v, y):
        """Add Q (KᵀV) to y [N, d]."""
        pairs = np.zeros((k.shape[1], v.shape[1]), self.dtype)
        for j, c in np.argwhere(k):
            self.add(path, pairs[c], 1, np.flatnonzero(v[j]))
        for i, c in np.argwhere(q):
            self.add(path, y[i], pairs[c], np.flatnonzero(pairs[c]))

    # ------------------------------------------------------------ the only arithmetic

    def add(self, path, sums, values, where):
        """sums[where] += values[where], one addition each."""
        sums[where] += values if np.isscalar(values) else values[where]
        self.additions[path] += len(where)

    def add_value(self, path, sums, value, weights):
        """Let a value reach the sums: 1, 2, … add the weights so often, any other value multiplies."""
        if value == int(value) > 0:
            for _ in range(int(value)):
                sums += weights
                self.additions[path] += len(weights)
        else:
            sums += value * weights
            self.products[path] += len(weights)

    def add_rows(self, path, x, weight):
        y = np.zeros((*x.shape[:-1], weight.shape[1]), self.dtype)
        for *at, c in np.argwhere(x):
            self.add_value(path, y[tuple(at)], x[(*at, c)], weight[c])
        return y

    def add_windows(self, path, x, weight):
        H, W = x.shape[2:4]
        y = np.zeros((*x.shape[:-1], weight.shape[-1]), self.dtype)
        for t, b, p, q, c in np.argwhere(x):
            for i, j in np.ndindex(3, 3):
                if 0 <= p + 1 - i < H and 0 <= q + 1 - j < W:
                    self.add_value(path, y[t, b, p + 1 - i, q + 1 - j], x[t, b, p, q, c], weight[i, j, c])
        return y
