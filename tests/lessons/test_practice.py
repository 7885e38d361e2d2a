"""The tasks: each solution passes, each wrong answer is refused, and a message says what is wrong."""

import ast
import json
import re
from pathlib import Path

import numpy as np
import pytest

from lessons.practice import __main__ as practice
from lessons.practice import checks
from lessons.practice.checks import Wrong, check, task

from .mutants import MUTANTS

LESSONS = Path(practice.__file__).parents[1]
TASKS = {
    f"{lesson}.{name}": each
    for lesson in practice.LESSONS
    for name, each in practice.tasks_of(lesson).items()
}


def changed(each, old, new):
    """A solution with a change in its text, as a function."""
    text = each.source()
    assert old in text[text.index('"""') :], f"{each.name} does not hold {old!r}"
    head, _, body = text.partition('"""')
    space = dict(each.solution.__globals__)
    exec(head + '"""' + body.replace(old, new), space)
    return space[each.name]


# ---------------------------------------------------------------- answers


@pytest.mark.parametrize("name", TASKS)
def test_a_solution_passes_every_step(name):
    report = check(TASKS[name], TASKS[name].solution)
    assert report.done, report.wrong
    assert report.passed[0] == "runs"


@pytest.mark.parametrize("name", TASKS)
def test_wrong_answers_are_refused(name):
    wrong = MUTANTS[name]
    assert len(wrong) >= 3
    for old, new in wrong:
        report = check(TASKS[name], changed(TASKS[name], old, new))
        assert not report.done, f"accepted: {new} instead of {old}"


def test_every_mutant_belongs_to_a_task():
    assert set(MUTANTS) == set(TASKS)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_can_be_read(name):
    each, doc = TASKS[name], TASKS[name].solution.__doc__
    assert doc and doc.split("\n")[0].endswith(".") and "Return" in doc
    assert 1 <= len(each.hints) <= 3 and each.stars in ("★", "★★", "★★★")


@pytest.mark.parametrize("lesson", practice.LESSONS)
def test_stubs_import_what_the_lessons_so_far_import_and_nothing_of_the_answer(lesson):
    text = practice.stubs(lesson)
    known = set()
    for path in sorted(LESSONS.glob("[0-9][0-9]_*.py")):
        if path.stem <= lesson:
            known |= imported(path.read_text("utf-8"))
    assert imported(text) <= known | {"numpy", "math.ceil", "math.log", "math.sqrt"}
    reports = practice.check_file(lesson, written_to(text))
    assert all(report.wrong == "not written yet" for report in reports.values())
    for each in practice.tasks_of(lesson).values():
        code = [line.strip() for line in each.source().splitlines()]
        body = code[next(i for i, line in enumerate(code) if line.endswith('"""')) + 1 :]
        assert not [line for line in body if len(line) > 24 and line in text]


def imported(text):
    found = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def written_to(text):
    import tempfile

    path = Path(tempfile.mkdtemp()) / "answers.py"
    path.write_text(text, "utf-8")
    return path


# ---------------------------------------------------------------- messages


def double(x):
    """Return twice x."""
    return 2 * x


def made(place=None, expected=double, cases=((2, 3), (1, 4))):
    how = {"cases": lambda rng: [{"x": rng.standard_normal(shape)} for shape in cases]}
    return task("★", hints=["twice"], expected=expected, place=place, **how)(double)


@pytest.mark.parametrize(
    "answer, message",
    [
        (None, "there is no function double"),
        (lambda x: None, "the result is None: is there a return?"),
        (lambda x: x.T, r"the result has shape \[3, 2\], expected \[2, 3\]\n    with x \[2, 3\]"),
        (lambda x: (2 * x).astype("float32"), "holds float32, expected float64"),
        (lambda x: "two", "holds <U3, not numbers"),
        (
            lambda x: 2 * x + (np.arange(x.size) == 4).reshape(x.shape),
            r"the result\[1, 1\] is .*, expected .*; 1 of 6 differ",
        ),
        (
            lambda x: x * x.shape[0],
            r"the result\[0, 0\] is .*\n    with x \[1, 4\]",
        ),  # right where there are two rows
        (lambda x: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda x: np.multiply(x, 2, out=x), "it changes its argument x"),
    ],
)
def test_the_first_thing_that_is_wrong_is_said(answer, message):
    report = check(made(), answer)
    assert re.match(message, report.wrong) or re.search(message, report.wrong), report.wrong


def test_the_values_of_a_dict_are_named():
    both = made(expected=lambda x: {"a": x, "b": 2 * x})
    assert "must return a dict with a, b; it returns ndarray" in check(both, lambda x: x).wrong
    assert "b[0, 0] is" in check(both, lambda x: {"a": x, "b": x}).wrong
    assert check(both, lambda x: {"a": x, "b": 2 * x}).done


def test_a_check_that_never_calls_the_answer_is_a_mistake_of_ours():
    assert check(made(place=lambda f: f(np.ones(2))), double).passed[-1] == "in place"
    report = check(made(place=lambda f: None), double)
    assert "its check never calls it" in report.wrong


def test_in_place_runs_the_readable_storey_and_names_what_disagrees():
    def place(f):
        from minispike import backend

        assert backend._plain.get()
        checks.same("the layer", f(np.ones(3)), 3 * np.ones(3))

    assert "the layer[0] is 2, expected 3" in check(made(place=place), double).wrong


def test_every_task_that_can_is_checked_in_the_librarys_place():
    placed = [name for name, each in TASKS.items() if each.place]
    assert len(placed) >= len(TASKS) // 3


def test_nothing_is_checked_by_patching():
    for path in Path(practice.__file__).parent.glob("*.py"):
        text = path.read_text("utf-8")
        assert "monkeypatch" not in text and "setattr(" not in text


def test_wrong_is_an_exception_for_learners():
    with pytest.raises(Wrong, match="expected"):
        checks.check_values("x", np.zeros(2), np.ones(2), {})


# ---------------------------------------------------------------- the command


def run(capsys, *arguments):
    """Run the command; return what it prints and whether it ended well."""
    good = True
    try:
        practice.main(list(arguments))
    except SystemExit as end:
        good = not end.code
        if isinstance(end.code, str):
            print(end.code)
    return capsys.readouterr().out, good


def answers(lesson):
    """A practice file in which every task is solved."""
    parts = [practice.imports_of(lesson)]
    parts += [each.source() for each in practice.tasks_of(lesson).values()]
    return "\n\n\n".join(parts) + "\n"


def test_from_the_list_to_the_last_mark(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out, good = run(capsys)
    assert good and out.count("01_lif") >= 5 and f"0 of {len(TASKS)} done" in out
    out, good = run(capsys, "01_lif")
    assert good and "written: practice/01_lif.py" in out
    out, good = run(capsys, "01_lif")
    assert not good and "is left as it is" in out
    out, good = run(capsys, "01_lif", "--check")
    assert not good and out.count("not written yet") == 5
    out, _ = run(capsys, "01_lif", "--hint", "bptt")
    assert out.count("hint ") == 1
    out, _ = run(capsys, "01_lif", "--hint", "bptt")
    assert out.count("hint ") == 2
    for _ in range(3):
        out, _ = run(capsys, "01_lif", "--hint", "bptt")
    assert out.count("hint ") == 3
    out, good = run(capsys, "01_lif", "--solution", "bptt")
    assert good and out.startswith("def bptt(")
    Path("practice/01_lif.py").write_text(answers("01_lif"), "utf-8")
    out, good = run(capsys, "01_lif", "--check")
    assert good and out.count("✓") == 5
    out, _ = run(capsys)
    assert f"5 of {len(TASKS)} done" in out
    assert "01_lif.bptt done" in Path("practice/progress.txt").read_text("utf-8")


def test_a_task_that_no_longer_passes_is_no_longer_done(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("practice").mkdir()
    Path("practice/01_lif.py").write_text(answers("01_lif"), "utf-8")
    run(capsys, "01_lif", "--check")
    Path("practice/01_lif.py").write_text(answers("01_lif").replace("return 2.0", "return 3.0"), "utf-8")
    out, good = run(capsys, "01_lif", "--check")
    assert not good and "fires at every step at a smaller current" in out
    assert f"4 of {len(TASKS)} done" in run(capsys)[0]


@pytest.mark.parametrize("text, message", [("def f(:\n", "line 1"), ("1 / 0\n", "division by zero")])
def test_a_file_that_does_not_run_is_no_disaster(capsys, tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    Path("practice").mkdir()
    Path("practice/01_lif.py").write_text(text, "utf-8")
    out, good = run(capsys, "01_lif", "--check")
    assert not good and "the file does not run" in out and message in out


def test_a_whole_class(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in (("ann", answers("01_lif")), ("ben", practice.stubs("01_lif"))):
        Path(name).mkdir()
        Path(name, "01_lif.py").write_text(text, "utf-8")
    out, good = run(capsys, "--check", "ann", "ben", "--json")
    found = json.loads(out)
    assert good and all(each["done"] for each in found["ann"].values())
    assert found["ben"]["01_lif.bptt"] == {"done": False, "passed": [], "wrong": "not written yet"}
    assert "5 of 5 done" in run(capsys, "--check", "ann", "ben")[0]
    assert not Path("practice").exists()  # somebody else's progress is not ours


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["01_lif", "--hint", "nothing"], "01_lif has no task 'nothing'; it has current, step"),
        (["01_lif", "--check"], "there is no practice/01_lif.py"),
    ],
)
def test_what_cannot_be_done_is_said(capsys, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    out, good = run(capsys, *arguments)
    assert not good and message in out
