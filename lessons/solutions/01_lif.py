# %% [markdown]
# # Solutions to 01 · LIF

# %%
import numpy as np

from minispike import Tensor, check_grads, lif
from minispike.surrogate import Sigmoid

# %% [markdown]
# ## 1 · The smallest current that fires
# The distance between the current c and H shrinks by the factor 1 − 1/τ = ½ at each step: after n steps
# H = c (1 − 2⁻ⁿ). So H stays below c, and c = 0.99 never reaches 1. In four steps H reaches c · 15/16, which
# is 1 at c = 16/15.

# %%
assert not lif(np.full(10_000, 0.99)).data.any()
assert lif(np.full(4, 16 / 15)).data.tolist() == [0, 0, 0, 1]
assert not lif(np.full(4, 16 / 15 - 1e-9)).data.any()

# %% [markdown]
# ## 2 · The rates of four steps
# 0, ¼, ½, ¾ and 1. Under a constant current not even all of these occur: the neuron fires at every n-th
# step, so ¾ is missing. From c = 4/3 to just below 2 it fires at every second step: 1.4 and 1.9 give the
# same train.

# %%
currents = np.linspace(0, 3, 3001)
assert set(lif(np.tile(currents, (4, 1))).data.mean(0)) == {0, 0.25, 0.5, 1}
assert np.array_equal(lif(np.full(64, 1.4)).data, lif(np.full(64, 1.9)).data)

# %% [markdown]
# ## 3 · Why smooth mode
# Finite differences measure the slope of the function that runs. In the usual mode this function is a step:
# they find 0, or a huge number. The surrogate's gradient is not the slope of that function, so it cannot
# agree. In smooth mode g itself runs, and its slope is what the backward computes.

# %%
x = np.random.default_rng(0).normal(1, 1, (6, 5))
check_grads(lambda x: lif(x, smooth=True, detach_reset=False), x)
try:
    check_grads(lambda x: lif(x, detach_reset=False), x)
    agrees = True
except AssertionError as error:
    agrees = False
    assert "finite difference 0," in str(error)
assert not agrees

# %% [markdown]
# ## 4 · How many inputs get a gradient
# Two: the input of the last step and that of the step before. One more step back the neuron fired, so there
# ∂V/∂H = 1 − S = 0. With the soft reset ∂V/∂H = 1 at every step, and all inputs get a gradient.

# %%
for v_reset, expected in ((0.0, 2), (None, 12)):
    current = Tensor(np.full(12, 1.5), requires_grad=True)
    spikes = lif(current, v_reset=v_reset)
    spikes.backward(np.eye(12)[-1])
    assert spikes.data[-1] == 1 and (current.grad != 0).sum() == expected
assert lif(np.full(12, 1.5)).data.tolist() == [0, 1] * 6

# %% [markdown]
# ## 5 · The steepness at which gradients can grow
# The factor is ½ (1 − S − H g′(H − 1)). At H = 1 the neuron fires, so its size is ½ g′(0) = α/8, which is 1
# at α = 8. A little beyond the threshold H g′ is larger still, because at first H grows faster than g′ falls.
# So the largest factor is a little above α/8, and 7.9 is enough. The papers' 4 is far below. (A neuron just
# below the threshold has ½ |1 − α/4|, which is 1 only at α = 12.)

# %%
H = np.linspace(0, 3, 300_001)


def largest(alpha):
    return abs(0.5 * (1 - (H >= 1) - H * Sigmoid(alpha).g_prime(H - 1))).max()


first = next(alpha for alpha in np.arange(4, 12, 0.01) if largest(alpha) > 1)
assert 7.5 < first < 8 and largest(4.0) < 0.54 and largest(8.0) > 1
