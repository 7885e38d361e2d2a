"""Tasks for lesson 09: aggregated keys, what does not change them, a test for the batch axis, a gradient."""

from functools import partial

import numpy as np

from minispike import LIF, Function, Tensor, create_model, lif, no_grad
from minispike.autograd import as_tensor
from minispike.blocks.sasa import SASA, Channel, Pool
from minispike.blocks.ssa import attend
from minispike.nn import mode
from minispike.train import calibrate, set_gains

from .checks import Wrong, finite_differences, same, task

IMPORTS = """
import numpy as np
"""

SPIKES = 0.4  # the firing rate of drawn spikes


def spikes(rng, *shape):
    return (rng.random(shape) < SPIKES).astype(float)


# ---------------------------------------------------------------- aggregated keys


def sums_cases(rng):
    for (H, W), r, lead, d in (
        ((2, 4), 2, (), 3),
        ((4, 2), 2, (3, 1, 2), 5),
        ((4, 8), 4, (2, 3, 1), 1),
        ((3, 5), 1, (1, 2, 3), 4),
        ((6, 4), 2, (5,), 2),
    ):
        yield {"K": spikes(rng, *lead, H * W, d), "grid": (H, W), "r": r}


def library_sums(K, grid, r):
    five = K.reshape((1,) * (5 - K.ndim) + K.shape)
    found = Pool(grid, r).sums(Tensor(five)).data
    return found.reshape(*K.shape[:-2], *found.shape[-2:])


def aggregation_of(sums):
    """Put it in the place of Pool's sums, in a model that fires."""

    class Mine(Pool):
        def sums(self, k):
            return Tensor(sums(as_tensor(k).data, self.grid, self.r))

    rng = np.random.default_rng(9)
    images = rng.random((4, 8, 8, 1))
    model = create_model("saformer_1_64_digits", T=2, rng=0, dtype="float64")
    set_gains(model, 3)
    calibrate(model.train(), [(images, None)])
    mixer = model.eval().blocks[0].mixer
    with no_grad():
        tokens = model.stem(images[None], T=2)
        want, logits = mixer(tokens).data, model(images).data
        mixer.aggregate = Mine(mixer.aggregate.grid, mixer.aggregate.r, mixer.aggregate.scale)
        got = mixer(tokens).data, model(images).data
    if not 0.02 < want.mean() < 0.98:
        raise AssertionError("the library's mixer does not fire")
    same("the spikes of SASA with your sums", got[0], want)
    same("the logits of a model with your sums", got[1], logits)


@task(
    "★",
    hints=[
        "Token number row · W + column. Which tokens belong to the first cell?",
        "One reshape gives cells axes of their own: [..., H/r, r, W/r, r, d]. Then sum over the two axes r.",
    ],
    cases=sums_cases,
    expected=library_sums,
    place=aggregation_of,
)
def sums(K, grid, r):
    """Return K_A, the keys summed over cells of r×r tokens of the grid.

    K: [..., N, d], with any number of axes in front. The N = H·W tokens are numbered row by row.
    grid: (H, W), both divisible by r.    Cells are numbered row by row, too.
    Return an array [..., N / r², d].
    """
    H, W = grid
    cells = K.reshape(*K.shape[:-2], H // r, r, W // r, r, K.shape[-1])
    return cells.sum((-4, -2)).reshape(*K.shape[:-2], -1, K.shape[-1])


# ---------------------------------------------------------------- keys that move


def wrong_order(value):
    order = np.asarray(value)
    if order.shape != (16,) or sorted(order.tolist()) != list(range(16)):
        return "an order of 16 tokens is a sequence that holds each number from 0 to 15 once"
    stays = np.flatnonzero(order == np.arange(16))
    if len(stays):
        return f"token {stays[0]} keeps its place"
    rng = np.random.default_rng(9)
    for draw in range(5):
        q, k = spikes(rng, 2, 3, 1, 2, 16, 8)
        current = [attend(Tensor(q), each, each).data for each in map(Pool((4, 4)).sums, moves(k, order))]
        bad = np.argwhere(current[0] != current[1])
        if len(bad):
            at = tuple(int(i) for i in bad[0])
            now, before = (f"{each[at]:.0f}" for each in current)
            return f"draw {draw}: the current {list(at)} of Pool is {now} with moved keys, {before} without"
    return ""


def moves(k, order):
    return Tensor(np.ascontiguousarray(k[..., order, :])), Tensor(k)


@task(
    "★★",
    hints=[
        "The sum of a cell does not change if its four keys change places among themselves.",
        "The first cell has the tokens 0, 1, 4 and 5. Let 0 and 4 change places, and 1 and 5.",
    ],
    answer=wrong_order,
)
def order():
    """Return an order of the 16 tokens of a 4×4 grid in which every key moves and Pool answers the same.

    Key order[n] moves to place n, as in k[..., order, :], and no key may stay: order[n] ≠ n for all n.
    The queries do not move. Pool has cells of 2×2 tokens, and its current must be equal for every q and k.
    Return a sequence of 16 numbers.
    """
    rows = np.arange(16).reshape(4, 4)
    return rows[[1, 0, 3, 2]].ravel()


# ---------------------------------------------------------------- the test for the batch axis


LAST = "time, and whose last step first adds the mean over the batch"


class Example:
    """A layer of neurons on x [T, B, N, D] whose steps run over `along`."""

    def __init__(self, along: str):
        self.along = along

    def __repr__(self):
        return f"a layer of neurons whose steps run over {self.along}"

    def __call__(self, x):
        T, B = x.shape[:2]
        if self.along == "time":
            return lif(x).data
        if self.along == LAST:
            first, last = x[:-1], x[-1:] + x[-1:].mean(1, keepdims=True)
            return lif(np.concatenate([first, last])).data
        if self.along == "the batch":
            return lif(x.swapaxes(0, 1)).data.swapaxes(0, 1)
        return lif(x.reshape(T * B, *x.shape[2:])).data.reshape(x.shape)  # time and batch in one axis

    def depends(self, T, B):
        """Return what the definition of the layer allows: sample i sees j."""
        if self.along == "time":
            return np.eye(B)
        if self.along == LAST:
            return np.ones((B, B))
        earlier = np.tri(B)  # i = j, and j before i
        return earlier if self.along == "the batch" or T == 1 else np.ones((B, B))


def neighbours_cases(rng):
    for T, B, N, D in ((2, 3, 4, 5), (1, 4, 6, 3), (5, 2, 7, 4), (3, 5, 8, 6)):
        for along in ("time", "time and batch together", "the batch", LAST):
            x, other = rng.normal(0.8, 0.8, (2, T, B, 4 * N, 4 * D))
            yield {"mixer": Example(along), "x": x, "other": other}


def library_neighbours(mixer, x, other):
    """For the examples: who can see whom follows from the axis of the steps."""
    return mixer.depends(*x.shape[:2])


class AcrossImages(LIF):
    """The mistake of QKFormer's published SSA: the steps run over T·B, time and batch in one axis."""

    def forward(self, x):
        T, B = x.shape[:2]
        return super().forward(x.reshape(T * B, *x.shape[2:])).reshape(*x.shape)


def the_test_at_work(neighbours):
    """Give the test a right mixer of the library, the mistake, and batch norm in training mode."""
    rng = np.random.default_rng(10)
    x, other = rng.integers(0, 3, (2, 4, 3, 8, 12)).astype(float)
    mixer = SASA(12, 3, Channel(), rng=0)
    set_gains(mixer, 3)
    with no_grad():
        for _ in range(60):
            mixer(x)  # running statistics

    def run(x):
        with no_grad():
            return mixer(x).data

    with mode(mixer, False):
        if not 0.02 < run(x).mean() < 0.98:
            raise AssertionError("the library's mixer does not fire")
        verdict = neighbours(run, x, other)
        same("your test of the library's token attention in eval mode", verdict, np.eye(3))
        right, mixer.proj.neuron = mixer.proj.neuron, AcrossImages()
        found = neighbours(run, x, other)
        if not np.any(np.asarray(found) * (1 - np.eye(3))):
            raise Wrong("in the library's place: it does not find the neuron that steps over T·B")
        same("your test of a neuron that steps over T·B", found, np.ones((3, 3)))
        mixer.proj.neuron = right
    same("your test of batch norm in training mode", neighbours(run, x, other), np.ones((3, 3)))


@task(
    "★★",
    hints=[
        "Replace one sample j by the other one, run the mixer again, and see which samples' outputs change.",
        "Work on a copy, and begin every j with a fresh copy of x. The batch is axis 1.",
        "Sample i has changed if any entry of out[:, i] differs: np.any over all axes but the batch.",
    ],
    cases=neighbours_cases,
    expected=library_neighbours,
    place=the_test_at_work,
)
def neighbours(mixer, x, other):
    """Return which samples of a batch can be seen in which outputs: the neighbour test.

    mixer: a function of an array x [T, B, N, D], which returns an array of the same shape.
    x, other: two such arrays. To test sample j, its tokens in x are replaced by those in other, at all steps.
    Return an array [B, B] of 0.0 and 1.0: entry [i, j] is 1.0 if any output of sample i changes when sample j
    is replaced. A right mixer in eval mode gives the identity matrix.
    """
    B = x.shape[1]
    found, before = np.zeros((B, B)), mixer(x)
    for j in range(B):
        changed = x.copy()
        changed[:, j] = other[:, j]
        found[:, j] = (mixer(changed) != before).any((0, 2, 3))
    return found


# ---------------------------------------------------------------- Pool and its gradient


def pool_cases(rng):
    for (H, W), r, lead, d in (
        ((2, 2), 1, (), 2),
        ((2, 4), 2, (), 3),
        ((4, 2), 2, (3, 1, 2), 5),
        ((4, 8), 4, (2, 3, 1), 1),
        ((6, 4), 2, (1, 2, 3), 4),
    ):
        Q, K, gI = rng.standard_normal((3, *lead, H * W, d))
        yield {"Q": Q, "K": K, "gI": gI, "grid": (H, W), "r": r}


def library_pool(Q, K, gI, grid, r):
    lead = (1,) * (5 - Q.ndim)
    q, k = (Tensor(a.reshape(lead + a.shape), requires_grad=True) for a in (Q, K))
    k_a = Pool(grid, r).sums(k)
    current = (0.125 / r**2) * attend(q, k_a, k_a)
    current.backward(gI.reshape(current.shape))
    return {
        "K_A": k_a.data.reshape(*K.shape[:-2], -1, K.shape[-1]),
        "I": current.data.reshape(Q.shape),
        "gQ": q.grad.reshape(Q.shape),
        "gK": k.grad.reshape(K.shape),
    }


def pool_of(pool):
    """Put it in the place of Pool's product, inside SASA."""

    class Product(Function):
        def forward(self, q, k, *, grid, r):
            self.q, self.k, self.grid, self.r = q, k, grid, r
            return pool(q, k, np.zeros_like(q), grid, r)["I"]

        def backward(self, gy):
            found = pool(self.q, self.k, gy, self.grid, self.r)
            return found["gQ"], found["gK"]

    class Mine(Pool):
        def forward(self, q, k):
            return self.attention(Product.apply(q, k, grid=self.grid, r=self.r))

    rng = np.random.default_rng(11)
    x = rng.integers(0, 3, (4, 2, 32, 16)).astype(float)  # [T, B, N, D]
    mine, library = (SASA(16, 2, kind((4, 8)), rng=0) for kind in (Mine, Pool))
    for mixer in (mine, library):
        set_gains(mixer, 3)
    want = library(x).data
    if not 0.02 < want.mean() < 0.98:
        raise AssertionError("the library's mixer does not fire")
    same("the spikes of SASA with your Pool", mine(x).data, want)
    smooth = {"neuron": partial(LIF, smooth=True, detach_reset=False)}
    mixer = SASA(6, 2, Mine((2, 4), **smooth), rng=0, **smooth)
    finite_differences(mixer, x[:, :, :8, :6], *mixer.parameters())


@task(
    "★★★",
    hints=[
        "K_A as in the task `sums`. I = 1/8 / r² · (Q K_Aᵀ) K_A, where swapaxes(-1, -2) transposes stacks.",
        "K_A appears twice: ∂L/∂K_A = c (Q K_Aᵀ)ᵀ ∂L/∂I + c (∂L/∂I K_Aᵀ)ᵀ Q, with c = 1/8 / r².",
        "Each token of a cell gets its cell's gradient: np.repeat by r along the rows of cells and along "
        "their columns, on an array [..., H/r, W/r, d].",
    ],
    cases=pool_cases,
    expected=library_pool,
    place=pool_of,
)
def pool(Q, K, gI, grid, r):
    """Return the current of Pool, I = s/r² · (Q K_Aᵀ) K_A with s = 1/8, and its gradients.

    Q, K: [..., N, d], with any number of axes in front. The N = H·W tokens are numbered row by row.
    gI: ∂L/∂I, [..., N, d].    grid: (H, W), both divisible by r.
    Return a dict: "K_A" [..., N / r², d], the sums over cells of r×r tokens, "I", "gQ" = ∂L/∂Q and
    "gK" = ∂L/∂K, the last three [..., N, d].
    """
    *lead, N, d = K.shape
    H, W = grid
    c = 0.125 / r**2
    K_A = K.reshape(*lead, H // r, r, W // r, r, d).sum((-4, -2)).reshape(*lead, -1, d)
    weights, back = Q @ K_A.swapaxes(-1, -2), gI @ K_A.swapaxes(-1, -2)
    gQ = c * back @ K_A
    gK_A = c * (weights.swapaxes(-1, -2) @ gI + back.swapaxes(-1, -2) @ Q)
    gK = gK_A.reshape(*lead, H // r, W // r, d).repeat(r, -3).repeat(r, -2).reshape(K.shape)
    return {"K_A": K_A, "I": c * weights @ K_A, "gQ": gQ, "gK": gK}
