"""python -m lessons.practice                           the tasks, and which are done
python -m lessons.practice 01_lif                    write practice/01_lif.py, with a stub for each task
python -m lessons.practice 01_lif --check            check what you have written
python -m lessons.practice 01_lif --hint bptt        the next hint for a task
python -m lessons.practice 01_lif --solution bptt    how we solve it
python -m lessons.practice --check FOLDER… --json    check the folders of a class
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from datetime import date
from pathlib import Path
from types import ModuleType

from lessons import prepare_terminal

from .checks import Report, Task, check, tasks_in

HERE = Path(__file__).parent
LESSONS = [path.stem for path in sorted(HERE.glob("[0-9][0-9]_*.py"))]
FOLDER = Path("practice")
HEADER = '''"""Practice for lesson {lesson}. Write the functions, then check them:

    python -m lessons.practice {lesson} --check
    python -m lessons.practice {lesson} --hint NAME         hints, one by one
"""

{imports}
'''

# ---------------------------------------------------------------- files


def tasks_of(lesson: str) -> dict[str, Task]:
    """Return a lesson's tasks by name."""
    return tasks_in(importlib.import_module(f"lessons.practice.{lesson}"))


def imports_of(lesson: str) -> str:
    """Return the lines of imports that a stub begins with."""
    return importlib.import_module(f"lessons.practice.{lesson}").IMPORTS.strip()


def stubs(lesson: str) -> str:
    """Return the text of a practice file."""
    parts = [HEADER.format(lesson=lesson, imports=imports_of(lesson))]
    parts += [f"# {each.stars}\n{each.stub()}" for each in tasks_of(lesson).values()]
    return "\n\n".join(part.rstrip() + "\n" for part in parts)


def written(path: Path) -> dict:
    """Return what a learner's file defines. SyntaxError, or what its own lines raise."""
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    exec(compile(path.read_text("utf-8"), str(path), "exec"), vars(module))
    return vars(module)


def check_file(lesson: str, path: Path) -> dict[str, Report]:
    """Return a report for each task of a lesson."""
    tasks = tasks_of(lesson)
    try:
        found = written(path)
    except Exception as error:  # of the learner's code
        line = getattr(error, "lineno", None)
        where = f" (line {line})" if line else ""
        return {name: Report([], f"the file does not run: {error}{where}") for name in tasks}
    return {name: check(each, found.get(name)) for name, each in tasks.items()}


# ---------------------------------------------------------------- progress


class Progress:
    """What is done, and how many hints were shown: a line for each task in FOLDER/progress.txt."""

    def __init__(self, folder: Path):
        self.path = folder / "progress.txt"
        lines = self.path.read_text("utf-8").splitlines() if self.path.exists() else []
        self.lines = dict(line.split(" ", 1) for line in lines if " " in line)

    def done(self, lesson: str, name: str) -> bool:
        return self.lines.get(f"{lesson}.{name}", "").startswith("done")

    def hints(self, lesson: str, name: str) -> int:
        line = self.lines.get(f"{lesson}.{name}", "")
        return int(line.split()[-2]) if line.endswith("hints") else 0

    def note(self, lesson: str, name: str, *, done: bool | None = None, hints: int | None = None) -> None:
        """Write whether a task is done (None: as before) and how many hints were shown."""
        done = self.done(lesson, name) if done is None else done
        shown = self.hints(lesson, name) if hints is None else hints
        state = f"done {date.today()}" if done else "open"
        self.lines[f"{lesson}.{name}"] = f"{state}, {shown} hints"
        self.path.parent.mkdir(exist_ok=True)
        text = "".join(f"{key} {value}\n" for key, value in sorted(self.lines.items()))
        self.path.write_text(text, "utf-8")


# ---------------------------------------------------------------- commands


def show_list(folder: Path) -> None:
    """Print every task, a line each, with a mark for what is done."""
    progress, total, done = Progress(folder), 0, 0
    for lesson in LESSONS:
        for name, each in tasks_of(lesson).items():
            mark = "✓" if progress.done(lesson, name) else " "
            total, done = total + 1, done + (mark == "✓")
            first = (each.solution.__doc__ or "").split("\n")[0]
            print(f" {mark} {lesson:<14} {each.stars:<4} {name:<22} {first}")
    print(f"{done} of {total} done. python -m lessons.practice {LESSONS[0]} writes the stubs of a lesson")


def write(lesson: str, folder: Path) -> None:
    """Write a lesson's stubs, unless there is such a file."""
    path = folder / f"{lesson}.py"
    if path.exists():
        sys.exit(f"{path} exists and is left as it is; python -m lessons.practice {lesson} --check checks it")
    folder.mkdir(exist_ok=True)
    path.write_text(stubs(lesson), "utf-8")
    print(f"written: {path}, with {', '.join(tasks_of(lesson))}")
    print(f"next: write the functions, then python -m lessons.practice {lesson} --check")


def check_lesson(lesson: str, folder: Path) -> bool:
    """Check a learner's file and print a line for each task, and more for the first thing that is wrong."""
    path = folder / f"{lesson}.py"
    if not path.exists():
        sys.exit(f"there is no {path}; python -m lessons.practice {lesson} writes it")
    progress, reports = Progress(folder), check_file(lesson, path)
    for name, report in reports.items():
        progress.note(lesson, name, done=report.done)
        mark, passed = "✓" if report.done else "✗", ", ".join(report.passed)
        print(f" {mark} {name:<22} {passed}")
        if report.wrong:
            print(f"   {report.wrong}")
    return all(report.done for report in reports.values())


def check_class(folders: list[Path], as_json: bool) -> bool:
    """Check every practice file in the folders of a class, and print a table or JSON."""
    results: dict[str, dict] = {}
    for folder in folders:
        for lesson in LESSONS:
            path = folder / f"{lesson}.py"
            if path.exists():
                for name, report in check_file(lesson, path).items():
                    entry = {"done": report.done, "passed": report.passed, "wrong": report.wrong}
                    results.setdefault(str(folder), {})[f"{lesson}.{name}"] = entry
        if str(folder) not in results:
            print(f"note: {folder} holds no practice file", file=sys.stderr)
    if as_json:
        print(json.dumps(results, indent=1, ensure_ascii=False))
    else:
        for folder, found in results.items():
            print(f"{folder:<30} {sum(each['done'] for each in found.values())} of {len(found)} done")
    return bool(results)


def named_task(lesson: str, name: str) -> Task:
    tasks = tasks_of(lesson)
    if name not in tasks:
        sys.exit(f"{lesson} has no task {name!r}; it has {', '.join(tasks)}")
    return tasks[name]


def give_hint(lesson: str, name: str, folder: Path) -> None:
    """Print the hints up to the next one."""
    each, progress = named_task(lesson, name), Progress(folder)
    shown = min(progress.hints(lesson, name) + 1, len(each.hints))
    progress.note(lesson, name, hints=shown)
    for number, hint in enumerate(each.hints[:shown], start=1):
        print(f"hint {number} of {len(each.hints)}: {hint}")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m lessons.practice",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("lesson", nargs="?", choices=LESSONS, metavar="LESSON", help=", ".join(LESSONS))
    parser.add_argument("--check", nargs="*", metavar="FOLDER", help="check a lesson's file, or folders")
    parser.add_argument("--hint", metavar="TASK", help="show the next hint for a task")
    parser.add_argument("--solution", metavar="TASK", help="show our solution of a task")
    parser.add_argument("--json", action="store_true", help="with --check FOLDER…: print JSON")
    args = parser.parse_args(arguments)
    if args.check and args.lesson or (args.check == [] and not args.lesson):
        parser.error("--check needs a lesson, or folders, and not both")
    if args.check:
        sys.exit(not check_class([Path(each) for each in args.check], args.json))
    if not args.lesson:
        if args.hint or args.solution:
            parser.error("name the lesson, too")
        show_list(FOLDER)
    elif args.hint:
        give_hint(args.lesson, args.hint, FOLDER)
    elif args.solution:
        print(named_task(args.lesson, args.solution).source())
    elif args.check is not None:
        sys.exit(not check_lesson(args.lesson, FOLDER))
    else:
        write(args.lesson, FOLDER)


if __name__ == "__main__":
    prepare_terminal()
    main()
