"""Batch norm and neuron in one pass: LIF(BN(x)) as ops/norm.py and neuron.py have it, with half the memory.

The two ops one after the other keep x for the one and H for the other, and pass over memory four times. Here
a cache-sized group of positions is normalised, charged and fired at once. Backward keeps x alone: it makes H
anew, group by group, and goes back through time and through the affine map; what the statistics add needs
sums over all positions, so it comes in a second pass. The spikes are those of the two ops, bit for bit, and
the gradients too but for the rounding of the sums and of what is made of them.
"""

from __future__ import annotations

from dataclasses import fields

from .autograd import Function, Tensor
from .neuron import Constants, back_in_time, over_time
from .ops.matmul import column_sums
from .ops.norm import affine, statistics
from .parallel import parallel


class NormLIF(Function):
    """S = LIF(γ (x − μ) r + β) for x [T, …, C], or [1, …, C] shown at each of T steps."""

    def forward(self, x, gamma, beta, *, mean, var, eps, own, T, neuron):
        self.x, self.gamma, self.beta, self.own, self.T, self.neuron = x, gamma, beta, own, T, neuron
        self.mean, self.r = mean, 1 / self.xp.sqrt(var + eps)
        x = x.reshape(len(x), -1, x.shape[-1])  # [T or 1, positions, C]
        spikes = self.xp.empty((T, *x.shape[1:]), x.dtype)

        def work(chunks):
            for at in chunks:
                over_time(self.xp, self.current(x[:, at]), spikes[:, at], self.neuron)

        parallel(work, x.shape[1], 3 * T * x.shape[2] * x.dtype.itemsize, x)
        return spikes.reshape(T, *self.x.shape[1:])

    def current(self, x):
        """Return γ (x − μ) r + β for each of T steps, in new memory; a single x[0] serves all of them."""
        y = self.xp.empty((self.T, *x.shape[1:]), x.dtype)
        affine(self.xp, x, self.mean, self.gamma * self.r, self.beta, out=y[: len(x)])
        if len(x) < self.T:
            y[1:] = y[0]
        return y

    def backward(self, gy):
        x = self.x.reshape(len(self.x), -1, gy.shape[-1])
        gy, gx = gy.reshape(self.T, *x.shape[1:]), self.xp.empty_like(x)
        position = x.shape[2] * x.dtype.itemsize  # bytes at one step

        def through_time(chunks):
            sum_g = sum_gx = 0.0
            for at in chunks:
                h = self.current(x[:, at])
                over_time(self.xp, h, None, self.neuron)
                g = gx[:, at] if len(x) == self.T else self.xp.empty_like(h)
                back_in_time(self.xp, gy[:, at], h, g, self.neuron)
                if len(x) < self.T:
                    g.sum(0, out=gx[0, at])
                sum_g += column_sums(gx[:, at])
                centred = x[:, at] - self.mean
                centred *= gx[:, at]
                sum_gx += column_sums(centred)
            return self.xp.stack([sum_g, sum_gx])

        found = sum(parallel(through_time, x.shape[1], 5 * self.T * position, gy))
        gbeta, ggamma = found.astype(gy.dtype)
        ggamma *= self.r
        scale, n = self.gamma * self.r, x.shape[0] * x.shape[1]
        along = ggamma * self.r / n
        offset = gbeta / n - along * self.mean

        def spread(chunks):
            for at in chunks:
                part = gx[:, at]
                if self.own:  # g − mean_g − (x − μ) along
                    erased = x[:, at] * along
                    erased += offset
                    part -= erased
                part *= scale

        if self.needs[0]:
            parallel(spread, x.shape[1], 3 * len(x) * position, gy)
        return gx.reshape(self.x.shape) if self.needs[0] else None, ggamma, gbeta


def norm_lif(x, norm, neuron, T: int = 1) -> Tensor:
    """Return neuron(norm(x)) of a BatchNorm and a LIF: x [T, …, C], or [1, …, C] shown at T steps."""
    mean, var = statistics(x, norm.running_mean, norm.running_var, norm.training, norm.momentum, repeats=T)
    own = {"mean": mean, "var": var, "eps": norm.eps, "own": norm.training}
    constants = Constants(**{each.name: getattr(neuron, each.name) for each in fields(Constants)})
    return NormLIF.apply(x, norm.weight, norm.bias, **own, T=max(T, len(x)), neuron=constants)
