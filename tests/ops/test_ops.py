"""Every op: finite differences, a naive twin, broadcasting, shapes drawn at random, and its refusals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from minispike import Function, Tensor, check_grads, compare, ops
from minispike.kernels.unfolded import windows
from minispike.measure import price  # noqa: F401  (it defines a Function, which must be in the list below)
from minispike.ops import norm
from minispike.ops.matmul import MatMul, MatMulAdd, column_sums

UNARY = {
    "neg": ops.neg,
    "exp": ops.exp,
    "log": ops.log,
    "tanh": ops.tanh,
    "power": lambda x: x**3,
    "root": lambda x: x**0.5,
}
BINARY = {"add": ops.add, "sub": ops.sub, "mul": ops.mul, "div": ops.div}
NUMPY = {
    "neg": np.negative, "exp": np.exp, "log": np.log, "tanh": np.tanh, "power": lambda x: x**3,
    "root": np.sqrt,
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide,
}  # fmt: skip
few = settings(max_examples=30, deadline=None, derandomize=True)


def positive(shape, seed=0):
    """Away from zero, where log and division are steep."""
    return np.random.default_rng(seed).uniform(0.5, 2, shape)


# ---------------------------------------------------------------- elementwise


@pytest.mark.parametrize("name", UNARY)
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_ops_of_one_input(name, shape):
    x = positive(shape)
    np.testing.assert_allclose(UNARY[name](Tensor(x)).data, NUMPY[name](x), rtol=1e-15)
    check_grads(UNARY[name], x)


@pytest.mark.parametrize("p", [0, 1, 2, 3])
def test_whole_powers_have_their_slope_at_0(p):
    x = Tensor(np.array([0.0, 1.0]), requires_grad=True)
    (x**p).sum().backward()
    assert x.grad.tolist() == [1.0 if p == 1 else 0.0, p]
    check_grads(lambda x: x**p, np.array([0.0, 1.0, -2.0]))


@pytest.mark.parametrize("name", BINARY)
@few
@given(mutually_broadcastable_shapes(num_shapes=2, max_dims=4, max_side=3))
def test_ops_of_two_inputs_broadcast(name, shapes):
    x, w = (positive(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    y = BINARY[name](Tensor(x), Tensor(w))
    np.testing.assert_array_equal(y.data, NUMPY[name](x, w))
    check_grads(BINARY[name], x, w)


def test_operators_take_python_numbers_on_either_side():
    x = positive((3,))
    t = Tensor(x)
    for got, expected in [
        (2 + t, 2 + x), (t + 2, x + 2), (2 - t, 2 - x), (t - 2, x - 2), (2 * t, 2 * x), (t * 2, x * 2),
        (2 / t, 2 / x), (t / 2, x / 2), (-t, -x), (t**2, x**2),
    ]:  # fmt: skip
        np.testing.assert_array_equal(got.data, expected)
    check_grads(lambda x: 2 - 3 / (1 + x) * 2, x)
    assert (2 * Tensor(np.ones(2, "float32")) / 3).dtype == "float32"


# ---------------------------------------------------------------- shape


def test_moving_values(rng):
    x = rng.standard_normal((2, 3, 4))
    t = Tensor(x)
    np.testing.assert_array_equal(t.reshape(6, -1).data, x.reshape(6, 4))
    np.testing.assert_array_equal(t.transpose(2, 0, 1).data, x.transpose(2, 0, 1))
    np.testing.assert_array_equal(
        ops.broadcast_to(t[:, :1], (5, 2, 3, 4)).data, np.broadcast_to(x[:, :1], (5, 2, 3, 4))
    )
    np.testing.assert_array_equal(ops.stack([t, t * 2.0], axis=1).data, np.stack([x, 2 * x], 1))
    for f in [
        lambda x: x.reshape(6, -1),
        lambda x: x.transpose(2, 0, 1),
        lambda x: ops.broadcast_to(x.reshape(2, 1, 3, 4), (5, 2, 7, 3, 4)),
        lambda x: x[1],
        lambda x: x[..., None, 1:3],
        lambda x: x[::-1, ::2, -1],
        lambda x: ops.stack([x, x * x, x[:]], axis=-1),
        lambda x: x.sum(),
        lambda x: x.sum(1),
        lambda x: x.sum((0, -1), keepdims=True) * x,
        lambda x: x.mean((0, 2)),
        lambda x: x.mean(),
    ]:
        check_grads(f, x)


def test_taking_rows_and_putting_them_back(rng):
    x, rows = rng.standard_normal((2, 6, 3)), np.array([4, 0, 3])
    some = ops.take(x, rows)
    np.testing.assert_array_equal(some.data, x[:, [4, 0, 3]])
    back = ops.put(some, rows, 6).data
    np.testing.assert_array_equal(back[:, [4, 0, 3]], x[:, [4, 0, 3]])
    assert not back[:, [1, 2, 5]].any()
    check_grads(lambda x: ops.take(x, rows), x)
    check_grads(lambda x: ops.put(x, rows, 6), x[:, :3])
    for twice in (np.array([4, 0, 4]), np.array([4, 0, -2])):
        with pytest.raises(ValueError, match="take needs 3 different rows of 6, one came twice"):
            ops.take(x, twice)
        with pytest.raises(ValueError, match="put needs 3 different places of 6, one came twice"):
            ops.put(x[:, :3], twice, 6)


@few
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.data())
def test_sum_and_mean_over_any_axes(shape, data):
    axes = tuple(data.draw(st.sets(st.integers(0, len(shape) - 1))))
    keepdims = data.draw(st.booleans())
    x = positive(shape)
    np.testing.assert_allclose(ops.sum(Tensor(x), axes, keepdims).data, x.sum(axes, keepdims=keepdims))
    np.testing.assert_allclose(ops.mean(Tensor(x), axes, keepdims).data, x.mean(axes, keepdims=keepdims))
    check_grads(lambda x: ops.mean(x, axes, keepdims), x)


def test_bad_shapes_are_refused(rng):
    x = Tensor(rng.standard_normal((2, 3)))
    with pytest.raises(ValueError, match=r"transpose of \[2, 3\] needs each axis once, got \(0, 0\)"):
        x.transpose(0, 0)
    with pytest.raises(ValueError, match=r"axis 2 is outside an array of shape \[2, 3\]"):
        x.sum(2)
    with pytest.raises(ValueError, match="indexed by ints and slices"):
        x[np.array([0, 0])]


# ---------------------------------------------------------------- matmul


@few
@given(mutually_broadcastable_shapes(signature="(n,k),(k,m)->(n,m)", max_dims=2, max_side=3))
def test_matmul_broadcasts(shapes):
    x, w = (positive(shape, seed) for seed, shape in enumerate(shapes.input_shapes))
    np.testing.assert_allclose(ops.matmul(Tensor(x), Tensor(w)).data, x @ w)
    check_grads(ops.matmul, x, w)


@pytest.mark.parametrize("lead", [(), (5,), (2, 3, 4)])
def test_linear_is_one_product_over_all_leading_axes(rng, lead):
    x, w, b = rng.standard_normal((*lead, 6)), rng.standard_normal((6, 3)), rng.standard_normal(3)
    if lead:
        compare(lambda x, w, b: x @ w + b, ops.linear, x, w, b)
    check_grads(ops.linear, x, w, b)
    check_grads(ops.linear, x, w)


def test_products_refuse_what_does_not_fit(rng):
    x = rng.standard_normal((2, 3))
    with pytest.raises(ValueError, match=r"matmul expects .* got \[2, 3\] @ \[2, 3\]"):
        ops.matmul(x, x)
    with pytest.raises(ValueError, match=r"matmul expects .* got \[2, 3\] @ \[3\]"):
        ops.matmul(x, x[0])
    with pytest.raises(ValueError, match=r"linear expects x \[..., 2\] for a weight \[2, 3\], got \[2, 3\]"):
        ops.linear(x, x)
    with pytest.raises(ValueError, match=r"linear expects a bias \[2\], got \[2, 1\]"):
        ops.linear(x, x.T, np.ones((2, 1)))  # it would add by row
    with pytest.raises(ValueError, match=r"linear expects a bias \[2\], got \[1\]"):
        ops.linear(x, x.T, np.ones(1))


@pytest.mark.parametrize("rows", [1, 1023, 1024, 5000])
def test_column_sums(rng, rows):
    x = rng.standard_normal((rows, 7))
    np.testing.assert_allclose(column_sums(x), x.sum(0), rtol=1e-10, atol=1e-10)


def test_column_sums_keep_float32s_digits():
    x = np.full((2_000_000, 1), 30.1, "float32")
    exact = 2_000_000 * float(np.float32(30.1))
    assert abs(column_sums(x)[0] / exact - 1) < 1e-6
    one_running_sum = float(np.cumsum(x[:, 0], dtype="float32")[-1])
    assert abs(one_running_sum / exact - 1) > 1e-3


# ---------------------------------------------------------------- convolution


def conv_by_loops(x, w, b, stride, padding):
    n, h, width, c = x.shape
    kh, kw, _, n_out = w.shape
    y = np.zeros((n, (h + 2 * padding - kh) // stride + 1, (width + 2 * padding - kw) // stride + 1, n_out))
    for image, p, q, o in np.ndindex(*y.shape):
        y[image, p, q, o] = b[o]
        for i, j, k in np.ndindex(kh, kw, c):
            row, column = p * stride + i - padding, q * stride + j - padding
            if 0 <= row < h and 0 <= column < width:
                y[image, p, q, o] += x[image, row, column, k] * w[i, j, k, o]
    return y


@few
@given(
    st.integers(1, 6), st.integers(1, 6), st.sampled_from([(1, 1), (3, 3), (2, 3), (5, 5)]),
    st.integers(1, 3), st.integers(0, 2), st.integers(1, 3),
)  # fmt: skip
def test_conv2d_is_the_loops(h, width, kernel, stride, padding, c):
    if h + 2 * padding < kernel[0] or width + 2 * padding < kernel[1] or padding >= min(kernel):
        return
    x, w, b = positive((2, h, width, c)), positive((*kernel, c, 2), 1), positive(2, 2)
    y = ops.conv2d(x, w, b, stride=stride, padding=padding)
    np.testing.assert_allclose(y.data, conv_by_loops(x, w, b, stride, padding), rtol=1e-12)
    check_grads(lambda x, w, b: ops.conv2d(x, w, b, stride=stride, padding=padding), x, w, b)


@pytest.mark.parametrize("k", [1, 3, 5, 7])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1, 3])
def test_depthwise_is_the_loops_on_each_channel(rng, k, stride, padding):
    x, w, b = rng.standard_normal((2, 7, 8, 3)), rng.standard_normal((k, k, 3)), rng.standard_normal(3)
    y = ops.depthwise_conv2d(x, w, b, stride=stride, padding=padding).data
    for c in range(3):
        one = conv_by_loops(x[..., c : c + 1], w[..., None, c : c + 1], b[c : c + 1], stride, padding)
        np.testing.assert_allclose(y[..., c : c + 1], one, rtol=1e-12, atol=1e-12)
    check_grads(lambda *a: ops.depthwise_conv2d(*a, stride=stride, padding=padding), x, w, b)
    check_grads(lambda *a: ops.depthwise_conv2d(*a, stride=stride, padding=padding), x, w)


@pytest.mark.parametrize("lead", [(), (4,), (2, 3)])
def test_convolutions_and_pools_take_any_leading_axes(rng, lead):
    x = rng.standard_normal((*lead, 6, 6, 2))
    w, v = rng.standard_normal((3, 3, 2, 4)), rng.standard_normal((3, 3, 2))
    flat = x.reshape(-1, 6, 6, 2)
    for f in [
        lambda x: ops.conv2d(x, w, stride=2, padding=1),
        lambda x: ops.depthwise_conv2d(x, v, padding=1),
        lambda x: ops.max_pool2d(x, 3, stride=2, padding=1),
        lambda x: ops.avg_pool2d(x, 2),
    ]:
        y, expected = f(x).data, f(flat).data
        assert y.shape == (*lead, *expected.shape[1:])
        np.testing.assert_array_equal(y.reshape(expected.shape), expected)
        check_grads(f, x)


def test_chunks_and_threads_change_nothing_but_rounding(rng, monkeypatch):
    x, w = rng.standard_normal((7, 8, 8, 3)), rng.standard_normal((3, 3, 3, 5))

    def run():
        tensors = [Tensor(a, requires_grad=True) for a in (x, w)]
        y = ops.conv2d(*tensors, padding=1)
        y = ops.max_pool2d(y, 3, stride=2, padding=1)
        y.backward(np.ones_like(y.data))
        return y.data, tensors[0].grad, tensors[1].grad

    whole = run()
    for chunk_bytes in (1, 20_000):
        monkeypatch.setattr("minispike.kernels.unfolded.CHUNK_BYTES", chunk_bytes)
        for a, b in zip(whole, run(), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("h, width, k, stride, padding", [(5, 6, 3, 1, 1), (7, 5, 3, 2, 1), (6, 6, 5, 3, 2)])
def test_unfold_is_the_windows_one_by_one(rng, h, width, k, stride, padding):
    """Also in a chunk smaller than the one before, and from bytes."""
    x = rng.integers(0, 9, (3, h, width, 2)).astype("uint8")
    over = windows(x.shape, (k, k), stride, padding)
    padded = np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    for images, cols in over.unfold(x, [slice(0, 2), slice(2, 3)], "float64"):
        cols = cols.reshape(-1, *over.size, k * k * 2)
        assert len(cols) == images.stop - images.start and cols.dtype == "float64"
        for i, p, q in np.ndindex(cols.shape[:3]):
            at = padded[images][i, p * stride : p * stride + k, q * stride : q * stride + k]
            assert np.array_equal(cols[i, p, q], at.reshape(-1))


def test_the_gradient_of_x_is_each_windows_share_added_back(rng):
    """What `pixels` gathers for each pixel, scattered window by window instead."""
    for h, width, k, stride, padding in [(5, 6, 3, 1, 1), (7, 5, 3, 2, 1), (4, 4, 2, 2, 0), (6, 6, 5, 3, 2)]:
        x, w = Tensor(rng.standard_normal((2, h, width, 3)), True), rng.standard_normal((k, k, 3, 4))
        y = ops.conv2d(x, w, stride=stride, padding=padding)
        gy = rng.standard_normal(y.shape)
        y.backward(gy)
        back = np.zeros((2, h + 2 * padding, width + 2 * padding, 3))
        for i, p, q in np.ndindex(y.shape[:3]):
            at = back[i, p * stride : p * stride + k, q * stride : q * stride + k]
            at += w @ gy[i, p, q]
        inner = back[:, padding : padding + h, padding : padding + width]
        np.testing.assert_allclose(x.grad, inner, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("padding, stride", [(1, 1), (0, 2)])
def test_a_convolution_in_float32_is_within_its_rounding(rng, monkeypatch, padding, stride):
    """Value and gradients against float64's, over many chunks: within 1e-6 of the largest."""
    monkeypatch.setattr("minispike.kernels.unfolded.CHUNK_BYTES", 2**16)
    x, w = rng.integers(0, 3, (12, 9, 9, 24)).astype("float64"), rng.standard_normal((3, 3, 24, 16))

    def run(dtype):
        inputs = [Tensor(a.astype(dtype), True) for a in (x, w)]
        y = ops.conv2d(*inputs, padding=padding, stride=stride)
        y.backward(np.cos(np.arange(y.data.size)).reshape(y.shape).astype(dtype))
        return [y.data, *(each.grad for each in inputs)]

    for single, double in zip(run("float32"), run("float64"), strict=True):
        assert single.dtype == "float32" and abs(single - double).max() <= 1e-6 * abs(double).max()


def test_windows_that_do_not_fit_are_refused(rng):
    x, w = rng.standard_normal((1, 2, 2, 3)), rng.standard_normal((3, 3, 3, 4))
    with pytest.raises(ValueError, match=r"cannot place a 3×3 window with padding 0 on x \[1, 2, 2, 3\]"):
        ops.conv2d(x, w)
    with pytest.raises(ValueError, match=r"conv2d expects x \[..., H, W, 3\], got \[1, 2, 2, 2\]"):
        ops.conv2d(x[..., :2], w)
    with pytest.raises(ValueError, match=r"conv2d got no images: x is \[0, 2, 2, 3\]"):
        ops.conv2d(x[:0], w, padding=1)
    with pytest.raises(ValueError, match=r"depthwise_conv2d expects x \[..., H, W, 4\], got \[2, 3\]"):
        ops.depthwise_conv2d(x[0, 0], w[0])
    with pytest.raises(ValueError, match="stride >= 1 and padding >= 0, got 0 and 0"):
        ops.conv2d(x, w, stride=0)
    with pytest.raises(ValueError, match="conv2d's 3×3 windows would see padding 3 alone"):
        ops.conv2d(x, w, padding=3)
    for convolve, of in ((ops.conv2d, w), (ops.depthwise_conv2d, w[..., 0])):
        with pytest.raises(
            ValueError, match=rf"{convolve.__name__} expects a bias \[{of.shape[-1]}\], got \[1\]"
        ):
            convolve(x, of, np.ones(1), padding=1)
    with pytest.raises(ValueError, match=r"max_pool2d needs .* got k=2, padding=2"):
        ops.max_pool2d(x, 2, padding=2)


# ---------------------------------------------------------------- pooling


def pool_by_loops(x, k, stride, padding, reduce):
    n, h, width, c = x.shape
    y = np.zeros((n, (h + 2 * padding - k) // stride + 1, (width + 2 * padding - k) // stride + 1, c))
    for image, p, q, o in np.ndindex(*y.shape):
        rows = [p * stride + i - padding for i in range(k)]
        columns = [q * stride + j - padding for j in range(k)]
        y[image, p, q, o] = reduce(
            [x[image, r, s, o] for r in rows if 0 <= r < h for s in columns if 0 <= s < width], k
        )
    return y


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (28, 4)])
@pytest.mark.parametrize("k, stride, padding", [(3, 2, 1), (2, 2, 0), (3, 1, 1), (2, 1, 0), (3, 3, 0)])
def test_pools_are_the_loops(rng, size, k, stride, padding):
    x = rng.standard_normal((2, *size, 3))
    for pool, reduce in [
        (ops.max_pool2d, lambda values, k: max(values)),
        (ops.avg_pool2d, lambda values, k: sum(values) / k**2),
    ]:
        y = pool(x, k, stride=stride, padding=padding).data
        np.testing.assert_allclose(y, pool_by_loops(x, k, stride, padding, reduce), rtol=1e-12, atol=1e-12)
        check_grads(lambda x, pool=pool: pool(x, k, stride=stride, padding=padding), x)


def test_the_pool_halves_as_torchs_does():
    size, sizes = 28, []
    for _ in range(3):
        size = ops.max_pool2d(np.zeros((1, size, size, 1)), 3, stride=2, padding=1).shape[1]
        sizes.append(size)
    assert sizes == [14, 7, 4]


def test_a_tie_goes_to_the_first_maximum_in_row_major_order(rng):
    x = (rng.random((2, 8, 8, 3)) < 0.4).astype(float)
    leaf = Tensor(x, requires_grad=True)
    y = ops.max_pool2d(leaf, 3, stride=2, padding=1)
    gy = rng.standard_normal(y.shape)
    y.backward(gy)
    expected = np.zeros_like(x)
    for n, p, q, c in np.ndindex(*y.shape):
        window = [(2 * p + i - 1, 2 * q + j - 1) for i in range(3) for j in range(3)]
        inside = [(r, s) for r, s in window if 0 <= r < 8 and 0 <= s < 8]
        first = max(inside, key=lambda at: (x[n, *at, c], -inside.index(at)))
        expected[n, *first, c] += gy[n, p, q, c]
    np.testing.assert_array_equal(leaf.grad, expected)


def test_padding_never_wins():
    x = np.full((1, 4, 4, 1), -5.0)
    assert (ops.max_pool2d(x, 3, stride=2, padding=1).data == -5).all()


# ---------------------------------------------------------------- batch norm


def norm_of(x, gamma, beta, **options):
    mean, var = np.zeros(x.shape[-1]), np.ones(x.shape[-1])
    return ops.batch_norm(x, gamma, beta, mean, var, training=True, **options), mean, var


@pytest.mark.parametrize("shape", [(6, 3), (4, 2, 5, 3), (2, 2, 3, 3, 3)])
def test_batch_norm_is_its_equation(rng, shape):
    x, gamma, beta = 3 + 2 * rng.standard_normal(shape), positive(3), rng.standard_normal(3)
    axes, n = tuple(range(len(shape) - 1)), np.prod(shape[:-1])
    y, running_mean, running_var = norm_of(x, gamma, beta)
    mean, var = x.mean(axes), x.var(axes)
    np.testing.assert_allclose(
        y.data, gamma * (x - mean) / np.sqrt(var + 1e-5) + beta, rtol=1e-12, atol=1e-12
    )
    np.testing.assert_allclose(running_mean, 0.1 * mean)
    np.testing.assert_allclose(running_var, 0.9 + 0.1 * var * n / (n - 1))
    check_grads(lambda *a: norm_of(*a)[0], x, gamma, beta)
    check_grads(lambda *a: norm_of(*a, eps=0.5)[0], x, gamma, beta)


def test_batch_norm_with_fixed_statistics(rng):
    x, gamma, beta = rng.standard_normal((5, 3)), positive(3), rng.standard_normal(3)
    mean, var = rng.standard_normal(3), positive(3, 1)
    kept = mean.copy(), var.copy()

    def f(*a):
        return ops.batch_norm(*a, mean, var, training=False)

    np.testing.assert_allclose(f(x, gamma, beta).data, gamma * (x - mean) / np.sqrt(var + 1e-5) + beta)
    check_grads(f, x, gamma, beta)
    assert np.array_equal(mean, kept[0]) and np.array_equal(var, kept[1])


def test_repeats_count_every_row_again(rng):
    x, gamma, beta = rng.standard_normal((1, 5, 3)), positive(3), rng.standard_normal(3)
    once = norm_of(x, gamma, beta, repeats=4)
    four = norm_of(np.repeat(x, 4, 0), gamma, beta)
    np.testing.assert_allclose(once[0].data[0], four[0].data[2], rtol=1e-12)
    np.testing.assert_allclose(once[1], four[1])
    np.testing.assert_allclose(once[2], four[2])
    assert abs(norm_of(x, gamma, beta)[2] - four[2]).max() > 1e-3  # forgetting the repeats is seen


def test_batch_norm_in_float32_at_a_mean_of_30():
    x = (30 + np.random.default_rng(0).standard_normal((400_000, 2))).astype("float32")
    mean, var = norm.moments(x)
    exact = x.astype("float64")
    assert abs(mean / exact.mean(0) - 1).max() < 1e-6 and abs(var / exact.var(0) - 1).max() < 1e-6
    naive = (x * x).mean(0) - x.mean(0) ** 2
    assert abs(naive / exact.var(0) - 1).max() > 1e-4  # what E[x²] − E[x]² makes of it


@pytest.mark.parametrize("value", [0.1, 3.3, 1234.567, 1000000.3])
@pytest.mark.parametrize("rows", [3, 7])
def test_the_variance_of_one_number_is_not_negative(value, rows):
    """Of 1000000.3 it once came out as −0.0004: less than −ε, and so a root of a negative number."""
    x = np.full((rows, 2), value, "float32")
    mean, var = norm.moments(x)
    ulp = np.spacing(x[0])
    assert (abs(mean - x[0]) <= ulp).all() and (var >= 0).all() and (var <= ulp**2).all()


def test_momentum_moves_the_running_statistics(rng):
    x = rng.standard_normal((8, 3))
    for momentum in (0.0, 0.5, 1.0):
        _, mean, _ = norm_of(x, np.ones(3), np.zeros(3), momentum=momentum)
        np.testing.assert_allclose(mean, momentum * x.mean(0), atol=1e-15)


def test_batch_norm_refuses_what_it_cannot_normalise(rng):
    with pytest.raises(
        ValueError, match=r"batch_norm expects for x \[4, 2\] four arrays of \[2\], got \[\[3\], "
    ):
        ops.batch_norm(np.ones((4, 2)), *4 * [np.ones(3)], training=True)
    for place in range(4):
        arrays = [np.ones(2) if i != place else np.ones((4, 1)) for i in range(4)]
        with pytest.raises(ValueError, match=r"four arrays of \[2\], got .*\[4, 1\]"):
            ops.batch_norm(np.ones((4, 2)), *arrays, training=False)
    with pytest.raises(ValueError, match=r"batch_norm expects x \[..., 3\], got \[4, 2\]"):
        norm.statistics(np.ones((4, 2)), np.ones(3), np.ones(3), True, 0.1)
    for rows in (0, 1):
        with pytest.raises(
            ValueError, match=rf"more than one value per channel to train on, got x \[{rows}, 3\]"
        ):
            norm_of(np.ones((rows, 3)), np.ones(3), np.zeros(3))


# ---------------------------------------------------------------- losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_its_equation(rng, smoothing):
    z, labels = 5 * rng.standard_normal((6, 4)), rng.integers(0, 4, 6)
    target = np.full((6, 4), smoothing / 4)
    target[np.arange(6), labels] += 1 - smoothing
    expected = -(target * np.log(np.exp(z) / np.exp(z).sum(1, keepdims=True))).sum(1).mean()

    def composed(z):
        log_p = z - ops.log(ops.exp(z).sum(1, keepdims=True))
        return -(log_p * target).sum() * (1 / 6)

    assert abs(ops.softmax_cross_entropy(z, labels, smoothing).item() - expected) < 1e-12
    compare(lambda z: ops.softmax_cross_entropy(z, labels, smoothing), composed, z)
    check_grads(lambda z: ops.softmax_cross_entropy(z, labels, smoothing), z)


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_cross_entropy_of_soft_targets_is_its_equation(rng, smoothing):
    z, targets = rng.standard_normal((5, 4)), rng.dirichlet(np.ones(4), 5)
    expected = 0.0
    for row, target in zip(z, targets, strict=True):
        total = sum(np.exp(value) for value in row)
        for value, t in zip(row, target, strict=True):
            expected -= (t * (1 - smoothing) + smoothing / 4) * np.log(np.exp(value) / total) / 5
    assert abs(ops.softmax_cross_entropy(z, targets, smoothing).item() - expected) < 1e-12
    check_grads(lambda z: ops.softmax_cross_entropy(z, targets, smoothing), z)
    labels = rng.integers(0, 4, 5)
    hard, soft = (ops.softmax_cross_entropy(z, y, smoothing).item() for y in (labels, np.eye(4)[labels]))
    assert abs(hard - soft) < 1e-15


def test_cross_entropy_of_huge_logits_is_finite():
    loss = ops.softmax_cross_entropy(np.array([[1e4, -1e4, 0.0]], "float32"), np.array([1]))
    assert loss.item() == 2e4


def test_cross_entropy_refuses_bad_labels(rng):
    z = rng.standard_normal((3, 4))
    for labels, message in [
        (np.array([0, 1]), r"logits \[3, 4\] and labels \[2\]"),
        (np.array([0.0, 1.0, 2.0]), "integer labels .* float64"),
        (np.array([0, 1, 4]), "labels run from 0 to 4"),
        (np.array([0, -1, 2]), "labels run from -1 to 2"),
        (np.ones((3, 4)), "their rows sum to 1 up to 3.0"),
        (np.array([[1.5, -0.5, 0, 0]] * 3), "soft targets go down to -0.5"),
        (np.eye(3), r"float targets \[B, K\], got logits \[3, 4\] and labels \[3, 3\]"),
        (np.eye(4, dtype=int)[:3], "of int64"),
    ]:
        with pytest.raises(ValueError, match=message):
            ops.softmax_cross_entropy(z, labels)
    with pytest.raises(ValueError, match="label_smoothing must lie"):
        ops.softmax_cross_entropy(z, np.array([0, 1, 2]), 1.0)


def test_mse(rng):
    x, y = rng.standard_normal((2, 3, 4))
    assert abs(ops.mse(Tensor(x), Tensor(y)).item() - ((x - y) ** 2).mean()) < 1e-15
    check_grads(ops.mse, x, y)
    with pytest.raises(ValueError, match=r"mse expects equal shapes, got \[3, 4\] and \[4\]"):
        ops.mse(Tensor(x), Tensor(y[0]))


# ---------------------------------------------------------------- all of them


def functions(base=Function):
    """Every Function of the library, however deep it inherits."""
    for cls in base.__subclasses__():
        if cls.__module__.startswith("minispike."):
            yield cls
        yield from functions(cls)


NO_PRODUCTS = {
    "Add", "Sub", "Mul", "Div", "Neg", "Power", "Exp", "Log", "Tanh", "Rectify", "Reshape", "Transpose",
    "BroadcastTo", "GetItem", "Take", "Put", "Stack", "Sum", "AvgPool2d", "MaxPool2d", "Normalise",
    "SoftmaxCrossEntropy", "Spike", "IntegrateAndFire", "NormaliseAndFire", "Price",
}  # fmt: skip


def test_every_contraction_states_its_cost_and_fan_out():
    """An op is in the list of those that contract nothing, or it defines both."""
    names = {cls.name for cls in functions()}  # a fast form has its op's name, and inherits both
    assert names >= NO_PRODUCTS  # the list itself does not rot
    contractions = [cls for cls in functions() if cls.name not in NO_PRODUCTS]
    assert {cls.name for cls in contractions} == {
        "MatMul", "MatMulAdd", "Convolve2d", "ConvolveDepthwise2d", "Fourier", "Wavelet",
    }  # fmt: skip
    assert all(callable(cls.cost) and callable(cls.fan_out) for cls in contractions)


def test_costs_count_the_multiplications_of_the_loops():
    assert MatMul.cost((2, 1, 3, 4), (5, 4, 6)) == 2 * 5 * 3 * 4 * 6
    assert MatMulAdd.cost((2, 3, 4), (4, 6), (6,)) == 2 * 3 * 4 * 6
    assert (
        ops.conv.Convolve2d.cost((2, 8, 8, 3), (3, 3, 3, 5), stride=2, padding=1) == 2 * 4 * 4 * 3 * 3 * 3 * 5
    )
    assert (
        ops.conv.ConvolveDepthwise2d.cost((2, 8, 8, 3), (3, 3, 3), stride=1, padding=0)
        == 2 * 6 * 6 * 3 * 3 * 3
    )


def test_a_function_can_be_called_alone(rng):
    f = MatMulAdd()
    f.xp = np
    x, w, b = rng.standard_normal((2, 3)), rng.standard_normal((3, 4)), rng.standard_normal(4)
    y = f.forward(x, w, b)
    gx, gw, gb = f.backward(np.ones_like(y))
    assert (gx.shape, gw.shape, gb.shape) == (x.shape, w.shape, b.shape)
    np.testing.assert_allclose(gb, [2, 2, 2, 2])


def test_no_gradient_is_computed_for_an_input_that_needs_none(rng):
    x, w = rng.standard_normal((2, 6, 6, 1)), Tensor(rng.standard_normal((3, 3, 1, 2)), requires_grad=True)
    y = ops.conv2d(x, w)
    gx, gw = y.creator.backward(np.ones_like(y.data))
    assert gx is None and gw.shape == w.shape


def test_an_axis_below_the_first_is_refused(rng):
    with pytest.raises(ValueError, match=r"axis -3 is outside an array of shape \[2, 3\]"):
        ops.sum(Tensor(rng.standard_normal((2, 3))), -3)


def numbers_around_30(*shape):
    return (30.1 + np.random.default_rng(0).standard_normal(shape)).astype("float32")


def test_column_sums_add_up_in_float64():
    """Of two columns: a single one NumPy itself would sum pairwise."""
    x = numbers_around_30(2_000_100, 2)
    total = column_sums(x)
    assert total.dtype == "float64" and abs(total / x.sum(0, dtype="float64") - 1).max() < 1e-7


@pytest.mark.parametrize("op", ["linear", "conv2d", "batch_norm"])
def test_bias_gradients_keep_float32s_digits(op):
    gy, ones = numbers_around_30(1000, 1000, 2), np.ones(2, "float32")
    x, w, b = 0 * gy, Tensor(np.eye(2, dtype="float32")), Tensor(0 * ones, requires_grad=True)
    if op == "linear":
        y = ops.linear(x, w, b)
    elif op == "conv2d":
        y = ops.conv2d(x, w.reshape(1, 1, 2, 2), b)
    else:
        y = ops.batch_norm(x, ones, b, 0 * ones, ones, training=False)
    y.backward(gy)
    exact = gy.sum((0, 1), dtype="float64")
    assert abs(b.grad / exact - 1).max() < 1e-6
    assert abs(np.cumsum(gy[..., 0], dtype="float32")[-1] / exact[0] - 1) > 1e-5  # one running sum


def test_chunks_and_threads_change_no_bias_and_no_depthwise_gradient(rng, monkeypatch):
    x, b, gy = rng.standard_normal((7, 8, 8, 3)), rng.standard_normal(3), rng.standard_normal((7, 8, 8, 3))
    kernels = {ops.conv2d: rng.standard_normal((3, 3, 3, 3)), ops.depthwise_conv2d: rng.random((3, 3, 3))}

    def run():
        found = []
        for convolve, w in kernels.items():
            tensors = [Tensor(a, requires_grad=True) for a in (x, w, b)]
            y = convolve(*tensors, padding=1)
            y.backward(gy)
            found += [y.data, *(tensor.grad for tensor in tensors)]
        return found

    whole = run()
    monkeypatch.setattr("minispike.kernels.unfolded.CHUNK_BYTES", 1)
    for threads in (1, 2):
        monkeypatch.setattr("minispike.parallel._threads", threads)
        for a, b_ in zip(whole, run(), strict=True):
            np.testing.assert_allclose(a, b_, rtol=1e-12, atol=1e-12)


def test_windows_in_which_padding_goes_wrong_are_refused(rng):
    x = rng.standard_normal((1, 40, 40, 2))
    with pytest.raises(ValueError, match="conv2d's 1×3 windows would see padding 1 alone"):
        ops.conv2d(x, np.ones((1, 3, 2, 4)), padding=1)
    for f in (
        lambda: ops.conv2d(x, np.ones((3, 3, 2, 4)), padding=-1),
        lambda: ops.depthwise_conv2d(x, np.ones((3, 3, 2)), padding=-1),
        lambda: ops.max_pool2d(x, 3, stride=1, padding=-1),
    ):
        with pytest.raises(ValueError, match="stride >= 1 and padding >= 0, got 1 and -1"):
            f()
    for k, padding in ((17, 0), (3, 2)):  # a byte has no room for 17² taps
        with pytest.raises(ValueError, match=f"max_pool2d needs .* got k={k}, padding={padding}"):
            ops.max_pool2d(x, k, padding=padding)


def test_a_pools_stride_is_its_side_unless_given():
    for pool in (ops.max_pool2d, ops.avg_pool2d):
        assert pool(np.zeros((1, 9, 9, 1)), 3).shape == (1, 3, 3, 1)


def test_the_variance_of_a_trend(rng):
    x = rng.standard_normal((500, 3)) + np.arange(500)[:, None]
    mean, var = norm.moments(x)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-12)
    np.testing.assert_allclose(var, x.var(0), rtol=1e-12)


def test_cross_entropy_takes_each_rows_own_largest():
    loss = ops.softmax_cross_entropy(np.array([[1e4, 0.0], [0.0, 0.0]]), np.array([0, 0]))
    assert abs(loss.item() - np.log(2) / 2) < 1e-12


def test_cross_entropy_refuses_flags_and_less_than_no_smoothing(rng):
    z = rng.standard_normal((3, 4))
    with pytest.raises(ValueError, match=r"label_smoothing must lie in \[0, 1\), got -0.1"):
        ops.softmax_cross_entropy(z, np.array([0, 1, 2]), -0.1)
    with pytest.raises(ValueError, match="of bool"):
        ops.softmax_cross_entropy(z, np.array([True, False, True]))
