"""Batch norm and neuron as one op: LIF(BN(x)).

Run in sequence, the two ops store x and H and pass over memory four times. Fused, each group is normalised,
charged and fired at once, and only x is stored; backward recomputes H.
"""

from __future__ import annotations

from .autograd import Function, Tensor
from .neuron import IntegrateAndFire, back_in_time, over_time
from .ops.matmul import column_sums_fast
from .ops.norm import Normalise, affine, statistics
from .parallel import parallel


class NormaliseAndFire(Function):
    """S = LIF(γ r (x − μ) + β) for x [T, …, C], or [1, …, C] which is shown at each of T steps.

    Forward runs batch norm, repeat and LIF in a row; backward runs their backwards in reverse.
    """

    def forward(self, x, gamma, beta, *, mean, var, eps, own, T, neuron):
        self.norm, self.neurons, self.repeated = Normalise(), IntegrateAndFire(), len(x) < T
        self.norm.xp = self.neurons.xp = self.xp
        y = self.norm.forward(x, gamma, beta, mean=mean, var=var, eps=eps, own=own)
        y = self.xp.broadcast_to(y, (T, *y.shape[1:]))
        return self.neurons.forward(y, neuron=neuron)

    def backward(self, gy):
        gy = self.neurons.backward(gy)
        if self.repeated:
            gy = gy.sum(0, keepdims=True)
        return self.norm.backward(gy)


class NormaliseAndFire_fast(NormaliseAndFire):
    """The same in one pass over memory, group by group. The spikes are equal bit for bit.

    The gradients differ by the rounding of sums. What backward adds for the statistics needs sums over all
    positions, so it comes in a second pass.
    """

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
        """Return γ r (x − μ) + β for each of T steps, in new memory; a single x[0] serves all of them."""
        y = self.xp.empty((self.T, *x.shape[1:]), x.dtype)
        affine(self.xp, x, self.mean, self.gamma * self.r, self.beta, out=y[: len(x)])
        if len(x) < self.T:
            y[1:] = y[0]
        return y

    def backward(self, gy):
        x = self.x.reshape(len(self.x), -1, gy.shape[-1])  # [T or 1, positions, C]
        gy, gx = gy.reshape(self.T, *x.shape[1:]), self.xp.empty_like(x)
        position = x.shape[2] * x.dtype.itemsize  # bytes at one step
        gbeta, ggamma = self.through_time(gy, x, gx, 5 * self.T * position)
        if not self.needs[0]:
            return None, ggamma, gbeta
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

        parallel(spread, x.shape[1], 3 * len(x) * position, gy)
        return gx.reshape(self.x.shape), ggamma, gbeta

    def through_time(self, gy, x, gx, bytes_each):
        """Write the gradient of LIF's input into gx; return gβ and gγ, its sums alone and along x̂."""

        def work(chunks):
            sum_g = sum_gx = 0.0
            for at in chunks:
                h = self.current(x[:, at])
                over_time(self.xp, h, None, self.neuron)
                g = gx[:, at] if len(x) == self.T else self.xp.empty_like(h)
                back_in_time(self.xp, gy[:, at], h, g, self.neuron)
                if len(x) < self.T:
                    g.sum(0, out=gx[0, at])
                sum_g += column_sums_fast(gx[:, at])
                centred = x[:, at] - self.mean
                centred *= gx[:, at]
                sum_gx += column_sums_fast(centred)
            return self.xp.stack([sum_g, sum_gx])

        gbeta, ggamma = sum(parallel(work, x.shape[1], bytes_each, gy)).astype(gy.dtype)
        return gbeta, ggamma * self.r


def norm_lif(x, norm, neuron, T: int = 1) -> Tensor:
    """Return neuron(norm(x)) of a BatchNorm and a LIF: x [T, …, C], or [1, …, C] shown at T steps."""
    mean, var = statistics(x, norm.running_mean, norm.running_var, norm.training, norm.momentum, repeats=T)
    own = {"mean": mean, "var": var, "eps": norm.eps, "own": norm.training}
    settings = {"T": max(T, len(x)), "neuron": neuron.constants}
    return NormaliseAndFire_fast.apply(x, norm.weight, norm.bias, **own, **settings)
