"""SASA and DWC against loops written from their equations, and against finite differences."""

import numpy as np
import pytest

from minispike import BatchNorm, Tensor, check_grads, create_model, no_grad, ops, to_device, to_host, trace
from minispike.blocks.dwc import DWC
from minispike.blocks.sasa import SASA, Channel, Global, Pool
from minispike.blocks.ssa import SSA
from minispike.ops.matmul import MatMul

from .test_blocks import SMOOTH, lively, naive_linear_brick, naive_neuron, naive_norm

READINGS = ["pool", "global", "channel"]
GRID = (4, 2)  # not square: rows and columns must not be mixed up


def reading(name, grid=GRID, scale=0.5, **neuron):
    if name == "pool":
        return Pool(grid, 2, scale, **neuron)
    return Global(scale, **neuron) if name == "global" else Channel(**neuron)


def make(name, rng, dim=16, num_heads=4, dwc=True, **neuron):
    module = DWC(dim, GRID, rng=rng, **neuron) if dwc else None
    return SASA(dim, num_heads, reading(name, **neuron), module, rng=rng, **neuron)


# ---------------------------------------------------------------- naive twins, one number at a time


def naive_pool(q, k, scale, grid=GRID, r=2):
    """LIF_0.5( s/r² (Q K_Aᵀ) K_A ) of one head: q, k [T, B, N, d]."""
    T, B, N, d = q.shape
    W = grid[1]
    current = np.zeros_like(q)
    for t, b in np.ndindex(T, B):
        cells = {}
        for token in range(N):
            cell = token // W // r, token % W // r
            cells[cell] = cells.get(cell, 0) + k[t, b, token]
        for i in range(N):
            for k_a in cells.values():
                weight = sum(q[t, b, i, c] * k_a[c] for c in range(d))
                current[t, b, i] += weight * k_a
    return naive_neuron(scale / r**2 * current, 0.5)


def naive_global(q, k, scale):
    current = np.zeros_like(q)
    for t, b, i, c in np.ndindex(*q.shape):
        if q[t, b, i, c]:
            current[t, b, i, c] = scale * sum(k[t, b, j, c] for j in range(q.shape[2]))
    return naive_neuron(current, 0.5)


def naive_channel(q, k, scale):
    passes = naive_neuron(np.stack([[[[sum(token)] for token in b] for b in step] for step in q]), 0.5)
    return np.where(passes == 1, k, 0)


NAIVE = {"pool": naive_pool, "global": naive_global, "channel": naive_channel}


def naive_dwc(k, dwc):
    (H, W), w = dwc.grid, dwc.conv.map.weight.data
    y, half = np.zeros_like(k), len(w) // 2
    for p, q, i, j in np.ndindex(H, W, *w.shape[:2]):
        row, column = p + i - half, q + j - half
        if 0 <= row < H and 0 <= column < W:
            y[:, :, p * W + q] += k[:, :, row * W + column] * w[i, j]
    return naive_neuron(naive_norm(y, dwc.conv.norm))


# ---------------------------------------------------------------- the equations


@pytest.mark.parametrize("dwc", [True, False])
@pytest.mark.parametrize("name", READINGS)
def test_sasa_is_its_equation(rng, name, dwc):
    sasa = lively(make(name, rng, dwc=dwc), rng)
    x = rng.integers(0, 3, (3, 2, 8, 16)).astype(float)
    q, k = (naive_linear_brick(x, brick) for brick in (sasa.q, sasa.k))
    parts = (slice(head * 4, head * 4 + 4) for head in range(4))
    y = np.concatenate([NAIVE[name](q[..., part], k[..., part], 0.5) for part in parts], -1)
    mixed = y + naive_dwc(k, sasa.dwc) if dwc else y
    np.testing.assert_array_equal(sasa(x).data, naive_linear_brick(mixed, sasa.proj))
    assert 0.05 < y.mean() < 0.95


@pytest.mark.parametrize("k", [1, 3, 5])
def test_dwc_is_its_equation(rng, k):
    dwc = lively(DWC(6, GRID, k, rng=rng), rng)
    x = (rng.random((3, 2, 8, 6)) < 0.4).astype(float)
    y = dwc(x).data
    np.testing.assert_array_equal(y, naive_dwc(x, dwc))
    assert 0.05 < y.mean() < 0.95


@pytest.mark.parametrize("name", READINGS)
def test_gradients_through_every_reading(rng, name):
    sasa = lively(make(name, rng, neuron=SMOOTH), rng, gain=1.0)
    check_grads(sasa, rng.standard_normal((4, 2, 8, 16)), *sasa.parameters())
    q, k = rng.standard_normal((2, 3, 2, 2, 8, 4))
    check_grads(reading(name, neuron=SMOOTH), q, k)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_gradients_through_dwc(rng, k):
    dwc = lively(DWC(6, GRID, k, neuron=SMOOTH, rng=rng), rng, gain=1.0)
    check_grads(dwc, rng.standard_normal((4, 2, 8, 6)), *dwc.parameters())


@pytest.mark.parametrize("name", READINGS)
def test_gradients_through_a_whole_saformer(rng, name):
    small = dict(embed_dim=16, depth=2, smooth=True, detach_reset=False)
    model = lively(create_model("saformer_1_64_digits", dtype="float64", aggregate=name, **small), rng)
    x, labels = rng.standard_normal((2, 8, 8, 1)), np.array([1, 5])
    check_grads(lambda x: ops.softmax_cross_entropy(model(x), labels, 0.1), x, *model.parameters())


def test_the_derived_gradient_of_the_aggregated_product(rng):
    """Y = Q K_Aᵀ K_A: gQ = G K_Aᵀ K_A, gK_A = (Q K_Aᵀ)ᵀ G + (G K_Aᵀ)ᵀ Q, and each cell hands on its own."""
    q, k, g = rng.standard_normal((3, 1, 1, 1, 8, 4))
    pool = Pool(GRID)
    leaves = [Tensor(a, requires_grad=True) for a in (q, k)]
    k_a = pool.sums(leaves[1])
    ((leaves[0] @ k_a.transpose(0, 1, 2, 4, 3)) @ k_a).backward(g)
    q, k_a, g = q[0, 0, 0], k_a.data[0, 0, 0], g[0, 0, 0]
    np.testing.assert_allclose(leaves[0].grad[0, 0, 0], g @ k_a.T @ k_a, rtol=1e-12)
    g_cells = (q @ k_a.T).T @ g + (g @ k_a.T).T @ q  # [n, d]
    np.testing.assert_allclose(leaves[1].grad[0, 0, 0], g_cells[[0, 0, 0, 0, 1, 1, 1, 1]], rtol=1e-12)


# ---------------------------------------------------------------- whole numbers


@pytest.mark.parametrize("name", READINGS)
def test_only_whole_numbers_lie_between_the_neurons(rng, name):
    """Everything that AG and its products make of spikes is a count: additions do, float32 is exact."""
    grid, seen = (8, 8), []
    q, k = (rng.random((2, 4, 2, 3, 64, 32)) < 0.12).astype("float32")
    module = reading(name, grid, scale=0.125)

    def look(function, inputs, output, path):
        if not any(isinstance(i, float) for i in inputs):  # all but the one multiplication by s
            seen.append(output.data)

    with trace(look):
        y = module(Tensor(q), Tensor(k)).data
    assert len(seen) >= 2
    for counts in seen:
        assert np.array_equal(counts, counts.round()) and 0 <= counts.min() and counts.max() < 2**24
    exact = module(*(Tensor(a.astype("float64")) for a in (q, k))).data
    np.testing.assert_array_equal(y, exact)
    assert set(np.unique(y)) == {0, 1}


def test_the_whole_mixer_takes_integers_and_gives_spikes(rng):
    for name in READINGS:
        sasa = lively(make(name, rng), rng)
        y = sasa(rng.integers(0, 5, (3, 2, 8, 16)).astype(float)).data
        assert set(np.unique(y)) == {0, 1}


@pytest.mark.parametrize("side, d, first", [(4, 32, True), (8, 32, True), (16, 32, False), (8, 8, False)])
def test_the_cheaper_order_of_the_product_is_taken(rng, side, d, first):
    """The second where d(N + n) < 2Nn; both give the same integers."""
    N, n, sizes = side**2, side**2 // 4, []
    assert first == (2 * N * n <= d * (N + n))
    q, k = (rng.random((2, 1, 1, 1, N, d)) < 0.3).astype("float32")
    pool = Pool((side, side))

    def look(function, inputs, output, path):
        if isinstance(function, MatMul):
            sizes.append(output.shape[-2:])

    with trace(look):
        y = pool(Tensor(q), Tensor(k)).data
    assert sizes == ([(N, n), (N, d)] if first else [(d, d), (N, d)])
    k_a = pool.sums(Tensor(k)).data
    one, two = (q @ k_a.swapaxes(-1, -2)) @ k_a, q @ (k_a.swapaxes(-1, -2) @ k_a)
    assert np.array_equal(one, two)
    assert np.array_equal(y, naive_neuron(0.125 / 4 * one, 0.5))


def test_a_cell_of_one_token_is_ssa_with_k_for_v(rng):
    """r = 1 aggregates nothing: Y = LIF_0.5( s (Q Kᵀ) K )."""
    q, k = (rng.random((2, 3, 2, 2, 8, 4)) < 0.4).astype(float)
    expected = naive_neuron(0.5 * (q @ k.swapaxes(-1, -2)) @ k, 0.5)
    np.testing.assert_array_equal(Pool(GRID, 1, 0.5)(Tensor(q), Tensor(k)).data, expected)


def test_the_scale_keeps_the_mean_input_of_the_attention_neuron(rng):
    """With s/r² the neuron receives on average what SSA's does, but for K_A meeting itself instead of V.

    At firing rate p that adds Var(K_A) / (d·E[K_A]²) = (1 − p) / (p·r²·d): 3 % for r = 2, d = 32, p = 0.2.
    """
    p, d = 0.2, 32
    q, k, v = (rng.random((3, 1, 200, 1, 64, d)) < p).astype(float)
    ssa = 0.125 * ((q @ k.swapaxes(-1, -2)) @ v).mean()
    for r in (1, 2, 4, 8):
        k_a = Pool((8, 8), r).sums(Tensor(k)).data
        mean = 0.125 / r**2 * ((q @ k_a.swapaxes(-1, -2)) @ k_a).mean()
        assert abs(mean / ssa - 1 - (1 - p) / (p * r**2 * d)) < 0.01


# ---------------------------------------------------------------- whole models


def test_each_model_has_its_grid_heads_and_biases():
    for name, grid, heads, scale, bias in [
        ("saformer_1_64_digits", (4, 4), 4, 0.125, True),
        ("saformer_4_384_cifar10", (8, 8), 12, 0.125, True),
        ("saformer_4_384_tinyimagenet", (8, 8), 12, 0.125, True),
        ("saformer_2_256_cifar10dvs", (8, 8), 16, 0.25, False),
        ("saformer_2_256_gesture", (8, 8), 16, 0.25, False),
    ]:
        model = create_model(name, depth=1)
        mixer = model.blocks[0].mixer
        assert (mixer.num_heads, mixer.aggregate.scale, mixer.q.map.bias is not None) == (heads, scale, bias)
        assert mixer.aggregate.grid == mixer.dwc.grid == grid and mixer.aggregate.r == 2
        assert mixer.aggregate.attention.v_threshold == 0.5 and mixer.proj.map.bias is not None
    assert model.img_size == (128, 128)


@pytest.mark.parametrize("name", READINGS)
def test_a_sample_does_not_depend_on_its_neighbours(rng, name):
    model = lively(create_model("saformer_1_64_digits", dtype="float64", aggregate=name), rng)
    frames = rng.standard_normal((4, 5, 8, 8, 1))
    for norm in (m for _, m in model.named_modules() if isinstance(m, BatchNorm)):
        norm.momentum = 1.0
    model(frames)  # the running statistics are this batch's
    model.eval()
    with no_grad():
        together = model(frames).data
        for b in range(5):
            np.testing.assert_allclose(model(frames[:, b : b + 1]).data[0], together[b], rtol=0, atol=1e-12)
    assert abs(together[0] - together[1]).max() > 1e-3


@pytest.mark.parametrize("name", READINGS)
def test_a_saformer_runs_on_a_device_as_on_the_host(rng, device, name):
    results, x = [], rng.standard_normal((2, 8, 8, 1))
    for where in ("cpu", device):
        model = create_model("saformer_1_64_digits", dtype="float64", aggregate=name)
        lively(model, np.random.default_rng(0)).to(where)
        loss = ops.softmax_cross_entropy(model(to_device(x, where)), np.array([3, 7]))
        loss.backward()
        mixer = model.blocks[0].mixer
        grads = [mixer.k.map.weight.grad, mixer.dwc.conv.map.weight.grad]
        results.append([to_host(a) for a in (loss.data, *grads)])
    for host, there in zip(*results, strict=True):
        np.testing.assert_allclose(there, host, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    "override",
    [dict(aggregate="global"), dict(aggregate="channel"), dict(r=4), dict(dwc=None), dict(dwc=5)],
    ids=str,
)
def test_every_override_changes_the_output(rng, override):
    x, outputs = rng.standard_normal((2, 8, 8, 1)), []
    for options in ({}, override):
        model = lively(
            create_model("saformer_1_64_digits", dtype="float64", **options), np.random.default_rng(0)
        )
        outputs.append(model(x).data)
    assert abs(outputs[0] - outputs[1]).max() > 1e-6


def test_without_v_a_block_is_smaller_and_dwc_gives_little_back(rng):
    ssa = SSA(384, 12, rng=rng).num_params()
    alone = SASA(384, 12, Pool((8, 8)), rng=rng).num_params()
    assert ssa - alone == 148_608 and DWC(384, (8, 8), rng=rng).num_params() == 4_224


def test_what_does_not_fit_is_refused(rng):
    with pytest.raises(ValueError, match="Pool cannot cut a 6×4 token grid into cells of 4×4"):
        Pool((6, 4), 4)
    with pytest.raises(ValueError, match="r to be a power of two, got 3"):
        Pool((6, 6), 3)
    with pytest.raises(ValueError, match="Pool cannot cut a 14×14 token grid into cells of 4×4"):
        create_model("saformer_4_384_cifar10", img_size=56, r=4)
    with pytest.raises(ValueError, match="SASA cannot split dim = 16 into 3 heads"):
        SASA(16, 3, Channel(), rng=rng)
    with pytest.raises(ValueError, match="odd kernel to keep the token grid, got k = 4"):
        DWC(8, GRID, 4, rng=rng)
    with pytest.raises(ValueError, match="DWC expects the 8 tokens of a 4×2 grid, got 9"):
        DWC(8, GRID, rng=rng)(np.zeros((1, 1, 9, 8)))
    with pytest.raises(ValueError, match="Pool expects the 8 tokens of a 4×2 grid, got 9"):
        Pool(GRID)(np.zeros((1, 1, 1, 9, 8)), np.zeros((1, 1, 1, 9, 8)))
    with pytest.raises(ValueError, match="aggregate must be one of pool, global, channel, got 'mean'"):
        create_model("saformer_1_64_digits", aggregate="mean")


def test_the_scale_reaches_the_reading():
    for name in ("pool", "global"):
        model = create_model("saformer_1_64_digits", aggregate=name, scale=0.5)
        assert model.blocks[0].mixer.aggregate.scale == 0.5


def test_a_pools_cells_must_divide_the_width_too():
    with pytest.raises(ValueError, match="Pool cannot cut a 4×6 token grid into cells of 4×4"):
        Pool((4, 6), 4)
