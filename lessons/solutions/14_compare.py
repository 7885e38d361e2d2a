# %% [markdown]
# # Solutions to 14 · Compare

# %%
from math import sqrt

import numpy as np

# %% [markdown]
# ★ Two standard errors are 2 √(0.06/n), the small square left out. They are 0.005 at n = 4 · 0.06 / 0.005².
# So 10,000 images can just tell half a point, between networks that differ on 6 % of them.

# %%
n_needed = 4 * 0.06 / 0.005**2
assert abs(n_needed - 9_600) < 100

# %% [markdown]
# ★★ An image adds +1 with probability β, −1 with γ, else 0. Its mean is β − γ, the mean of its square β + γ,
# so its variance is β + γ − (β − γ)². A mean over n independent images has an n-th of that.


# %%
def error(beta, gamma, n):
    return sqrt((beta + gamma - (beta - gamma) ** 2) / n)


def measured(beta, gamma, n, draws=20_000):
    rng = np.random.default_rng(0)
    first, second, _ = rng.multinomial(n, (beta, gamma, 1 - beta - gamma), draws).T
    return ((first - second) / n).std()


assert abs(measured(0.04, 0.03, 10_000) / error(0.04, 0.03, 10_000) - 1) < 0.05

# %% [markdown]
# ★★★ √(p(1−p)/n) for each, added in squares. A hundred epochs more on CIFAR-10 are one standard error, though
# on the same images one could compare more sharply than that; V2's gain on ImageNet is not chance, whatever
# else it is made of.


# %%
def errors_apart(p, q, n):
    return abs(p - q) / sqrt(p * (1 - p) / n + q * (1 - q) / n)


assert errors_apart(0.9551, 0.9519, 10_000) < 1.2 and errors_apart(0.8038, 0.7481, 50_000) > 20
