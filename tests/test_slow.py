"""The long proofs: gradients through whole models in every mode, and the published sizes at work."""

import numpy as np
import pytest

from minispike import check_grads, create_model, no_grad, ops
from minispike.surrogate import ATan, FastSigmoid, Sigmoid, Triangle

from .blocks.test_blocks import lively

pytestmark = pytest.mark.slow

# Not Rectangle: Rectangle(1) has its kink at u = −½, where the attention neuron (threshold ½) rests when
# nothing comes in, so there the model has no derivative; and through three blocks some neuron always crosses
# a kink. It is proved in test_neuron.py.
SURROGATES = [Sigmoid(), ATan(), Triangle(), FastSigmoid()]


@pytest.mark.parametrize("v_reset", [0.0, -0.2, None])
@pytest.mark.parametrize("surrogate", SURROGATES, ids=repr)
def test_gradients_through_a_deep_model_in_every_mode(rng, surrogate, v_reset):
    model = create_model(
        "spikformer_1_64_digits", depth=3, embed_dim=16, dtype="float64", smooth=True, detach_reset=False,
        surrogate=surrogate, v_reset=v_reset,
    )  # fmt: skip
    lively(model, rng)
    x, labels = rng.standard_normal((2, 8, 8, 1)), np.array([3, 7])

    def loss(x):
        return ops.softmax_cross_entropy(model(x), labels, 0.1)

    check_grads(loss, x, *model.parameters(), eps=1e-7)  # at 1e-6 a pool's winner changes now and then


@pytest.mark.parametrize(
    "name, pools",
    [("spikformer_4_384_cifar10", 2), ("spikformer_8_384_imagenet", 4), ("spikformer_2_256_cifar10dvs", 4)],
)
def test_gradients_through_each_published_shape_at_a_small_width(rng, name, pools):
    side = 2 * 2**pools
    model = create_model(
        name, depth=2, embed_dim=16, num_heads=4, img_size=side, num_classes=5, dtype="float64", smooth=True,
        detach_reset=False,
    )  # fmt: skip
    lively(model, rng)
    x = rng.standard_normal((2, 2, side, side, model.in_channels))  # frames
    check_grads(model, x, *model.parameters())


def test_a_published_model_runs_a_step_in_float32_as_in_float64(rng):
    """Spikformer-4-256: in smooth mode no spike can flip, so single and double precision stay close.

    Before a pool less so: where float32 cannot tell a window's two largest values apart, its gradient may go
    to the other one.
    """
    x, labels, results = rng.standard_normal((2, 32, 32, 3)), np.array([1, 7]), []
    for dtype in ("float64", "float32"):
        model = create_model("spikformer_4_256_cifar10", dtype=dtype, smooth=True)
        loss = ops.softmax_cross_entropy(model(x.astype(dtype)), labels)
        loss.backward()
        with no_grad():
            logits = model.eval()(x.astype(dtype)).data
        weights = {path: p.grad for path, p in model.named_parameters() if path.endswith("weight")}
        results.append((loss.item(), logits, weights))
    (loss, logits, grads), (loss32, logits32, grads32) = results
    assert abs(loss - loss32) < 1e-4 and abs(logits - logits32).max() < 1e-4
    for path, grad in grads.items():
        near = 2e-2 if path.startswith("stem.stages") else 1e-4
        assert abs(grad - grads32[path]).max() < near * abs(grad).max(), path
