"""Tasks for lesson 14: what chance does to a comparison, and what a block costs."""

from itertools import product
from math import sqrt
from numbers import Real

import numpy as np

from data_utils.images.digits import load_digits
from minispike import create_model, evaluate, no_grad
from minispike.measure.energy import count

from .checks import same, task

IMPORTS = """
from math import sqrt

import numpy as np
"""

# ---------------------------------------------------------------- predict


def wrong_number(value):
    if isinstance(value, bool) or not isinstance(value, Real) or value <= 0:
        return f"a number of images is a positive number, not {value!r}"
    two_errors = 2 * sqrt(0.06 / value)
    if abs(value - round(4 * 0.06 / 0.005**2)) > 0.5:
        return f"with {value} images, two standard errors are {100 * two_errors:.6g} points, not 0.5"
    return ""


@task(
    "★",
    hints=[
        "The standard error of a difference is √(b + c − (b − c)²/n) / n, and b + c is 6 % of n.",
        "Without the square it is √(0.06 n) / n = √(0.06 / n). Twice that is to be 0.005.",
    ],
    answer=wrong_number,
)
def images_needed():
    """Return the number of test images at which half a point between two networks is two standard errors.

    The networks differ on 6 % of the images. Leave the small term (b − c)² out.
    """
    return 9600


# ---------------------------------------------------------------- two networks on the same images


def paired_cases(rng):
    for n, p in ((8, 0.6), (50, 0.9), (1, 0.5), (333, 0.8)):
        yield {"first": rng.random(n) < p, "second": rng.random(n) < p}
    same_answers = rng.random(20) < 0.7
    yield {"first": same_answers, "second": same_answers.copy()}
    yield {"first": np.ones(12, bool), "second": np.arange(12) > 2}
    yield {"first": np.arange(9) > 5, "second": np.ones(9, bool)}


def by_moments(first, second):
    """The same from the mean and the spread of each image's difference: −1, 0 or 1."""
    each = first.astype(float) - second
    return {"difference": each.mean(), "differ": (each**2).mean(), "error": each.std() / sqrt(len(each))}


def compares_models(paired):
    """Compare two trained models on the test digits, and each with itself."""
    images, labels = load_digits()[1]
    right, accuracy = [], []
    for weights in (True, "sparse"):
        model = create_model("spikformer_1_64_digits", pretrained=weights).eval()
        with no_grad():
            right.append(model(images).data.argmax(1) == labels)
        accuracy.append(evaluate(model, [(images, labels)])[1])
    found = paired(*right)
    same("the difference of two models' accuracies", found["difference"], accuracy[0] - accuracy[1], 1e-6)
    for name, expected in by_moments(*right).items():
        same(f"{name} of two trained models", found[name], expected)
    itself = paired(right[0], right[0])
    same("the error of a model against itself", itself["error"], 0.0)


@task(
    "★★",
    hints=[
        "Count b, the images that only the first network gets right, and c, those of the second only.",
        "The difference is (b − c) / n; they differ on (b + c) / n of the images.",
        "The error is √(b + c − (b − c)²/n) / n.",
    ],
    cases=paired_cases,
    expected=by_moments,
    place=compares_models,
)
def paired(first, second):
    """Compare two networks that were tested on the same n images.

    first, second: which images each gets right, arrays of True and False [n].
    Return a dict of three numbers: "difference", the first's accuracy minus the second's; "differ", the share
    of images that only one of them gets right; "error", the standard error of the difference.
    """
    n, b, c = len(first), (first & ~second).sum(), (~first & second).sum()
    return {"difference": (b - c) / n, "differ": (b + c) / n, "error": sqrt(b + c - (b - c) ** 2 / n) / n}


# ---------------------------------------------------------------- what a block costs


def block_cases(rng):
    for D, ratio, pools in ((16, 2, 1), (24, 3, 2), (8, 4, 1), (40, 1, 2), (8, 1, 3)):
        side = 32 // 2**pools
        yield {"N": side * side, "D": D, "hidden": ratio * D}


def library_block(N, D, hidden):
    pools = {256: (0, 0, 1, 0), 64: (0, 0, 1, 1), 16: (0, 1, 1, 1)}[N]
    pools = tuple(map(bool, pools))
    options = {"embed_dim": D, "num_heads": 2, "mlp_ratio": hidden // D, "depth": 1, "pools": pools}
    model = create_model("spikformer_2_64_fashion", **options)
    found = count(model, np.zeros((1, 32, 32, 1), "float32"))
    parts = {"mixer": found.macs("mixer"), "mlp": found.macs("mlp")}
    return parts | {"parameters": model.blocks[0].num_params()}


def counts_models(block_costs):
    """Count the blocks of a model of the paper, and of two others, and compare with the library."""
    tokens = {"spikformer_2_64_fashion": 64, "spikformer_1_64_digits": 16, "spikformer_4_384_cifar10": 64}
    for name, N in tokens.items():
        model = create_model(name)
        config = model.config
        found = block_costs(N, config.embed_dim, config.hidden)
        parameters = sum(block.num_params() for block in model.blocks)
        same(f"the parameters of all blocks of {name}", config.depth * found["parameters"], parameters)
        if config.embed_dim == 64:
            counted = count(model, np.zeros((1, *config.size, 1), "float32"))
            macs = config.depth * (found["mixer"] + found["mlp"])
            same(f"the MACs of all blocks of {name}", macs, counted.macs("mixer") + counted.macs("mlp"))


@task(
    "★★",
    hints=[
        "SSA has four maps D → D (q, k, v and the projection) and two products, Q Kᵀ and A V. The MLP has a "
        "map D → hidden and one back.",
        "A map makes N · in · out MACs. Each of the two products makes N · N · D, all heads together.",
        "A map has in · out weights, `out` biases, and 2 · out values of batch norm. The products have none.",
    ],
    cases=block_cases,
    expected=library_block,
    place=counts_models,
)
def block_costs(N, D, hidden):
    """Count what a Spikformer block costs: spiking self-attention (SSA), then the MLP.

    N: tokens. D: their width. hidden: the MLP's inner width. All maps have a bias and batch norm. SSA takes
    its products in the order (Q Kᵀ) V; the number of heads does not matter.
    Return a dict of three numbers: "mixer" and "mlp", the MACs of one step and image, and "parameters",
    those of the block.
    """

    def brick(n_in, n_out):
        return np.array([N * n_in * n_out, n_in * n_out + 3 * n_out])

    mixer, mlp = 4 * brick(D, D) + (2 * N * N * D, 0), brick(D, hidden) + brick(hidden, D)
    return {"mixer": mixer[0], "mlp": mlp[0], "parameters": mixer[1] + mlp[1]}


# ---------------------------------------------------------------- the best of equals


def best_cases(rng):
    for k, m in ((2, 3), (1, 5), (3, 2), (4, 4), (2, 1), (5, 3)):
        yield {"k": k, "chances": rng.dirichlet(np.ones(m + 1))}
    yield {"k": 3, "chances": np.array([0.0, 0.0, 1.0])}


def over_all_outcomes(k, chances):
    """The mean over every outcome of k networks, each with its probability."""
    total = 0.0
    for right in product(range(len(chances)), repeat=k):
        total += max(right) * np.prod(chances[list(right)])
    return total


@task(
    "★★★",
    hints=[
        "What is the probability that one network gets at most j images right? And that all k get at most j?",
        "With F(j) for one network it is F(j)ᵏ for the best of k, because they are independent.",
        "The best gets exactly j right with probability F(j)ᵏ − F(j − 1)ᵏ. Sum j times that.",
    ],
    cases=best_cases,
    expected=over_all_outcomes,
)
def best_of(k, chances):
    """Compute how many images the best of k equal networks gets right, on average.

    chances: the probability that one network gets 0, 1, …, m of m images right, [m + 1]. The k networks are
    independent, and the best is the one with the most right images.
    Return the mean number of images that the best gets right.
    """
    F = np.cumsum(chances) ** k
    return (np.arange(len(F)) * np.diff(F, prepend=0)).sum()
