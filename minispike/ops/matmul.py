"""Matrix products: every multiply-accumulate of a transformer is one of these two, or a convolution.

    Y = X W        L depends on Y        ∂L/∂X_ik = Σ_j G_ij W_kj,  ∂L/∂W_kj = Σ_i X_ik G_ij        G = ∂L/∂Y

So both gradients are products again: gX = G Wᵀ and gW = Xᵀ G.
"""

from __future__ import annotations

from math import prod

from ..autograd import Function, Tensor, unbroadcast, where
from ..backend import Array

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
        """Return the multiply-accumulates: rows · inner · columns, times the broadcast leading axes."""
        lead = max(len(x), len(w)) - 2
        x, w = (1,) * (lead + 2 - len(x)) + x, (1,) * (lead + 2 - len(w)) + w
        return prod(max(a, b) for a, b in zip(x[:lead], w[:lead], strict=True)) * x[-2] * x[-1] * w[-1]

    @staticmethod
    def fan_out(x, w) -> tuple[Array, Array]:
        """Return, for each value of x and of w, how many non-zero values of the other it is multiplied with.

        x[n, k] meets row k of w; w[k, m] meets column k of x. Shapes [..., 1, k] and [..., k, 1], to be
        broadcast.
        """
        return (w != 0).sum(-1)[..., None, :], (x != 0).sum(-2)[..., None]


def matmul(x, w) -> Tensor:
    """Return x @ w: [..., n, k] @ [..., k, m] -> [..., n, m]; leading axes broadcast."""
    shapes = list(x.shape), list(w.shape)
    if min(len(shapes[0]), len(shapes[1])) < 2 or shapes[0][-1] != shapes[1][-2]:
        raise ValueError(f"{where()}matmul expects [..., n, k] @ [..., k, m], got {shapes[0]} @ {shapes[1]}")
    return MatMul.apply(x, w)


# ---------------------------------------------------------------- linear map


class MatMulAdd(Function):
    """y = x w + b on the last axis, all leading axes being rows.

    gx = gy wᵀ        gw = xᵀ gy        gb = Σ_rows gy
    """

    def forward(self, x, w, b=None):
        self.x, self.w, self.has_bias, lead = x, w, b is not None, x.shape[:-1]
        y = (x.reshape(-1, w.shape[0]) @ w).reshape(*lead, w.shape[1])
        return y if b is None else y + b

    def backward(self, gy):
        n_in, n_out = self.w.shape
        x, g = self.x.reshape(-1, n_in), gy.reshape(-1, n_out)  # [rows, in], [rows, out]
        gx = (g @ self.w.T).reshape(self.x.shape) if self.needs[0] else None
        gw = x.T @ g if self.needs[1] else None
        return (gx, gw, column_sums(gy).astype(gy.dtype)) if self.has_bias else (gx, gw)

    @staticmethod
    def cost(x: tuple, w: tuple, b: tuple = ()) -> int:
        """Return the multiply-accumulates: rows · in · out. The bias multiplies nothing."""
        return prod(x) * w[1]

    @staticmethod
    def fan_out(x, w, b=None) -> tuple[Array]:
        """Return, for each value of x, how many outputs it reaches through a non-zero weight: [in]."""
        return ((w != 0).sum(1),)


def linear(x, w, b=None) -> Tensor:
    """Return x w + b: x [..., in], w [in, out], b [out] or None -> [..., out]."""
    if len(x.shape) < 1 or x.shape[-1] != w.shape[0]:
        expected = f"x [..., {w.shape[0]}] for a weight {list(w.shape)}"
        raise ValueError(f"{where()}linear expects {expected}, got {list(x.shape)}")
    check_bias("linear", b, w)
    return MatMulAdd.apply(x, w) if b is None else MatMulAdd.apply(x, w, b)


def check_bias(name: str, b, w) -> None:
    """Raise ValueError unless b is None or has one entry for each of the last axis of the weight w."""
    if b is not None and tuple(b.shape) != w.shape[-1:]:
        raise ValueError(f"{where()}{name} expects a bias {list(w.shape[-1:])}, got {list(b.shape)}")


# ---------------------------------------------------------------- sums over rows


def column_sums(x: Array) -> Array:
    """Return the sum of x [..., C] over all axes but the last, in float64: [C].

    A running float32 sum over four million values is 4 % off.
    """
    return x.reshape(-1, x.shape[-1]).sum(0, dtype="float64")
