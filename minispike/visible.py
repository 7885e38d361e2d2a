"""Which positions of a masked image are visible, at every resolution of the stem.

A hidden patch must leave no trace: not in a neighbour's convolution, and not in the statistics of a batch
norm. So `visible.through(brick, x)` runs a brick in three steps: it takes the visible rows out after the map,
normalises and fires on those alone, and puts their spikes back into zeros. Plain batch norm over the visible
rows is masked batch norm. (Spikformer V2 pre-trains on masked images; how it masks is our interpretation, see
masked.py.)
"""

from __future__ import annotations

from .autograd import Tensor, running, where
from .backend import HOST, Array, to_host
from .nn import Spiking
from .ops import put, take


class Visible:
    """The visible tokens of a batch: a bool array [B, h, w], with the same number in every sample.

    Masks stay on the host, where they are drawn: a GPU would have to be asked how many rows they leave.
    """

    def __init__(self, tokens: Array):
        tokens = to_host(tokens)
        if tokens.ndim != 3 or tokens.dtype != bool:
            got = f"{tokens.dtype}{list(tokens.shape)}"
            raise ValueError(f"{where()}a mask is a bool array [B, h, w], got {got}")
        counts = tokens.reshape(len(tokens), -1).sum(1)
        self.tokens, self.per_sample = tokens, int(counts[0])
        if self.per_sample == 0 or not bool((counts == self.per_sample).all()):
            needed = "equally many visible tokens, at least one, in each sample"
            raise ValueError(f"{where()}a mask needs {needed}, got {counts}")
        self._rows: dict[tuple[int, int], Array] = {}

    def through(self, brick: Spiking, x, T: int = 1) -> Tensor:
        """Run a brick on the visible positions of x [T, B, H, W, C]; the others are silent.

        T: only for a static image x [1, B, H, W, C], which the neurons see T times.
        """
        with running(brick):
            y = brick.map(x)
            return self.put(brick.fire(self.take(y), T), *y.shape[2:4])

    def rows(self, H: int, W: int) -> Array:
        """Return the visible positions among B·H·W, on the host, for a whole multiple of the tokens' grid."""
        h, w = self.tokens.shape[1:]
        if H % h or W % w:
            raise ValueError(f"{where()}a mask of {h}×{w} tokens does not fit a grid of {H}×{W}")
        if (H, W) not in self._rows:
            cells = self.tokens.repeat(H // h, 1).repeat(W // w, 2)  # [B, H, W]
            self._rows[H, W] = HOST.xp.flatnonzero(cells)
        return self._rows[H, W]

    def take(self, x) -> Tensor:
        """Return the visible rows [T, M, C] of x [T, B, H, W, C]."""
        T, B, H, W, C = x.shape
        if len(self.tokens) != B:
            raise ValueError(f"{where()}a mask of {len(self.tokens)} samples does not fit a batch of {B}")
        return take(x.reshape(T, B * H * W, C), self.rows(H, W))

    def put(self, rows, H: int, W: int) -> Tensor:
        """Return rows [T, M, C] in their places of [T, B, H, W, C], zero where nothing is visible."""
        (T, _, C), B = rows.shape, len(self.tokens)
        return put(rows, self.rows(H, W), B * H * W).reshape(T, B, H, W, C)

    def hide(self, x) -> Tensor:
        """Return x [T, B, H, W, C] with zeros where nothing is visible."""
        return self.put(self.take(x), *x.shape[2:4])
