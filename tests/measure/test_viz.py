"""Looking inside: what the pictures show is what the model did."""

import tracemalloc

import numpy as np
import pytest

from minispike import create_model
from minispike.measure import viz
from minispike.measure.profile import Row
from minispike.neuron import lif

from ..blocks.test_blocks import lively


@pytest.fixture
def model(rng):
    return lively(create_model("spikformer_1_64_digits", embed_dim=16), rng)


def test_spikes_are_found_by_path_and_in_order(model, rng):
    x = rng.standard_normal((3, 8, 8, 1)).astype("float32")
    spikes = viz.spikes_of(model, x)
    assert list(spikes)[:2] == ["stem.stages.0.neuron", "stem.stages.1.neuron"]
    mixer = [
        f"blocks.0.mixer.{name}" for name in ("q.neuron", "k.neuron", "v.neuron", "attention", "proj.neuron")
    ]
    assert list(spikes)[5:] == [*mixer, "blocks.0.mlp.fc1.neuron", "blocks.0.mlp.fc2.neuron"]
    assert spikes["stem.stages.0.neuron"].shape == (4, 3, 8, 8, 2) and model.training
    assert all(set(np.unique(s)) <= {0, 1} for s in spikes.values())
    rates = viz.firing_rates(model, x)
    assert rates == {path: float(s.mean()) for path, s in spikes.items()}
    two = viz.firing_rates(model, x, 2)  # two samples, then one
    assert list(two) == list(rates) and two == pytest.approx(rates, rel=1e-6)
    frames = (20 * rng.random((4, 3, 8, 8, 1))).astype("float32")
    assert viz.firing_rates(model, frames, 1) == pytest.approx(viz.firing_rates(model, frames), rel=1e-6)


def test_firing_rates_hold_no_more_than_a_batch(rng):
    model = create_model("spikformer_1_64_digits", T=8, embed_dim=16)
    x = rng.standard_normal((64, 8, 8, 1)).astype("float32")

    def peak(work):
        work()
        tracemalloc.start()
        work()
        held = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return held

    alone = peak(lambda: viz.firing_rates(model, x[:4]))
    assert (
        peak(lambda: viz.firing_rates(model, x, 4)) < 1.5 * alone < peak(lambda: viz.firing_rates(model, x))
    )


def test_the_attention_map_counts_coincidences(model, rng):
    spikes = viz.spikes_of(model, rng.standard_normal((2, 8, 8, 1)).astype("float32"))
    counts = viz.attention_map(spikes, "blocks.0.mixer", 4)
    q, k = (spikes[f"blocks.0.mixer.{name}.neuron"] for name in "qk")
    assert counts.shape == (4, 2, 4, 16, 16)
    assert counts[1, 0, 2, 3, 5] == (q[1, 0, 3, 8:12] * k[1, 0, 5, 8:12]).sum()


def test_a_figure_is_drawn_and_saved(tmp_path, monkeypatch, rng, capsys):
    monkeypatch.chdir(tmp_path)
    fig, axes = viz.figure(2, 2)
    spikes = lif(2 * rng.standard_normal((5, 9)) + 1).data
    viz.raster(axes[0, 0], spikes, "some")
    viz.membrane(axes[0, 1], rng.random(5), spikes[:, 0], 1.0, "one")
    viz.heat(axes[1, 0], rng.random((3, 4)), "heat", xlabel="x", ylabel="y")
    viz.attention_over(axes[1, 1], rng.random((8, 8)), rng.random(16), 5, "attention")
    assert axes[0, 0].get_title() == f"some\nfiring rate {spikes.mean():.0%}"
    assert axes[0, 0].get_xlabel() == "time step"
    path = viz.save(fig, "test")
    assert path.read_bytes()[:4] == b"\x89PNG" and "figure: figures" in capsys.readouterr().out


def test_attention_is_framed_where_its_token_is(rng):
    _, ax = viz.figure()
    viz.attention_over(ax, rng.random((8, 16)), rng.random(16), 6)  # row 1, column 2 of 4×4
    frame = ax.get_lines()[0]
    assert {*frame.get_xdata()} == {7.5, 11.5} and {*frame.get_ydata()} == {1.5, 3.5}
    assert ax.get_images()[1].get_extent() == [-0.5, 15.5, 7.5, -0.5]


def history(n):
    """n records as training makes them."""
    keys = ("loss", "accuracy", "test_loss", "test_accuracy")
    rates = {"stem.stages.0.neuron": 0.2, "blocks.0.mixer.attention": 0.1, "blocks.0.mlp.fc1.neuron": 0.3}
    return [
        {"epoch": i, **{key: 1 / (i + j) for j, key in enumerate(keys)}, "rates": rates} for i in range(1, n)
    ]


@pytest.mark.parametrize("n", [2, 50])
def test_the_curves_of_a_training(n, tmp_path):
    fig, axes = viz.figure(1, 2)
    viz.curves(axes, history(n))
    for ax, name, scale in zip(axes, ("loss", "accuracy"), (1, 100), strict=True):
        train, test = ax.get_lines()[0], ax.get_lines()[2]
        assert ax.get_xlabel() == "epoch" and ax.get_ylabel().startswith(name)
        for line, key in ((train, name), (test, f"test_{name}")):
            assert list(line.get_ydata()) == [scale * record[key] for record in history(n)]
        labels = [text.get_text() for text in ax.get_legend().get_texts()]
        assert labels[0].startswith("train, while learning: ") and labels[1].startswith("test: ")
    fig.savefig(tmp_path / "curves.png")


def test_the_curve_of_a_pretraining_has_no_test():
    _, ax = viz.figure()
    viz.curves([ax], [{"epoch": 1, "loss": 0.5}])
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["train, while learning: 0.50"]


def test_rates_are_bars_with_a_mark_for_before(tmp_path):
    fig, ax = viz.figure()
    rates = history(2)[0]["rates"]
    viz.rate_bars(ax, rates, dict.fromkeys(rates, 0.05), "epoch 9", "epoch 1")
    np.testing.assert_allclose([bar.get_width() for bar in ax.patches[:3]], [20, 10, 30])
    assert [text.get_text() for text in ax.get_yticklabels()] == [
        "stem.stages.0",
        "0.mixer.attention",
        "0.mlp.fc1",
    ]
    labels = [text.get_text() for text in ax.get_legend().get_texts()]
    assert labels == ["epoch 1", "stem, epoch 9", "mixer, epoch 9", "mlp, epoch 9"]
    fig.savefig(tmp_path / "rates.png")


def test_without_matplotlib_the_remedy_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r"pip install 'minispike\[lessons\]'"):
        viz.figure()


def test_a_profiles_bars_are_its_layers():
    rows = [Row("a.map", "Linear", 0.001, 0.002, 3.0), Row("a.norm", "BatchNorm", 0.003, 0.004, 5.0)]
    _, (times, memory) = viz.figure(1, 2)
    viz.profile_bars((times, memory), [*rows, Row("", "Reshape", 0.005, 0.0, 1.0)])
    assert [text.get_text() for text in times.get_yticklabels()] == ["a", "the model"]
    spans = [(bar.get_x(), bar.get_width()) for bar in times.patches]  # backward goes on where forward ends
    np.testing.assert_allclose(spans, [(0, 4), (0, 5), (4, 6), (5, 0)])  # ms
    assert [bar.get_width() for bar in memory.patches] == [8, 1]


def test_energies_are_drawn_in_nanojoules_and_active_shares_in_percent():
    _, (above, below) = viz.figure(2, 1)
    viz.layer_bars((above, below), ["q"], ["mixer"], [0.25], {"paper": [3e-9], "events": [2e-9]})
    assert above.patches[0].get_height() == 25
    np.testing.assert_allclose([bar.get_height() for bar in below.patches[:2]], [3, 2])


def test_spikes_are_drawn_at_their_time_and_neuron():
    spikes = np.zeros((4, 9))
    spikes[3, 7] = 1
    _, (one, two) = viz.figure(1, 2)
    viz.raster(one, spikes)
    np.testing.assert_allclose(one.collections[0].get_segments()[0], [(3, 6.6), (3, 7.4)])
    viz.membrane(two, np.array([0.1, 0.2, 0.3, 1.5]), spikes[:, 7], 1.0)
    assert two.collections[0].get_offsets().tolist() == [[3, 1.5]]
