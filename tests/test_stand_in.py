"""The stand-in for a GPU counts launches and synchronisations as a GPU would have them."""

import numpy as np

from minispike import to_device, to_host

from .stand_in import XP, counting


def counts(work):
    x = to_device(np.arange(12.0).reshape(3, 4), "stand_in")
    with counting() as found:
        work(x)
    return found["launches"], found["synchronisations"]


def test_what_writes_an_array_is_a_launch_and_a_view_is_none():
    for view in (lambda x: x.reshape(4, 3), lambda x: x.transpose(1, 0), lambda x: x[1:], lambda x: x[None]):
        assert counts(view) == (0, 0)
    assert counts(lambda x: XP.broadcast_to(x, (2, 3, 4))) == counts(XP.empty_like) == (0, 0)
    assert counts(lambda x: x + 1) == counts(lambda x: XP.exp(x)) == counts(lambda x: x.sum(0)) == (1, 0)
    assert counts(lambda x: x.transpose(1, 0).reshape(-1)) == (1, 0)  # a copy
    assert counts(lambda x: x.astype("float32")) == counts(lambda x: XP.asarray(0.5)) == (1, 0)
    assert counts(lambda x: x.__setitem__(0, 1.0)) == counts(lambda x: x.__iadd__(x)) == (1, 0)
    assert counts(lambda x: XP.matmul(x, x.transpose(1, 0), out=XP.empty((3, 3)))) == (1, 0)


def test_where_the_host_waits_is_a_synchronisation():
    assert counts(lambda x: float(x.sum())) == (1, 1)
    assert counts(lambda x: bool((x > 0).all())) == (2, 1)
    assert counts(lambda x: x[0, 0].item()) == counts(to_host) == (0, 1)
    assert counts(lambda x: XP.lib.stride_tricks.sliding_window_view(x, 2, 1)) == (0, 1)
