# %% [markdown]
# # Answers to 16 · Pairs

# %%
import numpy as np

from data_utils.images.pairs import FreshPairs, Pairs
from minispike.blocks.control import MaxPoolMix

# %% [markdown]
# ## 1 · Fresh pairs
# With a fixed set of pairs a model could learn each pair by heart: 1,440 pairs are few. Then the training
# loss would fall below ln 2 without mixing between digits being learned. Fresh pairs make the training loss
# honest, too.

# %%
toy = Pairs(np.arange(6.0).reshape(6, 1, 1, 1), np.array([0, 0, 0, 1, 1, 1]), gap=1, blank=-1.0)
batches = FreshPairs(toy, 8, 8)
assert not np.array_equal(batches(0)[0][0], batches(1)[0][0])

# %% [markdown]
# ## 2 · No gap
# Without the gap, tokens at the middle see a part of both digits. Such a token's contribution is a function
# of both, so z is no longer a sum a(L) + b(R). The convolutions of the stem have mixed already.

# %% [markdown]
# ## 3 · A digit that is never in a different pair
# The first: given that the left digit is 0, the pair would always be equal, so y would have the mean 1 and
# not ½. A model without mixing could use that. (Here: the mean of y given each left class.)

# %%
p = np.zeros((2, 3, 3))
p[1] = np.eye(3) / 6
p[0, 1:, 1:] = (1 - np.eye(2)) / 4
given_left = p[1].sum(1) / p.sum((0, 2))
assert np.allclose(given_left, [1, 0.4, 0.4])

# %% [markdown]
# ## 4 · A learned matrix
# In the neuron behind it. M x brings the left digit's features to the right digit's tokens; LIF(BN(·)) then
# fires where the sum exceeds a threshold. A sum with a threshold is not a sum of two functions: two spikes
# together may fire a neuron that either alone does not. The MLP of the block can build on that.

# %%
fires = lambda left, right: float(left + right >= 2)  # noqa: E731
assert fires(1, 1) + fires(0, 0) != fires(1, 0) + fires(0, 1)  # a(L) + b(R) would make them equal

# %% [markdown]
# ## 5 · Steps across the gap
# The tokens that see one digit lie in columns 0 to 7 of the grid and in columns 8 to 15 those of the other
# (the lesson prints how many). Each block moves a feature by one token. If the nearest tokens that see the
# left and the right digit are d columns apart, one token knows of both after ⌈d / 2⌉ blocks.

# %%
x = np.zeros((1, 1, 16, 1))
x[0, 0, 3] = 1
pool, steps = MaxPoolMix(1, (1, 16)), 0
while not x[0, 0, 8, 0]:
    x, steps = pool(x).data, steps + 1
assert steps == 5  # from column 3 to column 8
