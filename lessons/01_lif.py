# %% [markdown]
# # 01 · LIF: how a neuron that jumps can learn
#
# A leaky integrate-and-fire (LIF) neuron collects its input, slowly forgets it, and fires when it has
# collected enough. Firing is a jump, and a jump has no slope, but learning needs slopes. This lesson shows
# what can flow backwards through a spike, and why that works.
#
# You will be able to simulate a spiking neuron by hand, derive its gradient through time, and say what a
# surrogate gradient is and where it fails. It needs lesson 00. Twenty-five minutes to read, and fifteen
# seconds to run; notation and glossary: [NOTATION.md](NOTATION.md).

# %%
from functools import partial
from itertools import product

import numpy as np

from minispike import Tensor, check_grads, compare, lif, lif_unrolled
from minispike.measure import viz
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Surrogate, Triangle

# %% [markdown]
# ## Why spikes
# A neuron of an ordinary network sends a real number, once for each input. A spiking neuron sends only 0 or
# 1, but it does so several times. The network sees the same input for T time steps, and at each step each
# neuron fires (1) or is silent (0). T is small, often 4. One neuron's sequence of T zeros and ones is its
# *spike train*.
#
# *How does a train carry a number?* By its *firing rate*, the number of spikes divided by T. With T = 4 a
# rate is one of 0, ¼, ½, ¾, 1. More steps give a finer number, and cost more.
#
# *What does a spike cost?* A layer multiplies its input by weights. Where the input is 0 or 1, there is
# nothing to multiply: a spike adds one row of the weights, and silence adds nothing. An addition needs less
# energy than a multiplication followed by an addition (0.9 against 4.6 picojoules in the papers' figures).
# But it may be needed at each of T steps, so spikes save energy only while they are few. Lesson 13 counts
# this, and says what the figures leave out.

# %%
rng = np.random.default_rng(0)
T, W = 4, rng.standard_normal((6, 3))  # weights from 6 neurons to 3
trains = np.array([[1, 0, 1, 0, 0, 0], [1, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0]])  # [T, 6]
additions, out = 0, np.zeros((T, 3))
for t, i in np.argwhere(trains):
    out[t] += W[i]
    additions += W.shape[1]
assert np.allclose(out, trains @ W) and additions == 3 * trains.sum()
print("the six trains' firing rates:", *trains.mean(0))
sums = f"{additions} additions, {0.9 * additions:.0f} pJ"
print(f"their spikes cost {sums}; real numbers, sent once: {W.size} multiply-adds, {4.6 * W.size:.0f} pJ")

# %% [markdown]
# ## By hand: one neuron
# The neuron holds one number, its *membrane potential* V. At every step it does three things. It *charges*:
# V moves by 1/τ of the way towards its input, the current X[t]. It *fires*, S[t] = 1, if the charged
# potential H[t] has reached the threshold, here 1. If it fired, it is *reset*.
#
#     charge    H[t] = V[t−1] + (X[t] − (V[t−1] − v_reset)) / τ
#     fire      S[t] = 1 if H[t] >= 1, else 0
#     reset     hard: V[t] = v_reset if it fired, else H[t]        soft: V[t] = H[t] − S[t]
#
# So H[t] is the potential just before the reset of step t, and V[t] the potential just after it. τ > 1 is the
# *time constant*, in steps: the larger it is, the slower a neuron charges and forgets. v_reset is where a
# neuron starts (V[−1] = v_reset), rests and is reset to. The code marks the soft reset by v_reset = None; the
# resting value is then 0. Spikformer (arXiv 2209.15425, §3) uses τ = 2, threshold 1 and the hard reset to 0.
#
# For τ = 2 and v_reset = 0 the charge is H = (V + X) / 2, which is easy on paper. The soft reset keeps what
# exceeds the threshold (0.765625 at t = 4), and so this neuron fires once more at the end:
#
#     X         1.5     1.5     2       0         3.5        1.25
#     H hard    0.75    1.125   1       0         1.75       0.625            fires at t = 1, 2, 4
#     H soft    0.75    1.125   1.0625  0.03125   1.765625   1.0078125        fires at t = 1, 2, 4, 5


# %%
def neuron(X, v_reset=0.0, tau=2.0):
    H, S, rest = [], [], v_reset or 0.0
    v = rest
    for x in X:
        h = v + (x - (v - rest)) / tau
        s = int(h >= 1)
        v = h - s if v_reset is None else (rest if s else h)
        H.append(h)
        S.append(s)
    return H, S


X = np.array([1.5, 1.5, 2, 0, 3.5, 1.25])
assert neuron(X) == ([0.75, 1.125, 1, 0, 1.75, 0.625], [0, 1, 1, 0, 1, 0])
assert neuron(X, None) == ([0.75, 1.125, 1.0625, 0.03125, 1.765625, 1.0078125], [0, 1, 1, 0, 1, 1])
print("spikes by hand: hard", *neuron(X)[1], "  soft", *neuron(X, None)[1])

# %% [markdown]
# ## The library gives the same
# `lif` takes an array [T, …]: time is the first axis, and every other position is a neuron of its own. A
# neuron whose H is *exactly* the threshold fires (H = 1 at t = 2 of the hard reset above). A current that is
# smaller by one rounding step does not make it fire.
#
# The last line that this cell prints shows how a rate carries a number: the larger a constant current, the
# higher the rate. Below 1 the neuron never fires, because H never exceeds its current. From 2 on it fires at
# each step. In 4 steps 0.9 and 1.05 look the same; in 64 steps they do not.

# %%
rng = np.random.default_rng(1)
x = rng.normal(1, 1, (40, 50))  # [T, neurons]
resets = (0.0, -0.5, None)
for v_reset in resets:
    loops = np.array([neuron(row, v_reset)[1] for row in x.T]).T
    assert np.array_equal(lif(x, v_reset=v_reset).data, loops)
at, below = (lif(np.array([current])).data[0] for current in (2.0, np.nextafter(2.0, 0)))
assert (at, below) == (1, 0)
print(f"lif = loops, {x.size:,} steps for each of 3 resets; H = 1 fires: {at:.0f}, just below: {below:.0f}")
rates = {T: lif(np.tile([0.9, 1.05, 1.4, 1.9, 2.5], (T, 1))).data.mean(0) for T in (4, 64)}  # τ = 2
assert all((np.diff(found) >= 0).all() and found[0] == 0 and found[-1] == 1 for found in rates.values())
shown = [f"T = {T}: " + " ".join(f"{rate:.2f}" for rate in found) for T, found in rates.items()]
print("rates at currents 0.9 1.05 1.4 1.9 2.5:", "; ".join(shown))

# %% [markdown]
# ## A step has no slope, so borrow one
# As a function of u = H − 1, the distance to the threshold, a spike is a step from 0 to 1. Its slope by
# finite differences is 0 nearly everywhere, and huge where the difference happens to straddle the threshold.
# Neither number says how to learn. A *surrogate* is a smooth step g with slope g′. The forward keeps the real
# step; the backward uses g′ in place of the step's slope.
#
# The library has five surrogates. Each has one number α, its steepness. In the lines below α is chosen so
# that g′(0) = 1 for all five. They agree at the threshold and differ in their tails, that is, in how far from
# firing a neuron may be and still learn.

# %%
u = rng.standard_normal(10_000)
slope = ((u + 1e-3 >= 0).astype(float) - (u - 1e-3 >= 0)) / 2e-3
assert set(slope) == {0, 500}
print(f"slope of the true step, ε = 1e-3: {(slope == 0).sum():,} times 0, {(slope > 0).sum()} times 500")
surrogates = Sigmoid(4.0), ATan(2.0), Triangle(1.0), Rectangle(1.0), FastSigmoid(2.0)
for f in surrogates:
    gap = abs((f.g(u + 1e-6) - f.g(u - 1e-6)) / 2e-6 - f.g_prime(u)).max()
    near, far, farther = f.g_prime(np.array([0.0, 1.0, 3.0]))
    assert gap < 1e-6 and near == 1 and f.g(np.zeros(1)) == 0.5
    values = f"g'(0) = {near:.0f}   g'(1) = {far:.3f}   g'(3) = {farther:.5f}"
    print(f"{f!s:23} {values}   g' is the slope of g, to {gap:.0e}")

# %% [markdown]
# ## The gradient, derived
# Let L be the loss, and write ∂L/∂H[t] for its slope along H[t], and so on. H[t] acts on the loss in two
# ways: through its spike S[t], and through V[t], from which all later steps start. For the second way we
# need ∂V/∂H. Write the hard reset as V = H (1 − S) + v_reset S and use the product rule, with g′ in place of
# ∂S/∂H (g′ is taken at H[t] − 1). For the soft reset, V = H − S:
#
#     hard    ∂V/∂H = 1 − S[t] + (v_reset − H[t]) g′          soft    ∂V/∂H = 1 − g′
#
# Start at the last step, after which V acts on nothing: ∂L/∂V[T−1] = 0. Then go backwards in time:
#
#     ∂L/∂H[t]   = ∂L/∂S[t] g′ + ∂L/∂V[t] ∂V/∂H
#     ∂L/∂X[t]   = ∂L/∂H[t] / τ
#     ∂L/∂V[t−1] = ∂L/∂H[t] (1 − 1/τ)
#
# This is *back-propagation through time*, bptt. The terms (v_reset − H) g′ and −g′ go through the S of the
# reset. The paper's code *detaches* that S: it treats it as a constant, and the term is left out. In the
# code, gS, gv, gh and gX are ∂L/∂S, ∂L/∂V, ∂L/∂H and ∂L/∂X.
#
# The loops are compared with `lif`, and `lif` with `lif_unrolled`, which composes the same forward from tiny
# operations and leaves the gradient to lesson 00's engine. `compare` asserts that two functions have equal
# values and gradients.


# %%
def bptt(X, gS, v_reset, detach, tau=2.0):
    H, S = neuron(X, v_reset)
    gX, gv = np.zeros(len(X)), 0.0
    for t in reversed(range(len(X))):
        slope = Sigmoid(4.0).g_prime(np.array(H[t] - 1))
        dv_dh = 1 if v_reset is None else 1 - S[t]
        if not detach:
            dv_dh += -slope if v_reset is None else (v_reset - H[t]) * slope
        gh = gS[t] * slope + gv * dv_dh
        gX[t], gv = gh / tau, gh * (1 - 1 / tau)
    return gX


def gradient(x, gS, **options):
    x = Tensor(x, requires_grad=True)
    lif(x, **options).backward(gS)
    return x.grad


gS, gap = rng.standard_normal(x.shape), 0.0
for v_reset, detach in product(resets, (True, False)):
    options = {"v_reset": v_reset, "detach_reset": detach}
    loops = [bptt(x[:, i], gS[:, i], v_reset, detach) for i in range(50)]
    gap = max(gap, abs(gradient(x, gS, **options) - np.transpose(loops)).max())
    compare(partial(lif, **options), partial(lif_unrolled, **options), x)  # to 1e-12
assert gap < 1e-12
print(f"gX: loops and lif differ by {gap:.0e}, 3 resets, detached or not; lif_unrolled agrees to 1e-12")

# %% [markdown]
# ## The check
# Agreement between two programs is not enough, since both could be wrong in the same way. With `smooth=True`
# the forward uses g in place of the step. Then the neuron really is smooth, and finite differences can check
# the whole gradient.

# %%
small = x[:8, :6]
pairs = list(product(surrogates, resets))
for f, v_reset in pairs:
    check_grads(partial(lif, surrogate=f, v_reset=v_reset, smooth=True, detach_reset=False), small)
print(f"check_grads: all {len(pairs)} pairs of surrogate and reset agree with finite differences")

# %% [markdown]
# ## One neuron learns a spike train
# Forty inputs send random spikes for 50 steps: P[t, k] = 1 if input k spikes at step t. Each input has a
# weight w[k], and the neuron's current is X[t] = Σ_k P[t, k] w[k]. The neuron should fire at six chosen steps
# and at no others: S*[t] = 1 there, else 0. The loss counts the wrong steps, L = Σ_t (S[t] − S*[t])².
#
# The true slope is useless here. L is a whole number, so a tiny change of a weight leaves it as it is: its
# slope along each weight is 0, and gradient descent never moves. With a surrogate, ∂L/∂S[t] =
# 2 (S[t] − S*[t]), bptt gives ∂L/∂X, and the chain rule gives ∂L/∂w[k] = Σ_t P[t, k] ∂L/∂X[t]. One update is
# w ← w − 0.05 ∂L/∂w.


# %%
def learn(seed, surrogate, updates=120, detach_reset=True):
    """Return the spike trains before each update [n, T], until the target is met, and the target [T]."""
    rng = np.random.default_rng(seed)
    P, target, w = (rng.random((50, 40)) < 0.2).astype(float), np.zeros(50), rng.normal(0.2, 0.2, 40)
    target[rng.choice(np.arange(3, 50), 6, replace=False)] = 1
    trains = []
    for _ in range(updates):
        X = Tensor(P @ w, requires_grad=True)
        S = lif(X, surrogate=surrogate, detach_reset=detach_reset)
        trains.append(S.data)
        S.backward(2 * (S.data - target))
        w = w - 0.05 * P.T @ X.grad
        if (S.data == target).all():
            break
    moved = sum((lif(P @ (w + nudge)).data != lif(P @ w).data).any() for nudge in 1e-9 * np.eye(40))
    return np.array(trains), target, moved


class RandomSlope(Surrogate):
    """Not the slope of anything: a positive number that is drawn again each time."""

    def g_prime(self, u):
        return slopes.uniform(0.1, 1, u.shape)


class WrongSign(Surrogate):
    def g_prime(self, u):
        return -Sigmoid(4.0).g_prime(u)


slopes, solved, updates, seeds = np.random.default_rng(2), {}, {}, range(10)
borrowed = {
    "Sigmoid(4)": Sigmoid(4.0),
    "random slope": RandomSlope(1.0),
    "Rectangle(1)": Rectangle(1.0),
    "wrong sign": WrongSign(1.0),
}
runs = {name: [learn(seed, surrogate) for seed in seeds] for name, surrogate in borrowed.items()}
runs["not detached"] = [learn(seed, Sigmoid(4.0), detach_reset=False) for seed in seeds]
for name, each in runs.items():
    solved[name] = sum((trains[-1] == target).all() for trains, target, _ in each)
    updates[name] = np.median([len(trains) - 1 for trains, _, _ in each])
assert not sum(moved for each in runs.values() for _, _, moved in each)  # the true slope is 0
start = [int((trains[0] != target).sum()) for trains, target, _ in runs["Sigmoid(4)"]]
assert solved["Sigmoid(4)"] == solved["random slope"] == solved["not detached"] == 10
assert solved["wrong sign"] == 0 and solved["Rectangle(1)"] < 5
print(f"a target train, {min(start)} … {max(start)} of 50 steps wrong at first; all true slopes are 0")
medians = f"median of updates {updates['Sigmoid(4)']:.0f}; not detached {updates['not detached']:.0f}"
print(f"  Sigmoid(4) learns it in {solved['Sigmoid(4)']} of 10 draws, {medians}")

# %% [markdown]
# ## Why a borrowed slope can work
# *The sign is right.* A spike can only appear when H rises, and only vanish when H falls. g′ is positive, so
# an update moves H up at a step where a spike is missing, and down where there is one too many. The size of
# g′ only says how far. (The weights of the inputs that spiked then move up or down together. This is nearly
# the perceptron's rule.) To check this, replace g′ by a random number between 0.1 and 1, drawn again each
# time: the neuron learns as well. With the sign of g′ turned round it learns nothing. And where g′ is
# exactly 0 there is no sign: with Rectangle, which is 0 where |u| > ½, most draws get stuck. An update that
# goes too far leaves H more than ½ below the threshold, and no gradient brings it back.
#
# *A little noise would make the slope true.* Add a random number to u whose distribution function is g. Then
# the neuron fires with probability g(u), a smooth function with the slope g′(u).
#
# Both reasons hold for one neuron and one step. In a network of many layers and steps, the surrogate's
# gradient is in general not the gradient of any function, and no theorem says that it leads downhill. That it
# trains such networks is an experience, and lesson 04 shows it.

# %%
noise = np.random.default_rng(3).logistic(0, 1 / 4, 100_000)  # its distribution function is Sigmoid(4)'s g
at = np.array([-0.5, -0.1, 0.3])
fires = (at[:, None] + noise >= 0).mean(1)
assert abs(fires - Sigmoid(4.0).g(at)).max() < 0.005
others = ", ".join(f"{name} {solved[name]} of 10" for name in ("random slope", "Rectangle(1)", "wrong sign"))
print(f"with other slopes: {others}")
print("firing with noise, at u = -0.5, -0.1, 0.3:", *fires.round(2), "  g(u):", *Sigmoid(4.0).g(at).round(2))

# %% [markdown]
# ## Break it: detach the reset
# Leave the reset's term out, as the paper's code does. In smooth mode finite differences must notice, and
# they do. The direction of the gradient hardly changes.
#
# Why leave it out? The usual answer is that gradients could explode. A step back in time multiplies ∂L/∂V by
# (1 − 1/τ) ∂V/∂H. Detached, ∂V/∂H is 0 or 1, so this factor is at most 1 − 1/τ, and a gradient can only
# shrink. Not detached, the factor contains H g′, and g′(0) = α/4 for Sigmoid(α) can be large.
#
# The table tests that answer. 500 neurons get random currents for 64 steps, and L is the sum of the spikes of
# the last step. It shows the largest |∂L/∂X| of all neurons and steps (the median over ten seeds) and, for
# the gradient that is not detached, the largest factor of a step back.

# %%
try:
    check_grads(partial(lif, smooth=True, detach_reset=True), small)
    message = ""
except AssertionError as error:
    message = str(error)
assert "finite difference" in message
print("detached:", message.partition(", apart")[0])
exact, detached = (gradient(x, gS, smooth=True, detach_reset=detach) for detach in (False, True))
cosine = (exact * detached).sum() / ((exact**2).sum() * (detached**2).sum()) ** 0.5
assert 0.9 < cosine < 0.999


def backwards(seed, **options):
    """Return |∂L/∂X| of 64 steps and 500 neurons [64, 500]; L sums the spikes of the last step."""
    current, last = np.random.default_rng(seed).normal(1.2, 1, (64, 500)), np.zeros((64, 500))
    last[-1] = 1
    return abs(gradient(current, last, **options))


H, explode = np.linspace(0, 3, 3001), {}
print(f"the exact and the detached gradient have a cosine of {cosine:.2f}")
print("largest |∂L/∂X|:           detached   not detached   largest factor")
for tau, alpha in ((2.0, 4.0), (16.0, 32.0)):
    options = {"tau": tau, "surrogate": Sigmoid(alpha)}
    cut, free = (
        np.median([backwards(seed, detach_reset=detach, **options).max() for seed in seeds])
        for detach in (True, False)
    )
    factor = abs((1 - 1 / tau) * (1 - (H >= 1) - H * Sigmoid(alpha).g_prime(H - 1))).max()
    explode[tau] = cut, free, factor
    print(f"  τ = {tau:2.0f}, Sigmoid({alpha:2.0f}) {cut:14.2f} {free:14,.2f} {factor:16.2f}")
assert explode[2.0][0] == explode[2.0][1] <= 0.5 and explode[2.0][2] < 1 - 1 / 2 + 0.05
assert explode[16.0][0] <= 0.5 and explode[16.0][1] > 1e3 and explode[16.0][2] > 7

# %% [markdown]
# At the papers' constants, the first row, the answer does not hold. The largest gradient is 0.5 either way:
# that is g′(0)/τ, at the last step itself, and on the way back no factor exceeds 0.53. It holds in the second
# row, for a slow neuron with a steep surrogate. There the largest gradient is about 10⁵ (10⁴ … 10⁸,
# depending on the seed). At the papers' constants, detaching saves one term; the neuron above learns its
# train in all ten draws either way.

# %% [markdown]
# ## Time is an axis
# Nothing survives a call of `lif`, and nothing acts before it happens. A change of the input at step t leaves
# the spikes before t as they were, and a gradient from step t reaches no later input.
#
# How far back does a gradient reach? In a silent neuron each step back multiplies it by 1 − 1/τ, exactly.
# With a hard, detached reset a spike ends it: ∂V/∂H = 0, since the neuron has forgotten everything before.

# %%
event, one = x.copy(), np.zeros_like(x)
event[20] += 2
one[20] = 1
before, after = lif(x).data, lif(event).data
assert np.array_equal(before[:20], after[:20]) and not gradient(x, one)[21:].any()
changed = int((before != after).sum())
assert np.array_equal(lif(x).data, before) and changed > 50
print(f"an event at t = 20 changes {changed} spikes, {int((before != after)[:20].sum())} of them before it")
taus, k, last = (1.5, 2.0, 4.0, 8.0), np.arange(24), np.eye(24)[-1]
credit = {tau: gradient(np.full(24, 0.5), last, tau=tau)[::-1] for tau in taus}
credit = {tau: g / g[0] for tau, g in credit.items()}  # of the input k steps ago, against the last
assert all(np.allclose(credit[tau], (1 - 1 / tau) ** k, rtol=1e-12, atol=0) for tau in taus)
print("credit 8 steps back:", ", ".join(f"{c[8]:.5f} (τ = {tau:g})" for tau, c in credit.items()))
kick = np.where(k == 12, 4.0, 0.5)
cut, kept = gradient(kick, last), gradient(kick, last, v_reset=None)
assert lif(kick).data.tolist() == (k == 12).tolist() and not cut[:13].any() and kept.all()
credited = [int((g != 0).sum()) for g in (cut, kept)]
print(f"a spike at t = 12: of 24 inputs, {credited[0]} get credit (hard reset) or {credited[1]} (soft)")

# %% [markdown]
# ## The figure
# Top: left and middle, one input with one burst (grey bars) under both resets; look at the steps after the
# burst: the soft reset keeps the excess and fires again, the hard reset forgets it. Right: forty neurons,
# each with a constant current; look at a row: its ticks move together as the current grows.
# Middle row: left, five smooth steps g; look at how slowly ATan and FastSigmoid come to 0 and 1. Middle,
# their slopes g′; look at Rectangle, which is 0 where |u| > ½. Right, what reaches an input k steps ago;
# look at τ = 2, where eight steps leave 0.4 %.
# Bottom: left, the gradient, detached and not, backwards in time; look at the dashed orange line, which
# rises, and at the full blue line, which ends where every neuron has fired since. Middle, learning the train
# with five slopes, one draw; look at which lines reach 0. Right, the spikes of each update with
# Sigmoid(4); look at how they gather on the orange target.

# %%
fig, axes = viz.figure(3, 3, size=(13.5, 11.4))
burst = np.where(np.arange(24) == 12, 7.0, 1.3)
for ax, v_reset, name in zip(axes[0], (0.0, None), ("hard reset", "soft reset"), strict=False):
    H, S = (np.array(a) for a in neuron(burst, v_reset, tau=3.0))
    ax.bar(range(24), burst, color=viz.GREY, alpha=0.3, label="current X")
    viz.membrane(ax, H, S, 1.0, f"{name}: {S.sum():.0f} spikes")
    ax.lines[0].set_label("H, before the reset")
    V = H - S if v_reset is None else np.where(S, 0, H)
    ax.plot(V, "s", color=viz.GREEN, markersize=3, label="V, after the reset")
    ax.set(ylim=(0, 7.3), xticks=range(0, 24, 4), ylabel="current and potential")
axes[0, 0].legend(frameon=False, loc="upper left", fontsize=9)
currents = np.linspace(0.9, 2.85, 40)
viz.raster(axes[0, 2], lif(np.tile(currents, (48, 1)), tau=8.0).data, "more current, more spikes")
axes[0, 2].set(xticks=range(0, 48, 8), yticks=range(2, 40, 10), ylabel="constant current")
axes[0, 2].set_yticklabels([f"{c:.1f}" for c in currents[2::10]])
u = np.linspace(-2, 2, 401)
axes[1, 0].step(u, u >= 0, color=viz.INK, linestyle=":", label="the true step")
for f in surrogates:
    axes[1, 0].plot(u, f.g(u))
    axes[1, 1].plot(u, f.g_prime(u), label=type(f).__name__)
for ax, title in zip(axes[1], ("smooth steps g", "and their slopes g′"), strict=False):
    ax.set(xlabel="u = H − threshold", title=title)
    ax.legend(frameon=False, fontsize=9)
for (tau, c), xy in zip(credit.items(), ((1, 3e-4), (10.5, 1e-3), (17.5, 9e-3), (17.5, 0.13)), strict=True):
    (line,) = axes[1, 2].semilogy(k, c, marker="o", markersize=3)
    axes[1, 2].text(*xy, f"τ = {tau:g}", color=line.get_color())
axes[1, 2].set(ylim=(2e-5, 1.6), xlabel="steps back in time", ylabel="|∂L/∂X|, last step = 1")
axes[1, 2].set_title("a silent neuron's credit: (1 − 1/τ)ᵏ")
for tau, alpha, color in ((2.0, 4.0, viz.BLUE), (16.0, 32.0, viz.ORANGE)):
    for detach, dash in ((True, "-"), (False, "--")):
        largest = backwards(0, tau=tau, surrogate=Sigmoid(alpha), detach_reset=detach).max(1)[::-1]
        label = f"τ = {tau:g}, α = {alpha:g}, {'detached' if detach else 'not detached'}"
        axes[2, 0].semilogy(largest, dash, color=color, label=label)
axes[2, 0].set(ylim=(1e-8, 1e9), xlabel="steps back in time", ylabel="largest |∂L/∂X| of 500 neurons")
axes[2, 0].set_title("break it: not detached")
axes[2, 0].legend(frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1, 0.06))
trains, target, _ = runs["Sigmoid(4)"][0]
axes[2, 1].axhline((trains[0] != target).sum(), color=viz.INK, linestyle=":", label="true slope")
for name in ("Sigmoid(4)", "not detached", "random slope", "Rectangle(1)", "wrong sign"):
    each = runs[name][0][0]
    axes[2, 1].plot((each[:70] != target).sum(1), label=name, linewidth=2 if name == "Sigmoid(4)" else 1.2)
axes[2, 1].set(xlabel="updates", ylabel="wrong steps, of 50", title="a neuron learns a spike train")
axes[2, 1].legend(frameon=False, fontsize=8, loc="center right")
update, step = trains.nonzero()
axes[2, 2].scatter(step, update, marker="|", s=22, color=viz.INK)
for step in target.nonzero()[0]:
    axes[2, 2].axvline(step, color=viz.ORANGE, alpha=0.35, linewidth=3, zorder=0)
axes[2, 2].set(xlabel="time step", ylabel="update", ylim=(len(trains), -1))
axes[2, 2].set_title("its spikes, update by update (orange: target)")
viz.save(fig, "01_lif")

# %% [markdown]
# ## What was shown
# How can a neuron that jumps learn? In the forward it jumps; in the backward it borrows the slope of a smooth
# step. One neuron learned a given spike train in ten of ten draws, with a median of 28 updates, where the
# true slope is 0 and teaches nothing. The borrowed slope needs the right sign more than the right size: a
# positive random slope also learned all ten, and the wrong sign none.
#
# Through time the gradient is a product of one factor for each step, (1 − 1/τ) ∂V/∂H. In smooth mode and
# with nothing detached, finite differences agree with it. The detached gradient is inexact on purpose. At
# the papers' τ = 2 and Sigmoid(4) the exact one does not explode either (0.5 and 0.5), and one neuron cannot
# show which is better for learning. At τ = 16 and Sigmoid(32) it does explode (0.5 and about 10⁵).
#
# ## Five questions (answers: lessons/solutions/01_lif.py)
#
# 1. A neuron (τ = 2, hard reset) gets a constant current of 0.99. Why does it never fire? And from which
#    current on does it fire at least once in T = 4 steps?
# 2. Which firing rates can a neuron have in T = 4 steps? Name two currents, different by 0.4 or more, which
#    its train cannot tell apart.
# 3. Why is the gradient checked in smooth mode only? What would finite differences say in the usual mode?
# 4. The loss depends on the last step's spike only, and the neuron (hard, detached reset) fires at every
#    second step, also at the last. How many of its inputs get a gradient? How many with the soft reset?
# 5. Take τ = 2, Sigmoid(α), the hard reset to 0, not detached. From which α on can a step back in time
#    enlarge a gradient? (Consider H just at the threshold first, then look a little beyond.)
#
# ## Practice
#
#     python -m lessons.practice 01_lif
#
# ★ `current`: predict the smallest constant current at which a neuron fires at every step.
#
# ★ `step`: let a layer take one step, with either reset; it then runs in the place of `lif`.
#
# ★★ `steps_to_fire`: say after how many steps a neuron under a constant current fires.
#
# ★★ `bptt`: write the whole gradient through time; finite differences check it in the library's place.
#
# ★★★ `forward_in_time`: compute the same gradient without going back in time.
