"""The leaky integrate-and-fire neuron over time, and its back-propagation through time, by hand.

Time is the first axis. Nothing survives a call, so there is nothing to reset between two of them. With V[−1]
= v_reset:

    charge    H[t] = V[t−1] + (X[t] − (V[t−1] − v_reset)) / τ
    fire      S[t] = 1 if H[t] >= v_threshold else 0
    reset     V[t] = H[t] (1 − S[t]) + v_reset S[t]          hard
              V[t] = H[t] − v_threshold S[t]                 soft (v_reset = None; the charge then uses 0)

H[t] acts on the loss through S[t] and through V[t], on which the whole future depends. Backwards in time:

    gH[t]   = gS[t] g'(H[t] − v_threshold) + gV[t] ∂V/∂H          gV[T−1] = 0
    ∂V/∂H   = 1 − S[t]  + (v_reset − H[t]) g'                     hard; the second term only if the reset
    ∂V/∂H   = 1         − v_threshold g'                          soft; is not detached
    gX[t]   = gH[t] / τ
    gV[t−1] = gH[t] (1 − 1/τ)

Spikformer §3 and its published code: τ = 2, v_threshold = 1, hard reset to 0, detached, Sigmoid(4). `lif`
does this fused, over cache-sized groups of neurons; `lif_unrolled` is the same from tiny operations, as its
proof.
"""

from __future__ import annotations

from dataclasses import dataclass

from .autograd import Function, Tensor, as_tensor, expect
from .ops import stack
from .parallel import parallel
from .surrogate import Sigmoid, Surrogate, spike


@dataclass(frozen=True)
class Constants:
    """A layer's constants, as `lif` explains them."""

    tau: float
    v_threshold: float
    v_reset: float | None
    detach_reset: bool
    surrogate: Surrogate
    smooth: bool


class LIF(Function):
    """S[t] from X[t] for t = 0 … T − 1, as above. Keeps H, from which everything else follows."""

    def forward(self, x, neuron):
        self.neuron, self.shape = neuron, x.shape
        x2 = x.reshape(len(x), -1)  # [T, neurons]
        spikes = self.xp.empty(x2.shape, x.dtype)
        self.h = self.xp.empty(x2.shape, x.dtype) if self.needs[0] else None

        def work(chunks):
            for at in chunks:
                h = self.xp.empty_like(spikes[:, at]) if self.h is None else self.h[:, at]
                h[...] = x2[:, at]
                over_time(self.xp, h, spikes[:, at], self.neuron)

        parallel(work, x2.shape[1], 3 * len(x) * x.dtype.itemsize, x)
        return spikes.reshape(x.shape)

    def backward(self, gy):
        gy, gx = gy.reshape(self.h.shape), self.xp.empty(self.h.shape, gy.dtype)

        def work(chunks):
            for at in chunks:
                back_in_time(self.xp, gy[:, at], self.h[:, at], gx[:, at], self.neuron)

        parallel(work, gx.shape[1], 5 * len(gy) * gy.dtype.itemsize, gy)
        return gx.reshape(self.shape)


def over_time(xp, h, s, neuron: Constants) -> None:
    """Run a group of neurons: h [T, …] holds X and gets H, in place; S goes into s [T, …], if not None."""
    tau, v_threshold, v_reset = neuron.tau, neuron.v_threshold, neuron.v_reset
    rest, last = v_reset or 0.0, len(h) - 1
    v = None  # before the first step: v_reset
    for t, h_t in enumerate(h):
        if t:
            h_t -= v - rest if rest else v  # H = V + (X − (V − v_reset)) / τ
        h_t /= tau
        if t or rest:
            h_t += v if t else rest
        fired = neuron.surrogate.g(h_t - v_threshold) if neuron.smooth else h_t >= v_threshold
        if s is not None:
            s[t] = fired
        if t == last:
            break
        if v_reset is None:
            v = xp.multiply(fired, v_threshold, out=v, dtype=h.dtype)  # V = H − v_threshold S
            xp.subtract(h_t, v, out=v)
        else:
            v = xp.multiply(h_t, 1 - fired if neuron.smooth else ~fired, out=v)  # V = H (1 − S) + v_reset S
            if rest:
                v += rest * fired


def back_in_time(xp, gy, h, gx, neuron: Constants) -> None:
    """Go back through a group of neurons: from gy [T, …] and their H [T, …] write gx [T, …]."""
    u = h - neuron.v_threshold
    g_prime = neuron.surrogate.g_prime(u)
    xp.multiply(gy, g_prime, out=gx)  # gH, but for what comes from V
    u, h, g_prime = u[:-1], h[:-1], g_prime[:-1]  # nobody reads the last V
    if neuron.v_reset is None:
        dv_dh = None if neuron.detach_reset else 1 - neuron.v_threshold * g_prime  # None: 1
    else:
        dv_dh = 1 - neuron.surrogate.g(u) if neuron.smooth else u < 0
        dv_dh = dv_dh if neuron.detach_reset else dv_dh + (neuron.v_reset - h) * g_prime
    for t in reversed(range(len(gx) - 1)):
        gv = gx[t + 1] * (1 - 1 / neuron.tau)
        if dv_dh is not None:
            gv *= dv_dh[t]
        gx[t] += gv
    gx /= neuron.tau


def lif(
    x,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: Surrogate | None = None,
    smooth: bool = False,
) -> Tensor:
    """Run leaky integrate-and-fire neurons over time and return their spikes, 0 or 1, in x's shape and dtype.

    x: input current [T, …], time first; every other position is a neuron of its own.
    tau: membrane time constant in steps, > 1.    v_reset: None for the soft reset.
    detach_reset: treat the reset's S as a constant in backward.    surrogate: by default Sigmoid(4.0).
    smooth: put g in place of the step, also in the reset; then the output is not binary, and backward is
    exact. Raises ValueError for tau <= 1, v_threshold <= v_reset, or an x without a time axis.
    """
    x = as_tensor(x)
    surrogate = surrogate or Sigmoid()
    check_neuron(tau, v_threshold, v_reset)
    expect(x.ndim >= 1 and len(x) >= 1, f"lif expects x [T, …] with T >= 1, got {list(x.shape)}")
    return LIF.apply(x, neuron=Constants(tau, v_threshold, v_reset, detach_reset, surrogate, smooth))


def lif_unrolled(
    x,
    tau: float = 2.0,
    v_threshold: float = 1.0,
    v_reset: float | None = 0.0,
    detach_reset: bool = True,
    surrogate: Surrogate | None = None,
    smooth: bool = False,
) -> Tensor:
    """Return what `lif` returns, written as the equations stand and differentiated by autograd: its proof."""
    x = as_tensor(x)
    rest = v_reset or 0.0
    v, spikes = x[0].detach() * 0.0 + rest, []
    for t in range(len(x)):
        h = v + (x[t] - (v - rest)) / tau
        s = spike(h - v_threshold, surrogate, smooth)
        gate = s.detach() if detach_reset else s
        v = h - v_threshold * gate if v_reset is None else h * (1 - gate) + rest * gate
        spikes.append(s)
    return stack(spikes)


def check_neuron(tau: float, v_threshold: float, v_reset: float | None) -> None:
    """Raise ValueError unless the constants make a neuron that leaks and can be silent."""
    expect(tau > 1, f"a leaky neuron needs tau > 1, got {tau}")
    expect(
        v_threshold > (v_reset or 0.0), f"v_threshold must lie above v_reset, got {v_threshold} and {v_reset}"
    )
