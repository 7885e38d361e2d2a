"""A full disk during a run: the message names the file, what is kept and how to go on, and that works."""

import errno
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from minispike.runs.cli import main

from .common import COMMAND, alike, end_of

pytest.importorskip("resource", reason="Windows has no limits of a process")


def train(*arguments) -> int:
    return main(["train", *map(str, arguments)])


def full_disk(monkeypatch, name: str, n: int):
    """Make the disk full as soon as a file of this name is written for the n-th time."""
    fsync, writes = os.fsync, []

    def refuse(descriptor):
        if name in os.readlink(f"/proc/self/fd/{descriptor}"):
            writes.append(descriptor)
        if len(writes) >= n:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", refuse)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells which file is written")
@pytest.mark.parametrize(
    "name, n, kept",
    [
        ("checkpoint.safetensors", 3, "the checkpoint of epoch 1, step 2 is kept"),
        ("metrics.csv", 1, "the checkpoint of the end of epoch 1 is kept"),
        ("rates.csv", 1, "the checkpoint of the end of epoch 1 is kept"),
    ],
)
def test_a_run_on_a_full_disk_says_what_is_kept_and_goes_on(
    tmp_path, few, monkeypatch, capsys, name, n, kept
):
    whole, full = tmp_path / "whole", tmp_path / "full"
    assert train(*COMMAND, "--out", whole) == 0
    with monkeypatch.context() as patch:
        full_disk(patch, name, n)
        assert train(*COMMAND, "--out", full) == 1
    told = capsys.readouterr().err
    assert re.search(rf"no room for [\d,]+ bytes in {full / name} \(No space left on device\)", told)
    assert f"{kept}; make room, then go on: python -m minispike train --resume {full}" in told
    assert not list(full.glob("*.part"))
    assert train("--resume", full) == 0 and alike(end_of(full), end_of(whole))


def test_a_limit_on_the_size_of_files_is_told_in_the_same_way(tmp_path):
    """As a user meets it: config.json fits, the first checkpoint does not."""
    code = (
        "import resource, sys; from minispike.runs.cli import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY));"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "train", *COMMAND, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    told = (
        r"no room for .* bytes in .*checkpoint.safetensors \(File too large\); no checkpoint was written yet"
    )
    assert done.returncode == 1 and re.search(told, done.stderr) and "Traceback" not in done.stderr
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == [".lock", "config.json"]
