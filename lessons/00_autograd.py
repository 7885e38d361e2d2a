# %% [markdown]
# # 00 · Autograd: how a program differentiates itself
#
# A program is a long chain of small steps, and calculus has a rule for chains. So a program that remembers
# its steps can work out its own derivative, exactly, by walking them backwards once. How little code does
# that take? And how would we notice if it were wrong?

# %%
from math import tanh

import numpy as np

from minispike import Function, Tensor, check_grads, ops, to_device, to_host
from minispike.autograd import unbroadcast
from minispike.backend import get_xp
from minispike.measure import viz

# %% [markdown]
# ## By hand: one number at a time
# A node keeps its value, and its slope towards each node it was made from. Slopes multiply along a path and
# add up over paths: the chain rule. `backward` visits the newest node first: whatever used a node is newer
# than it, so at its turn all of its gradient has arrived. Try L = z · tanh z with z = w·x + b. L hears of z
# twice, directly and through the tanh. Two paths, one sum:
#
#     ∂L/∂z = tanh z + z (1 − tanh² z)      ∂L/∂w = ∂L/∂z · x      ∂L/∂x = ∂L/∂z · w      ∂L/∂b = ∂L/∂z


# %%
class Scalar:
    tape = []  # every node, in the order of making

    def __init__(self, value, *parents):  # parents: pairs (node, slope towards it)
        self.value, self.parents, self.grad = value, parents, 0.0
        self.tape.append(self)

    def __add__(self, w):
        return Scalar(self.value + w.value, (self, 1.0), (w, 1.0))

    def __mul__(self, w):
        return Scalar(self.value * w.value, (self, w.value), (w, self.value))

    def tanh(self):
        y = tanh(self.value)
        return Scalar(y, (self, 1 - y * y))

    def backward(self):
        self.grad = 1.0
        for node in reversed(self.tape):
            for parent, slope in node.parents:
                parent.grad += slope * node.grad


x, w, b = Scalar(2.0), Scalar(-1.0), Scalar(1.5)
z = w * x + b
(z * z.tanh()).backward()
direct, through_tanh = tanh(-0.5), -0.5 * (1 - tanh(-0.5) ** 2)  # z = −1·2 + 1.5 = −0.5
gz = direct + through_tanh
assert np.allclose([z.grad, w.grad, x.grad, b.grad], [gz, gz * 2, gz * -1, gz], rtol=0, atol=1e-15)
print(f"∂L/∂z by hand {direct:.4f} + {through_tanh:.4f} = {gz:.4f}, by the engine {z.grad:.4f}")

# %% [markdown]
# ## The library gives the same, on whole arrays
# A `Tensor` is such a node with an array for a value. Six x at once meet one w: it is *broadcast*, copied six
# times. Copying is a linear map y = C w, with C a column of ones; by the chain rule, with g = ∂L/∂y, ∂L/∂w =
# Σ_i g_i ∂y_i/∂w = Cᵀ g. So its backward is the transpose, which *adds up* what arrives at the copies:
# `unbroadcast`. It is the adjoint: ⟨C w, g⟩ = ⟨w, Cᵀ g⟩, where ⟨a, b⟩ = Σ a·b.

# %%
rng = np.random.default_rng(0)
X, W, B = np.array([2.0, *rng.standard_normal(5)]), np.array([-1.0]), np.array([1.5])
tx, tw, tb = (Tensor(a, requires_grad=True) for a in (X, W, B))
tz = tw * tx + tb
(tz * ops.tanh(tz)).sum().backward()
Z = W * X + B
C, g = np.ones((6, 1)), rng.standard_normal(6)
gz = np.tanh(Z) + Z * (1 - np.tanh(Z) ** 2)
gap = max(abs(tx.grad - gz * W).max(), *abs(tw.grad - C.T @ (gz * X)), *abs(tb.grad - C.T @ gz))
assert gap < 1e-14 and abs(tx.grad[0] - x.grad) < 1e-15
print(f"six x at once: gx[0] = {tx.grad[0]:.4f} as above, gw = Σ gz·x = {tw.grad[0]:.4f}, to {gap:.0e}")
copied, summed = (C @ W) @ g, W @ unbroadcast(g, (1,))
assert abs(copied - summed) < 1e-14 and abs(C.T @ g - unbroadcast(g, (1,))) < 1e-14
print(f"copying and summing are adjoint: ⟨C w, g⟩ = {copied:.12f}, ⟨w, Cᵀ g⟩ = {summed:.12f}")

# %% [markdown]
# ## A matrix product has two gradients
# Y_ij = Σ_k X_ik W_kj, and G = ∂L/∂Y. X_ik reaches L through row i of Y, and W_kj through its column j:
#
#     ∂L/∂X_ik = Σ_j G_ij W_kj, so gX = G Wᵀ        ∂L/∂W_kj = Σ_i X_ik G_ij, so gW = Xᵀ G

# %%
X, W, G = (rng.standard_normal(shape) for shape in ((3, 4), (4, 5), (3, 5)))
gX, gW = np.zeros((3, 4)), np.zeros((4, 5))
for i, k, j in np.ndindex(3, 4, 5):
    gX[i, k] += G[i, j] * W[k, j]
    gW[k, j] += X[i, k] * G[i, j]
tx, tw = Tensor(X, requires_grad=True), Tensor(W, requires_grad=True)
(tx @ tw).backward(G)
gap = max(abs(a - e).max() for a, e in ((tx.grad, gX), (tw.grad, gW), (G @ W.T, gX), (X.T @ G, gW)))
assert gap < 1e-14
print(f"gX = G Wᵀ, gW = Xᵀ G: loops, products and autograd differ by at most {gap:.0e}")

# %% [markdown]
# ## A Function of your own, and its proof
# Two methods over plain arrays: `forward` keeps on `self` what `backward` will need; gy is the gradient that
# arrives, gx the one that goes on. `check_grads` takes nobody's word. It moves each input a little along a
# random direction v, both ways, and compares the slope it measures with the slope that backward claims (of
# an array, the slope of ⟨f(x), fixed random numbers⟩):
#
#     (f(x + εv) − f(x − εv)) / 2ε  ≈  ⟨gx, v⟩


# %%
class SquaredDifference(Function):
    """y = (x − w)²        gx = 2 (x − w) gy        gw = −gx, summed where w was broadcast"""

    def forward(self, x, w):
        self.d, self.shapes = x - w, (x.shape, w.shape)
        return self.d * self.d

    def backward(self, gy):
        gx = 2 * self.d * gy
        return unbroadcast(gx, self.shapes[0]), unbroadcast(-gx, self.shapes[1])


w = rng.standard_normal(4)
check_grads(SquaredDifference.apply, X, w)  # [3, 4] against [4]
print("check_grads: SquaredDifference is proved, in x and in the broadcast w")

# %% [markdown]
# ## Break it
# As everybody does once: lose a factor, or take a mean over the copies in place of the sum. Shapes and
# signs are right, the numbers are not. Forget the sum altogether, and the engine itself objects.

# %%
mistakes = {
    "the 2 is lost": lambda self, gy: (self.d * gy, unbroadcast(-self.d * gy, w.shape)),
    "mean, not sum": lambda self, gy: (2 * self.d * gy, (-2 * self.d * gy).mean(0)),
    "no sum at all": lambda self, gy: (2 * self.d * gy, -2 * self.d * gy),
}
caught = []
for mistake, backward in mistakes.items():
    try:
        check_grads(type("Wrong", (SquaredDifference,), {"backward": backward}).apply, X, w)
    except (AssertionError, ValueError) as error:
        caught.append(type(error))
        print(f"{mistake}:", str(error).partition(", apart")[0].partition(": a gradient")[0])
assert caught == [AssertionError, AssertionError, ValueError]

# %% [markdown]
# ## How small a step?
# Truncation error shrinks as ε². Subtracting two nearly equal values loses digits, so rounding error grows as
# 1/ε. Between the two lies a valley, deep in float64 and shallow in float32. We use 1e-6, which is left of
# the bottom: a smaller step is less likely to straddle a kink, such as a max-pool or a clip has.

# %%
points, v = rng.standard_normal((2, 200, 64))  # 200 points, each with a direction
v /= (v * v).sum(1, keepdims=True) ** 0.5
exact = ((1 - np.tanh(points) ** 2) * v).sum(1)  # the slope of Σ tanh along v, at each point
eps = 10.0 ** np.arange(-12, 0.1, 0.5)
errors = {}
for dtype in (np.float64, np.float32):
    error = np.zeros(len(eps))
    for n, step in enumerate(eps):
        up = np.tanh((points + step * v).astype(dtype)).sum(1)
        down = np.tanh((points - step * v).astype(dtype)).sum(1)
        slope = (up - down) / (2 * step)
        error[n] = ((slope - exact) ** 2).mean() ** 0.5  # root mean square over the points
    errors[dtype.__name__] = error
    best = f"the best is {error.min():.0e}, at ε = {eps[error.argmin()]:.0e}"
    print(f"{dtype.__name__}: error {error[12]:.0e} at ε = {eps[12]:.0e}; {best}")
e64, e32 = errors.values()
assert 50 < e64[20] / e64[18] < 200 and 5 < e64[6] / e64[8] < 20  # ε² on one side, 1/ε on the other
assert e64[12] < 1e-8 and e32.min() > 1e-6  # check_grads asks for 1e-6: float64 can, float32 never
assert e64.argmin() > 12 and np.isclose(e32[0], (exact**2).mean() ** 0.5)

# %% [markdown]
# ## The same function on another array library
# Nothing in `network` says where it runs, or in which precision. Operators and methods come from the
# arrays; where an op needs a module (tanh), its inputs name it. With CuPy and a GPU only the input moves.
# Without them the input moves to float32 instead, and the function follows it just the same.


# %%
def network(x, w, b, target):
    return SquaredDifference.apply(ops.tanh(x @ w + b), target).mean()


def gradients(device, dtype):
    leaves = [Tensor(to_device(a.astype(dtype), device), requires_grad=True) for a in (X, W, G[0], G)]
    network(*leaves).backward()
    return [leaf.grad for leaf in leaves]


for function in (network, SquaredDifference.forward, SquaredDifference.backward):
    assert not {"np", "numpy", "cupy"} & set(function.__code__.co_names)
try:
    (to_device(np.ones(2), "cuda") + 1).sum()  # CuPy may be there without a GPU: ask it to compute
    device, dtype, tol, note = "cuda", "float64", 1e-12, "moved to the GPU"
except Exception as error:  # no CuPy, no driver, no GPU: each raises its own kind
    device, dtype, tol, note = "cpu", "float32", 1e-5, f"no GPU here ({type(error).__name__}), so float32"
there, here = gradients(device, dtype), gradients("cpu", "float64")
gap = max(abs(to_host(a) - e).max() for a, e in zip(there, here, strict=True))
assert gap < tol and there[0].dtype == dtype
print(f"{note}: gradients by {get_xp(there[0]).__name__} {dtype} and numpy float64 differ by {gap:.0e}")

# %% [markdown]
# ## The figure
# Left, the first example's graph: values in boxes, and in orange what travels back. Right, the valley.
# (Where float32 goes flat, x + εv rounds to x: the difference is 0, and all of the slope is error.)

# %%
fig, (left, right) = viz.figure(1, 2, size=(12, 4.8), width_ratios=(1.2, 1))
places = ((0, 2), (0, 1), (0, 0), (1.3, 1.6), (2.6, 1), (3.4, 2), (4.2, 1))
box, orange = {"boxstyle": "round,pad=0.4", "fc": "white"}, {"color": viz.ORANGE, "ha": "center"}
for n, (node, name) in enumerate(zip(Scalar.tape, ("x", "w", "b", "w·x", "z", "tanh z", "L"), strict=True)):
    (x, y), visit = places[n], chr(ord("⑦") - n)
    left.text(x, y, f"{name} = {node.value:.2f}", ha="center", va="center", size=11, bbox=box, zorder=3)
    left.text(x, y + (0.23 if y > 1 else -0.33), f"{visit} g = {node.grad:.2f}", size=12, **orange)
    for parent, slope in node.parents:
        px, py = places[Scalar.tape.index(parent)]
        arrow = {"arrowstyle": "-|>", "color": viz.ORANGE, "shrinkA": 30, "shrinkB": 30, "mutation_scale": 16}
        left.annotate("", (px, py), (x, y), arrowprops=arrow)
        if parent is z:  # where two paths meet
            left.text((x + px) / 2 - 0.2, (y + py) / 2 + 0.07, f"{slope * node.grad:.2f}", size=12, **orange)
left.set(xlim=(-0.45, 4.7), ylim=(-0.4, 2.45), title="backward visits the newest node first: ① … ⑦")
left.axis("off")
for (name, error), colour in zip(errors.items(), (viz.BLUE, viz.ORANGE), strict=True):
    right.loglog(eps, error, color=colour, marker="o", markersize=4, label=name)
right.plot([1e-12, 1e-6, 1e-6], [1e-6, 1e-6, 1e-12], color=viz.GREY, linestyle="--", linewidth=1)
right.text(1e-12, 2.5e-7, "tolerance", color=viz.GREY)
right.text(7e-7, 3e-12, "ε of check_grads", color=viz.GREY, ha="right")
right.text(5e-11, 2e-4, "rounding ~ 1/ε", rotation=-26)
right.text(1.5e-3, 3e-10, "truncation ~ ε²")
right.set(xlabel="step ε", ylabel="error of the slope", title="finite differences against the exact slope")
right.legend(frameon=False, loc="upper right")
viz.save(fig, "00_autograd")

# %% [markdown]
# ## What was shown
# Remember the steps, multiply along paths, add over paths, newest first: that is all of autograd. What is
# shared in the forward is summed in the backward. And no gradient is believed before a finite difference,
# in float64 with ε = 1e-6, has agreed with it.
#
# ## Exercises (solutions: lessons/solutions/00_autograd.py)
#
# ★ Predict: y = x, then ten times y = y + y. What is ∂y/∂x, the number of paths from y to x? Set `paths`.
#
#     assert gradient_of_doubling(times=10) == paths
#
# ★★ Re-derive: `Centre` takes each row's mean away, y = x − mean x, as every normalisation begins. Write
# its backward. (Is the matrix of this map symmetric?)
#
#     assert check_grads(Centre.apply, x) is None
#
# ★★★ Deeper: a difference loses digits by subtracting. So step where there is nothing to subtract: f(x +
# iε) = f(x) + iε f′(x) − …, and the slope is an imaginary part. Write `complex_step(f, x, eps)`.
#
#     assert abs(complex_step(np.tanh, 0.3, eps=1e-200) - (1 - np.tanh(0.3) ** 2)) < 1e-15
