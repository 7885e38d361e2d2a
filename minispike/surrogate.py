"""Surrogate gradients: a step's derivative is zero or infinite, so learning uses that of a smooth step g.

    forward   S = 1[u >= 0]              u = H − v_threshold
    backward  gu = gS · g'(u)            g' is a bump around the threshold

Here gS = ∂L/∂S and gu = ∂L/∂u. Each class is a pair (g, g') with one slope parameter α, stated as in
SpikingJelly. In `smooth` mode g itself replaces the step: then the network really is differentiable, and
finite differences check the whole backward pass. A test ties each g' to its g.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

from .autograd import Function, Tensor
from .backend import get_xp


@dataclass(frozen=True)
class Surrogate:
    """A smooth step g(u) from 0 to 1 with g(0) = ½, and its derivative g_prime(u), over plain arrays.

    alpha: the step's steepness. ValueError unless it is > 0.
    """

    alpha: float

    def __post_init__(self):
        if not self.alpha > 0:
            raise ValueError(f"{type(self).__name__} needs alpha > 0, got {self.alpha}")


@dataclass(frozen=True)
class Sigmoid(Surrogate):
    """g = σ(αu)        g' = α σ(1 − σ)        with σ(z) = ½(1 + tanh(z/2)), which cannot overflow"""

    alpha: float = 4.0

    def g(self, u):
        return 0.5 + 0.5 * get_xp(u).tanh((0.5 * self.alpha) * u)

    def g_prime(self, u):
        y = get_xp(u).tanh((0.5 * self.alpha) * u)  # σ(1 − σ) = ¼(1 − tanh²)
        y *= y
        y -= 1
        y *= -0.25 * self.alpha
        return y


@dataclass(frozen=True)
class ATan(Surrogate):
    """g = atan(παu/2)/π + ½        g' = (α/2) / (1 + (παu/2)²)"""

    alpha: float = 2.0

    def g(self, u):
        return get_xp(u).arctan((0.5 * pi * self.alpha) * u) / pi + 0.5

    def g_prime(self, u):
        return (0.5 * self.alpha) / (1 + ((0.5 * pi * self.alpha) * u) ** 2)


@dataclass(frozen=True)
class Triangle(Surrogate):
    """g = ½ + αu − ½α²u|u| for |u| <= 1/α, else 0 or 1        g' = max(0, α − α²|u|)"""

    alpha: float = 1.0

    def g(self, u):
        z = get_xp(u).clip(self.alpha * u, -1, 1)
        return 0.5 + z - 0.5 * z * abs(z)

    def g_prime(self, u):
        return get_xp(u).maximum(0, self.alpha - self.alpha**2 * abs(u))


@dataclass(frozen=True)
class Rectangle(Surrogate):
    """g = αu + ½, clipped to [0, 1]        g' = α where |u| < 1/(2α), else 0"""

    alpha: float = 1.0

    def g(self, u):
        return get_xp(u).clip(self.alpha * u + 0.5, 0, 1)

    def g_prime(self, u):
        return (abs(u) < 0.5 / self.alpha).astype(u.dtype) * self.alpha


@dataclass(frozen=True)
class FastSigmoid(Surrogate):
    """g = ½ + ½αu/(1 + α|u|) = ½ + ½ sign(u) (1 − 1/(1 + α|u|))        g' = (α/2) / (1 + α|u|)²

    SuperSpike's shape (Zenke & Ganguli 2018), and SpikingJelly's SoftSign(α). The g' of snnTorch's
    fast_sigmoid(k) is 2/k times this one.
    """

    alpha: float = 2.0

    def g(self, u):
        sign = get_xp(u).sign(u)  # the second form, because ∞/∞ would be NaN
        return 0.5 + 0.5 * sign * (1 - 1 / (1 + self.alpha * abs(u)))

    def g_prime(self, u):
        return (0.5 * self.alpha) / (1 + self.alpha * abs(u)) ** 2


class Spike(Function):
    """S = 1[u >= 0], or g(u) in smooth mode        gu = gS · g'(u)"""

    def forward(self, u, *, surrogate, smooth):
        self.u, self.surrogate = u, surrogate
        return surrogate.g(u) if smooth else (u >= 0).astype(u.dtype)

    def backward(self, gy):
        return gy * self.surrogate.g_prime(self.u)


def spike(u, surrogate: Surrogate | None = None, smooth: bool = False) -> Tensor:
    """Return the spikes, 1 where u >= 0 (u: membrane minus threshold), with the surrogate's gradient."""
    return Spike.apply(u, surrogate=surrogate or Sigmoid(), smooth=smooth)
