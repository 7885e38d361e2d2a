"""A price on spikes: loss + λ · price, so that a training makes few of them.

An entry x that reaches `fan` outputs costs an event-driven machine |x| · fan additions (energy.py). The price
is what all contractions cost, as a share of their dense multiply-accumulates:

    price = Σ_contractions Σ |x| · fan  /  Σ_contractions MACs

It is about 1 where every entry is 1, and 0 for a silent network. Only contractions that spikes or integers
enter count; the image pays nothing. A transform pays for its direct form.

Fan-outs are held constant, so |x| · fan has the slope fan for x ≥ 0: also for an entry that is 0, because
that is what a spike would cost there. This gradient flows back with that of the loss:

    through a residual sum   to both summands: a spike of a block pays for all later maps that read it
    through a max-pool       to the winner of each window
    through a neuron         gV = gS · g′(H − v_threshold): a neuron near its threshold feels the whole price

In a product of two signals the counted one pays (energy.counted), and how many entries of the other it meets
is its fan-out, a constant. So the gradient is not that of the number of additions, in which both are varied.
"""

from __future__ import annotations

from collections.abc import Callable

from ..autograd import Function, as_tensor, trace, unbroadcast
from .energy import Follower, counted


class Price(Function):
    """Σ |x| · fan, for fan-outs that can be broadcast to x. Entries of one fan-out are added up first."""

    def forward(self, x, *, fan):
        self.fan, self.sign, self.shape = fan.astype(x.dtype), 1, x.shape
        if (x < 0).any():  # no spike is
            self.sign = 1 - 2 * (x < 0).astype(x.dtype)
        return (unbroadcast(x * self.sign, fan.shape) * self.fan).sum(dtype="float64").astype(x.dtype)

    def backward(self, gy):
        return self.xp.broadcast_to(self.fan * gy * self.sign, self.shape)


class Additions(Follower):
    """The callback of `trace` that prices each contraction: their sum, `total`, and their dense MACs."""

    total, macs = 0.0, 0

    def contraction(self, function, tensors, signals, output, path):
        i, kind, fan = self.choose(function, [x.data for x in tensors], signals)
        if kind != "analog":
            self.total = Price.apply(tensors[i], fan=fan) + self.total
            self.macs += function.cost(*(x.shape for x in tensors), **function.constants)

    choose = staticmethod(counted)  # a test of the gradient holds the choices, too


def priced(objective: Callable, weight: float) -> Callable:
    """Return an objective for `fit`: another one's loss + weight · price. The price is counted, too."""

    def with_price(model, images, labels):
        x = as_tensor(images)
        spent = Additions(x)
        with trace(spent):
            loss, counts = objective(model, x, labels)
        if not spent.macs:
            raise ValueError("no contraction that spikes enter: there is nothing to put a price on")
        price = spent.total * (1 / spent.macs)
        return loss + weight * price, counts | {"price": price.data.astype("float64") * x.shape[-4]}

    return with_price
