"""Which positions of an image exist, when some are masked: the same mask at every resolution of a stem.

A masked patch must leave no trace: not in a neighbour's convolution, and not in the statistics of a batch
norm. So the brick takes the visible rows out after its map, normalises and fires on those alone, and puts
their spikes back into zeros (Spikformer V2's pre-training; how it masks is our reading, see masked.py).
"""

from __future__ import annotations

from .autograd import Tensor, expect
from .backend import Array, get_xp
from .ops import put, take


class Visible:
    """The visible tokens of a batch: a bool array [B, h, w], with the same number in every sample."""

    def __init__(self, tokens: Array):
        ok = tokens.ndim == 3 and tokens.dtype == bool
        expect(ok, f"a mask is a bool array [B, h, w], got {tokens.dtype}{list(tokens.shape)}")
        counts = tokens.reshape(len(tokens), -1).sum(1)
        self.tokens, self.per_sample = tokens, int(counts[0])
        ok = self.per_sample > 0 and bool((counts == self.per_sample).all())
        expect(ok, f"a mask needs equally many visible tokens, at least one, in each sample, got {counts}")
        self._rows: dict[tuple[int, int], Array] = {}

    def rows(self, H: int, W: int) -> Array:
        """Return the visible positions among B·H·W, for a grid that is a whole multiple of the tokens'."""
        h, w = self.tokens.shape[1:]
        expect(H % h == 0 and W % w == 0, f"a mask of {h}×{w} tokens does not fit a grid of {H}×{W}")
        if (H, W) not in self._rows:
            cells = self.tokens.repeat(H // h, 1).repeat(W // w, 2)  # [B, H, W]
            self._rows[H, W] = get_xp(cells).flatnonzero(cells)
        return self._rows[H, W]

    def take(self, x) -> Tensor:
        """[T, B, H, W, C] -> the visible rows [T, M, C]"""
        T, B, H, W, C = x.shape
        expect(B == len(self.tokens), f"a mask of {len(self.tokens)} samples does not fit a batch of {B}")
        return take(x.reshape(T, B * H * W, C), self.rows(H, W))

    def put(self, rows, H: int, W: int) -> Tensor:
        """[T, M, C] -> [T, B, H, W, C], zero where nothing is visible"""
        (T, _, C), B = rows.shape, len(self.tokens)
        return put(rows, self.rows(H, W), B * H * W).reshape(T, B, H, W, C)

    def hide(self, x) -> Tensor:
        """Return x [T, B, H, W, C] with zeros where nothing is visible."""
        return self.put(self.take(x), *x.shape[2:4])
