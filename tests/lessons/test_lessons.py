"""Every lesson and every solution runs, within the form that lessons have."""

import re
import runpy
import time
from pathlib import Path

import pytest

from book import runner
from lessons.practice.__main__ import LESSONS as WITH_TASKS
from lessons.practice.__main__ import tasks_of

LESSONS = Path(__file__).parent.parent.parent / "lessons"
NAMES = [path.stem for path in sorted(LESSONS.glob("[0-9][0-9]_*.py"))]
TRAINING = {"04_spikformer", "08_masked", "10_dwc", "15_sparse"}


@pytest.mark.lessons
@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_runs_and_draws(name):
    """Through the book's runner, which keeps what a lesson prints and draws for `python -m book`."""
    start = time.perf_counter()
    cells = runner.run(name)
    limit = 900 if name in TRAINING else 180  # seconds: finds a hang, even on a busy machine
    assert time.perf_counter() - start < limit
    printed = "".join(cell.printed for cell in cells).splitlines()
    figures = [figure for cell in cells for figure in cell.figures]
    assert 2 <= len(printed) <= 25 and max(map(len, printed)) <= 110
    assert f"figures/{name}.png" in figures
    assert all((runner.place(name) / figure).stat().st_size > 20_000 for figure in figures)


@pytest.mark.lessons
@pytest.mark.parametrize("name", NAMES)
def test_the_solutions_pass(name):
    runpy.run_module(f"lessons.solutions.{name}", run_name="__main__")


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(WITH_TASKS)))
def test_each_exercise_ends_in_a_line_that_its_solution_passes(name):
    """Of a lesson that has exercises, and no tasks yet."""
    lesson = (LESSONS / f"{name}.py").read_text(encoding="utf-8")
    solution = (LESSONS / "solutions" / f"{name}.py").read_text(encoding="utf-8")
    wanted = re.findall(r"^# {5,}(assert .*)$", lesson.split("## Exercises")[1], re.M)
    assert len(wanted) >= 3 and all(f"\n{line}\n" in solution for line in wanted)
    assert all(re.search(rf"^# {stars} ", lesson, re.M) for stars in ("★", "★★", "★★★"))


@pytest.mark.parametrize("name", WITH_TASKS)
def test_five_questions_have_five_answers(name):
    lesson = (LESSONS / f"{name}.py").read_text(encoding="utf-8")
    solution = (LESSONS / "solutions" / f"{name}.py").read_text(encoding="utf-8")
    questions = lesson.split("# ## Five questions")[1].split("# ## Practice")[0]
    assert re.findall(r"^# (\d)\. ", questions, re.M) == list("12345")
    assert re.findall(r"^# ## (\d) · ", solution, re.M) == list("12345")


@pytest.mark.parametrize("name", WITH_TASKS)
def test_a_lesson_ends_with_its_tasks(name):
    """Two to four of them and more, each named with its stars."""
    practice = (LESSONS / f"{name}.py").read_text(encoding="utf-8").split("# ## Practice")[1]
    assert f"#     python -m lessons.practice {name}\n" in practice
    named = re.findall(r"^# (★+) `(\w+)`", practice, re.M)
    tasks = tasks_of(name)
    assert 2 <= len(tasks) <= 6 and dict((task, stars) for stars, task in named) == {
        each.name: each.stars for each in tasks.values()
    }


@pytest.mark.parametrize("name", WITH_TASKS)
def test_the_head_of_a_lesson_says_what_it_needs(name):
    head = (LESSONS / f"{name}.py").read_text(encoding="utf-8").split("# %%")[1].replace("\n# ", " ")
    assert "[NOTATION.md](NOTATION.md)" in head
    for words in ("You will be able to", "It needs", "minutes to read"):
        assert words in head


@pytest.mark.parametrize("name", NAMES)
def test_a_lesson_has_the_form_of_lessons(name):
    text = (LESSONS / f"{name}.py").read_text(encoding="utf-8")
    assert text.startswith(f"# %% [markdown]\n# # {name[:2]} · ")
    assert text.count("assert ") >= 6 and "viz.save(" in text and "## What was shown" in text
    own = re.search(r"^class .*\((Module|Linear|LIF|Spiking)\)", text, re.M)
    assert not own  # the library's are imported


def test_the_list_of_lessons(capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["lessons"])
    runpy.run_module("lessons", run_name="__main__")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[2] for line in lines] == [f"lessons.{name}" for name in NAMES]
    assert all(" · " in line for line in lines)
