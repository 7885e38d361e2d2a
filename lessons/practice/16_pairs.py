"""Tasks for lesson 16: what no mixing can do, and two mixers with their gradients."""

from math import log

import numpy as np

from minispike import Function, Tensor, ops
from minispike.ops.pool import MaxPool2d

from .checks import finite_differences, same, task

IMPORTS = """
import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_bound(value):
    if not isinstance(value, (int, float)):
        return f"a cross-entropy is a number, not {type(value).__name__}"
    if abs(value - log(2)) > 1e-4:
        return f"{value} is not it: what does a model pay that always says ½?"
    return ""


@task(
    "★",
    hints=[
        "The best such a model can do is to give both classes the same logit.",
        "Its cross-entropy is −ln ½.",
    ],
    answer=wrong_bound,
)
def best_without_mixing():
    """Return the lowest cross-entropy on pairs, in nats, of a model that does not mix (to four digits)."""
    return 0.693147


# ---------------------------------------------------------------- accuracy without mixing


def wrong_order(value):
    try:
        a, b = (np.asarray(each, float) for each in value)
    except (TypeError, ValueError):
        return "it must return two lists of ten numbers each"
    if a.shape != (10,) or b.shape != (10,):
        return f"a and b have the shapes {list(a.shape)} and {list(b.shape)}, expected [10] and [10]"
    z = a[:, None] + b
    same_right, different_right = np.diag(z) > 0, (z < 0)[~np.eye(10, dtype=bool)]
    accuracy = 0.5 * same_right.mean() + 0.5 * different_right.mean()
    if accuracy < 0.75 - 1e-12:
        return (
            f"the accuracy is {accuracy:.1%}: {same_right.sum()} of 10 equal pairs and "
            f"{different_right.sum()} of 90 different ones are right"
        )
    return ""


@task(
    "★★",
    hints=[
        "All equal pairs can be right: let z = a(L) + b(R) be a little above 0 where L = R.",
        "Let a grow with the digit and b fall with it.",
    ],
    answer=wrong_order,
)
def an_order():
    """Return a and b, ten numbers each, such that z = a[L] + b[R] tells 75 % of the pairs right.

    z > 0 says that the digits L and R are equal, z < 0 that they are not. Half of the pairs are equal; all
    digits are as likely.
    """
    digits = np.arange(10.0)
    return digits, 0.5 - digits


# ---------------------------------------------------------------- the learned matrix


def matrix_cases(rng):
    for T, B, N, D in ((2, 3, 4, 5), (1, 2, 6, 1), (3, 1, 1, 4), (2, 5, 7, 3)):
        yield {
            "M": rng.standard_normal((N, N)),
            "x": rng.integers(0, 2, (T, B, N, D)).astype(float),
            "gy": rng.standard_normal((T, B, N, D)),
        }


def library_matrix(M, x, gy):
    leaves = Tensor(M, requires_grad=True), Tensor(x, requires_grad=True)
    ops.matmul(*leaves).backward(gy)
    return {"gM": leaves[0].grad, "gx": leaves[1].grad}


def matrix_in_place(mix_backward):
    class Mine(Function):
        def forward(self, M, x):
            self.M, self.x = M, x
            return M @ x

        def backward(self, gy):
            found = mix_backward(self.M, self.x, gy)
            return found["gM"], found["gx"]

    rng = np.random.default_rng(2)
    finite_differences(
        lambda M, x: Mine.apply(M, x), rng.standard_normal((5, 5)), rng.standard_normal((2, 3, 5, 4))
    )


@task(
    "★★",
    hints=[
        "Write one entry: y[t, b, n, d] = Σ_m M[n, m] x[t, b, m, d]. Which entries of y does M[n, m] enter?",
        "∂L/∂M[n, m] = Σ over t, b and d of gy[t, b, n, d] x[t, b, m, d].",
        "∂L/∂x = Mᵀ gy. np.einsum('tbnd,tbmd->nm', gy, x) is one way for the other.",
    ],
    cases=matrix_cases,
    expected=library_matrix,
    place=matrix_in_place,
)
def mix_backward(M, x, gy):
    """Compute the gradients of a learned mixing matrix, y = M x.

    M [N, N], tokens x [T, B, N, D] and ∂L/∂y, gy [T, B, N, D].
    Return a dict: "gM" = ∂L/∂M [N, N] and "gx" = ∂L/∂x [T, B, N, D].
    """
    return {"gM": np.einsum("tbnd,tbmd->nm", gy, x), "gx": M.T @ gy}


# ---------------------------------------------------------------- a max-pool over tokens


def pool_cases(rng):
    for T, B, H, W, D in ((1, 2, 2, 3, 2), (2, 1, 4, 5, 3), (3, 2, 1, 6, 1), (1, 1, 5, 1, 4)):
        yield {
            "x": rng.permutation(T * B * H * W * D).astype(float).reshape(T, B, H * W, D),
            "gy": rng.standard_normal((T, B, H * W, D)),
            "grid": (H, W),
        }
    x = rng.integers(0, 2, (2, 2, 12, 3)).astype(float)  # spikes: most windows tie
    yield {"x": x, "gy": rng.standard_normal(x.shape), "grid": (3, 4)}


def library_pool(x, gy, grid):
    T, B, N, D = x.shape
    f = MaxPool2d()
    f.xp = np
    y = f.forward(x.reshape(T, B, *grid, D), k=3, stride=1, padding=1)
    return {"y": y.reshape(x.shape), "gx": f.backward(gy.reshape(y.shape)).reshape(x.shape)}


def pool_in_place(max_mix):
    class Mine(Function):
        def forward(self, x, *, grid):
            self.x, self.grid = x, grid
            return max_mix(x, np.zeros_like(x), grid)["y"]

        def backward(self, gy):
            return max_mix(self.x, gy, self.grid)["gx"]

    rng = np.random.default_rng(3)
    x = rng.permutation(2 * 12 * 2).reshape(2, 1, 12, 2) / 10
    finite_differences(lambda x: Mine.apply(x, grid=(3, 4)), x)
    same(
        "a constant image",
        max_mix(np.ones((1, 1, 6, 1)), np.ones((1, 1, 6, 1)), (2, 3))["y"],
        np.ones((1, 1, 6, 1)),
    )


@task(
    "★★★",
    hints=[
        "Lay the tokens out on the grid. For each token go through its nine neighbours, row by row; "
        "leave out those outside the grid.",
        "Keep the first neighbour that is the largest: replace it only by a larger one, not by an equal one.",
        "Its whole gy goes to that neighbour. A token may be the largest of several windows: add.",
    ],
    cases=pool_cases,
    expected=library_pool,
    place=pool_in_place,
)
def max_mix(x, gy, grid):
    """Give each token the largest value, channel by channel, of the 3×3 tokens around it; and go back.

    x [T, B, N, D], N = H·W tokens row by row on the grid (H, W); gy = ∂L/∂y, in the same shape.
    Where several values are the largest, the first one (row by row) gets the gradient.
    Return a dict: "y" and "gx" = ∂L/∂x, both in x's shape.
    """
    H, W = grid
    T, B, N, D = x.shape
    y, gx = np.empty_like(x), np.zeros_like(x)
    for t, b, n, d in np.ndindex(T, B, N, D):
        row, column = divmod(n, W)
        best = None
        for i in range(max(0, row - 1), min(H, row + 2)):
            for j in range(max(0, column - 1), min(W, column + 2)):
                if best is None or x[t, b, i * W + j, d] > x[t, b, best, d]:
                    best = i * W + j
        y[t, b, n, d] = x[t, b, best, d]
        gx[t, b, best, d] += gy[t, b, n, d]
    return {"y": y, "gx": gx}
