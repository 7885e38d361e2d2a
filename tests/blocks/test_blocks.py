"""Each block against loops written from its paper's equation, and against finite differences."""

from functools import partial

import numpy as np
import pytest

from minispike import LIF, check_grads
from minispike.blocks.encoder import Block
from minispike.blocks.mlp import MLP
from minispike.blocks.sps import SPS
from minispike.blocks.ssa import SSA, attend, merge_heads, split_heads
from minispike.models import create_model

SMOOTH = partial(LIF, smooth=True, detach_reset=False)

# ---------------------------------------------------------------- naive pieces, from the equations


def naive_neuron(x, v_threshold=1.0):
    v, spikes = np.zeros(x.shape[1:]), []
    for current in x:
        h = v + (current - v) / 2
        s = (h >= v_threshold).astype(float)
        v = h * (1 - s)
        spikes.append(s)
    return np.stack(spikes)


def naive_norm(x, norm):
    flat = x.reshape(-1, x.shape[-1])
    mean, var = flat.mean(0), flat.var(0)
    return norm.weight.data * (x - mean) / np.sqrt(var + 1e-5) + norm.bias.data


def naive_linear_brick(x, brick, v_threshold=1.0):
    y = np.zeros((*x.shape[:-1], brick.map.weight.shape[1]))
    for at in np.ndindex(*x.shape[:-1]):
        y[at] = sum(x[at][i] * brick.map.weight.data[i] for i in range(x.shape[-1]))
        if brick.map.bias is not None:
            y[at] += brick.map.bias.data
    return naive_neuron(naive_norm(y, brick.norm), v_threshold)


def naive_conv(x, w):
    T, B, H, W, _ = x.shape
    y = np.zeros((T, B, H, W, w.shape[-1]))
    for t, b, p, q in np.ndindex(T, B, H, W):
        for i, j in np.ndindex(3, 3):
            if 0 <= p + i - 1 < H and 0 <= q + j - 1 < W:
                y[t, b, p, q] += x[t, b, p + i - 1, q + j - 1] @ w[i, j]
    return y


def naive_pool(x):
    T, B, H, W, C = x.shape
    y = np.zeros((T, B, H // 2, W // 2, C))
    for t, b, p, q, c in np.ndindex(*y.shape):
        rows, columns = range(max(0, 2 * p - 1), 2 * p + 2), range(max(0, 2 * q - 1), 2 * q + 2)
        y[t, b, p, q, c] = max(x[t, b, r, s, c] for r in rows for s in columns)
    return y


def lively(module, rng, gain=3.0):
    """Raise batch norm's gain so that a random network fires; give biases that matter."""
    for path, parameter in module.named_parameters():
        if path.endswith("norm.weight"):
            parameter.data[...] = gain * rng.uniform(0.8, 1.2, parameter.shape)
        elif path.endswith("bias"):
            parameter.data[...] = 0.3 * rng.standard_normal(parameter.shape)
    return module


# ---------------------------------------------------------------- SPS


@pytest.mark.parametrize("pools", [(False, False, True, False), (True, False, False, True), (False,) * 4])
def test_sps_is_its_equation(rng, pools):
    sps = lively(SPS(2, 16, pools, rng=rng), rng)
    frames = rng.standard_normal((3, 2, 8, 8, 2))
    x = frames
    for stage, pool in zip(sps.stages, pools, strict=True):
        x = naive_neuron(naive_norm(naive_conv(x, stage.map.weight.data), stage.norm))
        x = naive_pool(x) if pool else x
    x = x + naive_neuron(naive_norm(naive_conv(x, sps.rpe.map.weight.data), sps.rpe.norm))
    tokens = sps(frames).data
    side = 8 // 2 ** sum(pools)
    assert tokens.shape == (3, 2, side * side, 16)
    np.testing.assert_array_equal(tokens, x.reshape(3, 2, -1, 16))
    assert set(np.unique(tokens)) == {0, 1, 2}


@pytest.mark.parametrize("pools", [(False, False, True, False), (True, True, False, False)])
def test_gradients_through_sps(rng, pools):
    sps = lively(SPS(2, 8, pools, neuron=SMOOTH, rng=rng), rng)
    check_grads(sps, rng.standard_normal((4, 2, 4, 4, 2)), *sps.parameters())
    check_grads(lambda x: sps(x, T=4), rng.standard_normal((1, 2, 4, 4, 2)), *sps.parameters())


def test_sps_refuses_an_odd_grid_before_a_pool(rng):
    sps = SPS(1, 8, (False, True, True, False), rng=rng)
    with pytest.raises(ValueError, match=r"SPS: the pool after stages.2 halves the grid, which is 3×3: odd"):
        sps(rng.standard_normal((1, 1, 6, 6, 1)))
    with pytest.raises(ValueError, match=r"stages.0.map \(Conv2d\): conv2d expects x \[..., H, W, 1\], got"):
        sps(rng.standard_normal((1, 1, 8, 8, 3)))
    with pytest.raises(ValueError, match="dim divisible by 8 and 4 pools, got 12"):
        SPS(1, 12, (False,) * 4, rng=rng)
    with pytest.raises(ValueError, match="4 pools, got 8 and"):
        SPS(1, 8, (False,) * 3, rng=rng)


# ---------------------------------------------------------------- SSA


@pytest.mark.parametrize("N, num_heads", [(4, 2), (9, 4)])  # N <= d and N > d: both orders of the product
def test_ssa_is_its_equation(rng, N, num_heads):
    ssa = lively(SSA(16, num_heads, scale=0.5, rng=rng), rng)
    x = rng.integers(0, 3, (3, 2, N, 16)).astype(float)
    q, k, v = (naive_linear_brick(x, brick) for brick in (ssa.q, ssa.k, ssa.v))
    d = 16 // num_heads
    y = np.zeros_like(q)
    for t, b, head, i, j in np.ndindex(3, 2, num_heads, N, N):
        part = slice(head * d, (head + 1) * d)
        coincidences = sum(q[t, b, i, part] * k[t, b, j, part])
        y[t, b, i, part] += coincidences * v[t, b, j, part]
    expected = naive_linear_brick(naive_neuron(0.5 * y, v_threshold=0.5), ssa.proj)
    np.testing.assert_array_equal(ssa(x).data, expected)
    assert 0.02 < expected.mean() < 0.98 and 0.02 < naive_neuron(0.5 * y, 0.5).mean() < 0.98


@pytest.mark.parametrize("N, num_heads", [(4, 2), (9, 4)])
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_gradients_through_ssa(rng, N, num_heads, qkv_bias):
    ssa = lively(SSA(16, num_heads, qkv_bias=qkv_bias, neuron=SMOOTH, rng=rng), rng, gain=1.0)
    check_grads(ssa, rng.standard_normal((4, 2, N, 16)), *ssa.parameters())
    assert len(ssa.parameters()) == (16 if qkv_bias else 13)


def test_both_orders_of_the_product_agree_exactly_on_spikes(rng):
    q, k, v = (rng.random((3, 4, 2, 6, 64, 32)) < 0.3).astype("float32")
    assert np.array_equal((q @ k.swapaxes(-1, -2)) @ v, q @ (k.swapaxes(-1, -2) @ v))
    counts = attend(q, k, v)
    assert np.array_equal(counts, counts.round()) and counts.max() < 2**24


def test_heads_split_over_channels_and_merge_back(rng):
    x = rng.standard_normal((2, 2, 5, 12))
    heads = split_heads(x, 3)
    assert heads.shape == (2, 2, 3, 5, 4) and np.array_equal(heads[:, :, 1], x[..., 4:8])
    assert np.array_equal(merge_heads(heads), x)


def test_heads_that_do_not_divide_are_refused(rng):
    with pytest.raises(ValueError, match="SSA cannot split dim = 16 into 3 heads"):
        SSA(16, 3, rng=rng)


# ---------------------------------------------------------------- MLP and block


def test_mlp_is_its_equation(rng):
    mlp = lively(MLP(6, 12, rng=rng), rng)
    x = rng.integers(0, 3, (3, 2, 4, 6)).astype(float)
    expected = naive_linear_brick(naive_linear_brick(x, mlp.fc1), mlp.fc2)
    np.testing.assert_array_equal(mlp(x).data, expected)
    smooth = lively(MLP(6, 12, neuron=SMOOTH, rng=rng), rng)
    check_grads(smooth, rng.standard_normal((4, 2, 4, 6)), *smooth.parameters())


def test_a_block_adds_its_two_sublayers(rng):
    block = Block(lively(SSA(8, 2, rng=rng), rng), lively(MLP(8, 16, rng=rng), rng))
    x = rng.integers(0, 3, (3, 2, 4, 8)).astype(float)
    middle = x + block.mixer(x).data
    np.testing.assert_array_equal(block(x).data, middle + block.mlp(middle).data)


def test_the_residual_stream_holds_small_integers(rng):
    model = lively(create_model("spikformer_1_64_digits", depth=3), rng)
    x = model.stem(rng.standard_normal((1, 4, 8, 8, 1)).astype("float32"), T=4)
    for depth, block in enumerate(model.blocks):
        assert np.array_equal(x.data, x.data.round()) and 0 <= x.data.min() and x.data.max() <= 2 + 2 * depth
        x = block(x)
    assert 2 < x.data.max() <= 2 + 2 * 3


def test_sps_refuses_an_odd_width_before_a_pool(rng):
    sps = SPS(1, 8, (False, True, True, False), rng=rng)
    with pytest.raises(ValueError, match=r"the pool after stages.2 halves the grid, which is 4×3: odd"):
        sps(rng.standard_normal((1, 1, 8, 6, 1)))
