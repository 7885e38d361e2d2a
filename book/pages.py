"""Turn lessons, tasks, source files and the other pages into Markdown, which Sphinx makes the book of."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import shutil
from html import escape
from pathlib import Path

import nbformat

from lessons.practice.__main__ import LESSONS as WITH_TASKS
from lessons.practice.__main__ import tasks_of

from . import runner, touch
from .runner import LESSONS, NAMES, ROOT

ORDER = {  # the source as pages, in reading order: folder, files
    "": ["backend", "autograd"],
    "ops": ["elementwise", "shape", "matmul", "windows", "conv", "pool", "norm", "transform", "loss"],
    " ": ["surrogate", "neuron", "fused", "nn", "gradcheck", "visible"],
    "blocks": [
        "sps", "scs", "ssa", "fourier", "wavelet", "dwc", "control", "sasa", "mlp", "encoder", "decoder",
        "softmax",
    ],
    "  ": ["configs", "models", "optim", "train", "masked", "parallel"],
    "kernels": ["compiled", "loops", "unfolded", "transforms", "host", "cuda", "event_loops", "events"],
    "measure": ["energy", "price", "profile", "viz", "inside"],
}  # fmt: skip
SOURCES = [f"{folder.strip()}/{name}".strip("/") for folder, names in ORDER.items() for name in names]
PAGES = {  # links in the lessons and READMEs: the pages that stand for those files
    "NOTATION.md": "notation.md",
    "HELP.md": "help.md",
    "lessons/README.md": "index.md",
    "README.md": "index.md",
}

# ---------------------------------------------------------------- small parts


def fenced(text: str, language: str = "text") -> str:
    """Return text as a block of code."""
    ticks = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", text)), default=0))
    return f"{ticks}{language}\n{text.rstrip()}\n{ticks}"


def folded(summary: str, inside: str) -> str:
    """Return Markdown that is shown on a click."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n\n{inside}\n\n</details>"


def title_of(text: str) -> str:
    """Return the first heading of a lesson."""
    return re.search(r"^# (?:# )?(\d\d · .*)$", text, re.M).group(1)


def link_pages(text: str, depth: str = "../") -> str:
    """Point links between the files of the repository at the book's pages."""

    def target(match: re.Match) -> str:
        label, link = match.groups()
        path, _, anchor = link.partition("#")
        if re.match(r"https?:", link) or not path:
            return match.group(0)
        name = Path(path).name
        if name in PAGES and "benchmarks" not in path and "weights" not in path:
            return f"[{label}]({depth}{PAGES[name]})"
        lesson = re.match(r"(\d\d_\w+)\.py$", name)
        if lesson and lesson.group(1) in NAMES and "solutions" not in path:
            return f"[{label}]({depth}lessons/{lesson.group(1)}.md)"
        source = re.sub(r"^(\.\./)*(minispike/)?", "", path).removesuffix(".py")
        if source in SOURCES:
            return f"[{label}]({depth}source/{source.replace('/', '-')}.md)"
        if "benchmarks/README" in path or path == "README.md":
            return f"[{label}]({depth}benchmarks.md)"
        return label  # a file that has no page

    return re.sub(r"(?<!!)\[([^\]]+)\]\(([^)\s]+)\)", target, text)


# ---------------------------------------------------------------- lessons


def answers(name: str) -> dict[int, str]:
    """Return the answers to a lesson's questions, by number: Markdown with code."""
    found: dict[int, list[str]] = {}
    number, shared = 0, []
    for cell in runner.cells((LESSONS / "solutions" / f"{name}.py").read_text("utf-8")):
        if cell.kind == "markdown":
            for part in re.split(r"^(?=## \d · )", cell.text, flags=re.M):
                head = re.match(r"## (\d) · .*\n?", part)
                if head:
                    number = int(head.group(1))
                    found[number] = [part[head.end() :].strip()]
                elif number and part.strip():
                    found[number].append(part.strip())
        elif number:
            found[number].append(fenced(cell.text, "python"))
        else:
            shared.append(cell.text)
    return {n: link_pages("\n\n".join(parts)) for n, parts in found.items()}


def with_answers(text: str, name: str) -> str:
    """Return a cell that holds the five questions, each with its answer folded under it."""
    found = answers(name)
    head, *items = re.split(r"^(?=\d\. )", text, flags=re.M)
    head = re.sub(r"^(## Five questions) \(.*?\)", r"\1", head, flags=re.M)
    parts = [head.rstrip()]
    for item in items:
        question, _, rest = item.partition("\n\n## ")  # the last item may be followed by the next section
        number = int(question[0])
        inside = folded("answer", found.get(number, "")).replace("\n", "\n   ")
        parts.append(f"{question.rstrip()}\n\n   {inside}" + (f"\n\n## {rest}" if rest else ""))
    return "\n\n".join(parts)


def with_tasks(text: str, name: str) -> str:
    """Return the section on practice with each task's stub, hints and solution."""
    parts = [text]
    for task in tasks_of(name).values():
        hints = [folded(f"hint {n}", hint) for n, hint in enumerate(task.hints, start=1)]
        inside = [fenced(task.stub(), "python"), *hints, folded("solution", fenced(task.source(), "python"))]
        parts.append(f"### {task.stars} `{task.name}`\n\n" + "\n\n".join(inside))
    return "\n\n".join(parts)


def lesson_page(name: str, images: Path) -> str:
    """Return a lesson's page; its figures are copied into the folder `images`."""
    found, folder = runner.output(name)
    parts, section = [], ""
    for cell in found:
        if cell.kind == "markdown":
            headings = re.findall(r"^## (.*)$", cell.text, re.M)
            section = headings[-1] if headings else section
            text = with_answers(cell.text, name) if "## Five questions" in cell.text else cell.text
            if "## What was shown" in text and name in touch.WIDGETS:
                parts.append(touch.html(name))
            body, _, practice = text.partition("\n## Practice")
            parts.append(link_pages(body))
            if practice:
                parts.append(with_tasks(link_pages("## Practice" + practice), name))
            continue
        code = fenced(cell.text, "python")
        parts.append(folded("code of the figure", code) if cell.figures else code)
        if cell.printed.strip():
            parts.append(fenced(cell.printed.strip("\n")))
        for figure in cell.figures:
            target = images / Path(figure).name
            shutil.copy(folder / figure, target)
            parts.append(f"![figure of lesson {title_of(found[0].text)}]({target.name})")
    files = {"notebook": f"{name}.ipynb", "Python file": f"{name}.py"}
    note = " or ".join(f'<a href="../notebooks/{file}">{what}</a>' for what, file in files.items())
    explains = ", ".join(f"[{each}.py](../source/{each.replace('/', '-')}.md)" for each in explained_by(name))
    links = f"This lesson as a {note}" + (f". The source that it explains: {explains}" if explains else "")
    first, _, rest = parts[0].partition("\n")
    return "\n\n".join([first, f"<p class='ms-links'>\n\n{links}.\n\n</p>", rest.strip(), *parts[1:]]) + "\n"


def explained_by(name: str) -> list[str]:
    """Return the source files that a lesson imports from, in reading order."""
    wanted = set()
    for node in ast.walk(ast.parse((LESSONS / f"{name}.py").read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("minispike."):
            path = node.module.removeprefix("minispike.").replace(".", "/")
            wanted |= {path} | {f"{path}/{alias.name}" for alias in node.names}
    return [source for source in SOURCES if source in wanted]


def notebook(name: str) -> nbformat.NotebookNode:
    """Return a lesson as a notebook, without output."""
    book = nbformat.v4.new_notebook()
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    for number, cell in enumerate(runner.cells((LESSONS / f"{name}.py").read_text("utf-8"))):
        make = nbformat.v4.new_markdown_cell if cell.kind == "markdown" else nbformat.v4.new_code_cell
        made = make(cell.text)
        made["id"] = f"cell-{number}"  # the same in every build
        book.cells.append(made)
    return book


# ---------------------------------------------------------------- the source


def source_page(source: str, lessons: dict[str, list[str]]) -> str:
    """Return a file of the source as a page: its docstring as text, then each part next to its docstring."""
    text = (ROOT / "minispike" / f"{source}.py").read_text("utf-8")
    tree, lines = ast.parse(text), text.splitlines()
    parts = [f"# {source}.py", docstring_as_text(ast.get_docstring(tree) or "")]
    using = ", ".join(f"[{name}](../lessons/{name}.md)" for name in lessons.get(source, []))
    if using:
        parts.append(f"Explained by {using}.")
    at = tree.body[0].end_lineno if ast.get_docstring(tree) else 0
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            first = min([node.lineno, *(each.lineno for each in node.decorator_list)])
            parts += between(lines[at : first - 1])
            ruled = any(part.startswith("## ") and "\n" not in part for part in parts)
            parts.append(f"{'###' if ruled else '##'} {plain(node.name)}\n")
            parts.append(beside(node, lines, first))
            at = node.end_lineno
    return "\n\n".join([*parts, *between(lines[at:])]) + "\n"


def between(lines: list[str]) -> list[str]:
    """Return lines of no class or function as code. A ruled heading becomes a heading."""
    texts = re.split(r"^# -{8,} (.*)$", "\n".join(lines), flags=re.M)
    parts = [
        f"## {plain(text)}" if n % 2 else fenced(text.strip("\n"), "python") for n, text in enumerate(texts)
    ]
    return [part for part, text in zip(parts, texts, strict=True) if text.strip()]


def beside(node: ast.ClassDef | ast.FunctionDef, lines: list[str], first: int) -> str:
    """Return a class or function, which begins at line `first`: its docstring, and next to it its code."""
    doc, code = ast.get_docstring(node) or "", lines[first - 1 : node.end_lineno]
    if doc:
        text = node.body[0]
        code = lines[first - 1 : text.lineno - 1] + lines[text.end_lineno : node.end_lineno]
    sides = docstring_as_text(doc), fenced("\n".join(code), "python")
    inside = "\n".join(f"<div>\n\n{side}\n\n</div>" for side in sides)
    return f"<div class='ms-beside'>\n{inside}\n</div>"


def docstring_as_text(doc: str) -> str:
    """Return a docstring as Markdown: paragraphs as text, indented or aligned lines as they are."""
    parts = []
    for paragraph in re.split(r"\n\s*\n", doc):
        lines = paragraph.split("\n")
        aligned = any(re.search(r"\S {3,}\S", line) for line in lines) or all(
            line.startswith("    ") for line in lines
        )
        if aligned:
            parts.append(fenced(inspect.cleandoc(paragraph) if lines[0].startswith(" ") else paragraph))
        else:  # each argument on a line of its own
            parts.append(re.sub(r"\n(?=[\w, …]+:\s)", r"\\\n", plain(paragraph)))
    return "\n\n".join(parts)


def plain(text: str) -> str:
    """Return prose that Markdown must not interpret: names with _ and *, and angle brackets."""
    kept = re.split(r"(`[^`]+`)", text)
    return "".join(p if p.startswith("`") else re.sub(r"([\\*_<>|\[\]#$])", r"\\\1", p) for p in kept)


# ---------------------------------------------------------------- the other pages


def index_page() -> str:
    """Return the start page: what, for whom, the drawing, and the map of the course."""
    readme = (ROOT / "README.md").read_text("utf-8")
    intro = readme.split("## Two commands")[0].replace("minispike.svg", "minispike.svg")
    course = (LESSONS / "README.md").read_text("utf-8") if (LESSONS / "README.md").exists() else ""
    course = re.sub(r"^# .*\n", "## The course\n", course, count=1)
    course = re.sub(r"^## (?!The course)", "### ", course, flags=re.M)
    return f"{link_pages(intro, '')}\n\n{link_pages(course, '')}\n\n{toctrees()}\n"


def toctrees() -> str:
    """Return what Sphinx builds the side bar from."""
    parts = {
        "Course": ["notation", "help", "practice", *(f"lessons/{name}" for name in NAMES)],
        "Use it": ["own_data", "gpu", "benchmarks", "interface"],
        "The source": ["source/index", *(f"source/{each.replace('/', '-')}" for each in SOURCES)],
    }
    blocks = []
    for caption, entries in parts.items():
        body = "\n".join(entries)
        blocks.append(f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{body}\n```")
    return "\n\n".join(blocks)


def practice_page() -> str:
    """Return the list of all tasks."""
    text = inspect.getdoc(importlib.import_module("lessons.practice.__main__"))
    rows = ["| lesson | task | what it is |", "|---|---|---|"]
    for name in WITH_TASKS:
        for task in tasks_of(name).values():
            about = plain(inspect.getdoc(task.solution).split("\n")[0])
            rows.append(f"| [{name}](lessons/{name}.md#practice) | {task.stars} `{task.name}` | {about} |")
    table = "\n".join(rows)
    return f"# Practice\n\n{fenced(text)}\n\nEach answer is checked step by step.\n\n{table}\n"


def section_of(readme: str, heading: str) -> str:
    """Return a section of README as a page."""
    match = re.search(rf"^## ({re.escape(heading)}.*?)(?=^## |\Z)", readme, re.M | re.S)
    if not match:
        raise ValueError(f"README has no section {heading!r}")
    text = re.sub(r"^#(#+ )", r"\1", match.group(1), flags=re.M)  # each heading a level up
    return link_pages("# " + text, "")


def interface_page() -> str:
    """Return the public names, each documented by autodoc."""
    import minispike

    parts = ["# The public interface", "What `import minispike` offers.", "```{eval-rst}"]
    for name in sorted(minispike.__all__, key=str.lower):
        value = getattr(minispike, name)
        kind = (
            "automodule"
            if inspect.ismodule(value)
            else "autoclass"
            if inspect.isclass(value)
            else "autofunction"
        )
        full = value.__name__ if inspect.ismodule(value) else f"minispike.{name}"
        parts.append(f".. {kind}:: {full}\n")
    return "\n".join([*parts, "```", ""])


def write_all(folder: Path) -> None:
    """Write every page into `folder`."""
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("lessons", "source", "extra/notebooks"):
        (folder / part).mkdir(parents=True)
    readme = (ROOT / "README.md").read_text("utf-8")
    pages = {"index": index_page(), "practice": practice_page(), "interface": interface_page()}
    pages["own_data"] = section_of(readme, "Command line")
    pages["gpu"] = section_of(readme, "On a GPU")
    pages["help"] = link_pages((LESSONS / "HELP.md").read_text("utf-8"), "")
    pages["notation"] = link_pages((LESSONS / "NOTATION.md").read_text("utf-8"), "")
    pages["benchmarks"] = link_pages((ROOT / "benchmarks" / "README.md").read_text("utf-8"), "")
    for name in NAMES:
        pages[f"lessons/{name}"] = lesson_page(name, folder / "lessons")
        shutil.copy(LESSONS / f"{name}.py", folder / "extra" / "notebooks")
        nbformat.write(notebook(name), folder / "extra" / "notebooks" / f"{name}.ipynb")
    using: dict[str, list[str]] = {}
    for name in NAMES:
        for source in explained_by(name):
            using.setdefault(source, []).append(name)
    for source in SOURCES:
        pages[f"source/{source.replace('/', '-')}"] = source_page(source, using)
    listed = "\n".join(f"- [{each}.py]({each.replace('/', '-')}.md)" for each in SOURCES)
    pages["source/index"] = f"# The source, in reading order\n\n{listed}\n"
    for name, text in pages.items():
        (folder / f"{name}.md").write_text(text, "utf-8")
    shutil.copy(ROOT / "minispike.svg", folder)
    for picture in (ROOT / "benchmarks" / "results").glob("*.png"):
        (folder / "results").mkdir(exist_ok=True)
        shutil.copy(picture, folder / "results")
