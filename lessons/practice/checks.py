"""How a learner's function is checked: step by step, until the first thing that is wrong.

    runs          it is written, and returns what its docstring says
    shapes        of each value that it returns, and their dtypes
    values        the first entry that differs, with both numbers, on a small example
    other sizes   the same on sizes that cannot be mixed up: T ≠ B, H ≠ W, N ≠ D, one channel, one step
    in place      in the library's place, as part of a real Function or model: finite differences judge it

A task is the function that solves it, with hints and with what it is checked against:

    @task("★★", hints=[…], cases=…, expected=…, place=…)
    def name(x, w):
        \"\"\"What to compute, with shapes.\"\"\"
        …the solution…

The stub that a learner gets is its signature and its docstring.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np

from minispike import backend, check_grads

STEPS = "runs", "shapes", "values", "other sizes", "in place"


class Wrong(Exception):
    """What is wrong with an answer, in a sentence for the learner."""


# ---------------------------------------------------------------- tasks


@dataclass
class Task:
    """A function to write.

    stars: how hard.    hints: up to three, from a nudge to nearly the answer.
    cases: cases(rng) gives dicts of arguments; the first one is small.
    expected: expected(**arguments) gives what the function must return, from the library: an array, a
        number, or a dict of named arrays.
    place: place(function) runs the function inside the library, and raises Wrong or AssertionError.
    answer: for a question that asks for a number instead of code: answer(number) returns what is wrong with
        it, or "". Such a function takes no arguments.
    """

    solution: Callable
    stars: str
    hints: list[str]
    cases: Callable[[np.random.Generator], Iterable[dict]] | None = None
    expected: Callable | None = None
    place: Callable[[Callable], None] | None = None
    answer: Callable[[object], str] | None = None

    @property
    def name(self) -> str:
        return self.solution.__name__

    def source(self) -> str:
        """Return the solution's text."""
        lines = inspect.getsource(self.solution).splitlines()
        first = next(n for n, line in enumerate(lines) if line.startswith("def "))
        return "\n".join(lines[first:])

    def stub(self) -> str:
        """Return the solution's signature and docstring, with nothing of its body."""
        text = self.source()
        head = text[: text.index('"""')]
        doc = textwrap.indent(f'"""{inspect.getdoc(self.solution)}\n"""', "    ")
        doc = doc if "\n" in inspect.getdoc(self.solution) else doc.replace('\n    """', '"""')
        return f"{head.rstrip()}\n{doc}\n    raise NotImplementedError\n"


def task(stars: str, *, hints: list[str], **how) -> Callable[[Callable], Task]:
    """Return a decorator that makes a task of the function that solves it."""
    return lambda solution: Task(solution, stars, hints, **how)


def tasks_in(module) -> dict[str, Task]:
    """Return a lesson's tasks by name, in the order of its file."""
    return {each.name: each for each in vars(module).values() if isinstance(each, Task)}


# ---------------------------------------------------------------- checking


@dataclass
class Report:
    """How far an answer came: the steps that it passed, and what is wrong, or "" if nothing is."""

    passed: list[str] = field(default_factory=list)
    wrong: str = ""

    @property
    def done(self) -> bool:
        return not self.wrong


def check(task: Task, function: Callable | None) -> Report:
    """Check a learner's function."""
    report = Report()
    try:
        for step in _check(task, function):
            report.passed.append(step)
    except NotImplementedError:
        report.wrong = "not written yet"
    except Wrong as error:
        report.wrong = str(error)
    except Exception as error:  # of the learner's code
        report.wrong = f"{type(error).__name__}: {error}{_line_of(error, function)}"
    return report


def _line_of(error: BaseException, function: Callable | None) -> str:
    """Return where in the learner's function an error came from, if it did."""
    place, found = error.__traceback__, ""
    code = getattr(function, "__code__", None)
    while place:
        if place.tb_frame.f_code is code:
            found = f" (line {place.tb_lineno} of your file)"
        place = place.tb_next
    return found


def _check(task: Task, function: Callable | None):
    """Yield the name of each step that the function has passed."""
    if not callable(function):
        raise Wrong(f"there is no function {task.name} in the file")
    if task.answer:
        value = function()
        wrong = task.answer(value)
        if wrong:
            raise Wrong(wrong)
        yield "runs"
        return
    cases = list(task.cases(np.random.default_rng(0)))
    with np.errstate(all="ignore"):
        for number, case in enumerate(cases):
            want, got = task.expected(**copied(case)), call(function, case)
            pairs = named(got, want, case)
            if number == 0:
                yield "runs"
            for name, (g, w) in pairs.items():
                check_shape(name, g, w, case)
            if number == 0:
                yield "shapes"
            for name, (g, w) in pairs.items():
                check_values(name, g, w, case)
            if number == 0:
                yield "values"
        if len(cases) > 1:
            yield "other sizes"
        if task.place:
            in_place(task, function)
            yield "in place"


def copied(case: dict) -> dict:
    return {name: x.copy() if isinstance(x, np.ndarray) else x for name, x in case.items()}


def call(function: Callable, case: dict):
    """Call a function on copies of the arguments. Wrong if it writes into them."""
    given = copied(case)
    result = function(**given)
    for name, x in case.items():
        if isinstance(x, np.ndarray) and not np.array_equal(x, given[name], equal_nan=True):
            raise Wrong(f"it changes its argument {name}: work on a copy")
    return result


def named(got, want, case: dict) -> dict[str, tuple]:
    """Return pairs (got, want) by name; "" where the function returns one value."""
    if not isinstance(want, dict):
        return {"": (got, want)}
    if not isinstance(got, dict) or sorted(got) != sorted(want):
        found = f"a dict with {', '.join(map(str, got))}" if isinstance(got, dict) else type(got).__name__
        raise Wrong(f"it must return a dict with {', '.join(want)}; it returns {found}{_of(case)}")
    return {name: (got[name], want[name]) for name in want}


def check_shape(name: str, got, want, case: dict) -> None:
    """Raise Wrong unless a value has the shape and the kind of number that it should have."""
    if got is None:
        raise Wrong(f"{_name(name)} is None: is there a return?")
    got, want = np.asarray(got), np.asarray(want)
    if got.dtype == object or got.dtype.kind not in "biuf":
        raise Wrong(f"{_name(name)} holds {got.dtype}, not numbers{_of(case)}")
    if got.shape != want.shape:
        raise Wrong(f"{_name(name)} has shape {list(got.shape)}, expected {list(want.shape)}{_of(case)}")
    if want.dtype.kind == "f" and got.dtype.kind == "f" and got.dtype != want.dtype and want.ndim:
        raise Wrong(f"{_name(name)} holds {got.dtype}, expected {want.dtype}{_of(case)}")


def check_values(name: str, got, want, case: dict, tolerance: float = 1e-9) -> None:
    """Raise Wrong with the first entry that differs, and both numbers."""
    got, want = np.asarray(got, "float64"), np.asarray(want, "float64")
    scale = max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
    bad = ~np.isclose(got, want, rtol=tolerance, atol=tolerance * scale, equal_nan=True)
    if bad.any():
        first = tuple(int(i) for i in np.argwhere(bad)[0])
        at = f"[{', '.join(map(str, first))}]" if first else ""
        few = f"; {bad.sum()} of {bad.size} differ" if bad.size > 1 else ""
        pairs = ((f"{got[first]:.{n}g}", f"{want[first]:.{n}g}") for n in (6, 17))
        is_, wanted = next(((a, b) for a, b in pairs if a != b), (got[first], want[first]))
        raise Wrong(f"{_name(name)}{at} is {is_}, expected {wanted}{few}{_of(case)}")


def _name(name: str) -> str:
    return name or "the result"


def _of(case: dict) -> str:
    """Return the case in words: shapes of arrays, values of everything else."""
    parts = [f"{k} {list(x.shape)}" if isinstance(x, np.ndarray) else f"{k} = {x}" for k, x in case.items()]
    return f"\n    with {', '.join(parts)}" if parts else ""


def in_place(task: Task, function: Callable) -> None:
    """Run the function inside the library. Wrong if finite differences, or the library, disagree."""
    calls = []

    def counted(*arguments, **named):
        calls.append(1)
        return function(*arguments, **named)

    with backend.plain():
        try:
            task.place(counted)
        except AssertionError as error:
            raise Wrong(f"in the library's place: {error}") from error
    assert calls, f"{task.name}: its check never calls it"


def finite_differences(f: Callable, *leaves: np.ndarray) -> None:
    """Check gradients of f(*Tensors) against finite differences; the message names both numbers."""
    check_grads(f, *leaves)


def same(what: str, got, want, tolerance: float = 1e-9) -> None:
    """Raise Wrong unless two arrays are equal; `what` says what they are."""
    check_shape(what, got, want, {})
    check_values(what, got, want, {}, tolerance)
