"""The leaky integrate-and-fire neuron over time, and its back-propagation through time, by hand.

Time is the first axis. Nothing survives a call, so there is nothing to reset between two calls. With V[−1] =
v_reset:

    charge    H[t] = V[t−1] + (X[t] − (V[t−1] − v_reset)) / τ
    fire      S[t] = 1 if H[t] >= v_threshold else 0
    reset     V[t] = H[t] (1 − S[t]) + v_reset S[t]          hard
              V[t] = H[t] − v_threshold S[t]                 soft (v_reset = None; the charge then uses 0)

H[t] acts on the loss through S[t], and through V[t], on which the whole future depends. With g′ the
surrogate's slope at H[t] − v_threshold, backwards in time:

    gH[t]   = gS[t] g′ + gV[t] ∂V/∂H               gV[T−1] = 0
    ∂V/∂H   = 1 − S[t]  + (v_reset − H[t]) g′      hard; the second term only if the reset
    ∂V/∂H   = 1         − v_threshold g′           soft; is not detached
    gX[t]   = gH[t] / τ
    gV[t−1] = gH[t] (1 − 1/τ)

Spikformer §3 and its published code: τ = 2, v_threshold = 1, hard reset to 0, detached, Sigmoid(4).

In this file: the constants of a neuron; `lif_unrolled`, composed from elementary ops, which is the reference;
`IntegrateAndFire`, the equations above; `lif`, which runs it. Its compiled twin: kernels/host.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real

from .autograd import Function, Tensor, as_tensor, where
from .backend import Array
from .ops import stack
from .surrogate import Sigmoid, Surrogate, spike


@dataclass(frozen=True)
class Neuron:
    """The constants of a layer of neurons. ValueError unless the neuron leaks and can be silent.

    tau: membrane time constant in steps, > 1.
    v_threshold, v_reset: where the neuron fires, and its initial, resting and reset value; None is the soft
    reset.
    detach_reset: treat the reset's S as a constant in backward.
    surrogate: the smooth step whose slope stands in for the spike's.
    smooth: put the smooth step g in place of the spike, also in the reset. Then the output is not binary and
    backward is exact.
    """

    tau: float = 2.0
    v_threshold: float = 1.0
    v_reset: float | None = 0.0
    detach_reset: bool = True
    surrogate: Surrogate = Sigmoid(4.0)
    smooth: bool = False

    def __post_init__(self):
        for name in ("tau", "v_threshold", "v_reset"):
            value = getattr(self, name)
            if not isinstance(value, Real) and (name, value) != ("v_reset", None):
                raise ValueError(f"{where()}{name} must be a number, got {value!r}")
        if not isinstance(self.surrogate, Surrogate):
            raise ValueError(f"{where()}surrogate must be one of minispike.surrogate, got {self.surrogate!r}")
        if not self.tau > 1:
            raise ValueError(f"{where()}a leaky neuron needs tau > 1, got {self.tau}")
        if not self.v_threshold > self.rest:
            got = f"{self.v_threshold} and {self.v_reset}"
            raise ValueError(f"{where()}v_threshold must lie above v_reset, got {got}")

    @property
    def rest(self) -> float:
        """The resting value: v_reset, or 0 with the soft reset."""
        return self.v_reset or 0.0

    def fire(self, h: Array) -> Array:
        """Return S of membranes h, in their dtype."""
        u = h - self.v_threshold
        return self.surrogate.g(u) if self.smooth else (u >= 0).astype(h.dtype)


def lif_unrolled(x, *constants, **named) -> Tensor:
    """Return what `lif` returns, composed from elementary ops and differentiated by autograd."""
    x, n = as_tensor(x), Neuron(*constants, **named)
    v, spikes = x[0].detach() * 0.0 + n.rest, []
    for t in range(len(x)):
        h = v + (x[t] - (v - n.rest)) / n.tau
        s = spike(h - n.v_threshold, n.surrogate, n.smooth)
        gate = s.detach() if n.detach_reset else s
        v = h - n.v_threshold * gate if n.v_reset is None else h * (1 - gate) + n.rest * gate
        spikes.append(s)
    return stack(spikes)


# ---------------------------------------------------------------- forward over time, backward in time


class IntegrateAndFire(Function):
    """S[t] from X[t] for t = 0 … T − 1, as above. Keeps H, from which everything else follows."""

    def forward(self, x, *, neuron):
        self.neuron, self.h = neuron, self.xp.empty_like(x)
        spikes, v = self.xp.empty_like(x), neuron.rest
        for t in range(len(x)):
            h = v + (x[t] - (v - neuron.rest)) / neuron.tau
            s = neuron.fire(h)
            if neuron.v_reset is None:
                v = h - neuron.v_threshold * s
            elif neuron.smooth:
                v = h * (1 - s) + neuron.rest * s
            else:  # chosen, not multiplied: an infinite H is reset, too
                v = self.xp.where(s, neuron.rest, h)
            self.h[t], spikes[t] = h, s
        return spikes

    def backward(self, gy):
        n, h = self.neuron, self.h
        slope = n.surrogate.g_prime(h - n.v_threshold)
        dv_dh = self.xp.ones_like(h) if n.v_reset is None else 1 - n.fire(h)
        if not n.detach_reset:
            dv_dh += -n.v_threshold * slope if n.v_reset is None else (n.v_reset - h) * slope
        gx, gv = self.xp.empty_like(h), 0.0
        for t in reversed(range(len(h))):
            gh = gy[t] * slope[t] + gv * dv_dh[t]
            gx[t] = gh / n.tau
            gv = gh * (1 - 1 / n.tau)
        return gx


def lif(x, *constants, **named) -> Tensor:
    """Run leaky integrate-and-fire neurons over time and return their spikes, 0 or 1, in x's shape and dtype.

    x: input current [T, …], time first; each position behind the time axis is a neuron of its own.
    constants: tau=2.0, v_threshold=1.0, v_reset=0.0, detach_reset=True, surrogate=Sigmoid(4.0), smooth=False,
    as `Neuron` explains them, by name or in this order. ValueError for constants that make no neuron, or an x
    without a time axis.
    """
    x, neuron = as_tensor(x), Neuron(*constants, **named)
    if x.ndim < 1 or len(x) < 1:
        raise ValueError(f"{where()}lif expects x [T, …] with T >= 1, got {list(x.shape)}")
    return IntegrateAndFire.apply(x, neuron=neuron)
