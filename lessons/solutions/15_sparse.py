# %% [markdown]
# # Solutions to 15 · Fewer spikes

# %%
import numpy as np

from minispike import BatchNorm, Tensor, lif, ops, trace
from minispike.measure.price import Additions, Price
from minispike.ops.matmul import MatMul
from minispike.surrogate import Rectangle, Sigmoid

# %% [markdown]
# ## 1 · A slope where nothing is spent
# The number of additions is |x| · fan-out. Its slope for a growing x is the fan-out, at x = 0 as well.
# Without it, only neurons that fire would feel the price. A silent neuron just below the threshold would feel
# nothing until it fires, and the loss could push it over the threshold as if that cost nothing.

# %%
x = Tensor(np.zeros((2, 3)), requires_grad=True)
total = Price.apply(x, fan=np.array([5.0, 5.0, 5.0]))
total.backward()
assert total.item() == 0 and (x.grad == 5).all()

# %% [markdown]
# ## 2 · A spike's price, and its rate
# A penalty on rates treats every spike alike within a layer, and layers of different sizes by their means.
# The price on additions charges a token's spike five times as much as a spike of the MLP's first layer,
# because it causes five times as many additions.

# %%
slopes = []
for outputs in ((64,), (64, 64, 64, 128)):
    spikes = Tensor(np.ones((4, 64)), requires_grad=True)
    spent = Additions(spikes)
    with trace(spent):
        for out in outputs:
            ops.linear(spikes, np.ones((64, out)))
    spent.total.backward()
    slopes.append(spikes.grad[0, 0])
assert slopes == [64, 320]

# %% [markdown]
# ## 3 · Batch norm takes the mean out of the price
# Nothing reaches the weights before the BN. If all entries of a channel go up together, BN subtracts the rise
# again, so a slope that is equal for all entries has no effect there. The shift β feels it: all entries
# follow it. That is how a price lowers the rate of a channel. (Behind a neuron the slopes differ, because g′
# differs from entry to entry; then the scale γ and the weights feel the price, too.)

# %%
norm = BatchNorm(2)
norm.train()
before = Tensor(np.random.default_rng(0).standard_normal((3, 50, 2)), requires_grad=True)
Price.apply(norm(before) + 100.0, fan=np.array([3.0, 8.0])).backward()
assert abs(before.grad).max() < 1e-4
assert np.allclose(norm.bias.grad, (450, 1200)) and abs(norm.weight.grad).max() < 1e-2

# %% [markdown]
# ## 4 · Waking up
# A neuron that is silent at every step still passes on a gradient if g′ is not 0 at its H. Sigmoid's g′ is
# small there, but the gradients of many steps add up, and AdamW makes steps of the size of the learning rate,
# however small the gradients are. Rectangle(α)'s g′ is 0 where |u| >= 1/(2α). With α = 1 that is ½ below the
# threshold. Rectangle(0.25) reaches 2 below it. It lets a neuron learn that rests at 0, where u = −1.

# %%
for surrogate, learns in ((Sigmoid(4.0), True), (Rectangle(1.0), False), (Rectangle(0.25), True)):
    current = Tensor(np.full((4, 1), 0.1), requires_grad=True)
    silent = lif(current, surrogate=surrogate)
    silent.sum().backward()
    assert not silent.data.any() and bool(current.grad.any()) == learns

# %% [markdown]
# ## 5 · What k does not pay
# An addition of Q Kᵀ is a pair of spikes q_ic and k_jc. A new spike of k in channel c therefore adds one for
# each token whose query fires in c: Σ_i q_ic. The price leaves that slope out. k does pay elsewhere: its own
# spikes come from the map that reads the tokens, and that map's additions count. And if the network uses the
# order Q (KᵀV), k may be the counted signal in KᵀV.

# %%
rng = np.random.default_rng(0)
q, k = (rng.random((2, 6, 4)) < 0.4).astype(float)  # [N, d] each
k[3, 2] = 0
fired = k.copy()
fired[3, 2] = 1
without, with_it = ((q * MatMul.fan_out(q, each.T)[0]).sum() for each in (k, fired))
assert with_it - without == q[:, 2].sum() > 0
leaves = [Tensor(each, requires_grad=True) for each in (q, k.T)]
spent = Additions(leaves[0])
spent.signals[leaves[1]] = False  # a signal, too
with trace(spent):
    ops.matmul(*leaves)
spent.total.backward()
paid = [leaf.grad is not None for leaf in leaves]
assert sum(paid) == 1  # one of the two signals pays, the other nothing
