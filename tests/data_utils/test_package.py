"""What `import data_utils` offers: every loading function, and no heavy package."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import data_utils


def test_every_loading_function_is_exported():
    found = set()
    for module in pkgutil.walk_packages(data_utils.__path__, "data_utils."):
        functions = inspect.getmembers(importlib.import_module(module.name), inspect.isfunction)
        found |= {name for name, _ in functions if name.startswith("load_")}
    assert found | {"Loader", "DataFileError"} == set(data_utils.__all__)
    assert {"load_digits", "load_mnist", "load_cifar10", "load_image_folders"} <= found
    for name in data_utils.__all__:
        assert getattr(data_utils, name).__doc__, name


def test_importing_the_package_imports_no_heavy_one():
    code = "import sys, data_utils; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "data_utils.loader" in loaded
    assert not loaded & {"pooch", "requests", "PIL", "sklearn", "matplotlib", "minispike"}


def test_the_docstrings_name_every_file():
    for package in (
        data_utils,
        *(importlib.import_module(f"data_utils.{name}") for name in ("images", "events", "own")),
    ):
        for module in pkgutil.iter_modules(package.__path__):
            name = f"{module.name}/" if module.ispkg else f"{module.name}.py"
            assert name in package.__doc__, f"{package.__name__} does not name {name}"
