"""Matrix products: every multiply-accumulate of a transformer is one of these two (or a convolution).

    Y = X W        L depends on Y        ∂L/∂X_ik = Σ_j G_ij W_kj,  ∂L/∂W_kj = Σ_i X_ik G_ij        G = ∂L/∂Y

so both gradients are again products: gX = G Wᵀ and gW = Xᵀ G.
"""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, expect, unbroadcast
from ..backend import Array, get_xp
from ..parallel import as_bytes

# ---------------------------------------------------------------- batched product


class MatMul(Function):
    """y = x @ w on the last two axes        gx = gy @ wᵀ        gw = xᵀ @ gy        (other axes broadcast)"""

    def forward(self, x, w):
        self.x, self.w = x, w
        return x @ w

    def backward(self, gy):
        gx = unbroadcast(gy @ self.w.swapaxes(-1, -2), self.x.shape) if self.needs[0] else None
        gw = unbroadcast(self.x.swapaxes(-1, -2) @ gy, self.w.shape) if self.needs[1] else None
        return gx, gw

    @staticmethod
    def cost(x: tuple, w: tuple) -> int:
        """Multiply-accumulates: rows · inner · columns, times the broadcast leading axes."""
        lead = max(len(x), len(w)) - 2
        x, w = (1,) * (lead + 2 - len(x)) + x, (1,) * (lead + 2 - len(w)) + w
        return prod(max(a, b) for a, b in zip(x[:lead], w[:lead], strict=True)) * x[-2] * x[-1] * w[-1]

    @staticmethod
    def fan_out(x, w) -> tuple[Array, Array]:
        """For each value of x, and of w: with how many values other than 0 of the other it is multiplied.

        x[n, k] meets row k of w, w[k, m] meets column k of x: [..., 1, k] and [..., k, 1], to be broadcast.
        """
        return (w != 0).sum(-1)[..., None, :], (x != 0).sum(-2)[..., None]


def matmul(x, w) -> Tensor:
    """Return x @ w: [..., n, k] @ [..., k, m] -> [..., n, m]; leading axes broadcast."""
    shapes = list(x.shape), list(w.shape)
    ok = min(len(shapes[0]), len(shapes[1])) >= 2 and shapes[0][-1] == shapes[1][-2]
    expect(ok, f"matmul expects [..., n, k] @ [..., k, m], got {shapes[0]} @ {shapes[1]}")
    return MatMul.apply(x, w)


# ---------------------------------------------------------------- linear map


class Linear(Function):
    """y = x w + b on the last axis, as one matrix product over all leading axes together.

    gx = gy wᵀ        gw = xᵀ gy        gb = Σ_rows gy
    """

    def forward(self, x, w, b=None):
        self.x, self.w, self.has_bias = as_bytes(x) if self.needs[1] else None, w, b is not None
        y = x.reshape(-1, w.shape[0]) @ w  # [rows, out]
        if b is not None:
            y += b
        return y.reshape(*x.shape[:-1], w.shape[1])

    def backward(self, gy):
        n_in, n_out = self.w.shape
        g = gy.reshape(-1, n_out)  # [rows, out]
        gx = (g @ self.w.T).reshape(*gy.shape[:-1], n_in) if self.needs[0] else None
        gw = self.x.astype(g.dtype, copy=False).reshape(-1, n_in).T @ g if self.needs[1] else None
        return (gx, gw, column_sums(g).astype(g.dtype)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = ()) -> int:
        """Multiply-accumulates: rows · in · out (the bias adds nothing to multiply)."""
        return prod(x) * w[1]

    @staticmethod
    def fan_out(x, w, b=None) -> tuple[Array]:
        """For each value of x: how many outputs it reaches by a weight other than 0, [in]."""
        return ((w != 0).sum(1),)


def linear(x, w, b=None) -> Tensor:
    """Return x w + b: x [..., in], w [in, out], b [out] or None -> [..., out]."""
    expect(
        len(x.shape) >= 1 and x.shape[-1] == w.shape[0],
        f"linear expects x [..., {w.shape[0]}] for a weight {list(w.shape)}, got {list(x.shape)}",
    )
    check_bias("linear", b, w)
    return Linear.apply(x, w) if b is None else Linear.apply(x, w, b)


def check_bias(name: str, b, w) -> None:
    """Raise unless b is None or [out], one for each of the last axis of the weight w."""
    ok = b is None or tuple(b.shape) == w.shape[-1:]
    expect(ok, f"{name} expects a bias {list(w.shape[-1:])}, got {None if ok else list(b.shape)}")


def column_sums(x: Array) -> Array:
    """Return Σ over the rows of x [..., rows, C] in float64, without losing digits of float32 on the way.

    One running float32 sum over four million values is 4 % off. A product with a row of ones sums up to 1,024
    rows at the speed of memory; the partial sums are then added in float64.
    """
    xp, step, rows = get_xp(x), 1024, x.shape[-2]
    whole = rows // step * step
    ones = xp.ones((1, step), x.dtype)
    total = (ones[:, : rows - whole] @ x[..., whole:, :]).reshape(-1, x.shape[-1]).sum(0, dtype="float64")
    if whole:
        blocks = x[..., :whole, :].reshape(*x.shape[:-2], -1, step, x.shape[-1])
        total += (ones @ blocks).reshape(-1, x.shape[-1]).sum(0, dtype="float64")
    return total
