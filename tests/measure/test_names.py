"""Firing rate and active share: two numbers with two names, by hand on a network where they differ."""

import json

import numpy as np
import pytest

from minispike import create_model, no_grad
from minispike.files.checkpoint import save
from minispike.measure import viz
from minispike.measure.energy import count
from minispike.runs.cli import main


@pytest.fixture
def model():
    """A network of known spikes, T = 1, without blocks.

    Stage 0's neurons fire where the picture is 1. The next stages copy the spikes of their first channel, and
    stages 1 and 2 are followed by a 3×3 max-pool. The position embedding fires wherever its input does.
    """
    options = dict(embed_dim=8, depth=0, num_heads=2, T=1, dtype="float64")
    model = create_model("spikformer_1_64_digits", pools=(False, True, True, False), **options).eval()
    for brick in (*model.stem.stages, model.stem.rpe):
        brick.map.weight.data[...] = 0
        brick.map.weight.data[1, 1, 0, 0] = 2.5  # the middle tap; with tau 2 a spike makes 1.25
    return model


def lone_spike():
    """A picture [1, 8, 8, 1] of one bright pixel, in an odd row and column: four 3×3 windows hold it."""
    x = np.zeros((1, 8, 8, 1))
    x[0, 3, 3, 0] = 1.1
    return x


def test_a_pool_and_a_residual_sum_make_active_shares_that_are_no_firing_rates(model):
    rates = viz.firing_rates(model, lone_spike())
    rows = {row.path: row.active_share for row in count(model, lone_spike()).rows}
    widths = [stage.map.out_channels for stage in model.stem.stages]
    assert widths == [1, 2, 4, 8]
    # neurons: one spike in 8×8, one in 8×8×2; the first pool makes 4 places active in 4×4
    assert rates["stem.stages.0.neuron"] == 1 / 64 and rates["stem.stages.1.neuron"] == 1 / 128
    assert rows["stem.stages.1.map"] == 1 / 64  # no pool between stages 0 and 1: the same
    assert rates["stem.stages.2.neuron"] == 4 / (16 * 4) and rows["stem.stages.2.map"] == 4 / (16 * 2)
    # the second pool: rows and columns 1 and 2 of 4 reach rows and columns 0 and 1 of 2, all four places
    assert rates["stem.stages.3.neuron"] == 4 / (4 * 8) and rows["stem.stages.3.map"] == 4 / (4 * 4)
    # tokens = 1 + 1 = 2 where both fire: an integer counts once; the head sums over N, so 1 channel of 8
    assert rates["stem.rpe.neuron"] == 4 / (4 * 8) and rows["head"] == 1 / 8
    with no_grad():
        tokens = model.stem(lone_spike()[None], T=1).data
    assert tokens.max() == 2 and tokens.mean() == 2 * rates["stem.rpe.neuron"]


def test_info_says_active_share_in_its_table_and_its_json(model, tmp_path, capsys):
    save(model, tmp_path / "m.safetensors")
    assert main(["info", str(tmp_path / "m.safetensors")]) == 0
    printed, told = capsys.readouterr()
    head = printed.splitlines()[0]
    assert "active share" in head and "rate" not in printed.lower() and "Active shares" in told
    assert main(["info", str(tmp_path / "m.safetensors"), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert all("active_share" in row and "rate" not in row for row in rows)


def test_energy_figures_say_active_share_and_rate_figures_firing_rate():
    _, (above, below) = viz.figure(2, 1)
    viz.layer_bars((above, below), ["q"], ["mixer"], [0.25], {"paper": [3e-9]})
    assert above.get_ylabel() == "active share, %"
    _, ax = viz.figure()
    viz.rate_bars(ax, {"stem": 0.1}, {"stem": 0.2}, "now", "then")
    assert ax.get_xlabel() == "firing rate, %"
