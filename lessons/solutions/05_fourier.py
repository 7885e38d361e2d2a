# %% [markdown]
# # Solutions to 05 · Fourier

# %%
import numpy as np

from minispike import create_model, ops

# %% [markdown]
# ## 1 · Independent rows of C_196
# Row 196 − k equals row k, because cos(2π(N − k)n/N) = cos(2πkn/N). Rows 0 … 98 remain, and they are
# orthogonal to one another: 196/2 + 1 = 99 independent rows. Half of a signal's dimensions is lost.

# %%
C = ops.fourier(np.eye(196)).data
assert np.allclose(C[1:], C[:0:-1]) and np.linalg.matrix_rank(C) == 99
products = C[:99] @ C[:99].T
assert np.allclose(products, np.diag(np.diag(products)))

# %% [markdown]
# ## 2 · Parameters saved
# SSA has four maps with D² weights, a bias of D in the last one, and a batch norm with γ and β (2·D values)
# after each. The Fourier mixer keeps one batch norm. So a block saves 4·D² + D + 3·2·D parameters, and the
# model 527,872, a fifth of all.


# %%
def saved(D, depth):
    return depth * (4 * D * D + D + 3 * 2 * D)


names = (f"{family}_2_256_cifar10dvs" for family in ("spikformer", "attention_free_fft1d"))
attention, fourier = (create_model(name) for name in names)
assert saved(256, 2) == 527_872 == attention.num_params() - fourier.num_params()
assert fourier.blocks[0].mixer.num_params() == 2 * 256
assert 0.2 < saved(256, 2) / attention.num_params() < 0.21

# %% [markdown]
# ## 3 · The same spikes, and another block output
# The transform gives the same numbers for X and for R X, because their even parts are equal and the odd part
# is lost. BN and LIF get equal numbers, so whatever they compute is equal. The block adds its input, and the
# inputs X and R X are different.

# %%
x = np.random.default_rng(0).integers(0, 3, (16, 8)).astype(float)
backwards = np.roll(np.flip(x, 0), 1, 0)
assert np.allclose(ops.fourier(x).data, ops.fourier(backwards).data) and (x != backwards).any()

# %% [markdown]
# ## 4 · Adjoint and inverse
# No. The gradient needs the transpose, and C_N is symmetric. C_N has no inverse, since its rank is about N/2.
# On even signals C_N equals F_N there, and C_N twice gives the signal back: on these it is its own inverse.

# %%
even, odd = (x + backwards) / 2, (x - backwards) / 2
again = ops.fourier(ops.fourier(even)).data
assert np.allclose(again, even) and not np.allclose(ops.fourier(ops.fourier(x)).data, x)

# %% [markdown]
# ## 5 · Two mixers in a row
# They keep the even part and erase the odd part: C_N² = (1 + R)/2, where R counts the tokens backwards. The
# reason: F = C − iS, where F² = R, and F times its conjugate is 1. The real parts of these two are
# C² − S² = R and C² + S² = 1, and half of their sum is C². So token n only meets token −n. In the network a
# residual, BN, the neuron and the MLP come between two mixers. They are not linear, so a second mixer does
# not undo the first.

# %%
F = np.fft.fft(np.eye(16), norm="ortho")
R = np.roll(np.flip(np.eye(16), 0), 1, 0)
assert np.allclose(F @ F, R) and np.allclose(F @ F.conj(), np.eye(16))
assert np.allclose(ops.fourier(ops.fourier(x)).data, even)
fires = np.maximum(ops.fourier(x).data, 0)  # a function that is not linear, in place of the neuron
assert not np.allclose(ops.fourier(fires).data, np.maximum(even, 0))
