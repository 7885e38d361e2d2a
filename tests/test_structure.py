"""The house rules: who may import whom, what importing costs, and that the documentation is true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import minispike

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "minispike"
ORDER = ["backend", "autograd", "ops", "surrogate", "neuron", "fused", "visible", "nn", "blocks", "configs"]
ORDER += ["models", "optim", "train", "masked", "energy", "profile", "torchfile", "checkpoint", "interop"]
ORDER += ["recipes", "run", "trainer"]
BESIDE = {
    "gradcheck": "nn",
    "viz": "nn",
    "__init__": "interop",
    "__main__": "trainer",
}  # how far each may look
DATA = {
    "data_utils.images.digits",
    "data_utils.datasets",
    "data_utils.loader",
}  # only the command line knows both
AND = {
    "__init__": {"gradcheck"},
    "run": {"viz"},
    "trainer": {"viz"},
    "__main__": {"viz"} | DATA,
}  # and what else


def imports_of(path: Path) -> set[str]:
    """The parts of minispike that a file imports: "ops", "nn", …"""
    found = set()
    depth = len(path.relative_to(SOURCE).parts)  # 1 in minispike/, 2 in minispike/ops/
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == depth:
            found |= {node.module.split(".")[0]} if node.module else {alias.name for alias in node.names}
        if (
            isinstance(node, ast.ImportFrom)
            and not node.level
            and node.module.split(".")[0] in ("minispike", "data_utils")
        ):
            found.add(node.module)
        if isinstance(node, ast.Import):
            found |= {
                alias.name for alias in node.names if alias.name.split(".")[0] in ("minispike", "data_utils")
            }
    return found


def test_a_file_imports_only_from_what_stands_above_it():
    for path in SOURCE.rglob("*.py"):
        part = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        assert part in ORDER or part in BESIDE, f"{path} has no place in the order"
        limit = ORDER.index(BESIDE.get(part, part)) + (part in BESIDE)
        allowed = set(ORDER[:limit]) | AND.get(part, set())
        assert imports_of(path) <= allowed, f"{path} imports {imports_of(path) - allowed}"


def test_within_ops_a_file_imports_only_from_simpler_ones():
    order = ["elementwise", "shape", "matmul", "conv", "pool", "norm", "transform", "loss", "bits"]
    for name in order:
        tree = ast.parse((SOURCE / "ops" / f"{name}.py").read_text(encoding="utf-8"))
        siblings = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 1}
        assert siblings <= set(order[: order.index(name)]), f"ops/{name}.py imports {siblings}"


def test_data_utils_and_minispike_do_not_know_each_other():
    for path in (ROOT / "data_utils").rglob("*.py"):
        assert not re.search(r"^\s*(from|import) minispike", path.read_text(encoding="utf-8"), re.M), path


def test_importing_needs_neither_cupy_nor_matplotlib_nor_scikit_learn_nor_pooch_nor_pillow():
    parts = [f"data_utils.{path.stem}" for path in (ROOT / "data_utils").glob("*.py")]
    code = f"import sys, minispike, minispike.measure.viz, {', '.join(parts)}; print(list(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not {"cupy", "matplotlib", "sklearn", "pooch", "requests", "PIL"} & set(ast.literal_eval(loaded))


def test_the_public_names_are_the_ones_listed():
    assert len(minispike.__all__) == len(set(minispike.__all__))
    assert all(hasattr(minispike, name) for name in minispike.__all__)
    assert len(minispike.__all__) <= 30


def test_every_public_name_is_documented():
    for name in minispike.__all__:
        assert getattr(minispike, name).__doc__, name
    for name in minispike.ops.__all__:
        assert getattr(minispike.ops, name).__doc__, name


def lines_of_code(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    text = path.read_text(encoding="utf-8")
    told = set()  # the docstrings' lines
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node):
            told |= set(range(node.body[0].lineno, node.body[0].end_lineno + 1))
    lines = enumerate(text.splitlines(), 1)
    return sum(i not in told and line.strip() != "" and line.strip()[0] != "#" for i, line in lines)


def test_what_a_learner_reads_stays_small():
    files = list(SOURCE.rglob("*.py"))
    assert max(len(p.read_text(encoding="utf-8").splitlines()) for p in files) <= 300
    learned = ORDER[: ORDER.index("models") + 1]
    path = [p for p in files if p.relative_to(SOURCE).parts[0].removesuffix(".py") in learned]
    assert sum(map(lines_of_code, path)) < 2050 and sum(map(lines_of_code, files)) < 4000


README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_exactly_two_set_up_commands():
    commands = [line.strip() for line in README.splitlines() if line.strip().startswith("pip install")]
    assert commands == [
        'pip install -e ".[lessons]" && python -m lessons.03_ssa',
        'pip install -e ".[test]" && pytest',
    ]


def test_the_readmes_examples_run_and_print_what_they_say(capsys):
    first, second = re.findall(r"```python\n(.*?)```", README, re.S)
    printed = re.search(r"```text\n(.*?)```", README, re.S).group(1)
    assert README[: README.index(printed)].count("\n") < 30
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed
    space: dict = {}
    exec(compile(second.replace("epochs=2", "epochs=1"), "README.md", "exec"), space)
    assert len(space["history"]) == 1 and "test_accuracy" in space["history"][0]


def test_the_readme_names_files_that_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
    assert len(links) > 10
    for lesson in re.findall(r"python -m lessons\.(\w+)", README):
        assert (ROOT / "lessons" / f"{lesson}.py").exists(), lesson
