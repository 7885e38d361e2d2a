"""The controls of a comparison of mixers, each against loops; frozen q and k; the model without spikes."""

import numpy as np
import pytest

from minispike import Tensor, create_model, load, ops, optim, save, trace
from minispike.blocks.control import MaxPoolMix, StaticMix
from minispike.blocks.softmax import SoftmaxAttention
from minispike.blocks.ssa import SSA
from minispike.fused import NormaliseAndFire
from minispike.measure.energy import count
from minispike.neuron import IntegrateAndFire

from .test_blocks import lively


def test_a_learned_matrix_mixes_every_image_alike_and_learns(rng):
    x, mix = rng.standard_normal((2, 3, 6, 4)), StaticMix(4, 6, rng=rng)
    expected = np.einsum("nm,tbmd->tbnd", mix.matrix.data, x)
    np.testing.assert_allclose(mix(x).data, expected, atol=1e-12)
    assert [path for path, _ in mix.named_parameters()] == ["matrix"]


def test_max_pool_takes_the_largest_of_nine_neighbours(rng):
    H, W = 3, 4
    x = rng.standard_normal((2, 1, H * W, 2))
    y = MaxPoolMix(2, (H, W))(x).data
    for n in range(H * W):
        near = [m for m in range(H * W) if max(abs(m // W - n // W), abs(m % W - n % W)) <= 1]
        assert np.array_equal(y[:, :, n], x[:, :, near].max(2))
    with pytest.raises(ValueError, match="MaxPoolMix expects the 12 tokens of a 3×4 grid, got 11"):
        MaxPoolMix(2, (H, W))(x[:, :, :11])


def test_softmax_attention_against_loops(rng):
    T, B, N, D, h = 2, 2, 5, 6, 3
    mixer, x = SoftmaxAttention(D, h, rng=rng), rng.integers(0, 3, (T, B, N, D)).astype(float)
    entering = []
    with trace(lambda f, inputs, y, path: path == "proj.map" and entering.append(inputs[0].data)):
        spikes = mixer(x).data
    q, k, v = (x @ each.weight.data + each.bias.data for each in (mixer.q, mixer.k, mixer.v))
    expected, d = np.zeros_like(q), D // h
    for t, b, head, n in np.ndindex(T, B, h, N):
        part = slice(head * d, (head + 1) * d)
        e = np.exp(k[t, b, :, part] @ q[t, b, n, part] / d**0.5)
        expected[t, b, n, part] = (e / e.sum()) @ v[t, b, :, part]
    np.testing.assert_allclose(entering[0], expected, atol=1e-12)
    assert set(np.unique(spikes)) <= {0.0, 1.0}
    with pytest.raises(ValueError, match="cannot split dim = 6 into 4 heads"):
        SoftmaxAttention(6, 4, rng=rng)


# ---------------------------------------------------------------- frozen q and k


def test_frozen_q_and_k_keep_their_weights_while_everything_else_learns(rng):
    model = lively(create_model("spikformer_1_64_digits", embed_dim=16, frozen=True, dtype="float64"), rng)
    before = {path: array.copy() for path, array in model.state_dict().items()}
    optimizer = optim.AdamW(model.parameters(), 1e-2)
    for _ in range(3):
        optimizer.zero_grad()
        x = rng.standard_normal((8, 8, 8, 1))
        ops.softmax_cross_entropy(model(x), rng.integers(0, 10, 8)).backward()
        optimizer.step()
    same = {path for path, array in model.state_dict().items() if np.array_equal(array, before[path])}
    mixer = "blocks.0.mixer"
    frozen = {f"{mixer}.{name}.map.{part}" for name in "qk" for part in ("weight", "bias")}
    assert same == frozen
    assert f"{mixer}.q.norm.weight" in dict(model.named_parameters())  # batch norm does learn


def test_frozen_attention_is_the_same_function_before_it_learns():
    two = (SSA(16, 2, frozen=frozen, rng=3) for frozen in (False, True))
    x = np.random.default_rng(0).integers(0, 2, (2, 2, 5, 16)).astype(float)
    one, other = (mixer(x).data for mixer in two)
    assert np.array_equal(one, other)


# ---------------------------------------------------------------- without spikes


def test_the_twin_has_no_neuron_and_real_numbers_in_their_place(rng):
    model = create_model("spikformer_1_64_digits", spiking=False, T=1, dtype="float64")
    ops_seen, outputs = set(), []

    def look(function, inputs, output, path):
        ops_seen.add(type(function).__mro__[0].__name__)
        assert not isinstance(function, (NormaliseAndFire, IntegrateAndFire))
        if function.name == "Rectify":
            outputs.append(output.data)

    with trace(look):
        model(Tensor(rng.standard_normal((2, 8, 8, 1))))
    assert len(outputs) == 5 + 4 + 1 + 2  # stem; q, k, v, proj; attention; MLP
    assert all((y >= 0).all() for y in outputs) and len(np.unique(outputs[0])) > 100
    spiking = create_model("spikformer_1_64_digits", T=1)
    assert model.num_params() == spiking.num_params()


def test_the_twin_needs_one_step_and_multiplies():
    with pytest.raises(ValueError, match="no time steps: it needs T = 1, got 4"):
        create_model("spikformer_1_64_digits", spiking=False)
    model = create_model("spikformer_1_64_digits", spiking=False, T=1)
    counted = count(model, np.random.default_rng(0).standard_normal((2, 8, 8, 1)).astype("float32"))
    assert counted.total("events").ac == 0 < counted.total("events").mac


@pytest.mark.parametrize("settings", [{"frozen": True}, {"spiking": False, "T": 1}], ids=str)
def test_they_are_saved_and_loaded(tmp_path, rng, settings):
    model = create_model("spikformer_1_64_digits", **settings)
    save(model, tmp_path / "m.safetensors")
    again, x = load(tmp_path / "m.safetensors"), rng.standard_normal((2, 8, 8, 1)).astype("float32")
    assert np.array_equal(model.eval()(x).data, again.eval()(x).data)
    assert len(again.parameters()) == len(model.parameters())
