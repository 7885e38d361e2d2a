# %% [markdown]
# # Solutions to 15 · Fewer spikes

# %%
import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Tensor, create_model, ops, trace
from minispike.autograd import as_tensor
from minispike.measure.price import Additions
from minispike.ops.matmul import MatMul
from minispike.train import classify

# %% [markdown]
# ★ Each entry reaches all outputs, so ones cost as many additions as there are multiply-accumulates. A 2 is
# added twice. So a price can exceed 1, in a stream of integers.

# %%
of_ones, of_twos = 1.0, 2.0


def price_of(value):
    x = Tensor(np.full((2, 3), value))
    spent = Additions(x)
    with trace(spent):
        ops.linear(x, np.ones((3, 5)))
    return spent.total.item() / spent.macs


assert (of_ones, of_twos) == (price_of(1.0), price_of(2.0))

# %% [markdown]
# ★★ An addition is a coincidence of q_ic and k_jc, so a new spike of k in channel c adds one for each token
# whose query fires in c. The price leaves that out; k still pays where it is counted, in KᵀV or as the map
# that made it.


# %%
def growth(q, c):
    return q[:, c].sum()


def additions_of(q, k):
    return (q * MatMul.fan_out(q, k.T)[0]).sum()


rng = np.random.default_rng(0)
q, k = (rng.random((2, 6, 4)) < 0.4).astype(float)  # [N, d] each
k[3, 2] = 0
fired = k.copy()
fired[3, 2] = 1
assert growth(q, 2) == additions_of(q, fired) - additions_of(q, k)

# %% [markdown]
# ★★★ Below the budget the term is left out, and with it its gradient.


# %%
def budgeted(objective, weight, budget):
    def with_price(model, images, labels):
        x = as_tensor(images)
        spent = Additions(x)
        with trace(spent):
            loss, counts = objective(model, x, labels)
        price = spent.total * (1 / spent.macs)
        if price.item() > budget:
            loss = loss + weight * (price - budget)
        return loss, counts | {"price": price.item() * x.shape[-4]}

    return with_price


(images, labels), _ = load_digits()
model = create_model("spikformer_1_64_digits", rng=0)
wake(model, images[:16])
plain = classify(model, images[:16], labels[:16])[0].item()
losses = [budgeted(classify, 2.0, budget)(model, images[:16], labels[:16]) for budget in (9.0, 0.01)]
below, above = (loss.item() - plain for loss, _ in losses)
whole = losses[0][1]["price"] / 16
assert below == 0 and np.isclose(above, 2.0 * (whole - 0.01))
