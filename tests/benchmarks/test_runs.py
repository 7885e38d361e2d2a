"""Recording of whole trainings (benchmarks/runs.py): what is written down is what the runs did."""

import json

import numpy as np
import pytest

from benchmarks import runs
from minispike.runs.folder import Run

SMALL = {"epochs": 2, "T": 1, "batch_size": 64}  # fewer than the samples on which energy is counted
V2 = "spikformer_v2_1_64_digits"
EXPERIMENT = {
    "Spikformer": ("spikformer_1_64_digits", SMALL, ""),
    runs.PRETRAINING: (V2, SMALL, ""),
    "V2, pre-trained": (V2, SMALL, runs.PRETRAINING),
}


def run_of(right: np.ndarray, **entries) -> dict:
    bits = np.packbits(right).tobytes().hex()
    return {"tested": right.size, "right": bits, "test_accuracy": right.mean()} | entries


def test_a_difference_and_its_error_over_images():
    a, b = np.random.default_rng(0).random((2, 1001)) < [[0.9], [0.8]]  # 1,001: the last byte is not full
    gains, losses = (a & ~b).sum(), (b & ~a).sum()
    gap, error = runs.difference([run_of(a)], [run_of(b)])
    assert gap == pytest.approx(100 * (gains - losses) / 1001)
    mcnemar = np.sqrt(gains + losses - (gains - losses) ** 2 / 1001) / 1001
    assert error == pytest.approx(100 * mcnemar, rel=1e-3)  # n for n − 1
    both = runs.difference([run_of(a), run_of(b)], [run_of(b), run_of(a)])  # the same seeds in another order
    assert both == (0, 0)


def test_the_table_tells_differences_from_seeds_and_images():
    rights = np.random.default_rng(1).random((2, 3, 500)) < 0.9
    shared = dict(minutes=7.4, parameters=1234, macs_a_step=2.5e6, energy_nj={"paper": 1500})
    found = []
    for name, init, epochs, seeds in (("A", "", 4, rights[0]), ("B", "before", 3, rights[1])):
        shared |= {"variant": name, "recipe": {"init": init}, "curve": epochs * [{}]}
        found += [run_of(right, **shared) for right in seeds]
    found.append({"variant": "before", "recipe": {"init": ""}, "curve": 2 * [{}]})
    head, _, first, second = (line.strip("|").split("|") for line in runs.table(found).splitlines())
    points = 100 * rights.mean(2)  # [variant, seed]
    by_seeds = np.sqrt(2 / 3 * points.var(1, ddof=1).mean())
    gap, by_images = runs.difference(found[3:6], found[:3])
    assert head[2].strip() == f"difference ± by images (by seeds ± {by_seeds:.2f})"
    mean, least, most = points[1].mean(), points[1].min(), points[1].max()
    expected = [f"B | {mean:.2f} % ({least:.2f} … {most:.2f})", f"{gap:+.2f} ± {by_images:.2f}"]
    expected += ["2 + 3", "7 min", "1,234", "2.5 M", "1.50 µJ"]
    assert "|".join(second).strip() == " | ".join(expected) and gap == pytest.approx(mean - points[0].mean())
    assert first[2].strip() == "" and first[3].strip() == "4"
    lone = runs.table(found[:1]).splitlines()
    assert "difference" not in lone[0] and lone[2].startswith(f"| A | {points[0, 0]:.2f} % | 4 |")


def test_the_documentation_has_the_recorded_tables():
    shown = (runs.RESULTS.parent / "README.md").read_text(encoding="utf-8")
    for experiment in runs.EXPERIMENTS:
        path = runs.RESULTS / f"{experiment}.json"
        if path.exists():
            record = json.loads(path.read_text(encoding="utf-8"))
            assert runs.table(record["runs"]) in shown and record["command"] in shown, experiment


@pytest.mark.slow
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
        assert run["tested"] == 360 and run["test_accuracy"] == run["curve"][-1]["test_accuracy"]
    for seed in (3, 4):
        before = found[runs.PRETRAINING, seed]
        assert found["V2, pre-trained", seed]["minutes_before"] == before["minutes"]
        assert found["V2, pre-trained", seed]["recipe"]["init"] == runs.PRETRAINING
    assert str(tmp_path) not in path.read_text(encoding="utf-8")

    assert runs.table(record["runs"]) in out and "| 2 + 2 |" in out  # epochs

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
