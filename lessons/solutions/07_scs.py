# %% [markdown]
# # Solutions to 07 · The convolutional stem

# %%
import numpy as np

from minispike import Tensor, ops

# %% [markdown]
# ★ The OR is silent with probability (1 − p)⁹, and a bit is full at one half: p = 1 − 2^(−1/9), 7.4 %. With
# four neurons it would be 15.9 %. More spikes make an OR say less.

# %%
rng = np.random.default_rng(7)
p = 1 - 0.5 ** (1 / 9)
assert abs(ops.max_pool2d((rng.random((900, 900, 1)) < p) * 1.0, 3).data.mean() - 0.5) < 0.01

# %% [markdown]
# ★★ Along one axis window p covers 2p − 1, 2p and 2p + 1: an even pixel is in one window, as its middle, and
# an odd one in two, p and p + 1; the last, H − 1, in one, for window H/2 does not exist. In two axes the
# numbers multiply. So the gradient is up to four times as strong at some pixels as at their neighbours, a
# chequerboard which 2×2 windows do not have.


# %%
def windows(H):
    along = 1 + np.arange(H) % 2
    along[-1] = 1
    return np.outer(along, along)


def collected(H):
    x = Tensor(np.zeros((H, H, 1)), requires_grad=True)
    y = ops.conv2d(x, np.ones((3, 3, 1, 1)), stride=2, padding=1)
    y.backward(np.ones_like(y.data))
    return x.grad[..., 0]


assert np.array_equal(windows(8), collected(8))

# %% [markdown]
# ★★★ The total is the lesson's `count`, rounded as the paper prints it. One pair is left. What has no
# parameters (the residual, strides, the neurons) no count can tell.


# %%
def meets(k, e):
    for D, depth, digits, published in ((384, 8, 2, 29.11), (512, 8, 2, 51.55), (768, 16, 0, 172)):
        m, n = np.array([3, D // 8, D // 4, D // 2]), np.array([D // 8, D // 4, D // 2, D])
        stem = (k * k * m * n + 18 * e * n * n + 4 * n + 2 * e * n).sum()
        total = stem + depth * (12 * D * D + 24 * D) + 1000 * D + 1000
        if round(total / 1e6, digits) != published:
            return False
    return True


assert [(k, e) for k in range(1, 5) for e in range(1, 9) if meets(k, e)] == [(2, 4)]
