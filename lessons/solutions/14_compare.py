# %% [markdown]
# # Solutions to 14 · Compare

# %%
from math import sqrt

import numpy as np

from minispike import create_model
from minispike.measure.energy import count

# %% [markdown]
# ## 1 · With the same images, and without
# b + c = 470 images, and b − c is small, so the standard error is √470 / 10,000 = 0.22 points. Independent
# networks would have √2 · √(0.91 · 0.09 / 10,000) = 0.40 points. The same images make the comparison almost
# twice as sharp. The simulation draws 470 images that favour either network with equal chance.

# %%
paired, independent = sqrt(470) / 10_000, sqrt(2 * 0.91 * 0.09 / 10_000)
assert np.allclose((paired, independent), (0.0022, 0.0040), atol=5e-5)
b = np.random.default_rng(0).binomial(470, 0.5, 20_000)
assert abs(((2 * b - 470) / 10_000).std() / paired - 1) < 0.02

# %% [markdown]
# ## 2 · What a mixer of no cost saves
# The stem and the MLPs remain. With two blocks, attention is 15 % of all MACs; nothing that replaces it can
# save more. Eight blocks have four times as much attention and MLP behind the same stem, so attention is a
# larger share: 30 %. Without any stem it would be 43 %, the limit for deep models of this shape.

# %%
shares = []
for depth in (2, 8):
    counted = count(create_model("spikformer_2_64_fashion", depth=depth), np.zeros((1, 32, 32, 1), "float32"))
    shares.append(counted.macs("mixer") / counted.macs())
limit = counted.macs("mixer") / (counted.macs("mixer") + counted.macs("mlp"))
assert np.allclose((*shares, limit), (0.154, 0.297, 0.429), atol=0.001)

# %% [markdown]
# ## 3 · Errors apart
# The squares of the two standard errors √(p(1 − p)/n) add up. The 400 epochs are 1.1 standard errors from
# the shorter training: too little to say anything, though on the same images one could compare more sharply.
# V2's gain on ImageNet is 21 standard errors: it is not chance, whatever else it is made of.


# %%
def errors_apart(p, q, n):
    return abs(p - q) / sqrt(p * (1 - p) / n + q * (1 - q) / n)


assert 1 < errors_apart(0.9551, 0.9519, 10_000) < 1.2
assert 21 < errors_apart(0.8038, 0.7481, 50_000) < 22

# %% [markdown]
# ## 4 · No difference found is not equality
# No. The record is compatible with everything within about two standard errors: from −0.56 to +0.32 points.
# SAFormer may be half a point worse, or a third of a point better.

# %%
low, high = -0.12 - 2 * 0.22, -0.12 + 2 * 0.22
assert np.allclose((low, high), (-0.56, 0.32))

# %% [markdown]
# ## 5 · How many seeds
# With k seeds of each model the standard error is 0.27 · √(2/k) points. It is 0.06 at k = 2 · (0.27/0.06)² =
# 40.5, so 41 seeds of each are needed. At 24 minutes a run that is 33 hours on one core.
#
# The test images remain. All seeds are tested on the same 10,000 images, and another 10,000 might favour the
# other model. More seeds do not make that error smaller; only more images do. The simulation has two models
# whose true accuracies are equal, but on each image one of them is better by a fixed amount. The means over
# very many seeds are then the means of these amounts, and they still spread.

# %%
k = next(k for k in range(1, 100) if 0.27 * sqrt(2 / k) <= 0.06)
assert k == 41 and 32 < 2 * k * 24 / 60 < 34
rng = np.random.default_rng(0)
gaps = [rng.normal(0, 0.1, 10_000).mean() for _ in range(500)]  # of infinitely many seeds, for 500 test sets
assert abs(np.std(gaps) - 0.1 / sqrt(10_000)) < 1e-4 and np.std(gaps) > 0
