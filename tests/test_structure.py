"""The house rules: who may import whom, what importing costs, and that the documentation is true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import minispike

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "minispike"

# ---------------------------------------------------------------- who may import whom

PATH = [  # in reading order
    "backend", "parallel", "autograd", "ops", "surrogate", "neuron", "fused", "nn", "gradcheck", "visible",
    "blocks", "configs", "models", "optim", "train", "masked",
]  # fmt: skip
WINGS = ["kernels", "measure", "files", "runs"]
WITHIN = {
    "ops": ["elementwise", "shape", "matmul", "windows", "conv", "pool", "norm", "transform", "loss"],
    "blocks": [
        "sps", "scs", "ssa", "fourier", "wavelet", "dwc", "control", "sasa", "mlp", "encoder", "decoder",
        "softmax",
    ],
    "kernels": ["compiled", "loops", "unfolded", "transforms", "host", "cuda", "event_loops", "events"],
    "measure": ["energy", "price", "profile", "viz", "inside"],
    "files": ["picklemachine", "torchfile", "checkpoint", "interop"],
    "runs": ["recipes", "folder", "memory", "session", "compare", "own", "show", "cli"],
}  # fmt: skip
KNOW_DATA = ("cli.py", "own.py")  # the files of runs/ that know data_utils


def imported(path: Path) -> set[str]:
    """The modules that a file of the project imports from it, by their full names: "minispike.ops.conv", …"""
    here, found = path.relative_to(ROOT).parts[:-1], set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            start = list(here[: len(here) - node.level + 1]) if node.level else []
            module = ".".join(start + ([node.module] if node.module else []))
            for alias in node.names:  # is the name a module, or inside one?
                full = ROOT / Path(*module.split("."), alias.name)
                is_module = full.with_suffix(".py").exists() or full.is_dir()
                found.add(f"{module}.{alias.name}" if is_module else module)
    return {name for name in found if name.split(".")[0] in ("minispike", "data_utils")}


def place(module: str) -> tuple[int, int]:
    """Where a module of minispike stands: its part in the order of all, its file in the order of the part."""
    _, part, *rest = module.split(".")
    files = WITHIN.get(part, [])
    return (PATH + WINGS).index(part), files.index(rest[0]) if rest else -1


def test_a_file_imports_only_from_those_above_it():
    for path in SOURCE.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        if module in ("minispike.__init__", "minispike.__main__", "minispike.ops.__init__") or (
            module == "minispike.kernels.__init__"  # names the twins
        ):
            continue
        modules = {name for name in imported(path) if name.startswith("minispike.")}
        if path.name == "__init__.py":
            assert not modules, path
            continue
        above = {name for name in modules if place(name) < place(module)}
        if module == "minispike.models":  # create_model(…, pretrained=True) reads a file
            above.add("minispike.files.checkpoint")
        assert modules == above, f"{module} imports {modules - above}"


def test_every_file_has_a_place_in_the_order():
    for part, files in WITHIN.items():
        assert {path.stem for path in (SOURCE / part).glob("*.py")} == {*files, "__init__"}
    top = {path.stem for path in SOURCE.iterdir() if path.name[0] not in "_."}
    assert top == {*PATH, *WINGS}


def test_only_the_command_line_knows_data_utils_and_data_utils_does_not_know_minispike():
    for path in SOURCE.rglob("*.py"):
        known = {name for name in imported(path) if name.startswith("data_utils")}
        assert not known or path.name in KNOW_DATA, path
    for path in (ROOT / "data_utils").rglob("*.py"):
        assert not {name for name in imported(path) if name.startswith("minispike")}, path


def test_the_learning_path_names_no_array_library():
    """All arrays of ops, neurons, layers and blocks come from `xp`, so that they run on any device."""
    for part in PATH:
        files = (SOURCE / part).rglob("*.py") if part in WITHIN else [SOURCE / f"{part}.py"]
        for path in files:
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                foreign = {name.partition(".")[0] for name in names} & {"numpy", "cupy", "scipy"}
                assert not foreign or part in ("backend", "parallel"), f"{path} imports {foreign}"


def test_importing_needs_neither_cupy_nor_matplotlib_nor_scikit_learn_nor_pooch_nor_pillow():
    files = (ROOT / "data_utils").rglob("*.py")
    names = (".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files)
    parts = [name.removesuffix(".__init__") for name in names]
    code = f"import sys, minispike, minispike.measure.viz, {', '.join(parts)}; print(list(sys.modules))"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert not {"cupy", "numba", "matplotlib", "sklearn", "pooch", "requests", "PIL"} & set(
        ast.literal_eval(loaded)
    )


def test_the_public_names_are_the_ones_listed():
    assert len(minispike.__all__) == len(set(minispike.__all__))
    assert all(hasattr(minispike, name) for name in minispike.__all__)
    assert len(minispike.__all__) <= 30


def test_every_public_name_is_documented():
    for name in minispike.__all__:
        assert getattr(minispike, name).__doc__, name
    for name in minispike.ops.__all__:
        assert getattr(minispike.ops, name).__doc__, name


# ---------------------------------------------------------------- size


def code_lines(node: ast.AST, text: list[str]) -> int:
    """Lines of code in a part of a file: no blank lines, no comments, no docstrings."""
    first, last = getattr(node, "lineno", 1), getattr(node, "end_lineno", len(text))
    docstrings = set()
    for inner in ast.walk(node):
        if isinstance(inner, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(inner):
            docstrings |= set(range(inner.body[0].lineno, inner.body[0].end_lineno + 1))
    lines = ((n, text[n - 1].strip()) for n in range(first, last + 1) if n not in docstrings)
    return sum(line != "" and line[0] != "#" for _, line in lines)


def learning_path() -> list[Path]:
    """The files that a learner reads, without parallel.py."""
    parts = [part for part in PATH if part != "parallel"]
    files = [(SOURCE / part).rglob("*.py") if part in WITHIN else [SOURCE / f"{part}.py"] for part in parts]
    return [path for each in files for path in each]


def test_what_a_learner_reads_stays_small():
    total = 0
    for path in learning_path():
        source = path.read_text(encoding="utf-8")
        tree, text = ast.parse(source), source.splitlines()
        total += code_lines(tree, text)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                assert code_lines(node, text) <= 45, f"{path}: {node.name} does not fit on a screen"
    assert total <= 2420  # 70 of them are the controls for the task that needs mixing


def test_lines_of_code_are_counted_as_meant():
    source = '"""A file."""\n\nx = 1  # one\n# none\n\n\ndef f():\n    """Two\n    lines."""\n    return x\n'
    tree, text = ast.parse(source), source.splitlines()
    assert code_lines(tree, text) == 3 and code_lines(tree.body[-1], text) == 2


# ---------------------------------------------------------------- the README

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_has_exactly_two_set_up_commands():
    commands = [line.strip() for line in README.splitlines() if line.strip().startswith("pip install")]
    assert commands == [
        'pip install -e ".[lessons]" && python -m lessons.00_autograd',
        'pip install -e ".[test]" && pytest -n auto',
    ]


def test_the_readmes_examples_run_and_print_what_they_say(capsys):
    first, _ = re.findall(r"```python\n(.*?)```", README, re.S)
    printed = re.search(r"```text\n(.*?)```", README, re.S).group(1)
    assert README[: README.index(printed)].count("\n") < 30
    exec(compile(first, "README.md", "exec"), {})
    assert capsys.readouterr().out == printed


@pytest.mark.slow
def test_the_readmes_example_of_a_training_runs():
    _, second = re.findall(r"```python\n(.*?)```", README, re.S)
    space: dict = {}
    exec(compile(second.replace("epochs=2", "epochs=1"), "README.md", "exec"), space)
    assert len(space["history"]) == 1 and "test_accuracy" in space["history"][0]


def test_the_readmes_first_example_runs_next_to_a_folder_named_like_the_package(tmp_path):
    """As from the parent folder of a clone: there `minispike/` is the clone, which is no package."""
    (tmp_path / "minispike").mkdir()
    example = re.search(r"```python\n(.*?)```", README, re.S).group(1)
    command = [sys.executable, "-c", example]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tmp_path).stdout
    assert printed and printed == re.search(r"```text\n(.*?)```", README, re.S).group(1)


@pytest.mark.parametrize("name", ["benchmarks/README.md", "benchmarks/notes.md", "weights/README.md"])
def test_the_other_pages_name_files_that_exist(name):
    for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / name).read_text(encoding="utf-8")):
        assert link.startswith("https://") or ((ROOT / name).parent / link).exists(), link


def test_the_readme_names_files_that_exist():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    for link in links:
        assert link.startswith("https://") or (ROOT / link).exists(), link
    assert len(links) > 10
    for lesson in re.findall(r"python -m lessons\.(\d\w+)", README):
        assert (ROOT / "lessons" / f"{lesson}.py").exists(), lesson


def test_a_function_and_a_module_never_share_a_name():
    """Modules keep the field's names; Functions say what is done."""

    def below(base):
        return {cls for child in base.__subclasses__() for cls in {child, *below(child)}}

    functions, modules = (
        {cls.__name__ for cls in below(base) if cls.__module__.startswith("minispike.")}
        for base in (minispike.Function, minispike.Module)
    )
    assert not functions & modules and {"Convolve2d", "IntegrateAndFire"} <= functions
    assert {"Conv2d", "LIF", "SSA"} <= modules
