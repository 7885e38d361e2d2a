"""Modules and the brick: finding parameters, saving, folding, the static shortcut, and clear refusals."""

import copy
import pickle
from contextlib import nullcontext

import numpy as np
import pytest

from minispike import (
    LIF,
    BatchNorm,
    Conv2d,
    DepthwiseConv2d,
    Linear,
    Module,
    Parameter,
    Spiking,
    Tensor,
    create_model,
    no_grad,
)
from minispike.nn import mode
from minispike.surrogate import Sigmoid


class Net(Module):
    """Two levels, a list, a buffer and something that is neither."""

    def __init__(self, rng):
        self.first = Linear(4, 3, rng=rng)
        self.layers = [Spiking(Linear(3, 5, bias=False, rng=rng)), BatchNorm(5)]
        self.scale, self.table, self.name = Parameter(np.ones(2)), np.zeros((2, 2)), "net"


PATHS = [
    "scale", "table", "first.weight", "first.bias", "layers.0.map.weight", "layers.0.norm.weight",
    "layers.0.norm.bias", "layers.0.norm.running_mean", "layers.0.norm.running_var", "layers.1.weight",
    "layers.1.bias", "layers.1.running_mean", "layers.1.running_var",
]  # fmt: skip


def test_parameters_and_buffers_are_found_in_order(rng):
    net = Net(rng)
    buffers = [path for path in PATHS if "running" in path or path == "table"]
    assert list(net.state_dict()) == PATHS
    assert [path for path, _ in net.named_parameters()] == [path for path in PATHS if path not in buffers]
    assert net.num_params() == 2 + 12 + 3 + 15 + 5 + 5 + 5 + 5
    assert [path for path, _ in net.named_modules()][:5] == [
        "",
        "first",
        "layers.0",
        "layers.0.map",
        "layers.0.norm",
    ]


def test_state_goes_round(rng):
    net, other = Net(rng), Net(rng)
    before = {path: array.copy() for path, array in net.state_dict().items()}
    assert any(not np.array_equal(before[path], array) for path, array in other.state_dict().items())
    held = other.first.weight.data
    other.load_state_dict(before)
    assert all(np.array_equal(before[path], array) for path, array in other.state_dict().items())
    assert other.first.weight.data is held  # written in place: an optimizer still holds the right array


def test_a_state_that_does_not_fit_is_named_and_nothing_is_written(rng):
    net = Net(rng)
    state = {path: array + 1 for path, array in net.state_dict().items()}
    del state["first.bias"]
    state["head.weight"], state["scale"] = np.ones(3), np.ones((2, 1))
    before = net.first.weight.data.copy()
    with pytest.raises(ValueError) as error:
        net.load_state_dict(state)
    for part in [
        "of Net",
        "missing first.bias [3]",
        "unexpected head.weight [3]",
        "scale is [2, 1], expected [2]",
    ]:
        assert part in str(error.value)
    assert np.array_equal(net.first.weight.data, before)


def test_to_converts_parameters_and_buffers(rng):
    net = Net(rng).to(dtype="float32")
    assert {array.dtype.name for array in net.state_dict().values()} == {"float32"}
    net.first.weight.grad = np.ones(1)
    assert net.to(dtype="float64").first.weight.grad is None
    with pytest.raises(ValueError, match="unknown device 'tpu'; known: .*cpu.*cuda"):
        net.to("tpu")
    for dtype in ("int8", "float16"):
        with pytest.raises(ValueError, match=f"dtype must be 'float32' or 'float64', got '{dtype}'"):
            net.to(dtype=dtype)


def test_train_and_eval_reach_every_module(rng):
    net = Net(rng)
    assert net.eval() is net and not any(module.training for _, module in net.named_modules())
    assert net.train().layers[0].norm.training


def test_weights_start_as_documented(rng):
    w = Linear(400, 300, rng=rng)
    assert abs(w.weight.data.std() / 0.02 - 1) < 0.02 and not w.bias.data.any()
    conv, depthwise = Conv2d(16, 64, rng=rng).weight.data, DepthwiseConv2d(500, 5, rng=rng).weight.data
    assert 0.98 / 12 < abs(conv).max() <= 1 / 12 and 0.98 / 5 < abs(depthwise).max() <= 1 / 5
    assert Linear(3, 3, bias=False, rng=rng).bias is None
    again = Linear(3, 3, rng=7).weight.data
    assert np.array_equal(Linear(3, 3, rng=7).weight.data, again)
    assert not np.array_equal(Linear(3, 3, rng=8).weight.data, again)


@pytest.mark.parametrize(
    "k, stride, padding, side", [(3, 1, None, 6), (3, 2, None, 3), (2, 2, 0, 3), (5, 1, 0, 2)]
)
def test_convolutions_have_their_geometry(rng, k, stride, padding, side):
    x = rng.standard_normal((2, 6, 6, 3))
    assert Conv2d(3, 4, k, stride, padding, rng=rng)(x).shape == (2, side, side, 4)
    assert DepthwiseConv2d(3, k, stride, padding, rng=rng)(x).shape == (2, side, side, 3)


def test_batch_norms_settings_count(rng):
    x = 5 * rng.standard_normal((100, 2))
    slow, fast = BatchNorm(2), BatchNorm(2, momentum=1.0)
    assert not np.allclose(slow(x).data, BatchNorm(2, eps=10.0)(x).data)
    fast(x)
    np.testing.assert_allclose(fast.running_mean, x.mean(0))
    np.testing.assert_allclose(slow.running_mean, 0.1 * x.mean(0))
    np.testing.assert_allclose(fast.eval()(x).data.mean(0), 0, atol=1e-12)


@pytest.mark.parametrize("alone", [True, False], ids=["batch norm", "with its neuron"])
def test_a_graph_in_eval_mode_outlives_the_next_training_step(rng, alone):
    """The running mean moves in place; a backward that is still to come needs the one it was run with."""
    x, gradients = rng.standard_normal((4, 10, 3)), []
    for late in (False, True):
        model = BatchNorm(3) if alone else settled(Spiking(Linear(3, 3, rng=0)), np.random.default_rng(1))
        model.train()(x)
        y = model.eval()(Tensor(x, requires_grad=True))
        if late:
            model.train()(x + 5)
        y.backward(np.ones(y.shape))
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(abs(a).max() > 0 and np.array_equal(a, b) for a, b in zip(*gradients, strict=True))


def test_a_mode_ends_as_it_began_even_in_an_error(rng):
    model = create_model("spikformer_1_64_digits", depth=0, embed_dim=16)
    for training in (True, False):
        model.train(training)
        with pytest.raises(ValueError), mode(model, not training):
            assert all(module.training is not training for _, module in model.named_modules())
            model(rng.standard_normal((1, 3, 3, 1)))
        assert all(module.training is training for _, module in model.named_modules())


# ---------------------------------------------------------------- the brick

MAPS = {
    "linear": lambda rng: (Linear(3, 4, rng=rng), (4, 2, 6, 3)),
    "linear without bias": lambda rng: (Linear(3, 4, bias=False, rng=rng), (4, 2, 6, 3)),
    "conv": lambda rng: (Conv2d(3, 4, rng=rng), (4, 2, 5, 5, 3)),
    "depthwise": lambda rng: (DepthwiseConv2d(3, rng=rng), (4, 2, 5, 5, 3)),
}


def settled(brick, rng):
    """Give a brick's norm and bias values of no particular kind."""
    for array in (brick.norm.weight.data, brick.norm.running_var):
        array[...] = rng.uniform(0.5, 2, array.shape)
    for array in (brick.norm.bias.data, brick.norm.running_mean):
        array[...] = rng.standard_normal(array.shape)
    if brick.map.bias is not None:
        brick.map.bias.data[...] = rng.standard_normal(brick.map.bias.shape)
    return brick


@pytest.mark.parametrize("name", MAPS)
def test_a_brick_is_neuron_after_norm_after_map(rng, name):
    map, shape = MAPS[name](rng)
    brick, x = settled(Spiking(map), rng), rng.standard_normal(shape)
    expected = brick.neuron(brick.norm(brick.map(x))).data
    assert np.array_equal(brick(x).data, expected) and 0 < expected.mean() < 1


@pytest.mark.parametrize("name", MAPS)
def test_in_eval_mode_batch_norm_is_its_fold(rng, name):
    map, shape = MAPS[name](rng)
    brick, x = settled(Spiking(map, LIF(smooth=True)), rng).eval(), rng.standard_normal(shape)
    scale, shift = brick.norm.fold()
    expected = brick.neuron(brick.map(x) * scale + shift).data
    np.testing.assert_allclose(brick(x).data, expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", MAPS)
def test_a_static_input_equals_itself_repeated(rng, name):
    map, shape = MAPS[name](rng)
    x, gy = rng.standard_normal((1, *shape[1:])), None
    once, four = settled(Spiking(map), rng), Spiking(map)
    four.load_state_dict({path: array.copy() for path, array in once.state_dict().items()})
    results = []
    for brick, leaf, T in [
        (once, Tensor(x, requires_grad=True), 4),
        (four, Tensor(np.repeat(x, 4, 0), requires_grad=True), 1),
    ]:
        for parameter in brick.parameters():
            parameter.grad = None
        y = brick(leaf, T=T)
        gy = rng.standard_normal(y.shape) if gy is None else gy
        y.backward(gy)
        state = brick.norm.running_mean.copy(), brick.norm.running_var.copy()
        results.append([y.data, leaf.grad.sum(0), *state, *(p.grad for p in brick.parameters())])
    for a, b in zip(*results, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-10)
    assert results[0][0].shape == (4, *once.map(x).shape[1:])


def test_only_a_static_input_is_repeated(rng):
    with pytest.raises(ValueError, match=r"static input \[1, …\] is repeated T = 4 times, got 2 steps"):
        Spiking(Linear(3, 4, rng=rng))(rng.standard_normal((2, 5, 3)), T=4)


def test_a_layer_refuses_by_name(rng):
    net = Net(rng)

    class Outer(Module):
        def __init__(self):
            self.inner = [net.layers[0]]

        def forward(self, x):
            return self.inner[0](x)

    with pytest.raises(
        ValueError, match=r"inner.0.map \(Linear\): linear expects x \[..., 3\] .* got \[2, 2\]"
    ):
        Outer()(np.ones((2, 2)))
    with pytest.raises(TypeError, match=r"inner.0.map \(Linear\): MatMulAdd got float32\[2, 3\]"):
        Outer()(np.ones((2, 3), "float32"))
    with pytest.raises(ValueError, match="tau > 1, got 1"):
        LIF(tau=1)


def test_a_frozen_norm_is_still_frozen_when_a_mode_ends(rng):
    net = Net(rng)
    net.layers[1].eval()
    with mode(net, training=False):
        pass
    assert net.training and net.layers[0].norm.training and not net.layers[1].training


def test_kernels_start_on_both_sides_of_0(rng):
    for layer, bound in ((Conv2d(16, 64, rng=rng), 1 / 12), (DepthwiseConv2d(500, 5, rng=rng), 1 / 5)):
        w = layer.weight.data / bound  # uniform within ±1: mean 0, deviation 1/√3
        assert abs(w.mean()) < 0.03 and abs(w.std() * 3**0.5 - 1) < 0.03


def test_a_brick_has_its_norms_eps(rng):
    brick, x = settled(Spiking(Linear(3, 4, rng=rng), LIF(smooth=True)), rng), rng.standard_normal((4, 6, 3))
    brick.norm.eps = 0.5
    for training in (True, False):
        brick.train(training)
        expected = brick.neuron(brick.norm(brick.map(x))).data
        np.testing.assert_allclose(brick(x).data, expected, rtol=1e-12)


# ---------------------------------------------------------------- a class of one's own in a brick


class CountedLIF(LIF):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


class CountedNorm(BatchNorm):
    calls = 0

    def forward(self, x):
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("T", [1, 3])
@pytest.mark.parametrize("where", ["training", "evaluation with gradients", "evaluation without"])
@pytest.mark.parametrize("part", ["neuron", "norm"])
def test_a_subclass_in_a_brick_is_called(rng, part, where, T):
    """Only BatchNorm and LIF themselves run as one op; any other class is called, with the same result."""
    plain, other = (Spiking(Linear(4, 5, rng=np.random.default_rng(0))) for _ in range(2))
    setattr(other, part, CountedLIF() if part == "neuron" else CountedNorm(5))
    for brick in (plain, other):
        brick.norm.weight.data[...], brick.norm.bias.data[...] = 3, np.linspace(0, 4, 5)
        brick.train(where == "training")
    x = rng.standard_normal((1 if T > 1 else 4, 6, 4))
    with no_grad() if where == "evaluation without" else nullcontext():
        one, two = plain(x, T=T), other(x, T=T)
    assert getattr(other, part).calls == 1
    np.testing.assert_array_equal(one.data, two.data)
    assert one.data.any() and len(one) == (T if T > 1 else 4)
    for name in ("running_mean", "running_var"):  # the norm counts T equal steps either way
        np.testing.assert_allclose(getattr(plain.norm, name), getattr(other.norm, name), rtol=1e-12)


def test_a_layers_constants_can_be_read_and_not_be_set():
    layer = LIF(tau=3.0, v_reset=None)
    assert (layer.tau, layer.v_threshold, layer.v_reset) == (3.0, 1.0, None)
    assert layer.detach_reset and not layer.smooth and layer.surrogate == Sigmoid(4.0)
    with pytest.raises(AttributeError):
        layer.tau = 2.0
    with pytest.raises(TypeError, match="taau"):
        LIF(taau=3.0)
    for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert copied.constants == layer.constants
