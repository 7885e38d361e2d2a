"""Wrong answers to the tasks of lessons/practice, as changes of a solution's text. Each must be refused.

A file for each lesson: {task: [(text in the solution, what a mistaken learner writes instead), …]}
"""

from importlib import import_module
from pathlib import Path

FILES = sorted(path.stem for path in Path(__file__).parent.glob("[0-9][0-9]_*.py"))
MUTANTS = {
    f"{lesson}.{name}": changes
    for lesson in FILES
    for name, changes in import_module(f"{__name__}.{lesson}").MUTANTS.items()
}
