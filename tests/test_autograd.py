"""The engine: order of backward, accumulation, freeing, tracing, and its refusals."""

import gc
import weakref

import numpy as np
import pytest

from minispike import Function, Linear, Module, Tensor, no_grad, ops, trace


def test_a_chain_of_many_ops_needs_no_recursion():
    x = Tensor(np.array(1.0), requires_grad=True)
    y = x
    for _ in range(5000):
        y = y + 1.0
    y.backward()
    assert y.item() == 5001 and x.grad == 1


def test_gradients_of_a_shared_input_are_summed(rng):
    x = Tensor(rng.standard_normal(3), requires_grad=True)
    y = x * x + x  # a diamond: x is used three times
    (y * y).sum().backward()
    a = x.data
    np.testing.assert_allclose(x.grad, 2 * (a * a + a) * (2 * a + 1))


def test_each_function_is_visited_once_after_all_its_gradients_have_come():
    visits = []

    class Double(Function):
        def forward(self, x):
            return 2 * x

        def backward(self, gy):
            visits.append(float(gy))
            return 2 * gy

    x = Tensor(1.0, requires_grad=True)
    y = Double.apply(x)
    z = y
    for _ in range(10):  # 2^10 paths, one visit
        z = z + z
    z.backward()
    assert visits == [1024.0] and x.grad == 2048


def test_a_single_number_may_have_any_shape_and_kind():
    x = Tensor(np.full(1, 3.0, "float32"), requires_grad=True)
    y = x ** np.float64(2)
    assert y.dtype == "float32" and y.item() == 9 and Tensor(np.ones((1, 1))).item() == 1
    y.backward(np.ones(1, "float32"))
    assert x.grad.tolist() == [6]
    with pytest.raises(ValueError):
        Tensor(np.ones(2)).item()


def test_backward_adds_to_grad():
    x = Tensor(np.ones(2), requires_grad=True)
    for _ in range(2):
        (x * 3.0).sum().backward()
    assert x.grad.tolist() == [6, 6]


def test_a_leafs_gradient_is_its_own_array():
    a, b = Tensor(np.ones(3), requires_grad=True), Tensor(np.ones(3), requires_grad=True)
    gy = np.ones(3)
    (a + b).backward(gy)
    a.grad += 5
    assert b.grad.tolist() == [1, 1, 1] and gy.tolist() == [1, 1, 1]
    a.backward(gy)
    a.grad += 1
    assert gy.tolist() == [1, 1, 1]
    a.grad = b.grad = None
    ((a + b) * 2.0).sum().backward()  # one array arrives at the sum, and goes on to both
    a.grad *= 0.5
    assert a.grad.tolist() == [1, 1, 1] and b.grad.tolist() == [2, 2, 2]
    a.grad = None
    a.sum().backward()  # this gradient is a broadcast view of one number
    a.grad += 1


def test_intermediate_data_is_freed_in_the_forward_and_the_rest_in_backward():
    x = Tensor(np.ones(4), requires_grad=True)
    y = x + 1.0  # Add keeps nothing
    z = ops.exp(y)  # Exp keeps its output
    loss = z.sum()
    y_data, z_data = weakref.ref(y.data), weakref.ref(z.data)
    del y, z
    gc.collect()
    assert y_data() is None and z_data() is not None
    loss.backward()
    gc.collect()
    assert z_data() is None


def test_a_second_backward_says_that_the_graph_is_gone():
    x = Tensor(np.ones(2), requires_grad=True)
    y = (x * x).sum()
    y.backward()
    with pytest.raises(RuntimeError, match="Sum twice"):
        y.backward()
    a, b = ops.exp(x), ops.tanh(x)
    (a + b).sum().backward()
    with pytest.raises(RuntimeError, match="Exp twice"):  # two freed functions at a time
        (a * b).sum().backward()


def test_a_gradient_of_the_wrong_shape_or_dtype_names_the_op():
    class Wrong(Function):
        def forward(self, x, make):
            self.make = make
            return x * 2

        def backward(self, gy):
            return self.make(gy)

    x = Tensor(np.ones((2, 3)), requires_grad=True)
    with pytest.raises(ValueError, match=r"Wrong.backward returned float64\[3\] .*float64\[2, 3\]"):
        Wrong.apply(x, make=lambda gy: gy.sum(0)).sum().backward()
    with pytest.raises(ValueError, match=r"Wrong.backward returned float32\[2, 3\]"):
        Wrong.apply(x, make=lambda gy: gy.astype("float32")).sum().backward()


def test_no_grad_records_nothing():
    x = Tensor(np.ones(2), requires_grad=True)
    with no_grad():
        y = x * 2.0
    assert y.creator is None and not y.requires_grad
    with pytest.raises(RuntimeError, match="requires no gradient"):
        y.backward()
    assert (x * 2.0).requires_grad


def test_detach_stops_the_gradient():
    x = Tensor(np.array([3.0]), requires_grad=True)
    (x * x.detach()).sum().backward()
    assert x.grad == [3]


def test_backward_wants_a_gradient_of_the_outputs_shape():
    y = Tensor(np.ones((2, 2)), requires_grad=True) * 1.0
    with pytest.raises(ValueError, match=r"\[2, 2\] needs a gradient"):
        y.backward()
    with pytest.raises(ValueError, match=r"expected gy float64\[2, 2\].*got float32\[2, 2\]"):
        y.backward(np.ones((2, 2), "float32"))


@pytest.mark.parametrize(
    "data", [[1, 2], np.ones(3, "int64"), np.ones(3, bool), np.ones(3, "float16"), ["a"]]
)
def test_only_float32_and_float64_become_tensors(data):
    with pytest.raises(TypeError, match="a Tensor holds float32 or float64, got"):
        Tensor(data)


def test_dtypes_do_not_mix_silently():
    with pytest.raises(TypeError, match=r"Add got float32\[2\] on cpu together with float64\[2\]"):
        Tensor(np.ones(2, "float32")) + Tensor(np.ones(2))
    assert (Tensor(np.ones(2, "float32")) * 0.1 + np.float64(1)).dtype == "float32"  # numbers adapt


def test_an_op_needs_an_array():
    with pytest.raises(ValueError, match="Add needs at least one Tensor or array"):
        ops.add(1.0, 2.0)


def test_an_array_on_the_left_of_a_tensor():
    y = np.ones(3) + Tensor(np.ones(3))
    assert isinstance(y, Tensor) and y.data.tolist() == [2, 2, 2]


def test_a_tensor_does_not_become_an_array_by_accident():
    with pytest.raises(TypeError, match="use .data"):
        np.asarray(Tensor(np.ones(2)))


def test_trace_reports_every_apply_with_its_place_also_without_gradients(rng):
    class Net(Module):
        def __init__(self):
            self.layers = [Linear(3, 4, rng=rng), Linear(4, 2, rng=rng)]

        def forward(self, x):
            return ops.tanh(self.layers[1](self.layers[0](x)))

    net, x, seen = Net(), rng.standard_normal((5, 3)), []
    with (
        no_grad(),
        trace(lambda f, inputs, y, path: seen.append((f.name, inputs[0].shape, y.shape, path))),
    ):
        net(x)
    assert seen == [
        ("MatMulAdd", (5, 3), (5, 4), "layers.0"),
        ("MatMulAdd", (5, 4), (5, 2), "layers.1"),
        ("Tanh", (5, 2), (5, 2), ""),
    ]
    net(x)
    assert len(seen) == 3  # outside the block nothing is reported


def test_traces_nest():
    outer, inner = [], []
    x = Tensor(np.ones(2))
    with trace(lambda *call: outer.append(call)):
        x + x
        with trace(lambda *call: inner.append(call)):
            x + x
    assert len(outer) == 2 and len(inner) == 1


def test_backward_on_a_leaf_adds_too():
    x = Tensor(np.ones(2), requires_grad=True)
    x.backward(np.ones(2))
    x.backward(np.full(2, 2.0))
    assert x.grad.tolist() == [3, 3]


def test_a_trace_ends_in_an_error_too():
    seen = []
    with pytest.raises(ValueError), trace(lambda *call: seen.append(call)):
        ops.transpose(np.ones((2, 2)), (0, 0))
    Tensor(np.ones(2)) + 1.0
    assert not seen


def test_a_tensor_is_neither_true_nor_false():
    for x in (Tensor(1.0), Tensor(np.zeros(2)), Tensor(np.zeros((0, 2)))):
        with pytest.raises(TypeError, match="a Tensor is neither true nor false"):
            bool(x)
