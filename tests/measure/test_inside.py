"""One sample seen from inside: the maps are the model's own numbers, by hand, for each kind of mixer."""

import numpy as np
import pytest

from minispike import Module, create_model, no_grad
from minispike.measure import inside, viz
from minispike.train import calibrate

from ..blocks.test_blocks import lively

FREE = "attention_free_fft1d_1_64_digits"


def looked_at(rng, name="spikformer_1_64_digits", block=0, **overrides):
    heads = {} if name == FREE else {"num_heads": 4}
    model = lively(create_model(name, embed_dim=16, dtype="float64", **heads, **overrides), rng)
    x = rng.standard_normal((1, 8, 8, 1))
    calibrate(model.train(), [(x, None)])  # so that every layer fires
    return inside.look(model, x, block), model, x


def test_what_is_kept_is_what_the_model_does(rng):
    found, model, x = looked_at(rng, depth=2, block=1)
    spikes = viz.spikes_of(model, x)
    names = ["q", "k", "v", "attention", "proj"]
    assert list(found.spikes) == [*(f"mixer.{name}" for name in names), "mlp.fc1", "mlp.fc2"]
    assert np.array_equal(found.spikes["mixer.attention"], spikes["blocks.1.mixer.attention"])
    with no_grad():
        tokens = model.eval().stem(x[None], T=4)
        entering = model.blocks[0](tokens).data
        logits = model(x).data[0]
    assert np.array_equal(found.tokens, tokens.data) and np.array_equal(found.entering, entering)
    assert not np.array_equal(found.tokens, found.entering)
    np.testing.assert_allclose(found.probabilities, np.exp(logits) / np.exp(logits).sum(), rtol=1e-12)


@pytest.mark.parametrize("aggregate", ["pool", "channel"])
def test_rates_by_place_have_the_layers_firing_rate_as_their_mean(rng, aggregate):
    found, model, x = looked_at(rng, "saformer_1_64_digits", aggregate=aggregate)
    rates = viz.firing_rates(model, x)
    assert len(found.rates()) == 7
    for path, rate in found.rates().items():
        key = f"blocks.0.{path}"
        assert rate == pytest.approx(rates.get(f"{key}.neuron", rates.get(key)), rel=1e-12)
        assert found.places(path).shape == (4, 4) and found.places(path).mean() == pytest.approx(rate)
    gate = found.spikes["mixer.aggregate.attention"]  # [T, B, heads, N, d]
    assert found.places("mixer.aggregate.attention")[2, 1] == gate[:, 0, :, 9].mean()
    local = found.spikes["mixer.dwc.conv"]  # [T, B, h, w, D]
    assert found.places("mixer.dwc.conv")[2, 1] == local[:, 0, 2, 1].mean()


def test_the_attention_of_ssa_counts_coincidences(rng):
    found, *_ = looked_at(rng)
    q, k = (found.spikes[f"mixer.{name}"][:, 0] for name in "qk")  # [T, N, D]
    whole, one = inside.mixing(found), inside.mixing(found, head=2)
    assert whole.matrix[3, 5] == (q[:, 3] * k[:, 5]).sum() and whole.matrix.sum() > 0
    assert one.matrix[3, 5] == (q[:, 3, 8:12] * k[:, 5, 8:12]).sum()
    title, values, (row, column) = whole.maps[0]
    assert np.array_equal(values, whole.matrix[4 * row + column].reshape(4, 4))
    assert whole.matrix[4 * row + column].sum() == whole.matrix.sum(1).max()
    assert title == f"query ({row}, {column}): {values.sum():.0f}" and len(whole.maps) == 3
    assert "all heads" in whole.about and "head 2" in one.about and "no Q and K" not in whole.about


def test_the_attention_of_sasa(rng):
    found, *_ = looked_at(rng, "saformer_1_64_digits")
    q, k = (found.spikes[f"mixer.{name}"][:, 0] for name in "qk")
    pooled = inside.mixing(found)
    cell = k[:, [2, 3, 6, 7]].sum(1)  # tokens of rows 0, 1 and columns 2, 3: cell 1
    assert pooled.matrix.shape == (16, 4) and pooled.matrix[3, 1] == (q[:, 3] * cell).sum()
    assert pooled.matrix.sum() > 0
    _, values, at = pooled.maps[0]
    assert np.array_equal(values[:2, 2:], np.full((2, 2), pooled.matrix[4 * at[0] + at[1], 1]))
    found, *_ = looked_at(rng, "saformer_1_64_digits", aggregate="global")
    q, k = (found.spikes[f"mixer.{name}"][:, 0] for name in "qk")
    assert inside.mixing(found).matrix[3].sum() == (q[:, 3] * k.sum(1)).sum()  # Q ⊙ Σ_j K, over channels
    found, *_ = looked_at(rng, "saformer_1_64_digits", aggregate="channel")
    gate = found.spikes["mixer.aggregate.attention"][:, 0, :, :, 0]  # [T, heads, N]
    maps = inside.mixing(found).maps
    assert len(maps) == 4 and np.array_equal(maps[1][1], gate[:, 1].mean(0).reshape(4, 4))
    ((title, only, _),) = inside.mixing(found, head=3).maps
    assert title.startswith("head 3: ") and np.array_equal(only, gate[:, 3].mean(0).reshape(4, 4))


@pytest.mark.parametrize("mixer", ["fft1d", "haar", "db2", "wavelets", "identity", "random"])
def test_a_transform_is_shown_by_its_matrix(rng, mixer):
    bases = {"bases": ("fft1d", "haar")} if mixer == "wavelets" else {}
    found, model, _ = looked_at(rng, FREE, mixer=mixer, **bases)
    mixed, transform = inside.mixing(found), model.blocks[0].mixer.map
    assert mixed.about.startswith(f"{mixer} has no Q and K")
    with no_grad():
        outputs = transform(found.entering).data
    np.testing.assert_allclose(mixed.matrix @ found.entering, outputs, atol=1e-12)
    strength = abs(outputs).mean((0, 1, 3))
    title, values, (row, column) = mixed.maps[0]
    assert strength[4 * row + column] == strength.max() and title == f"output {4 * row + column}"
    np.testing.assert_array_equal(values.ravel(), mixed.matrix[4 * row + column])
    rows = [values.ravel().tolist() for _, values, _ in mixed.maps]
    assert len(rows) == 3 and rows[0] != rows[1] != rows[2]  # no mirror image twice


def test_a_transform_over_channels_is_shown_by_its_coefficients(rng):
    found, model, _ = looked_at(rng, FREE, mixer="fft2d")
    mixed = inside.mixing(found)
    real = np.fft.fft2(found.entering[:, 0], norm="ortho").real.mean(0)
    np.testing.assert_allclose(mixed.matrix, real, atol=1e-12)
    assert not mixed.maps and "over tokens and channels" in mixed.about


def test_tokens_that_are_shown_lie_apart():
    strength = np.zeros(16)
    strength[[5, 6, 15]] = 3, 2.9, 2
    assert list(inside.spread(strength, (4, 4)))[:2] == [5, 15]  # 6 is next to 5
    assert list(inside.spread(np.zeros(2), (1, 2))) == [0, 1]


def test_what_cannot_be_shown_is_refused(rng):
    found, model, x = looked_at(rng)
    for block in (-1, 1):
        with pytest.raises(ValueError, match=f"no block {block}: the model has 1, counted from 0"):
            inside.look(model, x, block)
    with pytest.raises(ValueError, match=r"expected one sample, .* got \[2, 8, 8, 1\]"):
        inside.look(model, np.repeat(x, 2, 0))
    with pytest.raises(ValueError, match="no head 4: the mixer of block 0 has 4 heads, counted from 0"):
        inside.mixing(found, head=4)
    free, *_ = looked_at(rng, FREE)
    with pytest.raises(ValueError, match="no head 0: the mixer of block 0 has no heads"):
        inside.mixing(free, head=0)

    class Own(Module):
        def forward(self, x):
            return x

    model.blocks[0].mixer = Own()
    with pytest.raises(ValueError, match="what a Own mixes cannot be shown"):
        inside.mixing(inside.look(model, x))


def test_the_figure_holds_the_numbers(rng, tmp_path):
    found, *_ = looked_at(rng)
    mixed, classes = inside.mixing(found), list("abcdefghij")
    fig = inside.draw(found, rng.random((8, 8)), mixed, "a title", classes, 3)
    axes = {ax.get_title(): ax for ax in fig.axes}
    bars = axes["class probabilities"].patches
    np.testing.assert_allclose([bar.get_width() for bar in bars], 100 * np.sort(found.probabilities)[::-1])
    labels = [text.get_text() for text in axes["class probabilities"].get_yticklabels()]
    orange = [bar.get_facecolor()[0] > 0.8 for bar in bars]  # of the label alone
    assert orange.index(True) == labels.index("d") and sum(orange) == 1
    q = axes[f"q\n{found.rates()['mixer.q']:.1%}"].get_images()[0].get_array()
    np.testing.assert_allclose(q, 100 * found.places("mixer.q"))
    assert "stem, step 3" in axes and mixed.maps[2][0] in axes
    fig.savefig(tmp_path / "inside.png")
