"""Cross-entropy at the edge of the numbers, against PyTorch: value and gradient."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from minispike import Tensor, ops  # noqa: E402

pytestmark = pytest.mark.oracle

INF = np.inf
LOGITS = [
    [[0.0, -INF, 1.0], [2.0, 1.0, -INF]],  # a class that is impossible, and not the target
    [[-INF, 0.0, 1.0], [1.0, 2.0, 3.0]],  # the target is impossible: the loss is infinite
    [[1e30, 0.0, -1e30], [-1e30, 1e30, 0.0]],
    [[-1e30, 1e30, 0.0], [0.0, 0.0, 0.0]],
    [[INF, 0.0, 1.0], [1.0, 2.0, 3.0]],  # ∞ − ∞: NaN there, too
    [[-INF, -INF, -INF], [1.0, 2.0, 3.0]],
]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("logits", LOGITS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_hard_labels(logits, smoothing, dtype):
    labels = np.array([0, 1])
    z = Tensor(np.array(logits, dtype), requires_grad=True)
    t = torch.tensor(logits, dtype=getattr(torch, dtype), requires_grad=True)
    with np.errstate(all="ignore"):
        loss = ops.softmax_cross_entropy(z, labels, smoothing)
        loss.backward()
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(labels), label_smoothing=smoothing)
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-6)
    np.testing.assert_allclose(z.grad, t.grad.numpy(), rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("logits", LOGITS[2:4])
def test_soft_targets(logits):
    targets = np.array([[0.7, 0.3, 0.0], [0.0, 1.0, 0.0]])
    z, t = (
        Tensor(np.array(logits), requires_grad=True),
        torch.tensor(logits, requires_grad=True, dtype=torch.float64),
    )
    loss, expected = (
        ops.softmax_cross_entropy(z, targets),
        torch.nn.functional.cross_entropy(t, torch.tensor(targets)),
    )
    loss.backward()
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)
    np.testing.assert_allclose(z.grad, t.grad.numpy(), atol=1e-12)


def test_a_soft_targets_zero_keeps_an_impossible_class_out():
    """PyTorch multiplies 0 · −∞ there and gives NaN; ours is the sum over the classes with a target."""
    logits, targets = np.array([[0.0, -INF, 1.0]]), np.array([[0.25, 0.0, 0.75]])
    z = Tensor(logits, requires_grad=True)
    loss = ops.softmax_cross_entropy(z, targets)
    loss.backward()
    assert np.isnan(torch.nn.functional.cross_entropy(torch.tensor(logits), torch.tensor(targets)).item())
    t = torch.tensor(logits[:, [0, 2]], requires_grad=True)
    expected = torch.nn.functional.cross_entropy(t, torch.tensor(targets[:, [0, 2]]))
    expected.backward()
    np.testing.assert_allclose(loss.item(), expected.item(), rtol=1e-12)
    np.testing.assert_allclose(z.grad[:, [0, 2]], t.grad.numpy(), atol=1e-12)
    assert z.grad[0, 1] == 0
