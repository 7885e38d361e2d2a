"""Products by events: what is counted, what is kept, when they pay, and which row of the table decides."""

import numpy as np
import pytest

from minispike import Tensor, ops
from minispike.kernels import compiled, events
from minispike.kernels.events import as_events

pytestmark = pytest.mark.skipif(compiled.why_not() is not None, reason="there is no Numba here")


@pytest.fixture(autouse=True)
def own_row(monkeypatch):
    monkeypatch.setattr(compiled, "LEAST", 1)
    yield
    events.use_products(None)


@pytest.mark.parametrize("size", [1, 100, 4096, 4097, 50_000])
def test_counts_are_kept_as_bytes_and_counted(rng, size):
    x = (rng.integers(0, 256, size) * (rng.random(size) < 0.3)).astype("float32")
    x[-1] = 255
    found = as_events(x.reshape(1, size))
    assert found.x.dtype == "uint8" and found.x.shape == (1, size) and np.array_equal(found.x[0], x)
    assert found.share == (x != 0).mean() and not found.binary
    assert as_events((x > 0).astype("float32")).binary and as_events(0 * x).share == 0


@pytest.mark.parametrize("odd", [0.5, -1, 256, np.nan, np.inf, -np.inf, 1e30, -1e-30])
@pytest.mark.parametrize("place", [0, 5000, -1])
def test_anything_else_is_not(odd, place):
    x = np.ones(10_000, "float32")
    x[place] = odd
    with np.errstate(all="raise"):
        assert as_events(x) is None


def graph(x, w, **settings):
    """Return the creator of x convolved or multiplied with w."""
    inputs = [Tensor(a.astype("float32"), requires_grad=True) for a in (x, w)]
    return (ops.conv2d if w.ndim == 4 else ops.linear)(*inputs, **settings).creator


def test_a_product_keeps_bytes_of_spikes_and_floats_of_the_rest(rng):
    spikes, real = rng.integers(0, 2, (4, 6, 6, 8)), rng.standard_normal((4, 6, 6, 8))
    for w in (rng.standard_normal((8, 5)), rng.standard_normal((3, 3, 8, 5))):
        for x, dtype in ((spikes, "uint8"), (real, "float32")):
            function = graph(x, w)
            kept = function.events.x if function.events else function.x
            assert kept.dtype == dtype and kept.size == x.size


def test_it_pays_below_the_limit_of_its_row(monkeypatch):
    monkeypatch.setattr(
        events, "_table", lambda: {"A": {"linear": [0.2, 0, 999], "linear, counts": [0.1, 0, 9]}}
    )
    events.use_products("A")
    few, more = (events.Events(np.zeros((1, 8), "uint8"), share, True) for share in (0.19, 0.2))
    assert few.pay("linear", (8, 64)) and not more.pay("linear", (8, 64))
    assert not few.pay("linear", (8, 48))  # 64 outputs are computed: below 0.15
    counts = events.Events(few.x, 0.09, False)
    assert counts.pay("linear", (8, 64)) and not counts.pay("linear", (18, 64))
    events.use_products("dense")
    assert not events.Events(few.x, 0.0, True).pay("linear", (8, 64))


def test_the_limit_follows_outputs_and_rows():
    assert events.limit([0.4, 0, 100], (50, 64)) == events.limit([0.4, 0, 100], (100, 64)) == 0.4
    assert events.limit([0.4, 0, 100], (200, 64)) == 0.2
    assert abs(events.limit([0.4, 0, 100], (9, 9, 9, 64)) - 0.08) < 1e-12  # at least a fifth
    assert events.limit([0.4, -32, 100], (50, 64)) == 0.2
    assert abs(events.limit([0.4, 32, 100], (50, 64)) - 0.6) < 1e-12
    assert events.limit([0.4, -50, 100], (50, 32)) == 0.0


def test_the_table_has_a_cautious_row_for_unknown_processors():
    table = events._table()
    for row in table.values():
        assert row.keys() == table["unknown"].keys()
        for what, (share, _, rows) in row.items():
            assert table["unknown"][what][0] <= share <= 1 and rows > 0
    assert events.products() in table
    with pytest.raises(ValueError, match="no products 'abacus'; there are dense, "):
        events.use_products("abacus")


@pytest.mark.parametrize(
    "shape, w", [((6, 40), (40, 48)), ((2, 6, 6, 10), (3, 3, 10, 48)), ((3, 5, 7, 4), (2, 3, 4, 33))]
)
def test_dense_and_by_events_are_equal(rng, monkeypatch, shape, w):
    x, w = rng.integers(0, 3, shape), rng.standard_normal(w)
    gy, found = None, []
    for way in (True, False):
        monkeypatch.setattr(events.Events, "pay", lambda *_, way=way: way)
        inputs = [Tensor(a.astype("float32"), requires_grad=True) for a in (x, w)]
        y = (ops.conv2d if w.ndim == 4 else ops.linear)(*inputs)
        gy = rng.standard_normal(y.shape).astype("float32") if gy is None else gy
        y.backward(gy)
        found.append([y.data, *(each.grad for each in inputs)])
    for a, b in zip(*found, strict=True):
        assert abs(a - b).max() <= 1e-6 * abs(b).max()
