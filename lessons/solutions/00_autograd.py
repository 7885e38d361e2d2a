# %% [markdown]
# # Solutions to 00 · Autograd

# %%
import numpy as np

from minispike import Function, Tensor, check_grads

# %% [markdown]
# ★ Each doubling gives every path two ways on: 2¹⁰ = 1024 paths. Backward does not walk them one by one. It
# visits each of the ten sums once, with all that has arrived there.


# %%
def gradient_of_doubling(times):
    x = y = Tensor([1.0], requires_grad=True)
    for _ in range(times):
        y = y + y
    y.backward()
    return x.grad[0]


paths = 2**10
assert gradient_of_doubling(times=10) == paths

# %% [markdown]
# ★★ y = P x with P = I − 11ᵀ/n. P is symmetric, so the backward is the same map: gx = gy − mean gy. (P P =
# P besides: what is centred stays as it is.)


# %%
class Centre(Function):
    """y = x − mean x        gx = gy − mean gy        over the last axis"""

    def forward(self, x):
        return x - x.mean(-1, keepdims=True)

    def backward(self, gy):
        return gy - gy.mean(-1, keepdims=True)


x = np.random.default_rng(0).standard_normal((3, 5))
assert check_grads(Centre.apply, x) is None

# %% [markdown]
# ★★★ The real part holds f(x), the imaginary part ε f′(x), and they never meet. So ε may be as small as
# numbers go, and truncation, which is ε² f‴/6, is gone as well. It needs an f that takes complex numbers: a
# comparison, such as a spike's threshold, does not.


# %%
def complex_step(f, x, eps):
    return f(x + 1j * eps).imag / eps


assert abs(complex_step(np.tanh, 0.3, eps=1e-200) - (1 - np.tanh(0.3) ** 2)) < 1e-15
