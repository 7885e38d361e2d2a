"""Batch normalisation over every axis but the last, hand-derived.

    x̂ = (x − μ) · r        r = 1/√(σ² + ε)        y = γ x̂ + β        μ, σ²: per channel, over all n rows

μ and σ² depend on every row, so a row's gradient also flows through them. With ∂μ/∂x_i = 1/n and
∂σ²/∂x_i = 2 (x_i − μ)/n, the three paths collect to

    gβ = Σ gy        gγ = Σ gy x̂        gx = γ r (gy − gβ/n − x̂ gγ/n)

In words: gx is gy without its mean and without its part along x̂, the two directions that normalising erases.
"""

from __future__ import annotations

from ..autograd import Function, Tensor, where
from ..backend import Array, twin
from .matmul import column_sums

# ---------------------------------------------------------------- normalise


class Normalise(Function):
    """y = γ r (x − μ) + β for given μ and σ². `own`: they are x's own, so backward goes through them, too."""

    def forward(self, x, gamma, beta, *, mean, var, eps, own):
        self.x, self.gamma, self.own = x, gamma, own
        self.mean, self.r = mean, 1 / self.xp.sqrt(var + eps)
        return (x - mean) * (gamma * self.r) + beta

    def backward(self, gy):
        x_hat = (self.x - self.mean) * self.r
        n = gy.size // gy.shape[-1]
        gbeta = column_sums(gy).astype(gy.dtype)
        ggamma = column_sums(gy * x_hat).astype(gy.dtype)
        erased = gbeta / n + x_hat * (ggamma / n) if self.own else 0
        return (gy - erased) * (self.gamma * self.r), ggamma, gbeta


# ---------------------------------------------------------------- mean and variance


def moments(x: Array) -> tuple[Array, Array]:
    """Return the mean and the biased variance of x [..., C] over all other axes, [C] each, in x's dtype.

    The variance is Σ(x − μ)²/n. The shorter E[x²] − E[x]² would lose half of float32's digits at a mean of
    30.
    """
    n = x.size // x.shape[-1]
    mean = (column_sums(x) / n).astype(x.dtype)
    return mean, (column_sums((x - mean) ** 2) / n).astype(x.dtype)


def statistics(x, running_mean, running_var, training, momentum, repeats=1) -> tuple[Array, Array]:
    """Return the mean and variance to normalise x with; in training also move the running ones."""
    channels = running_mean.shape[0]
    if x.shape[-1:] != (channels,):
        raise ValueError(f"{where()}batch_norm expects x [..., {channels}], got {list(x.shape)}")
    if not training:
        return running_mean.copy(), running_var  # backward needs this mean; a training step overwrites it
    data = x.data if isinstance(x, Tensor) else x
    n = repeats * (data.size // channels)
    if n <= 1:
        needed = "more than one value per channel to train on"
        raise ValueError(f"{where()}batch_norm needs {needed}, got x {list(x.shape)}")
    mean, var = twin(moments, data)(data)
    twin(move_running, data)(running_mean, running_var, mean, var, momentum, n / (n - 1))
    return mean, var


def move_running(running_mean, running_var, mean, var, momentum: float, unbias: float) -> None:
    """Move the running statistics, in place, by `momentum` towards a batch's; unbias: n/(n − 1)."""
    running_mean[...] = (1 - momentum) * running_mean + momentum * mean
    running_var[...] = (1 - momentum) * running_var + momentum * (var * unbias)


# ---------------------------------------------------------------- what people call


def batch_norm(
    x,
    gamma,
    beta,
    running_mean: Array,
    running_var: Array,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    repeats: int = 1,
) -> Tensor:
    """Normalise each channel of x [..., C]; gamma, beta, running_mean and running_var are [C].

    training: use the batch's own mean and variance, and move the running ones (in place) by `momentum`
    towards them. The running variance is unbiased, n/(n − 1), as in PyTorch. Without training the running
    ones are used.
    repeats: how many identical rows each row stands for; it only changes n in the unbiased variance.
    """
    shapes = [list(each.shape) for each in (gamma, beta, running_mean, running_var)]
    wanted = list(x.shape[-1:])
    if any(shape != wanted for shape in shapes):
        raise ValueError(
            f"{where()}batch_norm expects for x {list(x.shape)} four arrays of {wanted}, got {shapes}"
        )
    mean, var = statistics(x, running_mean, running_var, training, momentum, repeats)
    return Normalise.apply(x, gamma, beta, mean=mean, var=var, eps=eps, own=training)
