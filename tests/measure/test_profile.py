"""The profile sees every op once, sums to what a step takes, and counts what is kept as it is."""

import json
import time
from contextlib import nullcontext

import numpy as np
import pytest

from minispike import create_model, ops, trace
from minispike.backend import plain
from minispike.files.checkpoint import save
from minispike.kernels import compiled
from minispike.masked import masked_autoencoder
from minispike.measure.profile import profile, table
from minispike.optim import AdamW
from minispike.runs import cli as __main__


def small():
    return create_model("spikformer_1_64_digits", embed_dim=16, T=2)


def test_every_op_of_a_training_step_has_its_row(rng):
    model, x, labels = small(), rng.standard_normal((4, 8, 8, 1)).astype("float32"), np.array([1, 2, 3, 4])
    seen = set()
    with trace(lambda function, inputs, output, path: seen.add((path, function.name))):
        ops.softmax_cross_entropy(model(x), labels)
    before = {path: array.copy() for path, array in model.eval().state_dict().items()}
    start = time.perf_counter()
    rows = profile(model, x, labels, steps=2)
    taken = time.perf_counter() - start
    assert {(row.path, row.op) for row in rows} == seen and len(rows) == len(seen)
    assert all(row.forward > 0 for row in rows)
    assert [(row.path, row.op) for row in rows if not row.backward] == [("", "Reshape")]  # of the images
    assert 0 < 2 * sum(row.forward + row.backward for row in rows) < taken
    assert all(np.array_equal(model.state_dict()[path], array) for path, array in before.items())
    assert all(p.grad is not None for p in model.parameters()) and not model.training


@pytest.mark.parametrize("storey", ["plain", "twins"])
def test_what_is_kept_is_counted_once(rng, monkeypatch, storey):
    """Twins keep integers in bytes and what enters batch norm; plain ops keep floats, and H as well."""
    if storey == "twins" and compiled.why_not():
        pytest.skip("there is no Numba here")
    monkeypatch.setattr(compiled, "LEAST", 1)
    model, x = small(), rng.standard_normal((4, 8, 8, 1)).astype("float32")
    AdamW(model.parameters())  # whose flat array holds all weights: a view counts its own bytes
    with plain() if storey == "plain" else nullcontext():
        rows = profile(model, x, np.array([1, 2, 3, 4]), steps=1)
    kept = {(row.path, row.op): row.kept * 2**20 for row in rows}
    tokens, weight, each = 2 * 4 * 16 * 16, 16 * 16 * 4, 4 if storey == "plain" else 1  # [T, B, N, D], [D, D]
    shared = {"mixer.k": tokens * each, "mixer.v": tokens * each} if storey == "plain" else {}  # q counts it
    for name in ("mixer.q", "mixer.k", "mixer.v", "mixer.proj", "mlp.fc1"):
        expected = tokens * each + weight * (1 + (name == "mlp.fc1")) - shared.get(name, 0)
        assert abs(kept[f"blocks.0.{name}.map", "MatMulAdd"] - expected) < 1e-3, name
    entering = tokens * 4 * (2 if storey == "plain" else 1)
    vectors = kept["blocks.0.mixer.q.neuron", "NormaliseAndFire"] - entering
    assert 3 * 16 * 4 <= vectors <= 6 * 16 * 4  # γ, μ, 1/σ and the like


def test_the_profile_is_a_command(capsys, tmp_path):
    figure = tmp_path / "profile.png"
    assert __main__.main(["profile", "spikformer_1_64_digits", "--batch", "2", "--figure", str(figure)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["layer", "op", "fwd", "ms", "bwd", "ms", "kept", "MiB"]
    assert lines[-1].startswith("all") and len({len(line) for line in lines}) == 1
    assert figure.stat().st_size > 20_000
    assert __main__.main(["profile", "spikformer_1_64_digits", "--batch", "2", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {"path", "op", "forward", "backward", "kept"} == set(rows[0])
    assert __main__.main(["profile", "spikformer_9"]) == 1
    assert "no model 'spikformer_9'" in capsys.readouterr().err


def test_what_is_no_classifier_is_refused(capsys, tmp_path):
    path = tmp_path / "pretrained.safetensors"
    save(masked_autoencoder("spikformer_v2_1_64_digits", embed_dim=16), path)
    for command in ("profile", "info"):
        assert __main__.main([command, str(path)]) == 1
        assert "holds a MaskedAutoencoder; a classifier is needed" in capsys.readouterr().err


def test_the_table_ends_in_the_sum_of_its_ops(rng):
    rows = profile(small(), rng.standard_normal((2, 8, 8, 1)).astype("float32"), np.array([1, 2]), steps=1)
    lines = [line.split() for line in table(rows).splitlines()]
    by_op = [float(line[-1]) for line in lines[1 + len(rows) : -1]]
    assert abs(sum(by_op) - float(lines[-1][-1])) < 0.1 * len(by_op)
