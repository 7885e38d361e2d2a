"""Recording of whole trainings (benchmarks/runs.py): what is written down is what the runs did."""

import json

import numpy as np
import pytest

from benchmarks import runs
from minispike.run import Run

pytestmark = pytest.mark.slow
SMALL = {"epochs": 2, "T": 1, "batch_size": 64}  # fewer than the samples on which energy is counted
V2 = "spikformer_v2_1_64_digits"
EXPERIMENT = {
    "Spikformer": ("spikformer_1_64_digits", SMALL, ""),
    runs.PRETRAINING: (V2, SMALL, ""),
    "V2, pre-trained": (V2, SMALL, runs.PRETRAINING),
}


def test_runs_are_recorded_as_they_were(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(runs.EXPERIMENTS, "digits", EXPERIMENT)
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    counted, count = [], runs.count
    monkeypatch.setattr(runs, "count", lambda model, x: counted.append(x.shape[0]) or count(model, x))
    folder, path = tmp_path / "runs", tmp_path / "digits.json"
    monkeypatch.setattr("sys.argv", ["runs", "digits", str(folder), "--seeds", "3", "4"])
    runs.main()
    out = capsys.readouterr().out
    record = json.loads(path.read_text(encoding="utf-8"))
    assert record["command"].endswith("benchmarks.runs digits RUNS --jobs 2 --seeds 3 4")
    assert (tmp_path / "digits.png").read_bytes()[:4] == b"\x89PNG"

    assert counted == 4 * [runs.COUNTED] and record["energy_of"] == "100 test samples"
    found = {(run["variant"], run["seed"]): run for run in record["runs"]}
    assert set(found) == {(variant, seed) for variant in EXPERIMENT for seed in (3, 4)}
    for (variant, seed), run in found.items():
        kept = Run.open(runs.folder_of(variant, seed, folder))
        assert run["curve"] == kept.read_metrics() and len(run["curve"]) == kept.recipe.epochs == 2
        assert run["recipe"]["seed"] == seed and run["recipe"]["model"] == EXPERIMENT[variant][0]
        minutes = sum(row["seconds"] for row in run["curve"]) / 60 + run["minutes_before"]
        assert abs(run["minutes"] - minutes) <= 0.1
        if variant == runs.PRETRAINING:
            assert "test_accuracy" not in run
            continue
        bits = np.unpackbits(np.frombuffer(bytes.fromhex(run["right"]), "uint8"))[:360]
        assert bits.mean() == pytest.approx(run["test_accuracy"]) and 0 < bits.mean() < 1
        assert run["test_accuracy"] == run["curve"][-1]["test_accuracy"]
    for seed in (3, 4):
        before = found[runs.PRETRAINING, seed]
        assert found["V2, pre-trained", seed]["minutes_before"] == before["minutes"]
        assert found["V2, pre-trained", seed]["recipe"]["init"] == runs.PRETRAINING
    assert str(tmp_path) not in path.read_text(encoding="utf-8")

    rows = [line for line in out.splitlines() if line.startswith("| ")]
    mean = np.mean([found["Spikformer", seed]["test_accuracy"] for seed in (3, 4)])
    assert len(rows) == 3 and rows[1].startswith(f"| Spikformer | {mean:.2%} (")

    # finished runs are only read; one whose last row is missing is gone on with, and ends the same
    logs = {log: log.read_text() for log in folder.glob("*.log")}
    cut = runs.folder_of("Spikformer", 4, folder)
    metrics = (cut / "metrics.csv").read_text()
    (cut / "metrics.csv").write_text(metrics[: metrics.rindex("\n", 0, -1) + 1])
    with pytest.raises(SystemExit, match="not finished"):
        runs.collect("digits", "Spikformer", 4, folder)
    runs.main()
    assert (cut / "metrics.csv").read_text() == metrics
    assert [log.name for log in logs if log.read_text() != logs[log]] == [f"{cut.name}.log"]
    assert json.loads(path.read_text(encoding="utf-8"))["runs"] == record["runs"]

    # and runs of another recipe are not mixed in
    monkeypatch.setitem(EXPERIMENT, "Spikformer", ("spikformer_1_64_digits", SMALL | {"lr": 1e-3}, ""))
    with pytest.raises(SystemExit, match=r"Spikformer.3 is a run of another recipe \(lr\): take another"):
        runs.main()
