"""The fuzzer of readers (benchmarks/fuzz.py): every reader stands a few files, and a bad reader is caught."""

import json
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from benchmarks import fuzz
from data_utils.errors import DataFileError

ROOT = Path(__file__).parents[2]


def test_every_reader_stands_two_hundred_files(tmp_path):
    results = tmp_path / "fuzz.json"
    command = [sys.executable, "-m", "benchmarks.fuzz", "--inputs", "200", "--results", str(results)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    record = json.loads(results.read_text("utf-8"))["readers"]
    assert done.returncode == 0 and not any(found["faults"] for found in record.values()), done.stdout
    for found in record.values():
        assert found["right"] + found["own_errors"] == found["inputs"] == 200
        assert found["right"] and found["peak_of_bound"] < 1
    assert sum(found["own_errors"] > 20 for found in record.values()) > 20  # files are damaged indeed


def refused(path, kind=DataFileError):
    raise kind(path, None, "damage", "none") if kind is DataFileError else kind(f"{path} is damaged")


def greedy(path):
    refused(path) if bytearray(2**21) else None


def swallows_memory_errors(path):
    try:
        raise MemoryError
    except MemoryError as error:
        raise DataFileError(path, None, "damage", "none") from error


BAD = {  # a reader, and what is said of it
    "KeyError": (lambda path: {}["name"], "KeyError: 'name'"),
    "a Unicode error": (lambda path: b"\xff".decode(), "UnicodeDecodeError"),
    "a nameless error": (lambda path: refused("", ValueError), "ValueError: "),
    "an exit": (lambda path: sys.exit(f"{path} is damaged"), "SystemExit"),
    "a wrong value": (lambda path: b"other", "the value b'other'"),
    "a command": (lambda path: os.system("true"), "it did os.system"),
    "a pickle": (lambda path: pickle.loads(pickle.dumps(print)), "it did pickle.find_class"),
    "eval": (lambda path: eval("1 + 1"), "it did exec"),
    "a written file": (lambda path: path.with_name("other").write_text("x"), "it did open"),
    "a removed file": (lambda path: path.unlink(), "it did os.remove"),
    "memory": (greedy, "bytes of memory, more than"),
    "hidden memory": (swallows_memory_errors, "bytes of memory, more than"),
}


def reader(path, read):
    whole = [lambda rng: b"whole"]
    return fuzz.Reader(path / "x", whole, read, lambda path, value: value == path.read_bytes(), (10, 2**20))


@pytest.mark.parametrize("name", BAD)
def test_a_bad_reader_is_caught(tmp_path, monkeypatch, name):
    read, told = BAD[name]
    monkeypatch.setattr(fuzz, "EACH", 1)
    found = fuzz.check(reader(tmp_path, read), 3, seed=0)
    assert found["wrong"] == 3 and told in found["faults"][0]["fault"]


@pytest.mark.parametrize(
    "read",
    [Path.read_bytes, refused, partial(refused, kind=ValueError), partial(refused, kind=FileNotFoundError)],
)
def test_a_good_reader_is_not(tmp_path, read):
    found = fuzz.check(reader(tmp_path, read), 3, seed=0)
    assert not found["wrong"] and found["right"] + found["own_errors"] == 3


def test_slowness_is_a_fault(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "SECONDS", 0.0)
    found = fuzz.check(reader(tmp_path, Path.read_bytes), 1, seed=0)
    assert found["wrong"] == 1 and "seconds" in found["faults"][0]["fault"]


def test_the_same_seed_gives_the_same_inputs(tmp_path):
    seen: list[list[bytes]] = []
    for seed in (1, 1, 2):
        inputs: list[bytes] = []
        found = reader(tmp_path, lambda path, inputs=inputs: inputs.append(path.read_bytes()))
        found.inputs[:] = [lambda rng: fuzz.mutate(rng, bytes(range(256)))]
        found.right = lambda path, value: True
        fuzz.check(found, 50, seed)
        seen.append(inputs)
    assert seen[0] == seen[1] != seen[2] and len({*seen[0]}) > 40


def test_the_documentation_has_the_recorded_numbers():
    record = json.loads((fuzz.RESULTS / "fuzz.json").read_text("utf-8"))
    shown = (fuzz.RESULTS.parent / "README.md").read_text("utf-8")
    assert record["command"].startswith("python -m benchmarks.fuzz") and record["command"] in shown
    for name, found in record["readers"].items():
        assert not found["wrong"], name
        assert fuzz.row(name, found) in shown, name
