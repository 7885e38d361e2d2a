"""Tasks for lesson 13: fan-outs, the additions of attention, three prices, and a mean."""

from itertools import product
from numbers import Real

import numpy as np

from data_utils.images.digits import load_digits
from lessons.common import wake
from minispike import Tensor, create_model, no_grad, trace
from minispike.measure.energy import PICOJOULES, Operations, Row, count, entering
from minispike.ops.conv import Convolve2d
from minispike.ops.matmul import MatMul, MatMulAdd

from .checks import Wrong, same, task

IMPORTS = """
import numpy as np
"""


def a_model(**options):
    """Return a small Spikformer that fires, and the two digits that it reads, in float64."""
    model = create_model("spikformer_1_64_digits", embed_dim=32, num_heads=2, T=3, rng=0, **options)
    images = load_digits()[0][0][:2].astype("float64")
    model.to(dtype="float64")
    wake(model, images)
    return model.eval(), images


def contractions(model, images, kind) -> list[tuple]:
    """Run the model; return (path, function, arrays) of each op of a kind."""
    seen = []

    def look(function, inputs, output, path):
        if isinstance(function, kind):
            seen.append((path, function, [x.data for x in inputs if isinstance(x, Tensor)]))

    with no_grad(), trace(look):
        model(images)
    return seen


# ---------------------------------------------------------------- predict


def wrong_steps(value):
    if isinstance(value, bool) or not isinstance(value, Real) or value != int(value):
        return f"a number of steps is a whole number, not {value}"
    always, once = PICOJOULES["ac"], PICOJOULES["mac"]
    if always * value <= once:
        return f"{value} additions cost {always * value:.1f} pJ, and that is not more than {once} pJ"
    if always * (value - 1) > once:
        return f"it loses at fewer steps than {value}, too"
    return ""


@task(
    "★",
    hints=[
        "In place of one multiply-accumulate, a neuron that fires at all T steps causes T additions.",
        "An addition costs 0.9 pJ, a multiply-accumulate 4.6 pJ.",
    ],
    answer=wrong_steps,
)
def loses():
    """Return the smallest T at which a network that always fires costs more than an ordinary network.

    In the first network every neuron fires at each of T steps, and each spike is one addition. The ordinary
    network makes one multiply-accumulate in its place. The prices are the papers' (lesson 13).
    """
    return 6


# ---------------------------------------------------------------- fan-out of a convolution


def fan_out_cases(rng):
    for H, W, C, out, kernel, stride, padding in (
        (3, 4, 1, 2, (3, 3), 1, 1),
        (5, 7, 2, 3, (3, 3), 1, 1),
        (6, 4, 3, 1, (3, 3), 2, 1),
        (7, 5, 1, 4, (2, 2), 2, 0),
        (4, 9, 2, 5, (1, 3), 1, 0),
        (1, 1, 3, 2, (3, 3), 1, 1),
    ):
        w = rng.standard_normal((*kernel, C, out))
        w[rng.random(w.shape) < 0.3] = 0  # a weight of 0 is not added
        yield {"H": H, "W": W, "w": w, "stride": stride, "padding": padding}


def library_fan_out(H, W, w, stride, padding):
    (fan,) = Convolve2d.fan_out(np.zeros((1, H, W, w.shape[2])), w, stride=stride, padding=padding)
    return np.broadcast_to(fan, (H, W, w.shape[2])).astype("int64")


def counts_the_stem(fan_out):
    """Count the additions of a model's convolutions with it, and compare with the library's count."""
    model, images = a_model()
    rows = {row.path: row for row in count(model, images).rows}
    for path, function, (x, w, *_) in contractions(model, images, Convolve2d):
        if rows[path].kind == "binary":
            fan = fan_out(x.shape[-3], x.shape[-2], w, **function.constants)
            same(f"the additions of {path}", np.sum(x * fan), np.array(rows[path].events.ac))


@task(
    "★★",
    hints=[
        "Loop over the outputs' places (p, q) and the kernel's (i, j): which input place is read there?",
        "Output (p, q) reads row p · stride + i − padding. If that row and column exist, the entry in "
        "channel c reaches as many outputs as w[i, j, c] has values that are not 0.",
        "There are (H + 2 · padding − kh) // stride + 1 rows of outputs. For columns use W and kw.",
    ],
    cases=fan_out_cases,
    expected=library_fan_out,
    place=counts_the_stem,
)
def fan_out(H, W, w, stride, padding):
    """Say how many outputs of a convolution each entry of its input reaches through a weight that is not 0.

    The input is [H, W, C], with `padding` zeros around it; w: [kh, kw, C, out].
    Return an array of integers [H, W, C].
    """
    kh, kw, C, _ = w.shape
    reached = (w != 0).sum(-1)
    fan = np.zeros((H, W, C), dtype=int)
    for p in range((H + 2 * padding - kh) // stride + 1):
        for q in range((W + 2 * padding - kw) // stride + 1):
            for i in range(kh):
                for j in range(kw):
                    row, column = p * stride + i - padding, q * stride + j - padding
                    if 0 <= row < H and 0 <= column < W:
                        fan[row, column] += reached[i, j]
    return fan


# ---------------------------------------------------------------- additions of attention


def attention_cases(rng):
    sizes = ((3, 2, 0.6), (7, 4, 0.3), (4, 9, 0.5), (1, 5, 0.7), (6, 1, 0.5), (5, 3, 0.0), (2, 6, 1.0))
    for N, d, p in sizes:
        q, k, v = (rng.random((3, N, d)) < p).astype(float)
        yield {"q": q, "k": k, "v": v}


def library_attention(q, k, v):
    pairs = (q * MatMul.fan_out(q, k.T)[0]).sum()
    return {"pairs": pairs, "sums": (v * MatMul.fan_out(q @ k.T, v)[1]).sum()}


def counts_the_attention(attention_additions):
    """Count a model's attention with it, head by head, and compare with the library's two rows."""
    model, images = a_model()
    pairs, sums = 0, 0
    first, second = contractions(model, images, MatMul)
    (q, k_t), v = first[2], second[2][1]  # [T, B, h, N, d], [T, B, h, d, N], [T, B, h, N, d]
    if q.shape[-1] != k_t.shape[-2] or not q.any():
        raise Wrong("the model's attention is silent")
    for at in np.ndindex(q.shape[:3]):
        found = attention_additions(q[at], k_t[at].T, v[at])
        pairs, sums = pairs + found["pairs"], sums + found["sums"]
    rows = [row.events.ac for row in count(model, images).rows if row.op == "MatMul"]
    same("the additions of a model's Q Kᵀ", np.array(pairs), np.array(rows[0]))
    same("the additions of a model's A V", np.array(sums), np.array(rows[1]))


@task(
    "★★",
    hints=[
        "For Q Kᵀ count the triples (i, j, c) with q[i, c] = k[j, c] = 1.",
        "That is the sum of all entries of q @ k.T. In A V, an integer A_ij is added at once, however large.",
        "For A V replace A by A != 0, and sum all entries of its product with v.",
    ],
    cases=attention_cases,
    expected=library_attention,
    place=counts_the_attention,
)
def attention_additions(q, k, v):
    """Count the additions of (Q Kᵀ) V for one head, as an event machine makes them.

    q, k, v: spikes (0.0 or 1.0), [N, d].
    Return a dict: "pairs", the additions of A = Q Kᵀ, and "sums", those of A V. An entry of A that is not 0
    is added in one addition; an entry that is 0 is not added.
    """
    A = q @ k.T
    return {"pairs": A.sum(), "sums": ((A != 0) @ v).sum()}


# ---------------------------------------------------------------- three counts


def layer_cases(rng):
    for rows, n_in, n_out in ((2, 3, 2), (7, 5, 4), (1, 9, 3), (6, 1, 5)):
        w = rng.standard_normal((n_in, n_out))
        w[0, 0] = 0
        x = (rng.random((rows, n_in)) < 0.4).astype(float)
        x[-1, -1], x[0, 0] = 1, x[0, 0] if rows * n_in > 1 else 1
        yield {"x": x, "w": w}
        integers = x * rng.integers(1, 4, x.shape)
        integers[-1, -1] = 3
        yield {"x": integers, "w": w}
        yield {"x": x * rng.standard_normal(x.shape), "w": w}
    yield {"x": np.zeros((3, 4)), "w": np.ones((4, 2))}


def library_counts(x, w):
    kind, share, n = entering(MatMulAdd(), [x, w], [0])
    return priced_row(kind, share, n, MatMulAdd.cost(x.shape, w.shape))


def priced_row(kind, share, n, macs):
    row = Row("", "", [], 0, macs, kind, share, Operations(**{"mac" if kind == "analog" else "ac": n}))
    row.charge(macs, kind, share)
    return {column: 1e12 * getattr(row, column).joules() for column in ("paper", "strict", "events")}


def prices_the_layers(three_counts):
    """Price a model's linear layers with it, and compare with the library's rows."""
    model, images = a_model()
    rows = {row.path: row for row in count(model, images).rows}
    for path, _, (x, w, *_) in contractions(model, images, MatMulAdd):
        if path in rows and rows[path].part != "head":
            found = three_counts(x.reshape(-1, x.shape[-1]), w)
            for column in ("paper", "strict", "events"):
                expected = 1e12 * getattr(rows[path], column).joules()
                same(f"{column} of the layer {path}", np.array(found[column]), np.array(expected))


@task(
    "★★",
    hints=[
        "First find out what enters: only 0 and 1 (spikes), whole numbers, or anything else.",
        "The dense MACs are rows · in · out. paper: active share · MACs at 0.9 pJ for spikes and integers; "
        "all MACs at 4.6 pJ for real numbers. strict: integers cost 4.6 pJ, too, times the active share.",
        "events: Σ |x| · fan-out additions for spikes and integers; for real numbers one MAC for each entry "
        "that is not 0 and each weight that is not 0. The fan-out of x[n, i] is the number of w[i] ≠ 0.",
    ],
    cases=layer_cases,
    expected=library_counts,
    place=prices_the_layers,
)
def three_counts(x, w):
    """Price a linear layer x @ w in lesson 13's three ways, in picojoules.

    x: [rows, in], spikes, integers or real numbers (that is for you to find out); w: [in, out].
    An addition costs 0.9 pJ, a multiply-accumulate 4.6 pJ.
    Return a dict of three numbers: "paper", "strict" and "events".
    """
    macs, share, fan = x.size * w.shape[1], (x != 0).mean(), (w != 0).sum(1)
    additions, integer = (abs(x) * fan).sum(), (x == np.rint(x)).all()
    spikes = ((x == 0) | (x == 1)).all()
    if not integer:
        return {"paper": 4.6 * macs, "strict": 4.6 * macs, "events": 4.6 * ((x != 0) * fan).sum()}
    price = 0.9 if spikes else 4.6
    return {"paper": 0.9 * share * macs, "strict": price * share * macs, "events": 0.9 * additions}


# ---------------------------------------------------------------- the mean over random spikes


def mean_additions(N, d, p):
    """Return the mean over all spike patterns, each with its probability, as the library counts them."""
    total = 0.0
    for bits in product((0.0, 1.0), repeat=3 * N * d):
        q, k, v = np.array(bits).reshape(3, N, d)
        fired = int(sum(bits))
        additions = sum(library_attention(q, k, v).values()) if fired > 1 else 0
        total += p**fired * (1 - p) ** (3 * N * d - fired) * additions
    return total


@task(
    "★★★",
    hints=[
        "Means add up, also those of things that depend on each other. Take the two products one by one.",
        "Q Kᵀ: how many triples (i, j, c) are there, and with which probability do q and k both fire?",
        "A_ij = 0 if no channel coincides: (1 − p²)ᵈ. A V: N · N · d triples (i, j, c), each with A_ij ≠ 0 "
        "and v_jc = 1, and v is independent of A.",
    ],
    cases=lambda rng: [
        {"N": N, "d": d, "p": p}
        for N, d in ((2, 1), (1, 2), (1, 3), (3, 1))
        for p in (0.3, 0.1, 0.8, 1.0, 0.0)
    ],
    expected=mean_additions,
)
def expected_additions(N, d, p):
    """Derive how many additions (Q Kᵀ) V takes on average, if all entries fire independently.

    N: tokens. d: channels. p: the probability that an entry of q, k or v [N, d] fires.
    Return a number, the mean of "pairs" and "sums" of `attention_additions` together.
    """
    triples = N * N * d
    return triples * p * p + triples * p * (1 - (1 - p * p) ** d)
