# %% [markdown]
# # Solutions to 01 · LIF

# %%
from math import ceil, log

import numpy as np

from minispike import Tensor, lif
from minispike.surrogate import Sigmoid

# %% [markdown]
# ★ After a spike V = 0, so the next charge is H = X/τ. It reaches 1 at X = τ = 2.

# %%
current = 2.0
assert lif(np.full(8, current)).data.all() and not lif(np.full(8, 0.999 * current)).data.all()

# %% [markdown]
# ★★ c − H[t] = (1 − 1/τ)(c − H[t−1]): the distance to c shrinks by the same factor at every step, from c at
# the start. So H = c (1 − (1 − 1/τ)ⁿ), and H >= 1 ⇔ (1 − 1/τ)ⁿ <= 1 − 1/c ⇔ n >= ln(1 − 1/c) / ln(1 − 1/τ).


# %%
def steps_to_fire(c, tau):
    return ceil(log(1 - 1 / c) / log(1 - 1 / tau))


cases = [(c, tau) for c in (1.1, 1.3, 1.7, 2.5) for tau in (1.5, 2.0, 5.0, 16.0)]
assert all(lif(np.full(99, c), tau=tau).data.argmax() + 1 == steps_to_fire(c, tau) for c, tau in cases)

# %% [markdown]
# ★★★ Each ∂V/∂X[k] fades by 1 − 1/τ, a new one enters with 1/τ, and a spike sets them all to 0. That is T
# numbers a neuron, and T² work where `bptt` does T; but H need not be kept, nor the end be waited for. All
# traces fade together. So where X = w · input, one number is enough, Σ_k trace[k] · input[k]: it is called
# an eligibility trace.


# %%
def forward_in_time(X, gS, tau=2.0):
    gX, trace, v = np.zeros(len(X)), np.zeros(len(X)), 0.0  # trace[k] = ∂V/∂X[k]
    for t in range(len(X)):
        h = v + (X[t] - v) / tau
        trace *= 1 - 1 / tau
        trace[t] += 1 / tau  # now ∂H[t]/∂X[k]
        gX += gS[t] * Sigmoid(4.0).g_prime(np.array(h - 1)) * trace
        s = h >= 1
        v, trace = h * (1 - s), trace * (1 - s)
    return gX


rng = np.random.default_rng(0)
X, gS = rng.normal(1, 1, 20), rng.standard_normal(20)
x = Tensor(X, requires_grad=True)
lif(x).backward(gS)
gX = x.grad
assert np.allclose(forward_in_time(X, gS), gX, rtol=0, atol=1e-14)
