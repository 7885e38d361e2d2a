"""Lessons run cell by cell; what they print and draw is kept, and found again while nothing has changed."""

import pytest

from book import runner

LESSON = """# %% [markdown]
# # 99 · A lesson
#
# Text, and
#     code in it.

# %%
import sys
x = 2
print("two", x)
print("progress", file=sys.stderr)

# %%
from pathlib import Path
Path("figures").mkdir(exist_ok=True)
Path("figures/99.png").write_bytes(b"picture")
print("before")
print("figure: figures/99.png")
print("after", x + 1)
"""


def test_a_lesson_is_cut_into_cells():
    text, first, second = runner.cells(LESSON)
    assert text.kind == "markdown" and text.text == "# 99 · A lesson\n\nText, and\n    code in it."
    assert first.kind == second.kind == "code" and first.text.startswith("import sys\nx = 2")
    with pytest.raises(ValueError, match="text before the first cell: 'x = 1'"):
        runner.cells("x = 1\n# %%\n")


def test_cells_share_a_namespace_and_what_they_do_is_kept(tmp_path, capsys):
    path = tmp_path / "99_lesson.py"
    path.write_text(LESSON, "utf-8")
    _, first, second = runner.execute(path, tmp_path / "out")
    assert first.printed == "two 2\n" and not first.figures
    assert second.printed == "before\nafter 3\n" and second.figures == ["figures/99.png"]
    assert (tmp_path / "out" / "figures" / "99.png").read_bytes() == b"picture"
    assert capsys.readouterr().err == "progress\n"  # not in the book


def test_an_error_names_the_line_of_the_file(tmp_path):
    path = tmp_path / "99_lesson.py"
    path.write_text("# %%\nx = 1\n\n# %%\ny = 2\nassert x == y\n", "utf-8")
    with pytest.raises(AssertionError) as caught:
        runner.execute(path, tmp_path)
    assert caught.traceback[-1].lineno + 1 == 6


@pytest.fixture
def small_book(tmp_path, monkeypatch):
    """A book of one lesson, in a folder of its own."""
    for part in ("lessons/solutions", "minispike", "data_utils", "benchmarks/results", "weights"):
        (tmp_path / part).mkdir(parents=True)
    (tmp_path / "lessons" / "99_lesson.py").write_text(LESSON, "utf-8")
    (tmp_path / "lessons" / "solutions" / "99_lesson.py").write_text("# %%\n", "utf-8")
    (tmp_path / "lessons" / "common.py").write_text("a = 1\n", "utf-8")
    (tmp_path / "minispike" / "nn.py").write_text("b = 1\n", "utf-8")
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    monkeypatch.setattr(runner, "LESSONS", tmp_path / "lessons")
    monkeypatch.setattr(runner, "CACHE", tmp_path / "build" / "book")
    runner.key_of_everything_else.cache_clear()
    yield tmp_path
    runner.key_of_everything_else.cache_clear()


def test_a_lesson_runs_once_until_something_changes(small_book, monkeypatch, capsys):
    runs = []
    execute = runner.execute
    monkeypatch.setattr(runner, "execute", lambda *a: runs.append(1) or execute(*a))
    cells, folder = runner.output("99_lesson")
    again, same = runner.output("99_lesson")
    assert cells == again and folder == same and len(runs) == 1
    assert (folder / "figures" / "99.png").exists()
    for count, path in enumerate(
        ("lessons/99_lesson.py", "lessons/solutions/99_lesson.py", "lessons/common.py", "minispike/nn.py"),
        start=2,
    ):
        with (small_book / path).open("a") as file:
            file.write("\n# changed\n")
        runner.key_of_everything_else.cache_clear()
        runner.output("99_lesson")
        assert len(runs) == count, path
    assert len(list(folder.parent.iterdir())) == 1  # older states are gone
