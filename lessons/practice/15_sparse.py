"""Tasks for lesson 15: prices of a map, of attention and of a layer of neurons, and a budget."""

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Function, Tensor, create_model, lif, ops, trace
from minispike.autograd import as_tensor
from minispike.measure.price import Additions, Price, priced
from minispike.ops.matmul import MatMul
from minispike.surrogate import Sigmoid
from minispike.train import classify

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np

from minispike.surrogate import Sigmoid
"""

# ---------------------------------------------------------------- predict


def price_of(value):
    x = Tensor(np.full((2, 3), value))
    spent = Additions(x)
    with trace(spent):
        ops.linear(x, np.ones((3, 5)))
    return spent.total.item() / spent.macs


def wrong_prices(value):
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        return "return two numbers: the price of ones, and the price of twos"
    for got, entry in zip(value, (1.0, 2.0), strict=True):
        if got != price_of(entry):
            return f"the price of an input of {entry:g}s is not {got!r}"
    return ""


@task(
    "★",
    hints=[
        "Each entry reaches all outputs. How many additions is that for all entries, and how many MACs?",
        "A 2 is added twice.",
    ],
    answer=wrong_prices,
)
def of_ones_and_twos():
    """Return two prices of a linear map: if all entries of its input are 1, and if all are 2.

    The price is the number of additions, as a share of the dense multiply-accumulates. No weight is 0.
    """
    return 1.0, 2.0


# ---------------------------------------------------------------- one map


def price_cases(rng):
    for shape, fan in (
        ((2, 3), (3,)),
        ((4, 2, 5, 3), (3,)),
        ((3, 2, 4, 5, 2), (4, 5, 2)),  # of a convolution: each place has its own
        ((3, 2, 4, 6), (3, 2, 1, 6)),  # of Q in Q Kᵀ
        ((1, 7), (7,)),
    ):
        x = rng.integers(0, 3, shape).astype(float)
        yield {"x": x, "fan": rng.integers(0, 9, fan).astype(float), "macs": 240}
    yield {"x": rng.normal(0, 2, (4, 3)), "fan": np.array([2.0, 5.0, 0.0]), "macs": 100}


def library_price(x, fan, macs):
    leaf = Tensor(x, requires_grad=True)
    price = Price.apply(leaf, fan=fan) * (1 / macs)
    price.backward()
    return {"price": price.data, "gx": leaf.grad}


def prices_a_product(price):
    """Put it in the place of the library's Price: alone, for finite differences, and in a model."""

    class Mine(Function):
        def forward(self, x, *, fan, macs):
            found = price(x, fan, macs)
            self.gx = found["gx"]
            return np.asarray(found["price"])

        def backward(self, gy):
            return gy * self.gx

    rng = np.random.default_rng(6)
    x = rng.choice((-1, 1), (3, 4, 5)) * rng.uniform(0.2, 2, (3, 4, 5))  # away from the kink at 0
    for fan in (rng.random(5), rng.random((4, 1)), rng.random((3, 1, 5))):
        finite_differences(lambda x, fan=fan: Mine.apply(x, fan=fan, macs=7), x)

    class Spent(Additions):
        def contraction(self, function, tensors, signals, output, path):
            i, kind, fan = self.choose(function, [x.data for x in tensors], signals)
            if kind != "analog":
                self.total = Mine.apply(tensors[i], fan=fan.astype("float64"), macs=1) + self.total

    model, images = create_model("spikformer_1_64_digits", rng=0), load_digits()[0][0][:3].astype("float64")
    wake(model.to(dtype="float64"), images)
    totals = []
    for follower in (Spent, Additions):
        x = as_tensor(images)
        spent = follower(x)
        with trace(spent):
            model(x)
        totals.append(spent.total.data)
    if not totals[1] > 1000:
        raise Wrong("the model is silent")
    same("the additions of a whole model", *totals)


@task(
    "★★",
    hints=[
        "price = Σ |x| · fan / macs. NumPy broadcasts fan to x's shape.",
        "The slope of |x| is 1 for x > 0, and here also for x = 0; it is −1 for x < 0.",
        "gx = fan · sign / macs in the shape of x, where sign is −1 for x < 0, else 1.",
    ],
    cases=price_cases,
    expected=library_price,
    place=prices_a_product,
)
def price(x, fan, macs):
    """Compute the price of one map, and its slope along the entries that the map reads.

    x: the entries, of any shape; almost always 0, 1, 2, …, but an entry may be negative, and costs |x| · fan.
    fan: how many outputs an entry reaches, in a shape that broadcasts to x's. macs: a number.
    Return a dict: "price", a number, and "gx" = ∂price/∂x, in x's shape. An entry that is 0 has the slope of
    a positive one: that is what a spike would cost there.
    """
    sign = np.where(x < 0, -1.0, 1.0)
    return {"price": (abs(x) * fan).sum() / macs, "gx": sign * fan / macs}


# ---------------------------------------------------------------- Q Kᵀ


def growth_cases(rng):
    for N, keys, d in ((3, 2, 2), (5, 4, 3), (2, 7, 1), (6, 3, 8)):
        q, k = rng.random((N, d)) < 0.5, rng.random((keys, d)) < 0.4
        yield {"q": q.astype(float), "k": k.astype(float)}


def by_trying(q, k):
    """Turn each entry of k on and off, and let the library count."""
    grown = np.zeros_like(k)
    for at in np.ndindex(*k.shape):
        counts = []
        for value in (1.0, 0.0):
            changed = k.copy()
            changed[at] = value
            counts.append((q * MatMul.fan_out(q, changed.T)[0]).sum())
        grown[at] = counts[0] - counts[1]
    return grown


@task(
    "★★",
    hints=[
        "An addition is a pair of spikes q_ic and k_jc in one channel c.",
        "A spike of k in channel c adds one for each token whose query fires in c. It does not matter "
        "which key it is.",
    ],
    cases=growth_cases,
    expected=by_trying,
)
def growth(q, k):
    """Say by how much the additions of Q Kᵀ grow with each entry of k, when it turns from 0 to 1.

    q: spikes [N, d]; k: spikes [keys, d].
    Return an array in the shape of k: the additions with k_jc = 1 minus those with k_jc = 0, all other
    entries being as they are.
    """
    return np.broadcast_to(q.sum(0), k.shape)


# ---------------------------------------------------------------- a budget


def budget_cases(rng):
    for price, budget in ((0.3, 0.1), (0.1, 0.3), (0.25, 0.2), (0.9, 0.0), (0.2, 5.0)):
        for weight in (2.0, 0.5):
            yield {"price": price, "weight": weight, "budget": budget}


def library_budget(price, weight, budget):
    """max(0, z) as the mean of z and |z|, differentiated by autograd."""
    leaf = Tensor(np.array(price), requires_grad=True)
    z = leaf - budget
    added = Price.apply(z, fan=np.array(0.5)) + z * 0.5
    (added * weight).backward()
    return {"added": weight * added.data, "slope": leaf.grad}


def trains_with_a_budget(budgeted):
    """Put it in the place of the price in an objective: above the budget the gradient is `priced`'s."""

    class Budgeted(Function):
        def forward(self, price, *, weight, budget):
            found = budgeted(float(price), weight, budget)
            self.slope = found["slope"]
            return np.asarray(found["added"], price.dtype)

        def backward(self, gy):
            return gy * np.asarray(self.slope, gy.dtype)

    def with_budget(model, images, labels, budget):
        x = as_tensor(images)
        spent = Additions(x)
        with trace(spent):
            loss, counts = classify(model, x, labels)
        return loss + Budgeted.apply(spent.total * (1 / spent.macs), weight=3.0, budget=budget), counts

    images, labels = (each[:4] for each in load_digits()[0])
    images, found = images.astype("float64"), {}
    model = create_model("spikformer_1_64_digits", embed_dim=32, num_heads=2, T=2, rng=0).to(dtype="float64")
    wake(model, images)
    objectives = {
        "without a price": classify,
        "below the budget": lambda *batch: with_budget(*batch, budget=9.0),
        "with a price": priced(classify, 3.0),
        "above the budget": lambda *batch: with_budget(*batch, budget=0.001),
    }
    for name, objective in objectives.items():
        for p in model.parameters():
            p.grad = None
        loss, _ = objective(model, images, labels)
        loss.backward()
        found[name] = loss.data, np.concatenate([p.grad.ravel() for p in model.parameters()])
    if np.allclose(found["with a price"][1], found["without a price"][1]):
        raise Wrong("the model is silent")
    for name, twin in (("below the budget", "without a price"), ("above the budget", "with a price")):
        same(f"the gradient {name}", found[name][1], found[twin][1])
    same("the loss below the budget", found["below the budget"][0], found["without a price"][0])
    same("the loss above the budget", found["above the budget"][0] + 3.0 * 0.001, found["with a price"][0])


@task(
    "★★",
    hints=[
        "weight · max(0, price − budget).",
        "Below the budget the slope is 0, and above it the price counts in full proportion.",
    ],
    cases=budget_cases,
    expected=library_budget,
    place=trains_with_a_budget,
)
def budgeted(price, weight, budget):
    """Charge a price only above a budget: λ · (price − budget), and nothing below.

    price, weight (λ), budget: numbers, with price ≠ budget.
    Return a dict: "added", what is added to the loss, and "slope", its slope along the price.
    """
    above = price > budget
    return {"added": weight * (price - budget) * above, "slope": weight * above}


# ---------------------------------------------------------------- the price of neurons


def neuron_cases(rng):
    for (T, N, C), tau in (((3, 2, 2), 2.0), ((6, 5, 3), 4.0), ((1, 4, 2), 2.0), ((9, 1, 1), 1.5)):
        X = rng.normal(1.2, 1.2, (T, N, C))
        yield {"X": X, "fan": rng.integers(1, 9, C).astype(float), "tau": tau}


def library_spent(X, fan, tau):
    leaf = Tensor(X, requires_grad=True)
    spikes = lif(leaf, tau=tau)
    total = Price.apply(spikes, fan=fan)
    total.backward()
    return {"S": spikes.data, "total": total.data, "gX": leaf.grad}


def prices_a_layer(spent_by_neurons):
    """Put it behind a linear map, and compare the gradient of the map's weights with `Additions`."""

    class Mine(Function):
        def forward(self, X, *, fan, tau):
            found = spent_by_neurons(X, fan, tau)
            self.gX = found["gX"]
            return np.asarray(found["total"])

        def backward(self, gy):
            return gy * self.gX

    rng = np.random.default_rng(8)
    x, w, behind = 2 * rng.random((5, 6, 4)), rng.normal(0.3, 0.8, (4, 3)), rng.standard_normal((3, 7))
    mine, theirs = Tensor(w, requires_grad=True), Tensor(w, requires_grad=True)
    Mine.apply(ops.linear(Tensor(x), mine), fan=np.full(3, 7.0), tau=2.0).backward()
    current = ops.linear(Tensor(x), theirs)
    spent = Additions(current)
    with trace(spent):
        ops.linear(lif(current), behind)
    if not spent.total.item() > 50:
        raise Wrong("the layer is silent")
    spent.total.backward()
    same("the gradient of the weights before the neurons", mine.grad, theirs.grad)


@task(
    "★★★",
    hints=[
        "Forward: H = V + (X − V) / τ, S = 1 where H >= 1, then V = H (1 − S). The total is Σ S · fan.",
        "∂total/∂S is fan at every step, also where S is 0. From there it is bptt of lesson 01.",
        "Backwards in time: gH = fan · g′(H − 1) + gV (1 − S); gX = gH / τ; gV = gH (1 − 1/τ).",
    ],
    cases=neuron_cases,
    expected=library_spent,
    place=prices_a_layer,
)
def spent_by_neurons(X, fan, tau):
    """Compute the additions that a layer's spikes cause, and send their slope back to the currents.

    X: currents [T, N, C], time first. fan: how many outputs a spike of each channel reaches, [C].
    The neurons: threshold 1, hard reset to 0, detached; the surrogate is Sigmoid(4.0), with the slope
    Sigmoid(4.0).g_prime(u) at u = H − 1.
    Return a dict: the spikes "S" [T, N, C], "total", a number, and "gX" = ∂total/∂X [T, N, C].
    """
    H, S, V = np.zeros_like(X), np.zeros_like(X), np.zeros_like(X[0])
    for t in range(len(X)):
        H[t] = V + (X[t] - V) / tau
        S[t] = H[t] >= 1
        V = H[t] * (1 - S[t])
    gX, gV = np.zeros_like(X), np.zeros_like(X[0])
    for t in reversed(range(len(X))):
        gH = fan * Sigmoid(4.0).g_prime(H[t] - 1) + gV * (1 - S[t])
        gX[t] = gH / tau
        gV = gH * (1 - 1 / tau)
    return {"S": S, "total": (S * fan).sum(), "gX": gX}
