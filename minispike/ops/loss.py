"""What training minimises: cross-entropy for classes, mean squared error for values."""

from __future__ import annotations

from ..autograd import Function, Tensor, where
from ..backend import Array, asarray
from .shape import mean


class SoftmaxCrossEntropy(Function):
    """L = −(1/B) Σ_b Σ_k q_bk ln p_bk        p = softmax(z)        q = (1 − ε) t + ε/K

    t is the target: one-hot at the label, or a mixture that sums to one, and so does q:

    ∂ ln p_k / ∂z_j = 1[j = k] − p_j        hence        gz = gL (p − q) / B.

    A class with q = 0 does not enter the sum, even where ln p = −∞ (0 · ∞ would be NaN).
    """

    def forward(self, z, labels, smoothing):
        xp, (n, classes) = self.xp, z.shape
        z = z - z.max(1, keepdims=True)  # softmax does not change, and exp cannot overflow
        log_p = z - xp.log(xp.exp(z).sum(1, keepdims=True))
        q = xp.full_like(z, smoothing / classes)
        if labels.ndim == 1:
            q[xp.arange(n), xp.asarray(labels)] += 1 - smoothing
        else:
            q += (1 - smoothing) * xp.asarray(labels, dtype=q.dtype)
        self.gz = (xp.exp(log_p) - q) / n
        return -(q * xp.where(q > 0, log_p, 0)).sum() / n

    def backward(self, gy):
        return gy * self.gz


def softmax_cross_entropy(logits, labels: Array, label_smoothing: float = 0.0) -> Tensor:
    """Return the mean cross-entropy of logits [B, K] against integer labels [B] in 0 … K − 1.

    Soft targets, floats [B, K] whose rows sum to one (mixup makes them), take the labels' place; smoothing
    then mixes with them just as it does with one-hot rows.
    """
    labels = asarray(labels)
    shapes = f"logits {list(logits.shape)} and labels {list(labels.shape)} of {labels.dtype}"
    hard = labels.ndim == 1 and labels.shape == logits.shape[:1] and labels.dtype.kind in "iu"
    soft = labels.ndim == 2 and labels.shape == logits.shape and labels.dtype.kind == "f"
    takes = "logits [B, K] and integer labels [B], or float targets [B, K]"
    if not (len(logits.shape) == 2 and (hard or soft)):
        raise ValueError(f"{where()}softmax_cross_entropy expects {takes}, got {shapes}")
    if hard:
        low, high = int(labels.min()), int(labels.max())
        if low < 0 or high >= logits.shape[1]:
            raise ValueError(f"{where()}labels run from {low} to {high}, but there are {shapes}")
    else:
        low, off = float(labels.min()), float(abs(labels.sum(1) - 1).max())
        if not (low >= 0 and off < 1e-3):
            raise ValueError(f"{where()}soft targets go down to {low}; their rows sum to 1 up to {off}")
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"{where()}label_smoothing must lie in [0, 1), got {label_smoothing}")
    return SoftmaxCrossEntropy.apply(logits, labels=labels, smoothing=label_smoothing)


def mse(x, y) -> Tensor:
    """Return the mean of (x − y)² over all elements; both have the same shape."""
    if tuple(x.shape) != tuple(y.shape):
        raise ValueError(f"{where()}mse expects equal shapes, got {list(x.shape)} and {list(y.shape)}")
    return mean((x - y) ** 2)
