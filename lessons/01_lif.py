# %% [markdown]
# # 01 · LIF: how a neuron that jumps can learn
#
# A leaky integrate-and-fire neuron gathers its input, leaks, and at a threshold jumps: it fires and starts
# anew. A jump has no slope, and learning is made of slopes. So what is it that flows backwards through a
# spike? (Spikformer, arXiv 2209.15425, §3: τ = 2, threshold 1, hard reset to 0, surrogate Sigmoid(4).)

# %%
from functools import partial
from itertools import product

import numpy as np

from minispike import Tensor, check_grads, compare, lif, lif_unrolled
from minispike.measure import viz
from minispike.surrogate import ATan, FastSigmoid, Rectangle, Sigmoid, Triangle

# %% [markdown]
# ## By hand: one neuron
# With V[−1] = v_reset, at every step: charge, fire, reset. X[t] is the current and S[t] the spike. V[t] is
# the membrane potential after step t's reset, H[t] just before it; v_reset is its initial, resting and reset
# value. τ is the time constant of its leak, in steps.
#
#     H[t] = V[t−1] + (X[t] − (V[t−1] − v_reset)) / τ        S[t] = 1 if H[t] >= 1 else 0
#     hard: V[t] = v_reset if it fired, else H[t]            soft (v_reset = None): V[t] = H[t] − S[t]
#
# (With the soft reset v_reset counts as 0 in the charge and at the beginning.)
#
# For τ = 2 and v_reset = 0 the charge is H = (V + X) / 2, easy on paper. The soft reset keeps what exceeds
# the threshold (0.765625 at t = 4), so that it fires once more at the end:
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
# `lif` takes [T, …], time first, every other position a neuron of its own. A membrane at *exactly* the
# threshold fires (>=, as at t = 2 of the hard neuron); a hair less does not.

# %%
rng = np.random.default_rng(1)
x = rng.normal(1, 1, (40, 50))  # [T, neurons]
resets = (0.0, -0.5, None)
for v_reset in resets:
    loops = np.array([neuron(row, v_reset)[1] for row in x.T]).T
    assert np.array_equal(lif(x, v_reset=v_reset).data, loops)
at, below = (lif(np.array([current])).data[0] for current in (2.0, np.nextafter(2.0, 0)))
assert (at, below) == (1, 0)
print(f"lif = loops, {x.size:,} steps for each of 3 resets; H = 1 fires: {at:.0f}, a hair less: {below:.0f}")

# %% [markdown]
# ## A step has no slope, so borrow one
# The spike is a step in u = H − 1. Its finite difference is 0, or huge where it happens to straddle the
# threshold: nothing to learn from. A *surrogate* keeps the step in the forward, and in the backward uses
# the slope g′ of a smooth step g. The library has five, each with one number α. α is a steepness; each is
# chosen here so that g′(0) = 1. So the five agree at the threshold and differ in their tails: how far from
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
# H[t] acts on the loss in two ways: through its spike S[t], and through V[t], from which the whole future
# is made. Write the hard reset as V = H (1 − S) + v_reset S: the product rule, with ∂S/∂H = g′, gives ∂V/∂H.
# So the gradient runs backwards in time, with gV[T−1] = 0:
#
#     gH[t]   = gS[t] g′(H[t] − 1) + gV[t] ∂V/∂H      ∂V/∂H = 1 − S[t]  + (v_reset − H[t]) g′      hard
#     gX[t]   = gH[t] / τ                             ∂V/∂H = 1         − g′                       soft
#     gV[t−1] = gH[t] (1 − 1/τ)
#
# The last term of ∂V/∂H goes through the reset's own S. The paper's code *detaches* it: takes it as 0. Beside
# these loops stands `lif_unrolled`, the same forward of tiny operations, differentiated by lesson 00's
# engine; `compare` asserts that two functions have equal values and gradients.


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
# ## The proof
# Agreement between two codes is not truth: both could borrow wrongly. With `smooth=True` the forward uses g
# as well. Then the network really is smooth, and finite differences may judge the whole of it.

# %%
small = x[:8, :6]
proofs = list(product(surrogates, resets))
for f, v_reset in proofs:
    check_grads(partial(lif, surrogate=f, v_reset=v_reset, smooth=True, detach_reset=False), small)
print(f"check_grads: all {len(proofs)} pairs of surrogate and reset agree with finite differences")

# %% [markdown]
# ## Break it: detach the reset
# Leave the reset's term out, as the paper's code does, and finite differences must notice. They do. Why
# then is it left out so often? The direction survives, nearly. And ∂V/∂H is then 0 or 1, so that a step
# back in time multiplies a gradient by at most 1 − 1/τ. The term left out is (v_reset − H) g′: with a steep
# surrogate it is far below −1 near the threshold, and its products explode.

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
long, at_the_end = rng.normal(1.2, 1, (64, 500)), np.zeros((64, 500))
at_the_end[-1] = 1
steep = {"tau": 16.0, "surrogate": Sigmoid(32.0)}
bounded, free = (abs(gradient(long, at_the_end, detach_reset=d, **steep)).max() for d in (True, False))
assert 0.9 < cosine < 0.999 and bounded <= 32 / 4 / 16 and free > 1e3
print(f"still the detached gradient points along the exact one: cosine {cosine:.2f}")
print(f"largest |gX| over 64 steps, τ = 16, Sigmoid(32): detached {bounded:.1f}, not detached {free:.0f}")

# %% [markdown]
# ## Time is an axis
# Nothing survives a call, and nothing acts before it happens: an event at t leaves the spikes before t as
# they were, and a gradient at t reaches no input after t. How far back does it reach? A silent neuron
# multiplies it by 1 − 1/τ a step, exactly. A spike, with a hard and detached reset, ends it: all before is
# forgotten.

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
# Above: the same input, with one burst, under both resets; and forty neurons, each with a current of its
# own.

# %%
fig, axes = viz.figure(2, 3, size=(12, 6.8))
burst = np.where(np.arange(32) == 16, 14.0, 1.4)
for ax, v_reset, name in zip(axes[0], (0.0, None), ("hard reset", "soft reset"), strict=False):
    H, S = (np.array(a) for a in neuron(burst, v_reset, tau=4.0))
    viz.membrane(ax, H, S, 1.0, f"{name}: {S.sum():.0f} spikes")
    ax.set(ylim=(0, 4.2), xticks=range(0, 32, 4))
    ax.axvspan(15.5, 16.5, color=viz.GREY, alpha=0.25, linewidth=0, label="burst")
axes[0, 0].legend(frameon=False, loc="upper left")
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
axes[1, 2].set(ylim=(2e-5, 1.6), xlabel="steps back in time", ylabel="|gX| / |gX| of the last step")
axes[1, 2].set_title("a silent neuron's credit: (1 − 1/τ)ᵏ")
viz.save(fig, "01_lif")

# %% [markdown]
# ## What was shown
# The forward jumps; the backward borrows the slope of a smooth step. Through time it is one factor a step,
# (1 − 1/τ) ∂V/∂H, multiplied from the end. In smooth mode, with nothing detached, finite differences prove
# all of it. Detached, the gradient is inexact on purpose, and cannot explode.
#
# ## Exercises (solutions: lessons/solutions/01_lif.py)
#
# ★ Predict: from which constant current on does a neuron (τ = 2, hard reset) fire at every step? Set
# `current`.
#
#     assert lif(np.full(8, current)).data.all() and not lif(np.full(8, 0.999 * current)).data.all()
#
# ★★ Re-derive: a silent neuron under a constant current c > 1 has charged to H = c (1 − (1 − 1/τ)ⁿ) after n
# steps. Show it, and write `steps_to_fire(c, tau)`, the number of steps up to its first spike.
#
#     assert all(lif(np.full(99, c), tau=tau).data.argmax() + 1 == steps_to_fire(c, tau) for c, tau in cases)
#
# ★★★ Deeper: `bptt` must wait for the end and keep all of H. Instead, carry ∂V[t]/∂X[k] along for every k,
# forwards in time, and add to gX[k] as each gS[t] arrives. Write `forward_in_time(X, gS)` for the hard,
# detached reset. What does it cost, and what need it not keep?
#
#     assert np.allclose(forward_in_time(X, gS), gX, rtol=0, atol=1e-14)
