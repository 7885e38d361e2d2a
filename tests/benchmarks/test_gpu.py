"""The GPU benchmark on the processor, with small models: its lines run, and its record is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def gpu(*options):
    command = [sys.executable, "-m", "benchmarks.gpu", *options]
    environment = os.environ | {"MINISPIKE_REHEARSE": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ceilings", "ours, B large", "array path, B small", "layers", "mixers"])
def test_a_line_prints_its_record(name):
    record = json.loads(gpu("one", name).splitlines()[-1])
    numbers = [each for each in flat(record) if isinstance(each, (int, float))]
    assert len(numbers) >= 2 and all(number >= 0 for number in numbers)


def flat(x):
    return (
        [z for y in (x.values() if isinstance(x, dict) else x) for z in flat(y)]
        if isinstance(x, (dict, list))
        else [x]
    )


@pytest.mark.slow
def test_a_part_goes_on_after_a_line_that_fails_and_writes_what_it_has():
    out = gpu("prove")
    record = json.loads(Path(out.strip().splitlines()[-1].split()[1].rstrip(",")).read_text("utf-8"))
    lines = record["lines"]
    assert record["machine"]["GPU"] and list(lines)[:2] == ["tests on the GPU", "digits"]
    assert (
        "accuracy" in " ".join(lines["digits"]["text"])
        and "passed" in lines["tests on the processor"]["text"][-1]
    )
