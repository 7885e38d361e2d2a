"""Tasks for lesson 01: a neuron's step, its back-propagation through time, and the same forwards in time."""

from math import ceil, log

import numpy as np

from minispike import lif
from minispike.neuron import IntegrateAndFire, Neuron
from minispike.surrogate import Sigmoid

from .checks import finite_differences, same, task

IMPORTS = """
from math import ceil, log

import numpy as np

from minispike.surrogate import Sigmoid
"""

# ---------------------------------------------------------------- predict


def wrong_current(value):
    if not isinstance(value, (int, float)):
        return f"a current is a number, not {type(value).__name__}"
    if not lif(np.full(8, float(value))).data.all():
        return f"at a current of {value} the neuron does not fire at every step"
    if lif(np.full(8, np.nextafter(float(value), 0))).data.all():
        return f"it fires at every step at a smaller current than {value}, too"
    return ""


@task(
    "★",
    hints=["After a spike the membrane potential is 0.", "From 0, one charge gives H = X / τ."],
    answer=wrong_current,
)
def current():
    """Return the smallest constant current at which a neuron (τ = 2, threshold 1) fires at every step."""
    return 2.0


# ---------------------------------------------------------------- one step


def step_cases(rng):
    for shape in ((2, 3), (1,), (5, 1, 4)):
        V, X = rng.normal(0.3, 0.4, shape), rng.normal(1, 1, shape)
        for tau, v_threshold, v_reset in ((2.0, 1.0, 0.0), (3.0, 0.7, -0.5), (1.5, 1.2, None)):
            yield {"V": V, "X": X, "tau": tau, "v_threshold": v_threshold, "v_reset": v_reset}
    yield {"V": np.zeros(3), "X": np.array([2.0, 1.9, 2.1]), "tau": 2.0, "v_threshold": 1.0, "v_reset": 0.0}


def a_step(V, X, tau, v_threshold, v_reset):
    """What the library does: two steps, the first of which brings the membrane to V."""
    n = Neuron(tau=tau, v_threshold=v_threshold, v_reset=v_reset)
    H = V + (X - (V - n.rest)) / tau
    S = n.fire(H)
    return {"H": H, "S": S, "V": H - v_threshold * S if v_reset is None else np.where(S, n.rest, H)}


def neurons_of(step):
    """Put a step in the place of the library's loop over time."""

    class Mine(IntegrateAndFire):
        def forward(self, x, *, neuron):
            v, spikes = np.full(x.shape[1:], neuron.rest), np.empty_like(x)
            for t in range(len(x)):
                found = step(v, x[t], neuron.tau, neuron.v_threshold, neuron.v_reset)
                spikes[t], v = found["S"], found["V"]
            return spikes

    rng = np.random.default_rng(3)
    for v_reset in (0.0, -0.5, None):
        x = rng.normal(1, 1, (7, 4, 3))
        got = Mine.apply(x, neuron=Neuron(v_reset=v_reset)).data
        same(f"the spikes of a layer with v_reset = {v_reset}", got, lif(x, v_reset=v_reset).data)


@task(
    "★",
    hints=[
        "Three lines: charge, fire, reset.",
        "The resting value in the charge is v_reset, and 0 where v_reset is None. A membrane at exactly the "
        "threshold fires.",
        "Hard reset: np.where(S, v_reset, H). Soft reset: H − v_threshold · S.",
    ],
    cases=step_cases,
    expected=a_step,
    place=neurons_of,
)
def step(V, X, tau, v_threshold, v_reset):
    """Let every neuron of a layer take one step: charge, fire, reset.

    V, X: membrane potential after the step before, and current: arrays of one shape.
    v_reset: a number (hard reset, and where the neuron rests) or None (soft reset; it rests at 0).
    Return a dict: "H" before the reset, the spikes "S" (0.0 or 1.0), and "V" after the reset.
    """
    rest = 0.0 if v_reset is None else v_reset
    H = V + (X - (V - rest)) / tau
    S = (H >= v_threshold).astype(H.dtype)
    V = H - v_threshold * S if v_reset is None else np.where(S, rest, H)
    return {"H": H, "S": S, "V": V}


# ---------------------------------------------------------------- how long until the first spike


def first_spike(c, tau):
    return int(lif(np.full(200, c), tau=tau).data.argmax()) + 1


@task(
    "★★",
    hints=[
        "c − H shrinks by the same factor at every step. Which one?",
        "After n steps H = c (1 − (1 − 1/τ)ⁿ). Solve H >= 1 for n.",
        "Take logarithms; ln(1 − 1/τ) is negative, so the inequality turns round. Then round up.",
    ],
    cases=lambda rng: [
        {"c": c, "tau": tau} for c in (1.3, 1.1, 1.7, 2.5, 8.0) for tau in (2.0, 1.5, 5.0, 16.0)
    ],
    expected=first_spike,
)
def steps_to_fire(c, tau):
    """Return after how many steps a neuron (threshold 1, at rest 0) under a constant current c > 1 fires.

    c, tau: numbers. Return an integer: 1 if it fires at the first step.
    """
    return max(1, ceil(log(1 - 1 / c) / log(1 - 1 / tau)))


# ---------------------------------------------------------------- back-propagation through time


def bptt_cases(rng):
    for (T, N), v_reset, detach in (
        ((4, 3), 0.0, True),
        ((6, 1), 0.0, False),
        ((1, 5), -0.5, True),
        ((5, 7), -0.5, False),
        ((9, 2), None, True),
        ((3, 8), None, False),
    ):
        H, gS = rng.normal(0.9, 0.5, (T, N)), rng.standard_normal((T, N))
        S = (H >= 0.8).astype(float)
        yield {"H": H, "S": S, "gS": gS, "tau": 3.0, "v_threshold": 0.8, "v_reset": v_reset, "detach": detach}


def library_bptt(H, S, gS, tau, v_threshold, v_reset, detach):
    n = Neuron(tau, v_threshold, v_reset, detach)
    function = IntegrateAndFire()
    function.xp, function.neuron, function.h = np, n, H
    gX = function.backward(gS)
    return {"gH": gX * tau, "gX": gX}


def backward_of(bptt):
    """Put it in the place of the library's backward. In smooth mode finite differences may judge it."""

    class Mine(IntegrateAndFire):
        def backward(self, gy):
            n = self.neuron
            S = n.fire(self.h)
            return bptt(self.h, S, gy, n.tau, n.v_threshold, n.v_reset, n.detach_reset)["gX"]

    rng = np.random.default_rng(4)
    for v_reset in (0.0, -0.5, None):
        n = Neuron(v_reset=v_reset, detach_reset=False, smooth=True)
        finite_differences(lambda x, n=n: Mine.apply(x, neuron=n), rng.normal(1, 1, (6, 5)))


@task(
    "★★",
    hints=[
        "Walk backwards in time and carry gV = ∂L/∂V[t]. At the last step it is 0.",
        "gH[t] = gS[t] g′ + gV · ∂V/∂H. For a hard reset ∂V/∂H = 1 − S[t]; a reset that is not detached adds "
        "(v_reset − H[t]) g′.",
        "For a soft reset ∂V/∂H = 1, and the reset that is not detached adds −v_threshold g′. Then "
        "gX = gH / τ and gV = gH (1 − 1/τ).",
    ],
    cases=bptt_cases,
    expected=library_bptt,
    place=backward_of,
)
def bptt(H, S, gS, tau, v_threshold, v_reset, detach):
    """Send ∂L/∂S back through time to the currents of a layer of neurons.

    H, S, gS: membrane potentials before the reset, spikes, and ∂L/∂S: [T, N], time first.
    The surrogate is Sigmoid(4.0): its slope at u is Sigmoid(4.0).g_prime(u).
    v_reset: a number (hard) or None (soft).    detach: take the reset's S as a constant.
    Return a dict: "gH" = ∂L/∂H and "gX" = ∂L/∂X, both [T, N].
    """
    gH, gX, gV = np.zeros_like(H), np.zeros_like(H), np.zeros_like(H[0])
    for t in reversed(range(len(H))):
        slope = Sigmoid(4.0).g_prime(H[t] - v_threshold)
        dV_dH = np.ones_like(slope) if v_reset is None else 1 - S[t]
        if not detach:
            dV_dH = dV_dH + (-v_threshold if v_reset is None else v_reset - H[t]) * slope
        gH[t] = gS[t] * slope + gV * dV_dH
        gX[t] = gH[t] / tau
        gV = gH[t] * (1 - 1 / tau)
    return {"gH": gH, "gX": gX}


# ---------------------------------------------------------------- the same, forwards in time


def online_cases(rng):
    for T in (5, 1, 12, 30):
        yield {"X": rng.normal(1.2, 1, T), "gS": rng.standard_normal(T), "tau": 2.0}
        yield {"X": rng.normal(1.2, 1, T), "gS": rng.standard_normal(T), "tau": 5.0}


def library_gradient(X, gS, tau):
    function = IntegrateAndFire()
    function.xp = np
    function.forward(X, neuron=Neuron(tau=tau))
    return function.backward(gS)


@task(
    "★★★",
    hints=[
        "Keep trace[k] = ∂V[t]/∂X[k] for every k, and update all of them at every step.",
        "A charge multiplies all traces by 1 − 1/τ and adds 1/τ to trace[t]: now they are ∂H[t]/∂X[k].",
        "Add gS[t] g′(H[t] − 1) · trace to gX. A spike (hard, detached reset) sets all traces to 0.",
    ],
    cases=online_cases,
    expected=library_gradient,
)
def forward_in_time(X, gS, tau):
    """Compute ∂L/∂X of one neuron without going back in time, as each ∂L/∂S[t] arrives.

    X, gS: [T].    The neuron: threshold 1, hard reset to 0, detached, Sigmoid(4.0). Return ∂L/∂X, [T].
    """
    gX, trace, V = np.zeros(len(X)), np.zeros(len(X)), 0.0  # trace[k] = ∂V/∂X[k]
    for t in range(len(X)):
        H = V + (X[t] - V) / tau
        trace = trace * (1 - 1 / tau)
        trace[t] += 1 / tau
        gX += gS[t] * Sigmoid(4.0).g_prime(np.array(H - 1)) * trace
        S = H >= 1
        V, trace = H * (1 - S), trace * (1 - S)
    return gX
