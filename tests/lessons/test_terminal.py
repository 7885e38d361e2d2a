"""Lessons in the terminals that people have: plain ASCII, `| head`, no place for figures, python -O."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(arguments, tmp_path, shell="", **environment):
    variables = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    command = f"{sys.executable} {arguments}{shell}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=tmp_path,
        env=variables,
        capture_output=True,
        timeout=300,
    )
    return done.returncode, done.stdout.decode("cp1252", "replace"), done.stderr.decode("cp1252", "replace")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_greek_letters_shows_question_marks(tmp_path, encoding):
    code, printed, told = run("-m lessons.00_autograd", tmp_path, PYTHONIOENCODING=encoding)
    assert code == 0 and not told and "?" in printed and "figure: " in printed


@pytest.mark.parametrize("name", ["0", "00", "00_autograd"])
def test_a_lesson_is_run_by_its_number_or_name(tmp_path, name):
    code, printed, told = run(f"-m lessons {name}", tmp_path)
    assert code == 0 and not told and (tmp_path / "figures" / "00_autograd.png").exists()


@pytest.mark.parametrize("name", ["99", "autograd", "0 1"])
def test_a_lesson_that_does_not_exist_says_where_the_list_is(tmp_path, name):
    code, _, told = run(f"-m lessons {name}", tmp_path)
    assert code == 1 and "python -m lessons lists them" in told


def test_head_ends_a_lesson_quietly(tmp_path):
    code, printed, told = run("-m lessons.00_autograd", tmp_path, " | head -n 1")
    assert len(printed.splitlines()) == 1 and not told and code in (0, 141)  # 128 + SIGPIPE


def test_a_folder_that_takes_no_figure_costs_the_figure_alone(tmp_path):
    (tmp_path / "figures").write_text("a file")
    code, printed, told = run("-m lessons.00_autograd", tmp_path)
    assert code == 0 and not told and "figure not written: " in printed


def test_without_asserts_no_lesson_runs(tmp_path):
    code, printed, told = run("-O -m lessons.00_autograd", tmp_path)
    assert code == 1 and not printed and "run them without -O" in told
