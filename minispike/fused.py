"""Batch norm and neuron as one op, LIF(BN(x)): the pair that every sub-layer ends with.

As one op, a compiled twin (kernels/host.py) can normalise, charge and fire in one pass over memory, and keep
nothing but x for backward.
"""

from __future__ import annotations

from .autograd import Function, Tensor, running
from .neuron import IntegrateAndFire
from .ops.norm import Normalise, statistics


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


def norm_lif(x, norm, neuron, T: int = 1) -> Tensor:
    """Return neuron(norm(x)) of a BatchNorm and a LIF: x [T, …, C], or [1, …, C] shown at T steps."""
    with running(norm):
        mean, var = statistics(
            x, norm.running_mean, norm.running_var, norm.training, norm.momentum, repeats=T
        )
    own = {"mean": mean, "var": var, "eps": norm.eps, "own": norm.training}
    with running(neuron):
        settings = {"T": max(T, len(x)), "neuron": neuron.constants}
        return NormaliseAndFire.apply(x, norm.weight, norm.bias, **own, **settings)
